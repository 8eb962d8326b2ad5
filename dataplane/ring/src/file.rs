//! Files and block devices: reads, writes, syncs, zeroing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, types};

use crate::buf::IoBuf;
use crate::io::{Io, Kind};
use crate::slab::Key;

/// Names a file that was given to this reactor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId(pub(crate) Key);

pub(crate) struct FileEntry {
    fd: Arc<OwnedFd>,
    in_flight: usize,
    removed: bool,
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

/// What an operation in flight owns.
pub(crate) struct FileOp {
    file: Key,
    token: u64,
    work: Work,
    offset_bytes: u64,
    buf: Option<IoBuf>,
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
    /// Bytes read or written, less than the buffer's length only at the end of the file; 0 for the others.
    pub result: io::Result<usize>,
}

/// The file is not (or no longer) known to the reactor, or 2^24 operations are in flight; the buffer
/// comes back.
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

    /// Reads into the buffer's bytes in use; ends as [`Event::File`](crate::Event).
    ///
    /// # Errors
    /// [`NotStarted`] with the buffer.
    pub fn read(
        &mut self,
        file: FileId,
        offset_bytes: u64,
        buf: IoBuf,
        token: u64,
    ) -> Result<(), NotStarted> {
        self.start(file, token, Work::Read, offset_bytes, Some(buf))
    }

    /// Writes the buffer's bytes in use; with `durable` the data is on stable media when it ends.
    ///
    /// # Errors
    /// [`NotStarted`] with the buffer.
    pub fn write(
        &mut self,
        file: FileId,
        offset_bytes: u64,
        buf: IoBuf,
        durable: bool,
        token: u64,
    ) -> Result<(), NotStarted> {
        self.start(
            file,
            token,
            Work::Write { durable },
            offset_bytes,
            Some(buf),
        )
    }

    /// Makes data written before durable, with the metadata needed to find it (fdatasync).
    ///
    /// # Errors
    /// [`NotStarted`].
    pub fn sync_data(&mut self, file: FileId, token: u64) -> Result<(), NotStarted> {
        self.start(file, token, Work::SyncData, 0, None)
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
        self.start(file, token, Work::Zero { len_bytes }, offset_bytes, None)
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
        self.start(file, token, Work::Punch { len_bytes }, offset_bytes, None)
    }

    fn start(
        &mut self,
        file: FileId,
        token: u64,
        work: Work,
        offset_bytes: u64,
        buf: Option<IoBuf>,
    ) -> Result<(), NotStarted> {
        let Some(entry) = self.files.get_mut(file.0).filter(|entry| !entry.removed) else {
            return Err(NotStarted(buf));
        };
        let op = FileOp {
            file: file.0,
            token,
            work,
            offset_bytes,
            buf,
            done: 0,
        };
        match self.ops.insert(op) {
            Ok(key) => {
                entry.in_flight += 1;
                self.submit_file_op(key);
                Ok(())
            }
            Err(op) => Err(NotStarted(op.buf)),
        }
    }

    fn submit_file_op(&mut self, key: Key) {
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let Some(entry) = self.files.get(op.file) else {
            return;
        };
        let fd = types::Fd(entry.fd.as_raw_fd());
        let offset = op.offset_bytes + op.done as u64;
        let (pointer, len) = match &mut op.buf {
            // SAFETY: `done` is at most the buffer's length.
            Some(buf) => (
                unsafe { buf.as_mut_ptr().add(op.done) },
                buf.len() - op.done,
            ),
            None => (std::ptr::null_mut(), 0),
        };
        let len = u32::try_from(len).unwrap_or(0);
        let keep_size = libc::FALLOC_FL_KEEP_SIZE;
        let entry = match op.work {
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
            Work::Zero { len_bytes } => opcode::Fallocate::new(fd, len_bytes)
                .offset(offset)
                .mode(libc::FALLOC_FL_ZERO_RANGE | keep_size)
                .build(),
            Work::Punch { len_bytes } => opcode::Fallocate::new(fd, len_bytes)
                .offset(offset)
                .mode(libc::FALLOC_FL_PUNCH_HOLE | keep_size)
                .build(),
        };
        // SAFETY: the buffer belongs to the operation's slot and its memory does not move; nobody touches
        // it until the completion. The file entry keeps the descriptor open while anything is in flight.
        unsafe { self.push(entry.user_data(Kind::File.tag(key))) }
    }

    /// Takes in a completion; continues a short transfer, or returns the operation's end.
    pub(crate) fn file_completed(
        &mut self,
        key: Key,
        result: io::Result<usize>,
    ) -> Option<FileDone> {
        let op = self.ops.get_mut(key)?;
        let len = op.buf.as_ref().map_or(0, |buf| buf.len());
        let result = match result {
            Ok(count) => {
                op.done = len.min(op.done + count);
                if count > 0 && op.done < len {
                    self.submit_file_op(key);
                    return None;
                }
                Ok(op.done)
            }
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {
                self.submit_file_op(key);
                return None;
            }
            Err(error) => Err(error),
        };
        let op = self.ops.remove(key)?;
        if let Some(entry) = self.files.get_mut(op.file) {
            entry.in_flight -= 1;
            if entry.removed && entry.in_flight == 0 {
                self.files.remove(op.file);
            }
        }
        Some(FileDone {
            file: FileId(op.file),
            token: op.token,
            buf: op.buf,
            result,
        })
    }
}
