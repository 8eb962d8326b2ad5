//! I/O commands: checked, then handed out as requests.

use roadstead_nvme::Status;
use roadstead_nvme::command::{
    Blocks, COPY_RANGE_BYTES, CopyRange, DSM_RANGE_BYTES, DsmRange, IoCommand,
};
use zerocopy::FromBytes;

use crate::ana::View;
use crate::io::{ByteRange, IoOp, IoRequest};
use crate::limits;
use crate::queue::{Completion, Decision};
use crate::table::Namespace;

/// Checks a command against what the controller shows. `data_length` is what the command's data pointer says.
pub(crate) fn begin(view: &View, command: IoCommand, data_length: u32) -> Result<Decision, Status> {
    match command {
        IoCommand::Read { .. }
        | IoCommand::Write { .. }
        | IoCommand::Compare { .. }
        | IoCommand::Verify { .. }
        | IoCommand::WriteZeroes { .. }
        | IoCommand::Flush { .. } => request(view, command, data_length).map(Decision::Io),
        IoCommand::DatasetManagement { nsid, ranges, .. } => {
            writable(view.find(nsid)?)?;
            // Without the attribute the command is a hint; its data is taken and checked all the same.
            list(u32::from(ranges) * DSM_RANGE_BYTES, data_length)
        }
        IoCommand::Copy {
            nsid,
            ranges,
            format,
            ..
        } => {
            writable(view.find(nsid)?)?;
            if format != 0 {
                return Err(Status::INVALID_FIELD.dnr());
            }
            if ranges > limits::COPY_RANGES_MAX {
                return Err(Status::COMMAND_SIZE_LIMIT.dnr());
            }
            list(u32::from(ranges) * COPY_RANGE_BYTES, data_length)
        }
        // Not for here.
        IoCommand::Reservation { .. } => Err(Status::INTERNAL),
    }
}

/// A list of ranges as data. Some hosts always send the longest list.
fn list(needed: u32, data_length: u32) -> Result<Decision, Status> {
    if (needed..=limits::CONTROL_BYTES_MAX).contains(&data_length) {
        Ok(Decision::Control {
            length: data_length,
        })
    } else {
        Err(Status::SGL_LENGTH_INVALID.dnr())
    }
}

/// The request of a command that needs no data to be understood.
pub(crate) fn request(
    view: &View,
    command: IoCommand,
    data_length: u32,
) -> Result<IoRequest, Status> {
    let simple = |nsid, op, fua| (nsid, op, None, fua, 0);
    let (nsid, op, blocks, fua, limit) = match command {
        IoCommand::Read { nsid, blocks, fua } => {
            let limit = limits::TRANSFER_BYTES_MAX;
            (nsid, IoOp::Read, Some(blocks), fua, limit)
        }
        IoCommand::Write { nsid, blocks, fua } => {
            let limit = limits::TRANSFER_BYTES_MAX;
            (nsid, IoOp::Write, Some(blocks), fua, limit)
        }
        IoCommand::Compare { nsid, blocks, fua } => {
            let limit = limits::TRANSFER_BYTES_MAX;
            (nsid, IoOp::Compare, Some(blocks), fua, limit)
        }
        IoCommand::Verify { nsid, blocks, fua } => {
            let limit = limits::VERIFY_BYTES_MAX;
            (nsid, IoOp::Verify, Some(blocks), fua, limit)
        }
        IoCommand::WriteZeroes {
            nsid,
            all: true,
            fua,
            ..
        } => simple(nsid, IoOp::ZeroAll, fua),
        IoCommand::WriteZeroes {
            nsid,
            blocks,
            fua,
            deallocate,
            ..
        } => {
            let limit = limits::WRITE_ZEROES_BYTES_MAX;
            let op = IoOp::WriteZeroes { deallocate };
            (nsid, op, Some(blocks), fua, limit)
        }
        IoCommand::Flush { nsid } => simple(nsid, IoOp::Flush, false),
        IoCommand::DatasetManagement { .. }
        | IoCommand::Copy { .. }
        | IoCommand::Reservation { .. } => return Err(Status::INTERNAL),
    };
    let namespace = view.find(nsid)?;
    if matches!(op, IoOp::Write | IoOp::WriteZeroes { .. } | IoOp::ZeroAll) {
        writable(namespace)?;
    }
    let has_data = matches!(op, IoOp::Read | IoOp::Write | IoOp::Compare);
    let Some(blocks) = blocks else {
        return Ok(IoRequest {
            fua,
            ..whole(namespace, nsid, op)
        });
    };
    let request = ranged(namespace, nsid, op, blocks, fua, limit)?;
    if has_data && request.length != data_length {
        return Err(Status::SGL_LENGTH_INVALID.dnr());
    }
    Ok(request)
}

/// Goes on with a command whose list of ranges came.
pub(crate) fn with_list(view: &View, command: IoCommand, data: &[u8]) -> Result<Decision, Status> {
    match command {
        IoCommand::DatasetManagement {
            nsid,
            ranges,
            deallocate,
        } => deallocation(view, nsid, ranges, deallocate, data),
        IoCommand::Copy {
            nsid,
            start,
            ranges,
            fua,
            ..
        } => copy(view.find(nsid)?, nsid, start, ranges, fua, data),
        _ => Err(Status::INTERNAL),
    }
}

fn deallocation(
    view: &View,
    nsid: u32,
    ranges: u16,
    deallocate: bool,
    data: &[u8],
) -> Result<Decision, Status> {
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
            found.push(bytes(namespace, range.start.get(), blocks));
        }
    }
    if !deallocate || found.is_empty() {
        return Ok(Decision::Complete(Completion::SUCCESS));
    }
    let ranges = found.into_boxed_slice();
    let op = IoOp::Deallocate { ranges };
    Ok(Decision::Io(whole(namespace, nsid, op)))
}

fn copy(
    namespace: &Namespace,
    nsid: u32,
    start: u64,
    ranges: u16,
    fua: bool,
    data: &[u8],
) -> Result<Decision, Status> {
    let too_much = Status::COMMAND_SIZE_LIMIT.dnr();
    let mut sources = Vec::with_capacity(usize::from(ranges));
    let (mut rest, mut total) = (data, 0_u64);
    for _ in 0..ranges {
        let (range, behind) =
            CopyRange::read_from_prefix(rest).map_err(|_| Status::SGL_LENGTH_INVALID.dnr())?;
        rest = behind;
        let blocks = u64::from(range.blocks());
        if blocks << namespace.block_size.shift() > u64::from(limits::COPY_RANGE_BYTES_MAX) {
            return Err(too_much);
        }
        check_range(namespace, range.start.get(), blocks)?;
        total += blocks;
        sources.push(bytes(namespace, range.start.get(), blocks));
    }
    if total << namespace.block_size.shift() > u64::from(limits::COPY_BYTES_MAX) {
        return Err(too_much);
    }
    check_range(namespace, start, total)?;
    let target = bytes(namespace, start, total);
    let overlaps = |source: &ByteRange| {
        source.offset < target.offset + target.length
            && target.offset < source.offset + source.length
    };
    if sources.iter().any(overlaps) {
        return Err(Status::OVERLAPPING_RANGE.dnr());
    }
    let sources = sources.into_boxed_slice();
    Ok(Decision::Io(IoRequest {
        offset: target.offset,
        length: u32::try_from(target.length).map_err(|_| too_much)?,
        fua,
        ..whole(namespace, nsid, IoOp::Copy { sources })
    }))
}

fn writable(namespace: &Namespace) -> Result<(), Status> {
    if namespace.read_only {
        return Err(Status::NAMESPACE_WRITE_PROTECTED.dnr());
    }
    Ok(())
}

fn bytes(namespace: &Namespace, start: u64, blocks: u64) -> ByteRange {
    let shift = namespace.block_size.shift();
    ByteRange {
        offset: start << shift,
        length: blocks << shift,
    }
}

/// A request without a range of its own.
fn whole(namespace: &Namespace, nsid: u32, op: IoOp) -> IoRequest {
    IoRequest {
        volume: namespace.volume,
        nsid,
        op,
        offset: 0,
        length: 0,
        fua: false,
    }
}

fn ranged(
    namespace: &Namespace,
    nsid: u32,
    op: IoOp,
    blocks: Blocks,
    fua: bool,
    limit: u32,
) -> Result<IoRequest, Status> {
    check_range(namespace, blocks.start, u64::from(blocks.count))?;
    let range = bytes(namespace, blocks.start, u64::from(blocks.count));
    let length = u32::try_from(range.length)
        .ok()
        .filter(|length| *length <= limit);
    Ok(IoRequest {
        offset: range.offset,
        length: length.ok_or(Status::INVALID_FIELD.dnr())?,
        fua,
        ..whole(namespace, nsid, op)
    })
}

fn check_range(namespace: &Namespace, start: u64, count: u64) -> Result<(), Status> {
    match start.checked_add(count) {
        Some(end) if end <= namespace.blocks => Ok(()),
        _ => Err(Status::LBA_OUT_OF_RANGE.dnr()),
    }
}
