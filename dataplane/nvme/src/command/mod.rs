//! Typed admin and I/O commands (section 5 and the NVM Command Set specification section 3).

mod admin;
mod io;
mod range;
mod reservation;

pub use admin::{AdminCommand, GetLogPage};
pub use io::{Blocks, IoCommand};
pub use range::{COPY_RANGE_BYTES, CopyRange, DSM_RANGE_BYTES, DsmRange};
pub use reservation::{AcquireAction, RegisterAction, ReleaseAction, ReservationCommand};

use crate::Status;
use crate::wire::Sqe;

/// The namespace identifier that means all namespaces.
pub const NSID_ALL: u32 = 0xffff_ffff;

/// Bytes of the host identifier that Get and Set Features move.
pub const HOST_IDENTIFIER_BYTES: u32 = 16;

/// Data pointers other than scatter gather lists do not exist in fabrics; fused commands only on I/O queues.
pub(crate) fn check_flags(sqe: &Sqe) -> Result<(), Status> {
    if sqe.flags & (Sqe::FLAGS_FUSE_MASK | Sqe::FLAGS_PSDT_MASK) == Sqe::FLAGS_SGL {
        Ok(())
    } else {
        Err(Status::INVALID_FIELD.dnr())
    }
}
