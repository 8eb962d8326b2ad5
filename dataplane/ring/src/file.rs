//! Files and block devices: reads, writes, syncs, zeroing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, types};

use crate::buf::IoBuf;
use crate::io::{Io, Kind};
use crate::slab::{Key, SLOTS_MAX as OPS_MAX};

/// Names a file that was given to this reactor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId(pub(crate) Key);

pub(crate) struct FileEntry {
    fd: Arc<OwnedFd>,
    in_flight: usize,
    removed: bool,
}

/// A piece of a transfer between a buffer and a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Where in the file.
    pub offset_bytes: u64,
    /// Where in the buffer.
    pub start: usize,
    /// How much; what lies outside the buffer's bytes in use is left out.
    pub len: usize,
}

/// An operation on a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Work {
    Read,
    /// With `durable`, the completion means that the data is on stable media (RWF_DSYNC).
    Write {
        durable: bool,
    },
    SyncData,
    Zero {
        len_bytes: u64,
    },
    Punch {
        len_bytes: u64,
    },
}

/// What the user asked for: one operation, or one for each extent. It owns what the operations use.
pub(crate) struct Transfer {
    file: Key,
    token: u64,
    work: Work,
    buf: Option<IoBuf>,
    /// Operations in flight.
    left: usize,
    /// Bytes moved, or the first error.
    result: io::Result<usize>,
}

/// One operation in flight.
pub(crate) struct FileOp {
    transfer: Key,
    extent: Extent,
    done: usize,
}

/// The end of an operation on a file.
#[derive(Debug)]
pub struct FileDone {
    /// The file.
    pub file: FileId,
    /// The token given when the operation was started.
    pub token: u64,
    /// The buffer of a read or a write.
    pub buf: Option<IoBuf>,
    /// Bytes read or written, less than asked for only at the end of the file; 0 for other operations.
    pub result: io::Result<usize>,
}

/// The file is not (or no longer) known to the reactor, there is nothing to move, or 2^24 operations are in
/// flight; the buffer comes back.
#[derive(Debug, thiserror::Error)]
#[error(
    "the operation on a file cannot be started: the file was removed, or too many are in flight"
)]
pub struct NotStarted(pub Option<IoBuf>);

impl Io {
    /// Makes a file known to this reactor, which keeps it open until [`Io::remove_file`].
    /// `None` with 2^24 files.
    pub fn add_file(&mut self, fd: Arc<OwnedFd>) -> Option<FileId> {
        self.files
            .insert(FileEntry {
                fd,
                in_flight: 0,
                removed: false,
            })
            .ok()
            .map(FileId)
    }

    /// Forgets a file; it is closed after the last operation in flight.
    pub fn remove_file(&mut self, file: FileId) {
        if let Some(entry) = self.files.get_mut(file.0) {
            entry.removed = true;
            if entry.in_flight == 0 {
                self.files.remove(file.0);
            }
        }
    }

    /// Reads the extents into the buffer; ends as one [`Event::File`](crate::Event) when all have ended.
    ///
    /// # Errors
    /// [`NotStarted`] with the buffer.
    pub fn read(
        &mut self,
        file: FileId,
        buf: IoBuf,
        extents: &[Extent],
        token: u64,
    ) -> Result<(), NotStarted> {
        self.start(file, token, Work::Read, Some(buf), extents)
    }

    /// Writes the extents from the buffer; with `durable` the data is on stable media when it ends. Extents may
    /// share bytes of the buffer.
    ///
    /// # Errors
    /// [`NotStarted`] with the buffer.
    pub fn write(
        &mut self,
        file: FileId,
        buf: IoBuf,
        extents: &[Extent],
        durable: bool,
        token: u64,
    ) -> Result<(), NotStarted> {
        self.start(file, token, Work::Write { durable }, Some(buf), extents)
    }

    /// Makes data written before durable, with the metadata needed to find it (fdatasync).
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn sync_data(&mut self, file: FileId, token: u64) -> Result<(), NotStarted> {
        self.start(file, token, Work::SyncData, None, &[whole(0)])
    }

    /// Makes a range read as zeroes, keeping its space (FALLOC_FL_ZERO_RANGE).
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn zero(
        &mut self,
        file: FileId,
        offset_bytes: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), NotStarted> {
        self.start(
            file,
            token,
            Work::Zero { len_bytes },
            None,
            &[whole(offset_bytes)],
        )
    }

    /// Makes a range read as zeroes and gives its space back (FALLOC_FL_PUNCH_HOLE).
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn punch(
        &mut self,
        file: FileId,
        offset_bytes: u64,
        len_bytes: u64,
        token: u64,
    ) -> Result<(), NotStarted> {
        self.start(
            file,
            token,
            Work::Punch { len_bytes },
            None,
            &[whole(offset_bytes)],
        )
    }

    fn start(
        &mut self,
        file: FileId,
        token: u64,
        work: Work,
        buf: Option<IoBuf>,
        extents: &[Extent],
    ) -> Result<(), NotStarted> {
        let Some(entry) = self.files.get_mut(file.0).filter(|entry| !entry.removed) else {
            return Err(NotStarted(buf));
        };
        if extents.is_empty() || self.ops.len() + extents.len() > OPS_MAX {
            return Err(NotStarted(buf));
        }
        let len = buf.as_ref().map_or(usize::MAX, |buf| buf.len());
        let transfer = Transfer {
            file: file.0,
            token,
            work,
            buf,
            left: 0,
            result: Ok(0),
        };
        let transfer = match self.transfers.insert(transfer) {
            Ok(key) => key,
            Err(transfer) => return Err(NotStarted(transfer.buf)),
        };
        entry.in_flight += 1;
        for &(mut extent) in extents {
            extent.start = extent.start.min(len);
            extent.len = extent.len.min(len - extent.start);
            if let Ok(key) = self.ops.insert(FileOp {
                transfer,
                extent,
                done: 0,
            }) {
                if let Some(transfer) = self.transfers.get_mut(transfer) {
                    transfer.left += 1;
                }
                self.submit_file_op(key);
            }
        }
        Ok(())
    }

    fn submit_file_op(&mut self, key: Key) {
        let Some(op) = self.ops.get(key) else { return };
        let Some(transfer) = self.transfers.get_mut(op.transfer) else {
            return;
        };
        let Some(entry) = self.files.get(transfer.file) else {
            return;
        };
        let fd = types::Fd(entry.fd.as_raw_fd());
        let offset = op.extent.offset_bytes + op.done as u64;
        let pointer = match &mut transfer.buf {
            // SAFETY: `start` has put the extent within the buffer's bytes, and `done` is at most its length.
            Some(buf) => unsafe { buf.as_mut_ptr().add(op.extent.start + op.done) },
            None => std::ptr::null_mut(),
        };
        let len = u32::try_from(op.extent.len - op.done).unwrap_or(0);
        let keep_size = libc::FALLOC_FL_KEEP_SIZE;
        let allocate = |len_bytes, mode| {
            opcode::Fallocate::new(fd, len_bytes)
                .offset(offset)
                .mode(mode | keep_size)
                .build()
        };
        let entry = match transfer.work {
            Work::Read => opcode::Read::new(fd, pointer, len).offset(offset).build(),
            Work::Write { durable } => {
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                opcode::Write::new(fd, pointer, len)
                    .offset(offset)
                    .rw_flags(flags)
                    .build()
            }
            Work::SyncData => opcode::Fsync::new(fd)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Work::Zero { len_bytes } => allocate(len_bytes, libc::FALLOC_FL_ZERO_RANGE),
            Work::Punch { len_bytes } => allocate(len_bytes, libc::FALLOC_FL_PUNCH_HOLE),
        };
        // SAFETY: the buffer belongs to the transfer's slot and its memory does not move; nobody else touches
        // it until the transfer's last completion. The file entry keeps the descriptor open as long.
        unsafe { self.push(entry.user_data(Kind::File.tag(key))) }
    }

    /// Takes in a completion; continues a short operation, or returns the transfer's end.
    pub(crate) fn file_completed(
        &mut self,
        key: Key,
        result: io::Result<usize>,
    ) -> Option<FileDone> {
        let op = self.ops.get_mut(key)?;
        let again = match &result {
            Ok(count) => {
                op.done = op.extent.len.min(op.done + count);
                *count > 0 && op.done < op.extent.len
            }
            Err(error) => error.raw_os_error() == Some(libc::EINTR),
        };
        if again {
            self.submit_file_op(key);
            return None;
        }
        let op = self.ops.remove(key)?;
        let transfer = self.transfers.get_mut(op.transfer)?;
        match (&mut transfer.result, result) {
            (Ok(total), Ok(_)) => *total += op.done,
            (result @ Ok(_), Err(error)) => *result = Err(error),
            (Err(_), _) => {}
        }
        transfer.left -= 1;
        if transfer.left > 0 {
            return None;
        }
        let transfer = self.transfers.remove(op.transfer)?;
        if let Some(entry) = self.files.get_mut(transfer.file) {
            entry.in_flight -= 1;
            if entry.removed && entry.in_flight == 0 {
                self.files.remove(transfer.file);
            }
        }
        let (file, token) = (FileId(transfer.file), transfer.token);
        Some(FileDone {
            file,
            token,
            buf: transfer.buf,
            result: transfer.result,
        })
    }
}

/// For operations without a buffer.
fn whole(offset_bytes: u64) -> Extent {
    Extent {
        offset_bytes,
        start: 0,
        len: 0,
    }
}
