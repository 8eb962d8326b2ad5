//! Commands of the NVM command set.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::check_flags;
use crate::Status;
use crate::opcode::io;
use crate::wire::{DataPointer, Sqe};

/// Consecutive blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// The first one.
    pub start: u64,
    /// How many: 1 to 65536.
    pub count: u32,
}

/// A command of the NVM command set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoCommand {
    /// Read.
    Read {
        /// Namespace.
        nsid: u32,
        /// Where.
        blocks: Blocks,
        /// From the medium.
        fua: bool,
    },
    /// Write.
    Write {
        /// Namespace.
        nsid: u32,
        /// Where.
        blocks: Blocks,
        /// To the medium before it completes.
        fua: bool,
    },
    /// Compare.
    Compare {
        /// Namespace.
        nsid: u32,
        /// Where.
        blocks: Blocks,
    },
    /// Write Zeroes.
    WriteZeroes {
        /// Namespace.
        nsid: u32,
        /// Where.
        blocks: Blocks,
        /// To the medium before it completes.
        fua: bool,
        /// The space may be given back.
        deallocate: bool,
    },
    /// Flush.
    Flush {
        /// Namespace, or [`super::NSID_ALL`].
        nsid: u32,
    },
    /// Dataset Management.
    DatasetManagement {
        /// Namespace.
        nsid: u32,
        /// Ranges in the data: 1 to 256.
        ranges: u16,
        /// The ranges' contents are not needed any more. Without it the command is but a hint.
        deallocate: bool,
    },
}

const FUA: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
/// Protection information, which exists only with metadata, and directives of Write.
const UNSUPPORTED: u32 = 0xf << 26 | 0xf << 20;
const DSM_DEALLOCATE: u32 = 1 << 2;

impl IoCommand {
    /// Reads a submission queue entry of an I/O queue, other than fabrics commands.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        check_flags(sqe)?;
        let nsid = sqe.nsid.get();
        let cdw12 = sqe.cdw12.get();
        let fua = cdw12 & FUA != 0;
        let blocks = || {
            if cdw12 & UNSUPPORTED != 0 {
                return Err(Status::INVALID_FIELD.dnr());
            }
            Ok(Blocks {
                start: sqe.cdw10_11(),
                count: u32::from(sqe.cdw12_low()) + 1,
            })
        };
        match sqe.opcode {
            io::READ => Ok(Self::Read {
                nsid,
                blocks: blocks()?,
                fua,
            }),
            io::WRITE => Ok(Self::Write {
                nsid,
                blocks: blocks()?,
                fua,
            }),
            io::COMPARE => Ok(Self::Compare {
                nsid,
                blocks: blocks()?,
            }),
            io::WRITE_ZEROES => Ok(Self::WriteZeroes {
                nsid,
                blocks: blocks()?,
                fua,
                deallocate: cdw12 & DEALLOCATE != 0,
            }),
            io::FLUSH => Ok(Self::Flush { nsid }),
            io::DATASET_MANAGEMENT => {
                let [ranges, ..] = sqe.cdw10.to_bytes();
                Ok(Self::DatasetManagement {
                    nsid,
                    ranges: u16::from(ranges) + 1,
                    deallocate: sqe.cdw11.get() & DSM_DEALLOCATE != 0,
                })
            }
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// Writes a submission queue entry. The data pointer is that of no data: set it for commands with data.
    #[must_use]
    pub fn encode(&self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(0, cid, 0);
        sqe.dptr = DataPointer::Transport { length: 0 }.encode();
        let fua_bit = |fua: bool| if fua { FUA } else { 0 };
        let (opcode, nsid, blocks, flags) = match *self {
            Self::Read { nsid, blocks, fua } => (io::READ, nsid, Some(blocks), fua_bit(fua)),
            Self::Write { nsid, blocks, fua } => (io::WRITE, nsid, Some(blocks), fua_bit(fua)),
            Self::Compare { nsid, blocks } => (io::COMPARE, nsid, Some(blocks), 0),
            Self::WriteZeroes {
                nsid,
                blocks,
                fua,
                deallocate,
            } => {
                let deallocate = if deallocate { DEALLOCATE } else { 0 };
                (
                    io::WRITE_ZEROES,
                    nsid,
                    Some(blocks),
                    fua_bit(fua) | deallocate,
                )
            }
            Self::Flush { nsid } => (io::FLUSH, nsid, None, 0),
            Self::DatasetManagement {
                nsid,
                ranges,
                deallocate,
            } => {
                sqe.cdw10 = U32::new(u32::from(ranges.clamp(1, 256)) - 1);
                sqe.cdw11 = U32::new(if deallocate { DSM_DEALLOCATE } else { 0 });
                (io::DATASET_MANAGEMENT, nsid, None, 0)
            }
        };
        sqe.opcode = opcode;
        sqe.nsid = U32::new(nsid);
        if let Some(blocks) = blocks {
            sqe.set_cdw10_11(blocks.start);
            sqe.cdw12 = U32::new(flags | (blocks.count.clamp(1, 65536) - 1));
        }
        sqe
    }
}

/// A range of Dataset Management.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct DsmRange {
    /// Hints.
    pub attributes: U32,
    /// Blocks.
    pub count: U32,
    /// First block.
    pub start: U64,
}

/// Bytes of a range of Dataset Management.
pub const DSM_RANGE_BYTES: u32 = 16;

const _: () = assert!(size_of::<DsmRange>() == 16);

impl DsmRange {
    /// A range without hints.
    #[must_use]
    pub fn new(start: u64, count: u32) -> Self {
        Self {
            attributes: U32::ZERO,
            count: U32::new(count),
            start: U64::new(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::NSID_ALL;

    #[test]
    fn io_commands_round_trip() {
        let blocks = Blocks {
            start: 0x1_2345_6789,
            count: 65536,
        };
        for command in [
            IoCommand::Read {
                nsid: 1,
                blocks,
                fua: true,
            },
            IoCommand::Write {
                nsid: 2,
                blocks,
                fua: false,
            },
            IoCommand::Write {
                nsid: 2,
                blocks: Blocks { start: 0, count: 1 },
                fua: true,
            },
            IoCommand::Compare { nsid: 1, blocks },
            IoCommand::WriteZeroes {
                nsid: 1,
                blocks,
                fua: true,
                deallocate: true,
            },
            IoCommand::Flush { nsid: NSID_ALL },
            IoCommand::DatasetManagement {
                nsid: 1,
                ranges: 256,
                deallocate: true,
            },
        ] {
            assert_eq!(IoCommand::parse(&command.encode(5)), Ok(command));
        }
        let sqe = IoCommand::Write {
            nsid: 1,
            blocks: Blocks { start: 8, count: 8 },
            fua: true,
        }
        .encode(0);
        assert_eq!(
            sqe.as_bytes()[40..52],
            [8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0x40]
        );
    }

    #[test]
    fn refusals() {
        let read = IoCommand::Read {
            nsid: 1,
            blocks: Blocks { start: 0, count: 1 },
            fua: false,
        };
        let mut sqe = read.encode(0);
        for flags in [0, 0x41, 0x42, 0x80, 0xc0] {
            sqe.flags = flags;
            assert_eq!(
                IoCommand::parse(&sqe),
                Err(Status::INVALID_FIELD.dnr()),
                "{flags:#x}"
            );
        }
        let mut sqe = read.encode(0);
        sqe.cdw12 = U32::new(1 << 29);
        assert_eq!(IoCommand::parse(&sqe), Err(Status::INVALID_FIELD.dnr()));
        sqe.opcode = 0x7e;
        assert_eq!(IoCommand::parse(&sqe), Err(Status::INVALID_OPCODE.dnr()));
    }
}
