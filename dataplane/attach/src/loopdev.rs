//! Loop devices: kernel facts from linux/loop.h.
//!
//! A device is found again by the name of its backing file, which stands in sysfs also when the file system
//! below is gone (the ioctl that reads a device's settings fails then).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;

use crate::AttachError;
use crate::names::{attribute, in_use};

const LOOP_CLR_FD: libc::c_ulong = 0x4C01;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// Major number of loop devices.
const LOOP_MAJOR: u32 = 7;
/// How often a free device is looked for when others take it first.
const CONFIGURE_TRIES_MAX: u32 = 64;
/// How often a device that the kernel still holds open for a moment (a probe by udev) is tried again.
const CLEAR_TRIES_MAX: u32 = 50;
/// The pause between two such tries.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232);
const _: () = assert!(size_of::<LoopConfig>() == 304);

/// Makes a loop device over `file`, with direct I/O.
///
/// # Errors
/// [`AttachError::Io`] when no device can be had or the kernel refuses the file.
pub(crate) fn configure(
    file: BorrowedFd<'_>,
    block_size: u32,
    read_only: bool,
) -> Result<PathBuf, AttachError> {
    let control = open(Path::new("/dev/loop-control"))?;
    for _ in 0..CONFIGURE_TRIES_MAX {
        let number = call(&control, LOOP_CTL_GET_FREE, 0)
            .map_err(AttachError::io("get a free loop device"))?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        ensure_node(&path, number)?;
        let device = match open(&path) {
            Err(AttachError::Io { source, .. }) if is_race(&source) => continue,
            other => other?,
        };
        match set_up(&device, file, block_size, read_only) {
            Ok(()) => return Ok(path),
            Err(error) if is_race(&error) => std::thread::sleep(RETRY_PAUSE),
            Err(error) => {
                return Err(AttachError::io(format!("set up {}", path.display()))(error));
            }
        }
    }
    Err(AttachError::io("get a free loop device")(io::Error::from(
        Errno::BUSY,
    )))
}

/// Another program took or removed the device between two of our calls.
fn is_race(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::BUSY, Errno::NXIO, Errno::NODEV, Errno::NOENT]
        .iter()
        .any(|errno| code == Some(errno.raw_os_error()))
}

fn set_up(device: &File, file: BorrowedFd<'_>, block_size: u32, read_only: bool) -> io::Result<()> {
    let fd = u32::try_from(file.as_raw_fd()).map_err(io::Error::other)?;
    let flags = LO_FLAGS_DIRECT_IO | if read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let config = LoopConfig {
        fd,
        block_size,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `device` is open, the request reads one `struct loop_config` at the address, which outlives the
    // call, has the kernel's layout (its size is asserted above) and holds a descriptor borrowed for the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Takes the backing file away. A device that is in use is refused.
///
/// # Errors
/// [`AttachError::Busy`] when it is mounted or held; [`AttachError::Io`] otherwise.
pub(crate) fn clear(path: &Path) -> Result<(), AttachError> {
    if in_use(path)? {
        return Err(AttachError::Busy {
            device: path.into(),
        });
    }
    let device = open(path)?;
    match call(&device, LOOP_CLR_FD, 0) {
        Ok(_) => {}
        Err(error) if error.raw_os_error() == Some(Errno::NXIO.raw_os_error()) => return Ok(()),
        Err(error) => {
            return Err(AttachError::io(format!("release {}", path.display()))(
                error,
            ));
        }
    }
    drop(device);
    // With another opener the kernel releases the file only when that one closes.
    for _ in 0..CLEAR_TRIES_MAX {
        if backing_file(Path::new("/sys"), path).is_none() {
            return Ok(());
        }
        std::thread::sleep(RETRY_PAUSE);
    }
    Err(AttachError::Busy {
        device: path.into(),
    })
}

/// Takes over the backing file's new size.
///
/// # Errors
/// [`AttachError::Io`].
pub(crate) fn set_capacity(path: &Path) -> Result<(), AttachError> {
    call(&open(path)?, LOOP_SET_CAPACITY, 0)
        .map_err(AttachError::io(format!("resize {}", path.display())))?;
    Ok(())
}

/// The path of the backing file, as sysfs shows it.
pub(crate) fn backing_file(sysfs: &Path, device: &Path) -> Option<String> {
    let dir = sysfs.join("block").join(device.file_name()?);
    attribute(&dir.join("loop"), "backing_file")
}

/// The loop devices whose backing file has this name, wherever it was or is mounted.
pub(crate) fn find(sysfs: &Path, file_name: &str) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(sysfs.join("block")) else {
        return Vec::new();
    };
    let device = |entry: fs::DirEntry| Path::new("/dev").join(entry.file_name());
    let ours = |path: &PathBuf| {
        backing_file(sysfs, path)
            .is_some_and(|backing| Path::new(&backing).file_name() == Some(file_name.as_ref()))
    };
    listing.flatten().map(device).filter(ours).collect()
}

/// A container's /dev may lack the node of a device that the kernel has just made.
fn ensure_node(path: &Path, number: i32) -> Result<(), AttachError> {
    if path.exists() {
        return Ok(());
    }
    let minor = u32::try_from(number).unwrap_or_default();
    let device = rustix::fs::makedev(LOOP_MAJOR, minor);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    match rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::BlockDevice,
        mode,
        device,
    ) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(AttachError::io(format!("make {}", path.display()))(error)),
    }
}

fn open(path: &Path) -> Result<File, AttachError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(AttachError::io(format!("open {}", path.display())))
}

fn call(file: &File, request: libc::c_ulong, argument: libc::c_ulong) -> io::Result<i32> {
    // SAFETY: `file` is open; the requests used here take an integer or nothing, no pointer.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_by_the_name_of_their_file() {
        let root = tempfile::tempdir().unwrap();
        let table = [
            ("loop0", Some("/run/roadstead/fuse/a/roadstead-a")),
            ("loop1", Some("/roadstead-a")),
            ("loop2", Some("/roadstead-ab")),
            ("loop3", None),
            ("vda", None),
        ];
        for (name, backing) in table {
            let dir = root.path().join("block").join(name);
            fs::create_dir_all(&dir).unwrap();
            if let Some(backing) = backing {
                fs::create_dir(dir.join("loop")).unwrap();
                fs::write(dir.join("loop/backing_file"), format!("{backing}\n")).unwrap();
            }
        }
        let mut found = find(root.path(), "roadstead-a");
        found.sort();
        assert_eq!(found, [Path::new("/dev/loop0"), Path::new("/dev/loop1")]);
        assert!(find(root.path(), "other").is_empty());
    }
}
