//! Block device names and numbers.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;

use crate::AttachError;

/// Whether something has claimed the device: a mount in whatever mount namespace, device mapper, swap.
///
/// # Errors
/// [`AttachError::Io`] when the device cannot be opened for another reason than being in use.
pub(crate) fn in_use(device: &Path) -> Result<bool, AttachError> {
    let exclusive = i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap_or_default();
    match OpenOptions::new()
        .read(true)
        .custom_flags(exclusive)
        .open(device)
    {
        Ok(_) => Ok(false),
        Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => Ok(true),
        Err(source) => Err(AttachError::Io {
            what: format!("open {} exclusively", device.display()),
            source,
        }),
    }
}

/// A sysfs attribute, without its line end.
pub(crate) fn attribute(dir: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(dir.join(name)).ok()?;
    Some(text.trim_end().to_owned())
}

/// The size of a block device from its sysfs directory, in bytes.
pub(crate) fn size_bytes(dir: &Path) -> Option<u64> {
    let sectors: u64 = attribute(dir, "size")?.parse().ok()?;
    sectors.checked_mul(512)
}
