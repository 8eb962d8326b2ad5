//! I/O commands: checked, then handed out as requests; results turned into status.

use roadstead_nvme::command::{Blocks, DSM_RANGE_BYTES, DsmRange, IoCommand};
use roadstead_nvme::{Sqe, Status};
use zerocopy::FromBytes;

use crate::ana::View;
use crate::limits;
use crate::queue::{Completion, Decision};
use crate::table::{Namespace, VolumeKey};

/// An I/O that passed every check: it lies inside of the volume, in whole blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoRequest {
    /// Where.
    pub volume: VolumeKey,
    /// What.
    pub op: IoOp,
    /// First byte; 0 for Flush and Deallocate.
    pub offset: u64,
    /// Bytes; 0 for Flush and Deallocate. At most [`limits::TRANSFER_BYTES_MAX`] for Read and Write,
    /// [`limits::WRITE_ZEROES_BYTES_MAX`] for WriteZeroes.
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
    /// Make everything that was completed before durable.
    Flush,
    /// The range reads as zeros afterwards.
    WriteZeroes {
        /// Its space may be given back.
        deallocate: bool,
    },
    /// The ranges' contents are not needed any more: give space back where that is possible, whole or in part. Blocks
    /// keep their contents or read as zeros afterwards.
    Deallocate {
        /// Byte ranges, none empty.
        ranges: Box<[ByteRange]>,
    },
}

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
            Self::NoSpace => Status::CAPACITY_EXCEEDED.dnr(),
            Self::Unavailable => Status::NAMESPACE_NOT_READY,
            Self::Gone => Status::INVALID_NAMESPACE.dnr(),
        }
    }
}

/// Checks a command against what the controller shows. `data_length` is what the command's data pointer says.
pub(crate) fn begin(view: &View, sqe: &Sqe, data_length: u32) -> Decision {
    match check(view, sqe, data_length) {
        Ok(decision) => decision,
        Err(status) => Decision::Complete(Completion::from(status)),
    }
}

fn check(view: &View, sqe: &Sqe, data_length: u32) -> Result<Decision, Status> {
    let find = |nsid| view.find(nsid);
    match IoCommand::parse(sqe)? {
        IoCommand::Read { nsid, blocks, fua } => {
            transfer(find(nsid)?, IoOp::Read, blocks, fua, data_length).map(Decision::Io)
        }
        IoCommand::Write { nsid, blocks, fua } => {
            let namespace = writable(find(nsid)?)?;
            transfer(namespace, IoOp::Write, blocks, fua, data_length).map(Decision::Io)
        }
        IoCommand::WriteZeroes {
            nsid,
            blocks,
            fua,
            deallocate,
        } => {
            let namespace = writable(find(nsid)?)?;
            let op = IoOp::WriteZeroes { deallocate };
            request(namespace, op, blocks, fua, limits::WRITE_ZEROES_BYTES_MAX).map(Decision::Io)
        }
        IoCommand::Flush { nsid } => Ok(Decision::Io(IoRequest {
            volume: find(nsid)?.volume,
            op: IoOp::Flush,
            offset: 0,
            length: 0,
            fua: false,
        })),
        IoCommand::DatasetManagement { nsid, ranges, .. } => {
            writable(find(nsid)?)?;
            // Some hosts always send the longest list.
            let needed = u32::from(ranges) * DSM_RANGE_BYTES;
            if !(needed..=limits::CONTROL_BYTES_MAX).contains(&data_length) {
                return Err(Status::SGL_LENGTH_INVALID.dnr());
            }
            // Without the attribute the command is a hint; its data is taken and checked all the same.
            Ok(Decision::Control {
                length: data_length,
            })
        }
        IoCommand::Compare { .. } => Err(Status::INVALID_OPCODE.dnr()),
    }
}

/// Goes on with a Dataset Management command whose ranges came.
pub(crate) fn deallocate(view: &View, sqe: &Sqe, data: &[u8]) -> Result<Decision, Status> {
    let IoCommand::DatasetManagement {
        nsid,
        ranges,
        deallocate,
    } = IoCommand::parse(sqe)?
    else {
        return Err(Status::INTERNAL);
    };
    let namespace = view.find(nsid)?;
    let mut found = Vec::with_capacity(usize::from(ranges));
    let mut rest = data;
    for _ in 0..ranges {
        let (range, behind) =
            DsmRange::read_from_prefix(rest).map_err(|_| Status::SGL_LENGTH_INVALID.dnr())?;
        rest = behind;
        let blocks = u64::from(range.count.get());
        check_range(namespace, range.start.get(), blocks)?;
        if blocks > 0 {
            let shift = namespace.block_size.shift();
            found.push(ByteRange {
                offset: range.start.get() << shift,
                length: blocks << shift,
            });
        }
    }
    if !deallocate || found.is_empty() {
        return Ok(Decision::Complete(Completion::SUCCESS));
    }
    Ok(Decision::Io(IoRequest {
        volume: namespace.volume,
        op: IoOp::Deallocate {
            ranges: found.into_boxed_slice(),
        },
        offset: 0,
        length: 0,
        fua: false,
    }))
}

fn writable(namespace: &Namespace) -> Result<&Namespace, Status> {
    if namespace.read_only {
        return Err(Status::NAMESPACE_WRITE_PROTECTED.dnr());
    }
    Ok(namespace)
}

fn transfer(
    namespace: &Namespace,
    op: IoOp,
    blocks: Blocks,
    fua: bool,
    data_length: u32,
) -> Result<IoRequest, Status> {
    let request = request(namespace, op, blocks, fua, limits::TRANSFER_BYTES_MAX)?;
    if request.length != data_length {
        return Err(Status::SGL_LENGTH_INVALID.dnr());
    }
    Ok(request)
}

fn request(
    namespace: &Namespace,
    op: IoOp,
    blocks: Blocks,
    fua: bool,
    limit: u32,
) -> Result<IoRequest, Status> {
    check_range(namespace, blocks.start, u64::from(blocks.count))?;
    let shift = namespace.block_size.shift();
    let length = u64::from(blocks.count) << shift;
    let length = u32::try_from(length).ok().filter(|length| *length <= limit);
    Ok(IoRequest {
        volume: namespace.volume,
        op,
        offset: blocks.start << shift,
        length: length.ok_or(Status::INVALID_FIELD.dnr())?,
        fua,
    })
}

fn check_range(namespace: &Namespace, start: u64, count: u64) -> Result<(), Status> {
    match start.checked_add(count) {
        Some(end) if end <= namespace.blocks => Ok(()),
        _ => Err(Status::LBA_OUT_OF_RANGE.dnr()),
    }
}
