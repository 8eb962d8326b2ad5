//! Commands of the NVM command set.

use zerocopy::little_endian::U32;

use super::ReservationCommand;
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
        /// With what is on the medium.
        fua: bool,
    },
    /// Verify.
    Verify {
        /// Namespace.
        nsid: u32,
        /// Where.
        blocks: Blocks,
        /// What is on the medium.
        fua: bool,
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
        /// The whole namespace, whatever `blocks` says; only with `deallocate`.
        all: bool,
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
    /// Copy.
    Copy {
        /// Namespace.
        nsid: u32,
        /// First block of the destination.
        start: u64,
        /// Source ranges in the data: 1 to 256.
        ranges: u16,
        /// Format of the source ranges.
        format: u8,
        /// To the medium before it completes.
        fua: bool,
    },
    /// A reservation command.
    Reservation {
        /// Namespace.
        nsid: u32,
        /// Which.
        command: ReservationCommand,
    },
}

const FUA: u32 = 1 << 30;
const DEALLOCATE: u32 = 1 << 25;
const WHOLE_NAMESPACE: u32 = 1 << 23;
/// Protection information, which exists only with metadata, and directives of Write.
const UNSUPPORTED: u32 = 0xf << 26 | 0xf << 20;
/// Protection information of a Copy's source.
const COPY_UNSUPPORTED: u32 = UNSUPPORTED | 0xf << 12;
const DSM_DEALLOCATE: u32 = 1 << 2;

/// Fused are Compare with Write, in this order.
fn check_flags(sqe: &Sqe) -> Result<(), Status> {
    let fuse = sqe.flags & Sqe::FLAGS_FUSE_MASK;
    let may_be_fused = match sqe.opcode {
        io::COMPARE => fuse == Sqe::FLAGS_FUSE_FIRST,
        io::WRITE => fuse == Sqe::FLAGS_FUSE_SECOND,
        _ => false,
    };
    let is_sgl = sqe.flags & Sqe::FLAGS_PSDT_MASK == Sqe::FLAGS_SGL;
    if is_sgl && (fuse == 0 || may_be_fused) {
        Ok(())
    } else {
        Err(Status::INVALID_FIELD.dnr())
    }
}

fn blocks(sqe: &Sqe, unsupported: u32) -> Result<Blocks, Status> {
    if sqe.cdw12.get() & unsupported != 0 {
        return Err(Status::INVALID_FIELD.dnr());
    }
    Ok(Blocks {
        start: sqe.cdw10_11(),
        count: u32::from(sqe.cdw12_low()) + 1,
    })
}

impl IoCommand {
    /// Reads a submission queue entry of an I/O queue, other than fabrics commands. Limited Retry is ignored.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        check_flags(sqe)?;
        let nsid = sqe.nsid.get();
        let cdw12 = sqe.cdw12.get();
        let fua = cdw12 & FUA != 0;
        match sqe.opcode {
            io::READ => Ok(Self::Read {
                nsid,
                blocks: blocks(sqe, UNSUPPORTED)?,
                fua,
            }),
            io::WRITE => Ok(Self::Write {
                nsid,
                blocks: blocks(sqe, UNSUPPORTED)?,
                fua,
            }),
            io::COMPARE => Ok(Self::Compare {
                nsid,
                blocks: blocks(sqe, UNSUPPORTED)?,
                fua,
            }),
            io::VERIFY => Ok(Self::Verify {
                nsid,
                blocks: blocks(sqe, UNSUPPORTED)?,
                fua,
            }),
            io::WRITE_ZEROES => {
                let (deallocate, all) = (cdw12 & DEALLOCATE != 0, cdw12 & WHOLE_NAMESPACE != 0);
                if all && !deallocate {
                    return Err(Status::INVALID_FIELD.dnr());
                }
                Ok(Self::WriteZeroes {
                    nsid,
                    blocks: blocks(sqe, UNSUPPORTED & !WHOLE_NAMESPACE)?,
                    fua,
                    deallocate,
                    all,
                })
            }
            io::FLUSH => Ok(Self::Flush { nsid }),
            io::DATASET_MANAGEMENT => {
                let [ranges, ..] = sqe.cdw10.to_bytes();
                Ok(Self::DatasetManagement {
                    nsid,
                    ranges: u16::from(ranges) + 1,
                    deallocate: sqe.cdw11.get() & DSM_DEALLOCATE != 0,
                })
            }
            io::COPY => {
                let start = blocks(sqe, COPY_UNSUPPORTED)?.start;
                let [ranges, format, ..] = sqe.cdw12.to_bytes();
                Ok(Self::Copy {
                    nsid,
                    start,
                    ranges: u16::from(ranges) + 1,
                    format: format & 0xf,
                    fua,
                })
            }
            _ => {
                let command = ReservationCommand::parse(sqe)?;
                Ok(Self::Reservation { nsid, command })
            }
        }
    }

    /// Writes a submission queue entry. The data pointer is that of no data: set it for commands with data.
    #[must_use]
    pub fn encode(&self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(0, cid, 0);
        sqe.dptr = DataPointer::Transport { length: 0 }.encode();
        let bit = |is_set: bool, bit: u32| if is_set { bit } else { 0 };
        let (opcode, nsid, blocks, flags) = match *self {
            Self::Read { nsid, blocks, fua } => (io::READ, nsid, Some(blocks), bit(fua, FUA)),
            Self::Write { nsid, blocks, fua } => (io::WRITE, nsid, Some(blocks), bit(fua, FUA)),
            Self::Compare { nsid, blocks, fua } => (io::COMPARE, nsid, Some(blocks), bit(fua, FUA)),
            Self::Verify { nsid, blocks, fua } => (io::VERIFY, nsid, Some(blocks), bit(fua, FUA)),
            Self::WriteZeroes {
                nsid,
                blocks,
                fua,
                deallocate,
                all,
            } => {
                let flags = bit(fua, FUA) | bit(deallocate, DEALLOCATE) | bit(all, WHOLE_NAMESPACE);
                (io::WRITE_ZEROES, nsid, Some(blocks), flags)
            }
            Self::Flush { nsid } => (io::FLUSH, nsid, None, 0),
            Self::DatasetManagement {
                nsid,
                ranges,
                deallocate,
            } => {
                sqe.cdw10 = U32::new(u32::from(ranges.clamp(1, 256)) - 1);
                sqe.cdw11 = U32::new(bit(deallocate, DSM_DEALLOCATE));
                (io::DATASET_MANAGEMENT, nsid, None, 0)
            }
            Self::Copy {
                nsid,
                start,
                ranges,
                format,
                fua,
            } => {
                let count = u32::from(ranges.clamp(1, 256));
                let flags = bit(fua, FUA) | u32::from(format & 0xf) << 8;
                (io::COPY, nsid, Some(Blocks { start, count }), flags)
            }
            Self::Reservation { nsid, command } => {
                command.encode(&mut sqe);
                (sqe.opcode, nsid, None, 0)
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

#[cfg(test)]
mod tests {
    use zerocopy::IntoBytes;

    use super::*;
    use crate::command::{AcquireAction, NSID_ALL, RegisterAction, ReleaseAction};
    use crate::reservation::ReservationType;

    const BLOCKS: Blocks = Blocks {
        start: 0x1_2345_6789,
        count: 65536,
    };

    fn block_commands() -> Vec<IoCommand> {
        let (nsid, blocks, fua) = (1, BLOCKS, true);
        let zeroes = |fua, deallocate, all| IoCommand::WriteZeroes {
            nsid,
            blocks,
            fua,
            deallocate,
            all,
        };
        vec![
            IoCommand::Read { nsid, blocks, fua },
            IoCommand::Write {
                nsid: 2,
                blocks: Blocks { start: 0, count: 1 },
                fua,
            },
            IoCommand::Write {
                nsid,
                blocks,
                fua: false,
            },
            IoCommand::Compare { nsid, blocks, fua },
            IoCommand::Verify { nsid, blocks, fua },
            zeroes(true, true, false),
            zeroes(false, false, false),
            zeroes(false, true, true),
            IoCommand::Flush { nsid: NSID_ALL },
            IoCommand::DatasetManagement {
                nsid,
                ranges: 256,
                deallocate: true,
            },
            IoCommand::Copy {
                nsid,
                start: u64::MAX,
                ranges: 256,
                format: 3,
                fua,
            },
        ]
    }

    fn reservation_commands() -> Vec<ReservationCommand> {
        let mut commands = vec![
            ReservationCommand::Release {
                action: ReleaseAction::Clear,
            },
            ReservationCommand::Report {
                length: 4,
                extended: false,
            },
            ReservationCommand::Report {
                length: 1 << 34,
                extended: true,
            },
        ];
        for action in [
            RegisterAction::Register,
            RegisterAction::Unregister,
            RegisterAction::Replace,
        ] {
            for persist in [None, Some(false), Some(true)] {
                commands.push(ReservationCommand::Register {
                    action,
                    ignore_key: persist.is_none(),
                    persist,
                });
            }
        }
        for kind in ReservationType::ALL {
            let action = ReleaseAction::Release(kind);
            commands.push(ReservationCommand::Release { action });
            for action in [
                AcquireAction::Acquire,
                AcquireAction::Preempt,
                AcquireAction::PreemptAndAbort,
            ] {
                commands.push(ReservationCommand::Acquire { action, kind });
            }
        }
        commands
    }

    #[test]
    fn io_commands_round_trip() {
        let reservations = reservation_commands()
            .into_iter()
            .map(|command| IoCommand::Reservation { nsid: 7, command });
        for command in block_commands().into_iter().chain(reservations) {
            assert_eq!(IoCommand::parse(&command.encode(5)), Ok(command));
        }
    }

    #[test]
    fn golden_bytes() {
        let dwords = |command: IoCommand| command.encode(0).as_bytes()[40..52].to_vec();
        let write = IoCommand::Write {
            nsid: 1,
            blocks: Blocks { start: 8, count: 8 },
            fua: true,
        };
        assert_eq!(dwords(write), [8, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0x40]);
        let copy = IoCommand::Copy {
            nsid: 1,
            start: 8,
            ranges: 3,
            format: 2,
            fua: false,
        };
        assert_eq!(dwords(copy), [8, 0, 0, 0, 0, 0, 0, 0, 2, 2, 0, 0]);
        let acquire = ReservationCommand::Acquire {
            action: AcquireAction::PreemptAndAbort,
            kind: ReservationType::ExclusiveAccessAll,
        };
        let acquire = IoCommand::Reservation {
            nsid: 1,
            command: acquire,
        };
        assert_eq!(dwords(acquire)[..4], [2, 6, 0, 0]);
        let register = ReservationCommand::Register {
            action: RegisterAction::Replace,
            ignore_key: true,
            persist: Some(true),
        };
        let register = IoCommand::Reservation {
            nsid: 1,
            command: register,
        };
        assert_eq!(dwords(register)[..4], [0x0a, 0, 0, 0xc0]);
    }

    #[test]
    fn flags_that_are_refused() {
        for command in block_commands() {
            let mut sqe = command.encode(0);
            for flags in 0..=u8::MAX {
                sqe.flags = flags;
                let fuse = match command {
                    IoCommand::Compare { .. } => flags & 3 < 2,
                    IoCommand::Write { .. } => matches!(flags & 3, 0 | 2),
                    _ => flags & 3 == 0,
                };
                let is_good = fuse && flags & 0xc0 == 0x40;
                let expected = if is_good {
                    Ok(command)
                } else {
                    Err(Status::INVALID_FIELD.dnr())
                };
                assert_eq!(IoCommand::parse(&sqe), expected, "{command:?} {flags:#x}");
            }
        }
    }

    #[test]
    fn fields_that_are_refused() {
        let invalid = Err(Status::INVALID_FIELD.dnr());
        let mut sqe = block_commands()[0].encode(0);
        // Limited Retry is left to the controller.
        sqe.cdw12 = U32::new(sqe.cdw12.get() | 1 << 31);
        assert_eq!(IoCommand::parse(&sqe), Ok(block_commands()[0]));
        sqe.cdw12 = U32::new(1 << 29);
        assert_eq!(IoCommand::parse(&sqe), invalid);
        sqe.opcode = io::WRITE_ZEROES;
        sqe.cdw12 = U32::new(1 << 23);
        assert_eq!(IoCommand::parse(&sqe), invalid, "all without deallocate");
        sqe.opcode = io::COPY;
        sqe.cdw12 = U32::new(1 << 12);
        assert_eq!(IoCommand::parse(&sqe), invalid);
        sqe.opcode = 0x7e;
        assert_eq!(IoCommand::parse(&sqe), Err(Status::INVALID_OPCODE.dnr()));
        for (opcode, cdw10) in [
            (io::RESERVATION_REGISTER, 3),
            (io::RESERVATION_REGISTER, 1 << 30),
            (io::RESERVATION_ACQUIRE, 0x103),
            (io::RESERVATION_ACQUIRE, 0x108),
            (io::RESERVATION_ACQUIRE, 0),
            (io::RESERVATION_ACQUIRE, 0x700),
            (io::RESERVATION_RELEASE, 0x102),
            (io::RESERVATION_RELEASE, 0x108),
            (io::RESERVATION_RELEASE, 0),
        ] {
            sqe.opcode = opcode;
            sqe.cdw10 = U32::new(cdw10);
            assert_eq!(IoCommand::parse(&sqe), invalid, "{opcode:#x} {cdw10:#x}");
        }
    }
}
