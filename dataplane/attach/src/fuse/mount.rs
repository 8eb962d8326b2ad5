//! Mounting a FUSE file system without a helper program.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use crate::AttachError;

/// Mode of the file system's root: a directory.
const ROOT_MODE: &str = "40000";

/// Opens /dev/fuse and mounts a file system that it will serve at `dir`, which is made if missing.
///
/// # Errors
/// [`AttachError::Io`].
pub(super) fn mount(dir: &Path) -> Result<OwnedFd, AttachError> {
    fs::create_dir_all(dir).map_err(AttachError::io(format!("make {}", dir.display())))?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(AttachError::io("open /dev/fuse"))?;
    let what = || format!("mount a FUSE file system at {}", dir.display());
    let fd = device.as_raw_fd();
    let data = CString::new(format!("fd={fd},rootmode={ROOT_MODE},user_id=0,group_id=0"))
        .map_err(AttachError::io(what()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    rustix::mount::mount("roadstead", dir, "fuse.roadstead", flags, data.as_c_str())
        .map_err(AttachError::io(what()))?;
    Ok(device)
}

/// Unmounts whatever is mounted at `dir`, also when it is dead, and removes the directory. Not mounted and
/// not there is success.
///
/// # Errors
/// [`AttachError::Io`].
pub(super) fn unmount(dir: &Path) -> Result<(), AttachError> {
    loop {
        match rustix::mount::unmount(dir, UnmountFlags::DETACH) {
            // There may be more than one on top of each other.
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(error) => {
                return Err(AttachError::io(format!("unmount {}", dir.display()))(error));
            }
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(AttachError::io(format!("remove {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}
