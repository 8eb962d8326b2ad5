//! Opening the ring, with an error that says what is missing.

use std::io;

use io_uring::IoUring;

use crate::config::ReactorConfig;
use crate::error::RingError;

/// The first kernel with every flag used here (IORING_SETUP_DEFER_TASKRUN).
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Completion queue entries for one submission queue entry: multishot operations complete many times.
const CQ_FACTOR: u32 = 4;

/// Opens a ring for the calling thread.
pub(crate) fn open(config: &ReactorConfig) -> Result<IoUring, RingError> {
    let release = rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned();
    if version(&release).is_some_and(|version| version < KERNEL_MIN) {
        return Err(RingError::KernelTooOld { release });
    }
    IoUring::builder()
        .setup_cqsize(config.sq_entries.saturating_mul(CQ_FACTOR))
        .setup_clamp()
        .setup_submit_all()
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_defer_taskrun()
        .setup_taskrun_flag()
        .dontfork()
        .build(config.sq_entries)
        .map_err(|source| explain(source, release))
}

fn explain(source: io::Error, release: String) -> RingError {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => RingError::Denied { source },
        Some(libc::EINVAL) => RingError::KernelTooOld { release },
        _ => RingError::Setup {
            what: "open an io_uring",
            source,
        },
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        assert_eq!(version("6.18.44-fc-v669"), Some((6, 18)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert_eq!(version("7.2-rc1"), Some((7, 2)));
        assert_eq!(version("odd"), None);
    }
}
