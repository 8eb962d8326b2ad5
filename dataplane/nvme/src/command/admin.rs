//! Admin commands.

use zerocopy::little_endian::U32;

use super::{HOST_IDENTIFIER_BYTES, check_flags};
use crate::feature::Select;
use crate::opcode::admin;
use crate::wire::{DataPointer, Sqe, dword};
use crate::{Status, identify};

/// An admin command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminCommand {
    /// Identify.
    Identify {
        /// What: see [`identify::cns`].
        cns: u8,
        /// Which controller, for some.
        cntlid: u16,
        /// Which namespace, for some.
        nsid: u32,
        /// Which command set, for some; 0 is NVM.
        command_set: u8,
    },
    /// Get Log Page.
    GetLogPage(GetLogPage),
    /// Get Features.
    GetFeatures {
        /// Which one: see [`crate::feature::id`].
        id: u8,
        /// Which value.
        select: Select,
        /// Namespace.
        nsid: u32,
        /// Command dword 11.
        value: u32,
    },
    /// Set Features.
    SetFeatures {
        /// Which one.
        id: u8,
        /// Keep it over resets.
        save: bool,
        /// Namespace.
        nsid: u32,
        /// Command dword 11.
        value: u32,
    },
    /// Asynchronous Event Request.
    AsyncEventRequest,
    /// Keep Alive.
    KeepAlive,
    /// Abort.
    Abort {
        /// Queue of the command.
        qid: u16,
        /// The command.
        cid: u16,
    },
    /// Cross-Controller Reset (base specification 2.3): ends another controller of the host in the same subsystem.
    CrossControllerReset {
        /// That controller.
        cntlid: u16,
        /// Its instance, as Identify told: [`crate::identify::IdentifyController::instance`].
        instance: u8,
        /// Its random number, as Identify told.
        instance_random: u64,
    },
}

/// Get Log Page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GetLogPage {
    /// Which one: see [`crate::log::id`].
    pub id: u8,
    /// Log specific parameter.
    pub parameter: u8,
    /// Reading does not clear the event.
    pub retain_event: bool,
    /// Bytes, a multiple of 4, at least 4.
    pub length: u64,
    /// Bytes from the start, a multiple of 4.
    pub offset: u64,
    /// Namespace; 0 and [`super::NSID_ALL`] for the controller.
    pub nsid: u32,
}

impl AdminCommand {
    /// Reads a submission queue entry of the admin queue, other than fabrics commands.
    ///
    /// # Errors
    /// The status to complete the command with.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        check_flags(sqe)?;
        let nsid = sqe.nsid.get();
        let [low, second, _, high] = sqe.cdw10.to_bytes();
        match sqe.opcode {
            admin::IDENTIFY => {
                let [.., command_set] = sqe.cdw11.to_bytes();
                Ok(Self::Identify {
                    cns: low,
                    cntlid: sqe.cdw10_high(),
                    nsid,
                    command_set,
                })
            }
            admin::GET_LOG_PAGE => GetLogPage::parse(sqe).map(Self::GetLogPage),
            admin::GET_FEATURES => {
                let select = match second & 7 {
                    0 => Select::Current,
                    1 => Select::Default,
                    2 => Select::Saved,
                    3 => Select::Capabilities,
                    _ => return Err(Status::INVALID_FIELD.dnr()),
                };
                Ok(Self::GetFeatures {
                    id: low,
                    select,
                    nsid,
                    value: sqe.cdw11.get(),
                })
            }
            admin::SET_FEATURES => Ok(Self::SetFeatures {
                id: low,
                save: high & 0x80 != 0,
                nsid,
                value: sqe.cdw11.get(),
            }),
            admin::ASYNC_EVENT => Ok(Self::AsyncEventRequest),
            admin::KEEP_ALIVE => Ok(Self::KeepAlive),
            admin::ABORT => Ok(Self::Abort {
                qid: sqe.cdw10_low(),
                cid: sqe.cdw10_high(),
            }),
            admin::CROSS_CONTROLLER_RESET => {
                let [_, _, instance, _] = sqe.cdw10.to_bytes();
                Ok(Self::CrossControllerReset {
                    cntlid: sqe.cdw10_low(),
                    instance,
                    instance_random: u64::from(sqe.cdw13.get()) << 32 | u64::from(sqe.cdw12.get()),
                })
            }
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// Writes a submission queue entry with the data pointer that the command needs; Set Features with data: set
    /// the pointer afterwards.
    #[must_use]
    pub fn encode(&self, cid: u16) -> Sqe {
        let mut sqe = Sqe::new(0, cid, 0);
        let mut length = 0;
        match *self {
            Self::Identify {
                cns,
                cntlid,
                nsid,
                command_set,
            } => {
                sqe.opcode = admin::IDENTIFY;
                sqe.nsid = U32::new(nsid);
                sqe.cdw10 = dword(u16::from(cns), cntlid);
                sqe.cdw11 = U32::new(u32::from(command_set) << 24);
                length = identify::IDENTIFY_BYTES;
            }
            Self::GetLogPage(page) => {
                sqe.opcode = admin::GET_LOG_PAGE;
                length = page.encode(&mut sqe);
            }
            Self::GetFeatures {
                id,
                select,
                nsid,
                value,
            } => {
                sqe.opcode = admin::GET_FEATURES;
                sqe.nsid = U32::new(nsid);
                let select: u16 = match select {
                    Select::Current => 0,
                    Select::Default => 1,
                    Select::Saved => 2,
                    Select::Capabilities => 3,
                };
                sqe.cdw10 = dword(u16::from(id) | select << 8, 0);
                sqe.cdw11 = U32::new(value);
                if id == crate::feature::id::HOST_IDENTIFIER {
                    length = HOST_IDENTIFIER_BYTES;
                }
            }
            Self::SetFeatures {
                id,
                save,
                nsid,
                value,
            } => {
                sqe.opcode = admin::SET_FEATURES;
                sqe.nsid = U32::new(nsid);
                sqe.cdw10 = dword(u16::from(id), u16::from(save) << 15);
                sqe.cdw11 = U32::new(value);
            }
            Self::AsyncEventRequest => sqe.opcode = admin::ASYNC_EVENT,
            Self::KeepAlive => sqe.opcode = admin::KEEP_ALIVE,
            Self::Abort { qid, cid } => {
                sqe.opcode = admin::ABORT;
                sqe.cdw10 = dword(qid, cid);
            }
            Self::CrossControllerReset {
                cntlid,
                instance,
                instance_random,
            } => {
                let [a, b, c, d, e, f, g, h] = instance_random.to_le_bytes();
                sqe.opcode = admin::CROSS_CONTROLLER_RESET;
                sqe.cdw10 = dword(cntlid, u16::from(instance));
                sqe.cdw12 = U32::from_bytes([a, b, c, d]);
                sqe.cdw13 = U32::from_bytes([e, f, g, h]);
            }
        }
        sqe.dptr = DataPointer::Transport { length }.encode();
        sqe
    }
}

impl GetLogPage {
    fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let [id, second, ..] = sqe.cdw10.to_bytes();
        let [uuid_index, _, type_and_index, _] = sqe.cdw14.to_bytes();
        let offset = u64::from(sqe.cdw13.get()) << 32 | u64::from(sqe.cdw12.get());
        let offset_is_index = type_and_index & 0x80 != 0;
        // No controller of this project has a list of UUIDs that an index could mean.
        if !offset.is_multiple_of(4) || offset_is_index || uuid_index & 0x7f != 0 {
            return Err(Status::INVALID_FIELD.dnr());
        }
        let dwords = u64::from(sqe.cdw11_low()) << 16 | u64::from(sqe.cdw10_high());
        Ok(Self {
            id,
            parameter: second & 0x7f,
            retain_event: second & 0x80 != 0,
            length: (dwords + 1) * 4,
            offset,
            nsid: sqe.nsid.get(),
        })
    }

    /// Fills all but opcode and data pointer; returns the bytes of data.
    fn encode(&self, sqe: &mut Sqe) -> u32 {
        let length = u32::try_from(self.length).unwrap_or(u32::MAX) & !3;
        // More than a data pointer can say, the field can.
        let dwords = u32::try_from((self.length / 4).saturating_sub(1)).unwrap_or(u32::MAX);
        let [a, b, c, d] = dwords.to_le_bytes();
        let retain = u8::from(self.retain_event) << 7;
        let parameter = u16::from_le_bytes([self.id, self.parameter & 0x7f | retain]);
        sqe.nsid = U32::new(self.nsid);
        sqe.cdw10 = dword(parameter, u16::from_le_bytes([a, b]));
        sqe.cdw11 = dword(u16::from_le_bytes([c, d]), 0);
        let [a, b, c, d, e, f, g, h] = self.offset.to_le_bytes();
        sqe.cdw12 = U32::from_bytes([a, b, c, d]);
        sqe.cdw13 = U32::from_bytes([e, f, g, h]);
        length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::NSID_ALL;

    #[test]
    fn admin_commands_round_trip() {
        let log = GetLogPage {
            id: 0x70,
            parameter: 3,
            retain_event: true,
            length: 0x0012_3454,
            offset: 0x1_0000_0400,
            nsid: NSID_ALL,
        };
        for command in [
            AdminCommand::Identify {
                cns: 3,
                cntlid: 9,
                nsid: 7,
                command_set: 2,
            },
            AdminCommand::GetLogPage(log),
            AdminCommand::GetLogPage(GetLogPage {
                length: 1 << 34,
                ..log
            }),
            AdminCommand::GetFeatures {
                id: 7,
                select: Select::Capabilities,
                nsid: 1,
                value: 5,
            },
            AdminCommand::SetFeatures {
                id: 0x0b,
                save: true,
                nsid: 0,
                value: 0x8000_0100,
            },
            AdminCommand::AsyncEventRequest,
            AdminCommand::KeepAlive,
            AdminCommand::Abort { qid: 1, cid: 2 },
            AdminCommand::CrossControllerReset {
                cntlid: 0x0102,
                instance: 3,
                instance_random: 0x0405_0607_0809_0a0b,
            },
        ] {
            assert_eq!(AdminCommand::parse(&command.encode(5)), Ok(command));
        }
        let sqe = AdminCommand::GetLogPage(log).encode(5);
        assert_eq!(DataPointer::parse(&sqe.dptr).unwrap().length(), 0x0012_3454);
    }

    #[test]
    fn refusals() {
        let mut sqe = AdminCommand::KeepAlive.encode(0);
        for flags in [0, 0x41, 0x42, 0x80, 0xc0] {
            sqe.flags = flags;
            assert_eq!(
                AdminCommand::parse(&sqe),
                Err(Status::INVALID_FIELD.dnr()),
                "{flags:#x}"
            );
        }
        sqe.flags = Sqe::FLAGS_SGL;
        sqe.opcode = 0x7e;
        assert_eq!(AdminCommand::parse(&sqe), Err(Status::INVALID_OPCODE.dnr()));
        sqe.opcode = admin::GET_LOG_PAGE;
        sqe.cdw12 = U32::new(2);
        assert_eq!(AdminCommand::parse(&sqe), Err(Status::INVALID_FIELD.dnr()));
        sqe.cdw12 = U32::new(0);
        for cdw14 in [1, 0x80_0000] {
            sqe.cdw14 = U32::new(cdw14);
            assert_eq!(AdminCommand::parse(&sqe), Err(Status::INVALID_FIELD.dnr()));
        }
        sqe.opcode = admin::GET_FEATURES;
        sqe.cdw10 = U32::new(0x407);
        assert_eq!(AdminCommand::parse(&sqe), Err(Status::INVALID_FIELD.dnr()));
    }
}
