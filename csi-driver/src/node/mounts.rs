//! What is mounted where, and changing it.
//!
//! The kernel's table is read anew for every decision: it alone survives a restart of the driver.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags, mount_bind, mount_remount, unmount};

use super::error::NodeError;

/// The most mounts on top of each other that are taken off one path: more are not this driver's doing.
const STACK_MAX: usize = 16;

/// How often a busy mount is tried again.
const BUSY_TRIES: u32 = 20;

/// The pause in between.
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// A device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeviceNumber {
    major: u32,
    minor: u32,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// The device of the file system.
    pub(super) device: DeviceNumber,
    /// What of the file system is mounted: `/`, or the source of a bind mount.
    pub(super) root: PathBuf,
    /// Where.
    pub(super) point: PathBuf,
    /// Read-only here; the file system may be writable elsewhere.
    pub(super) read_only: bool,
    /// The file system is read-only everywhere.
    pub(super) super_read_only: bool,
    /// `ext4`, `xfs`, ...
    pub(super) fs_type: String,
    /// The device's path when it was mounted.
    pub(super) source: PathBuf,
}

/// Parses the text of `/proc/self/mountinfo`; lines that make no sense are left out.
pub(super) fn parse(text: &str) -> Vec<Mount> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Mount> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let (major, minor) = place.next()?.split_once(':')?;
    let (root, point) = (unescape(place.next()?), unescape(place.next()?));
    let is_read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let read_only = is_read_only(place.next()?);
    let mut kind = kind.split(' ');
    Some(Mount {
        device: DeviceNumber {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
        },
        root,
        point,
        read_only,
        fs_type: kind.next()?.to_owned(),
        source: unescape(kind.next()?),
        super_read_only: is_read_only(kind.next().unwrap_or_default()),
    })
}

/// Turns the kernel's `\040` back into a space, and so on.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = field.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(octal.unwrap_or(bytes[at]));
        at += if octal.is_some() { 4 } else { 1 };
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// The table as it is now.
pub(super) fn read() -> Result<Vec<Mount>, NodeError> {
    let path = "/proc/self/mountinfo";
    let text = fs::read_to_string(path).map_err(NodeError::system(format!("read {path}")))?;
    Ok(parse(&text))
}

/// The mount that is seen at `path`: the last one there.
pub(super) fn at(path: &Path) -> Result<Option<Mount>, NodeError> {
    let path = resolve(path);
    Ok(read()?.into_iter().rev().find(|m| m.point == path))
}

/// The path without symbolic links, as the table has it; of a path that does not exist, as far as it does.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(resolved) = path.canonicalize() {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolve(parent).join(name),
        _ => path.to_owned(),
    }
}

/// The number of the block device at `path`; `None` when nothing, or no block device, is there.
pub(super) fn device_number(path: &Path) -> Result<Option<DeviceNumber>, NodeError> {
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => Ok(Some(DeviceNumber {
            major: rustix::fs::major(meta.rdev()),
            minor: rustix::fs::minor(meta.rdev()),
        })),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(NodeError::System {
            doing: format!("look at {}", path.display()),
            source,
        }),
    }
}

/// Where the block device is in use: its file system, or its node bound for a pod.
pub(super) fn users(
    mounts: &[Mount],
    device: &Path,
    number: DeviceNumber,
) -> impl Iterator<Item = PathBuf> {
    let in_dev = device
        .strip_prefix("/dev")
        .map(|rest| Path::new("/").join(rest));
    let bound = move |m: &Mount| {
        m.fs_type == "devtmpfs" && in_dev.as_ref().is_ok_and(|root| m.root == *root)
    };
    mounts
        .iter()
        .filter(move |m| m.device == number || bound(m))
        .map(|m| m.point.clone())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Takes every mount off `path`. What was written to a file system is on its device afterwards, also if a copy of the
/// mount lives on in another container.
pub(super) fn unmount_all(path: &Path) -> Result<(), NodeError> {
    let doing = || format!("unmount {}", path.display());
    for _ in 0..STACK_MAX {
        let Some(mount) = at(path)? else {
            return Ok(());
        };
        if mount.fs_type != "devtmpfs" {
            sync(path);
        }
        unmount_one(&mount.point).map_err(NodeError::system(doing()))?;
    }
    Err(NodeError::PathTaken {
        path: path.to_owned(),
        found: format!("more than {STACK_MAX} mounts on top of each other"),
    })
}

/// Unmounts. A program that is being started has a copy of every open file for a moment, so a busy mount is tried again
/// a few times before it counts as in use.
fn unmount_one(point: &Path) -> rustix::io::Result<()> {
    for _ in 0..BUSY_TRIES {
        match unmount(point, UnmountFlags::NOFOLLOW) {
            Err(rustix::io::Errno::BUSY) => std::thread::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    unmount(point, UnmountFlags::NOFOLLOW)
}

/// Writes out the file system at `path`. A device that is gone fails here, and must not keep the mount from being
/// taken away, so that is told and no more.
fn sync(path: &Path) {
    let synced = fs::File::open(path).and_then(|folder| Ok(rustix::fs::syncfs(folder)?));
    if let Err(error) = synced {
        tracing::warn!(path = %path.display(), %error, "cannot write out the file system");
    }
}

/// Shows `source` at `target` too.
pub(super) fn bind(source: &Path, target: &Path) -> Result<(), NodeError> {
    let doing = format!("bind {} to {}", source.display(), target.display());
    mount_bind(source, target).map_err(NodeError::system(doing))
}

/// Makes a bind mount read-only.
pub(super) fn make_read_only(target: &Path) -> Result<(), NodeError> {
    let doing = format!("make {} read-only", target.display());
    let flags = MountFlags::BIND | MountFlags::RDONLY;
    mount_remount(target, flags, "").map_err(NodeError::system(doing))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r"22 27 0:21 / /proc rw,nosuid,nodev - proc proc rw
31 27 0:5 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=10k
90 27 7:3 / /var/lib/kubelet/plugins/a\040b/globalmount rw,relatime shared:9 master:1 - ext4 /dev/loop3 rw
91 27 7:3 / /pods/1/mount ro,relatime shared:9 - ext4 /dev/loop3 rw
92 27 0:5 /loop3 /pods/2/dev rw shared:2 - devtmpfs udev rw
93 27 7:4 /sub\134dir /pods/3 rw - xfs /dev/loop4 ro,attr2
no line at all
94 27 x:y / / rw - ext4 /dev/sda rw
";

    fn number(major: u32, minor: u32) -> DeviceNumber {
        DeviceNumber { major, minor }
    }

    #[test]
    fn table_is_read() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 6);
        assert_eq!(
            mounts[2],
            Mount {
                device: number(7, 3),
                root: "/".into(),
                point: "/var/lib/kubelet/plugins/a b/globalmount".into(),
                read_only: false,
                super_read_only: false,
                fs_type: "ext4".into(),
                source: "/dev/loop3".into(),
            }
        );
        assert!(mounts[3].read_only && !mounts[3].super_read_only);
        assert_eq!(mounts[5].root, Path::new(r"/sub\dir"));
        assert!(!mounts[5].read_only && mounts[5].super_read_only);
    }

    #[test]
    fn users_of_a_device() {
        let mounts = parse(TABLE);
        let points = |device: &str, number| {
            users(&mounts, Path::new(device), number)
                .map(|p| p.display().to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            points("/dev/loop3", number(7, 3)),
            [
                "/var/lib/kubelet/plugins/a b/globalmount",
                "/pods/1/mount",
                "/pods/2/dev"
            ]
        );
        assert_eq!(points("/dev/loop4", number(7, 4)), ["/pods/3"]);
        assert!(points("/dev/loop5", number(7, 5)).is_empty());
    }

    #[test]
    fn escapes() {
        for (raw, plain) in [
            ("/a", "/a"),
            (r"/a\040b\011c\012d\134e", "/a b\tc\nd\\e"),
            (r"/a\04", r"/a\04"),
            (r"/\9", r"/\9"),
            (r"/é\040", "/é "),
        ] {
            assert_eq!(unescape(raw), Path::new(plain), "{raw}");
        }
    }

    #[test]
    fn resolves_as_far_as_it_can() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap().join("real");
        fs::create_dir(&real).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(resolve(&link.join("not/there")), real.join("not/there"));
        assert_eq!(resolve(&link), real);
    }
}
