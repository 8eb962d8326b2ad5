//! What the rim is asked to do, and how that ends.

use std::sync::Arc;

use roadstead_nvme::Status;

use crate::reservation::Reservations;
use crate::table::VolumeKey;

/// An I/O that passed every check: it lies inside of the volume, in whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoRequest {
    /// Where.
    pub volume: VolumeKey,
    /// The namespace by which the host knows the volume.
    pub nsid: u32,
    /// What.
    pub op: IoOp,
    /// First byte; 0 for operations without a range.
    pub offset: u64,
    /// Bytes; 0 for operations without a range. At most [`crate::limits::TRANSFER_BYTES_MAX`] for Read, Write and
    /// Compare; Write Zeroes, Verify and Copy have limits of their own there.
    pub length: u32,
    /// The data must be on the medium before the request completes (or come from it).
    pub fua: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IoOp {
    /// Read into a buffer.
    Read,
    /// Write from a buffer.
    Write,
    /// Compare with a buffer; [`IoError::Miscompare`] when it differs.
    Compare,
    /// Compare, and write if it was equal. Nobody else's I/O to the range comes between: it happens before or after
    /// both.
    CompareAndWrite {
        /// What must be there.
        expected: Box<[u8]>,
        /// What is to be there.
        new: Box<[u8]>,
    },
    /// Read for the sake of finding out whether that is possible.
    Verify,
    /// Make everything that was completed before durable.
    Flush,
    /// The range reads as zeros afterwards.
    WriteZeroes {
        /// Its space may be given back.
        deallocate: bool,
    },
    /// The whole volume reads as zeros afterwards; its space may be given back.
    ZeroAll,
    /// The ranges' contents are not needed any more: give space back where that is possible, whole or in part. Blocks
    /// keep their contents or read as zeros afterwards.
    Deallocate {
        /// Byte ranges, none empty.
        ranges: Box<[ByteRange]>,
    },
    /// Write what is in the sources, one after the other, into the range, which is as long as all of them and overlaps
    /// none.
    Copy {
        /// Byte ranges, none empty.
        sources: Box<[ByteRange]>,
    },
    /// Keep the reservations with the volume, durably. Whatever they are when it is done is right: requests that pass
    /// each other do no harm.
    SaveReservations {
        /// Gives the bytes to keep, which replace those kept before; see [`Reservations::to_bytes`].
        reservations: SharedReservations,
    },
}

/// The reservations of a namespace, as something that can be compared.
#[derive(Clone, Debug)]
pub struct SharedReservations(pub Arc<Reservations>);

impl PartialEq for SharedReservations {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for SharedReservations {}

/// A range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// How an I/O ended.
pub type IoResult = Result<(), IoError>;

/// Why an I/O failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// The medium did not give the data.
    #[error("the medium did not give the data")]
    Read,
    /// The medium did not take the data, or could not make it durable.
    #[error("the medium did not take the data")]
    Write,
    /// What was compared differs. Nothing is wrong with the volume.
    #[error("what was compared differs")]
    Miscompare,
    /// No room for the data.
    #[error("there is no room for the data")]
    NoSpace,
    /// The volume is away for now; trying again may help.
    #[error("the volume is not available now")]
    Unavailable,
    /// The volume is smaller than the request, or gone for good.
    #[error("the volume does not exist or is too small")]
    Gone,
}

impl IoError {
    /// The status that tells the host.
    #[must_use]
    pub fn status(self) -> Status {
        match self {
            Self::Read => Status::UNRECOVERED_READ,
            Self::Write => Status::WRITE_FAULT,
            Self::Miscompare => Status::COMPARE_FAILURE.dnr(),
            Self::NoSpace => Status::CAPACITY_EXCEEDED.dnr(),
            Self::Unavailable => Status::NAMESPACE_NOT_READY,
            Self::Gone => Status::INVALID_NAMESPACE.dnr(),
        }
    }
}
