//! The NBD protocol's transmission phase (linux/nbd.h and the protocol's own document): requests and replies, and what
//! they mean to a volume. Numbers are big-endian.

use roadstead_initiator::Op;
use rustix::io::Errno;
use zerocopy::byteorder::big_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::served::Shape;

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

mod flag {
    pub(super) const HAS_FLAGS: u64 = 1 << 0;
    pub(super) const READ_ONLY: u64 = 1 << 1;
    pub(super) const SEND_FLUSH: u64 = 1 << 2;
    pub(super) const SEND_FUA: u64 = 1 << 3;
    pub(super) const SEND_TRIM: u64 = 1 << 5;
    pub(super) const SEND_WRITE_ZEROES: u64 = 1 << 6;
}

mod command {
    pub(super) const READ: u16 = 0;
    pub(super) const WRITE: u16 = 1;
    pub(super) const DISCONNECT: u16 = 2;
    pub(super) const FLUSH: u16 = 3;
    pub(super) const TRIM: u16 = 4;
    pub(super) const WRITE_ZEROES: u16 = 6;
    pub(super) const FLAG_FUA: u16 = 1 << 0;
    pub(super) const FLAG_NO_HOLE: u16 = 1 << 1;
}

/// What the device can do, for the kernel.
pub(super) fn server_flags(shape: &Shape) -> u64 {
    let mut flags = flag::HAS_FLAGS | flag::SEND_FLUSH | flag::SEND_FUA;
    if shape.read_only {
        flags |= flag::READ_ONLY;
    } else if shape.zeroes {
        flags |= flag::SEND_TRIM | flag::SEND_WRITE_ZEROES;
    }
    flags
}

/// A request; a write's data follows.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct Request {
    magic: U32,
    flags: U16,
    command: U16,
    /// The kernel's name for it, repeated in the reply.
    pub(super) cookie: [u8; 8],
    offset: U64,
    length: U32,
}

/// A reply; a read's data follows a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, KnownLayout, IntoBytes)]
#[repr(C)]
pub(super) struct Reply {
    magic: U32,
    error: U32,
    cookie: [u8; 8],
}

const _: () = assert!(size_of::<Request>() == 28);
const _: () = assert!(size_of::<Reply>() == 16);

impl Reply {
    pub(super) fn new(cookie: [u8; 8], result: Result<(), Errno>) -> Self {
        Self {
            magic: REPLY_MAGIC.into(),
            error: result.err().map_or(0, error_number).into(),
            cookie,
        }
    }
}

/// The protocol has numbers of its own for a few errors; they are those of Linux.
fn error_number(errno: Errno) -> u32 {
    let known = [
        Errno::PERM,
        Errno::NOMEM,
        Errno::INVAL,
        Errno::NOSPC,
        Errno::OPNOTSUPP,
    ];
    let errno = match errno {
        Errno::ROFS => Errno::PERM,
        errno if known.contains(&errno) => errno,
        _ => Errno::IO,
    };
    errno.raw_os_error().unsigned_abs()
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Something of the volume.
    Io { op: Op, lba: u64, blocks: u32 },
    /// Nothing that can be done; this is the answer.
    Refused(Errno),
    /// The end of the connection.
    Disconnect,
}

impl Request {
    /// Whether the other side speaks this protocol.
    pub(super) fn is_valid(&self) -> bool {
        self.magic.get() == REQUEST_MAGIC
    }

    /// Bytes of data that follow it.
    pub(super) fn data_in_bytes(&self) -> u32 {
        if self.command.get() == command::WRITE {
            self.length.get()
        } else {
            0
        }
    }

    /// Bytes of data that follow the reply to a success.
    pub(super) fn data_out_bytes(&self) -> u32 {
        if self.command.get() == command::READ {
            self.length.get()
        } else {
            0
        }
    }

    /// In blocks of the volume.
    pub(super) fn asked(&self, block_bytes: u32) -> Asked {
        let has = |flag: u16| self.flags.get() & flag != 0;
        let op = match self.command.get() {
            command::READ => Op::Read,
            command::WRITE => Op::Write {
                durable: has(command::FLAG_FUA),
            },
            command::DISCONNECT => return Asked::Disconnect,
            command::FLUSH => {
                return Asked::Io {
                    op: Op::Flush,
                    lba: 0,
                    blocks: 0,
                };
            }
            command::TRIM => Op::WriteZeroes { deallocate: true },
            command::WRITE_ZEROES => Op::WriteZeroes {
                deallocate: !has(command::FLAG_NO_HOLE),
            },
            _ => return Asked::Refused(Errno::INVAL),
        };
        let (offset, length) = (self.offset.get(), self.length.get());
        let block = u64::from(block_bytes);
        if length == 0
            || block_bytes == 0
            || !offset.is_multiple_of(block)
            || !length.is_multiple_of(block_bytes)
        {
            return Asked::Refused(Errno::INVAL);
        }
        Asked::Io {
            op,
            lba: offset / block,
            blocks: length / block_bytes,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn request(
        command: u16,
        flags: u16,
        cookie: u64,
        offset: u64,
        length: u32,
    ) -> Request {
        Request {
            magic: REQUEST_MAGIC.into(),
            flags: flags.into(),
            command: command.into(),
            cookie: cookie.to_be_bytes(),
            offset: offset.into(),
            length: length.into(),
        }
    }

    #[test]
    fn on_the_wire() {
        let bytes = [
            0x25, 0x60, 0x95, 0x13, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0x20, 0,
            0, 0, 0x10, 0,
        ];
        let read = Request::read_from_bytes(&bytes).unwrap();
        assert!(read.is_valid());
        assert_eq!(read.data_in_bytes(), 4096);
        let op = Op::Write { durable: true };
        let wanted = Asked::Io {
            op,
            lba: 2,
            blocks: 1,
        };
        assert_eq!(read.asked(4096), wanted);
        let reply = Reply::new(read.cookie, Err(Errno::IO));
        let wanted = [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8];
        assert_eq!(reply.as_bytes(), wanted);
    }

    #[test]
    fn requests() {
        let io = |op, lba, blocks| Asked::Io { op, lba, blocks };
        let zeroes = |deallocate| Op::WriteZeroes { deallocate };
        let refused = Asked::Refused(Errno::INVAL);
        let plain = Op::Write { durable: false };
        let table = [
            ((0, 0, 512, 1024), io(Op::Read, 1, 2)),
            ((1, 0, 0, 512), io(plain, 0, 1)),
            ((2, 0, 0, 0), Asked::Disconnect),
            ((3, 0, 0, 0), io(Op::Flush, 0, 0)),
            ((4, 0, 0, 512), io(zeroes(true), 0, 1)),
            ((6, 0, 0, 512), io(zeroes(true), 0, 1)),
            ((6, 2, 0, 512), io(zeroes(false), 0, 1)),
            (
                (4, 0, 0, u32::MAX - 511),
                io(zeroes(true), 0, u32::MAX / 512),
            ),
            ((5, 0, 0, 512), refused),
            ((0, 0, 1, 512), refused),
            ((0, 0, 0, 511), refused),
            ((0, 0, 0, 0), refused),
        ];
        for ((command, flags, offset, length), wanted) in table {
            let request = request(command, flags, 1, offset, length);
            assert_eq!(request.asked(512), wanted, "{request:?}");
        }
    }

    #[test]
    fn errors() {
        for (errno, wanted) in [
            (Errno::IO, 5),
            (Errno::ROFS, 1),
            (Errno::NOSPC, 28),
            (Errno::OPNOTSUPP, 95),
            (Errno::BADF, 5),
        ] {
            assert_eq!(Reply::new([0; 8], Err(errno)).error.get(), wanted);
        }
        assert_eq!(Reply::new([0; 8], Ok(())).error.get(), 0);
    }

    #[test]
    fn flags() {
        let shape = |read_only, zeroes| Shape {
            size_bytes: 0,
            block_bytes: 512,
            read_only,
            zeroes,
        };
        for ((read_only, zeroes), wanted) in [
            ((false, true), 0b110_1101),
            ((false, false), 0b1101),
            ((true, true), 0b1111),
        ] {
            assert_eq!(server_flags(&shape(read_only, zeroes)), wanted);
        }
    }
}
