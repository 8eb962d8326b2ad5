//! A FUSE file system with one file, whose reads and writes go to a namespace.
//!
//! One thread takes requests from the kernel and hands them on; answers are written by whoever has them, so
//! that as many are in flight as the kernel sends. There is no cache here and none in the kernel: the loop
//! device above has one, and the target keeps the truth.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use roadstead_initiator::{IoError, Op};
use rustix::io::Errno;
use tracing::{debug, error};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::remote::errno;
use crate::volume::Volume;

use super::wire::{
    Attr, AttrOut, EntryOut, FallocateIn, HEADER_BYTES, InHeader, InitIn, InitOut, MAJOR, MINOR,
    NODE_FILE, NODE_ROOT, NOTIFY_RESEND, OpenOut, OutHeader, StatfsOut, TransferIn, WriteOut,
    falloc, init, op, open,
};

/// Most data of one request.
pub(super) const TRANSFER_BYTES_MAX: u32 = 1 << 20;
/// Requests that the kernel keeps in flight at most; together with the transfer size the bound on memory.
const BACKGROUND_MAX: u16 = 128;
/// Memory of one request: the data and its heads.
const REQUEST_BYTES: usize = TRANSFER_BYTES_MAX as usize + 4096;
/// The smallest page of the kernels that this runs on.
const PAGE_BYTES: u32 = 4096;

const MODE_DIR: u32 = 0o040_700;
const MODE_FILE: u32 = 0o100_600;
const MODE_FILE_READ_ONLY: u32 = 0o100_400;

/// The server of one mount.
pub(super) struct Server<V> {
    device: Arc<OwnedFd>,
    volume: V,
    file_name: String,
    read_only: bool,
}

/// What becomes of a request that is not answered at once.
type Answer = Result<Reply, Errno>;

enum Reply {
    /// Answered, or will be.
    None,
    Bytes(Vec<u8>),
}

impl<V: Volume> Server<V> {
    /// A server for a mount that `device`, an open /dev/fuse, belongs to.
    pub(super) fn new(device: OwnedFd, volume: V, file_name: String, read_only: bool) -> Self {
        Self {
            device: Arc::new(device),
            volume,
            file_name,
            read_only,
        }
    }

    /// Asks the kernel for every request again that was read from this connection and not answered: the one who
    /// read them is gone. Linux 6.9.
    pub(super) fn ask_again(&self) -> io::Result<()> {
        let header = OutHeader {
            len: HEADER_BYTES,
            error: NOTIFY_RESEND,
            unique: 0,
        };
        rustix::io::write(&*self.device, header.as_bytes())?;
        Ok(())
    }

    /// Serves until the file system is unmounted.
    pub(super) fn run(&self) {
        let mut buffer = vec![0; REQUEST_BYTES];
        loop {
            let length = match rustix::io::read(&*self.device, &mut buffer) {
                Ok(0) | Err(Errno::NODEV) => return,
                Ok(length) => length,
                // The request was interrupted before it was read, or so were we.
                Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
                Err(error) => {
                    error!(%error, file = self.file_name, "reading /dev/fuse failed");
                    return;
                }
            };
            let request = buffer.get(..length).unwrap_or_default();
            if let Ok((header, body)) = InHeader::read_from_prefix(request) {
                self.handle(&header, body);
            }
        }
    }

    fn handle(&self, header: &InHeader, body: &[u8]) {
        let answer = match header.opcode {
            op::FORGET | op::BATCH_FORGET | op::INTERRUPT => return,
            op::INIT => init_answer(body),
            op::LOOKUP => self.lookup(body),
            op::GETATTR => self.attr(header.nodeid),
            op::OPEN => self.open(header.nodeid),
            op::READ => self.read(header.unique, body),
            op::WRITE => self.write(header.unique, body),
            op::FSYNC => {
                self.start(
                    header.unique,
                    Op::Flush,
                    (0, 0),
                    Vec::new(),
                    Answered::Nothing,
                );
                Ok(Reply::None)
            }
            op::FALLOCATE => self.fallocate(header.unique, body),
            op::STATFS => self.statfs(),
            op::RELEASE | op::FLUSH | op::DESTROY => Ok(Reply::Bytes(Vec::new())),
            other => {
                debug!(opcode = other, "not known here");
                Err(Errno::NOSYS)
            }
        };
        match answer {
            Ok(Reply::None) => {}
            Ok(Reply::Bytes(bytes)) => reply(&self.device, header.unique, Ok(&bytes)),
            Err(errno) => reply(&self.device, header.unique, Err(errno)),
        }
    }

    fn lookup(&self, body: &[u8]) -> Answer {
        if body.strip_suffix(&[0]) != Some(self.file_name.as_bytes()) {
            return Err(Errno::NOENT);
        }
        bytes(&EntryOut {
            node: NODE_FILE,
            generation: 0,
            entry_valid_s: u64::from(u32::MAX),
            attr_valid_s: 0,
            valid_ns: [0; 2],
            attr: self.attributes(NODE_FILE),
        })
    }

    fn attr(&self, node: u64) -> Answer {
        // Not valid for any time: the size changes when the volume grows.
        bytes(&AttrOut {
            valid_s: 0,
            valid_ns: 0,
            reserved: 0,
            attr: self.attributes(node),
        })
    }

    fn attributes(&self, node: u64) -> Attr {
        let is_root = node == NODE_ROOT;
        let size = if is_root { 0 } else { self.volume.size_bytes() };
        Attr {
            node,
            size,
            blocks: size / 512,
            times: [0; 3],
            times_ns: [0; 3],
            mode: match (is_root, self.read_only) {
                (true, _) => MODE_DIR,
                (false, false) => MODE_FILE,
                (false, true) => MODE_FILE_READ_ONLY,
            },
            links: if is_root { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            block_size: self.volume.block_bytes(),
            flags: 0,
        }
    }

    fn open(&self, node: u64) -> Answer {
        if node != NODE_FILE {
            return Err(Errno::ISDIR);
        }
        bytes(&OpenOut {
            handle: 0,
            flags: open::DIRECT_IO | open::PARALLEL_DIRECT_WRITES,
            reserved: 0,
        })
    }

    fn statfs(&self) -> Answer {
        let block_size = self.volume.block_bytes();
        let blocks = self.volume.size_bytes() / u64::from(block_size.max(1));
        bytes(&StatfsOut {
            blocks: [blocks, 0, 0, 1, 0],
            block_size,
            name_max: 255,
            fragment_size: block_size,
            reserved: [0; 7],
        })
    }

    fn read(&self, unique: u64, body: &[u8]) -> Answer {
        let (head, _) = TransferIn::read_from_prefix(body).map_err(|_| Errno::INVAL)?;
        let size = self.volume.size_bytes();
        let end = head.offset.saturating_add(u64::from(head.size)).min(size);
        let length = end.saturating_sub(head.offset);
        if length == 0 {
            return Ok(Reply::Bytes(Vec::new()));
        }
        let place = self.blocks(head.offset, length)?;
        let memory = vec![0; usize::try_from(length).map_err(|_| Errno::INVAL)?];
        self.start(unique, Op::Read, place, memory, Answered::Memory);
        Ok(Reply::None)
    }

    fn write(&self, unique: u64, body: &[u8]) -> Answer {
        let (head, data) = TransferIn::read_from_prefix(body).map_err(|_| Errno::INVAL)?;
        let length = usize::try_from(head.size).map_err(|_| Errno::INVAL)?;
        let data = data.get(..length).ok_or(Errno::INVAL)?;
        if self.read_only {
            return Err(Errno::ROFS);
        }
        let place = self.blocks(head.offset, u64::from(head.size))?;
        let op = Op::Write { durable: false };
        self.start(unique, op, place, data.to_vec(), Answered::Size(head.size));
        Ok(Reply::None)
    }

    fn fallocate(&self, unique: u64, body: &[u8]) -> Answer {
        let (head, _) = FallocateIn::read_from_prefix(body).map_err(|_| Errno::INVAL)?;
        if self.read_only {
            return Err(Errno::ROFS);
        }
        let deallocate = match head.mode & !falloc::KEEP_SIZE {
            falloc::PUNCH_HOLE => true,
            falloc::ZERO_RANGE => false,
            _ => return Err(Errno::OPNOTSUPP),
        };
        let place = self.blocks(head.offset, head.length)?;
        let op = Op::WriteZeroes { deallocate };
        self.start(unique, op, place, Vec::new(), Answered::Nothing);
        Ok(Reply::None)
    }

    /// Whole blocks within the volume.
    fn blocks(&self, offset: u64, length: u64) -> Result<(u64, u32), Errno> {
        let block = u64::from(self.volume.block_bytes());
        let end = offset.checked_add(length).ok_or(Errno::INVAL)?;
        if length == 0 || !offset.is_multiple_of(block) || !length.is_multiple_of(block) {
            return Err(Errno::INVAL);
        }
        if end > self.volume.size_bytes() {
            return Err(Errno::NOSPC);
        }
        let blocks = u32::try_from(length / block).map_err(|_| Errno::INVAL)?;
        Ok((offset / block, blocks))
    }

    fn start(
        &self,
        unique: u64,
        op: Op,
        (lba, blocks): (u64, u32),
        memory: Vec<u8>,
        answered: Answered,
    ) {
        let device = Arc::clone(&self.device);
        let done = move |result: Result<(), IoError>, memory: Vec<u8>| {
            let size;
            let answer: Result<&[u8], Errno> = match (result, answered) {
                (Err(error), _) => Err(errno(error)),
                (Ok(()), Answered::Nothing) => Ok(&[]),
                (Ok(()), Answered::Memory) => Ok(&memory),
                (Ok(()), Answered::Size(bytes)) => {
                    size = WriteOut {
                        size: bytes,
                        reserved: 0,
                    };
                    Ok(size.as_bytes())
                }
            };
            reply(&device, unique, answer);
        };
        self.volume.submit(op, lba, blocks, memory, Box::new(done));
    }
}

/// What a successful answer carries.
#[derive(Clone, Copy)]
enum Answered {
    Nothing,
    Memory,
    Size(u32),
}

fn init_answer(body: &[u8]) -> Answer {
    let (kernel, _) = InitIn::read_from_prefix(body).map_err(|_| Errno::INVAL)?;
    if kernel.major != MAJOR || kernel.minor < MINOR {
        error!(kernel.major, kernel.minor, "this kernel's FUSE is too old");
        return Err(Errno::PROTO);
    }
    let wanted = init::ASYNC_READ | init::BIG_WRITES | init::ASYNC_DIO | init::MAX_PAGES;
    bytes(&InitOut {
        major: MAJOR,
        minor: MINOR,
        max_readahead: 0,
        flags: kernel.flags & wanted,
        max_background: BACKGROUND_MAX,
        congestion_threshold: BACKGROUND_MAX,
        max_write: TRANSFER_BYTES_MAX,
        time_granularity_ns: 1,
        max_pages: u16::try_from(TRANSFER_BYTES_MAX / PAGE_BYTES).unwrap_or(u16::MAX),
        map_alignment: 0,
        flags2: 0,
        reserved: [0; 7],
    })
}

fn bytes<T: IntoBytes + Immutable + KnownLayout>(value: &T) -> Answer {
    Ok(Reply::Bytes(value.as_bytes().to_vec()))
}

/// Answers a request. A request that the kernel has forgotten is not missed.
fn reply(device: &OwnedFd, unique: u64, answer: Result<&[u8], Errno>) {
    let (error, body) = match answer {
        Ok(body) => (0, body),
        Err(errno) => (-errno.raw_os_error(), &[][..]),
    };
    let length = size_of::<OutHeader>() + body.len();
    let header = OutHeader {
        len: u32::try_from(length).unwrap_or(u32::MAX),
        error,
        unique,
    };
    let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(body)];
    if let Err(error) = rustix::io::writev(device, &parts)
        && error != Errno::NOENT
        && error != Errno::NODEV
    {
        let error = io::Error::from(error);
        error!(%error, unique, length, "an answer to the kernel was refused");
    }
}

#[cfg(test)]
mod tests;
