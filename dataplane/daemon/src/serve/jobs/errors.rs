//! From what went wrong below to what the host is told. The only place that decides this.

use std::io;

use roadstead_pool::{Fault, FaultKind, LookupError, PoolError};
use roadstead_target::IoError;

pub(super) fn of_lookup(error: LookupError) -> IoError {
    match error {
        LookupError::OutOfRange | LookupError::Deleted => IoError::Gone,
        // Whoever can wait does not come here with it.
        LookupError::Busy => IoError::Unavailable,
    }
}

pub(super) fn of_pool(error: &PoolError) -> IoError {
    match error {
        PoolError::NoRoom { .. } | PoolError::NoRoomForNote | PoolError::MediumFull { .. } => {
            IoError::NoSpace
        }
        PoolError::VolumeUnknown { .. } | PoolError::OutOfRange { .. } => IoError::Gone,
        PoolError::Faulted(_)
        | PoolError::Stopped
        | PoolError::VolumeExists { .. }
        | PoolError::ShrinkRefused { .. }
        | PoolError::BadVolume { .. }
        | PoolError::TooManyVolumes { .. } => IoError::Unavailable,
    }
}

/// A failed operation on the drive, and the fault to report when the whole drive is concerned.
pub(super) fn of_io(
    error: &io::Error,
    doing: &'static str,
    medium: IoError,
) -> (IoError, Option<Fault>) {
    let fault = Fault::io(doing, error);
    match fault.kind {
        FaultKind::Gone => (IoError::Unavailable, Some(fault)),
        FaultKind::Io | FaultKind::Inconsistent if error.raw_os_error() == Some(ENOSPC) => {
            (IoError::NoSpace, None)
        }
        FaultKind::Io | FaultKind::Inconsistent => (medium, None),
    }
}

/// A sparse file on a full file system: the one place where a drive can lack room.
const ENOSPC: i32 = 28;
