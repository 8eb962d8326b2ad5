//! Fabrics commands (section 6).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::Status;
use crate::nqn::{NQN_FIELD_BYTES, Nqn};
use crate::opcode;
use crate::wire::{DataPointer, Sqe, dword};

/// Controller identifier in Connect data: any controller, the target chooses.
pub const CNTLID_DYNAMIC: u16 = 0xffff;

/// The largest identifier of a controller.
pub const CNTLID_MAX: u16 = 0xffef;

/// Bytes of the data of Connect.
pub const CONNECT_DATA_BYTES: u32 = 1024;

/// Submission queue head pointer in completions when flow control is off.
pub const SQHD_NO_FLOW_CONTROL: u16 = 0xffff;

/// A fabrics command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FabricsCommand {
    /// Makes a connection a queue.
    Connect(Connect),
    /// Reads a property.
    PropertyGet {
        /// Which one.
        offset: u32,
        /// Eight bytes instead of four.
        wide: bool,
    },
    /// Writes a property.
    PropertySet {
        /// Which one.
        offset: u32,
        /// Eight bytes instead of four.
        wide: bool,
        /// The new value.
        value: u64,
    },
    /// Ends an I/O queue.
    Disconnect,
}

/// The Connect command without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// 0 for the admin queue.
    pub qid: u16,
    /// Entries of the queue, zero's based.
    pub sqsize: u16,
    /// Attributes; see the constants.
    pub attributes: u8,
    /// Keep alive time-out in ms; 0 for none.
    pub kato_ms: u32,
}

impl Connect {
    /// Attribute: no flow control of the submission queue.
    pub const NO_FLOW_CONTROL: u8 = 1 << 2;
    /// Offsets of fields, for [`InvalidParameter`].
    pub const OFFSET_QID: u16 = 42;
    /// Offset of the queue size.
    pub const OFFSET_SQSIZE: u16 = 44;
    /// Offset of the keep alive time-out.
    pub const OFFSET_KATO: u16 = 48;

    /// Whether submission queue heads are wanted.
    #[must_use]
    pub fn has_flow_control(&self) -> bool {
        self.attributes & Self::NO_FLOW_CONTROL == 0
    }
}

impl FabricsCommand {
    /// Reads a submission queue entry with [`opcode::FABRICS`].
    ///
    /// # Errors
    /// The status to complete the command with.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        if sqe.opcode != opcode::FABRICS {
            return Err(Status::INVALID_OPCODE.dnr());
        }
        crate::command::check_flags(sqe)?;
        let [kind, ..] = sqe.nsid.to_bytes();
        let [size, ..] = sqe.cdw10.to_bytes();
        let wide = || match size & 7 {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Status::INVALID_FIELD.dnr()),
        };
        match kind {
            opcode::fabrics::CONNECT => {
                if sqe.cdw10_low() != 0 {
                    return Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr());
                }
                let [_, _, attributes, _] = sqe.cdw11.to_bytes();
                Ok(Self::Connect(Connect {
                    qid: sqe.cdw10_high(),
                    sqsize: sqe.cdw11_low(),
                    attributes,
                    kato_ms: sqe.cdw12.get(),
                }))
            }
            opcode::fabrics::PROPERTY_GET => Ok(Self::PropertyGet {
                offset: sqe.cdw11.get(),
                wide: wide()?,
            }),
            opcode::fabrics::PROPERTY_SET => Ok(Self::PropertySet {
                offset: sqe.cdw11.get(),
                wide: wide()?,
                value: u64::from(sqe.cdw13.get()) << 32 | u64::from(sqe.cdw12.get()),
            }),
            opcode::fabrics::DISCONNECT => {
                if sqe.cdw10_low() != 0 {
                    return Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr());
                }
                Ok(Self::Disconnect)
            }
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// Writes a submission queue entry. Connect's data goes in the capsule.
    #[must_use]
    pub fn encode(&self, cid: u16) -> Sqe {
        let kind = match self {
            Self::Connect(_) => opcode::fabrics::CONNECT,
            Self::PropertyGet { .. } => opcode::fabrics::PROPERTY_GET,
            Self::PropertySet { .. } => opcode::fabrics::PROPERTY_SET,
            Self::Disconnect => opcode::fabrics::DISCONNECT,
        };
        let mut sqe = Sqe::new(opcode::FABRICS, cid, u32::from(kind));
        sqe.dptr = DataPointer::Transport { length: 0 }.encode();
        match *self {
            Self::Connect(connect) => {
                sqe.dptr = DataPointer::InCapsule {
                    offset: 0,
                    length: CONNECT_DATA_BYTES,
                }
                .encode();
                sqe.cdw10 = dword(0, connect.qid);
                sqe.cdw11 = dword(connect.sqsize, u16::from(connect.attributes));
                sqe.cdw12 = U32::new(connect.kato_ms);
            }
            Self::PropertyGet { offset, wide } => {
                sqe.cdw10 = U32::new(u32::from(wide));
                sqe.cdw11 = U32::new(offset);
            }
            Self::PropertySet {
                offset,
                wide,
                value,
            } => {
                sqe.cdw10 = U32::new(u32::from(wide));
                sqe.cdw11 = U32::new(offset);
                let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
                sqe.cdw12 = U32::from_bytes([a, b, c, d]);
                sqe.cdw13 = U32::from_bytes([e, f, g, h]);
            }
            Self::Disconnect => {}
        }
        sqe
    }
}

/// The data of Connect (section 6.3).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ConnectData {
    /// The host's UUID.
    pub host_id: [u8; 16],
    /// Controller identifier: [`CNTLID_DYNAMIC`] on the admin queue, the controller's on others.
    pub cntlid: U16,
    /// Zero.
    pub reserved1: [u8; 238],
    /// The subsystem's name.
    pub subsystem_nqn: [u8; NQN_FIELD_BYTES],
    /// The host's name.
    pub host_nqn: [u8; NQN_FIELD_BYTES],
    /// Zero.
    pub reserved2: [u8; 256],
}

const _: () = assert!(size_of::<ConnectData>() == 1024);

impl ConnectData {
    /// Offset of the host's UUID, for [`InvalidParameter`].
    pub const OFFSET_HOST_ID: u16 = 0;
    /// Offset of the controller identifier.
    pub const OFFSET_CNTLID: u16 = 16;
    /// Offset of the subsystem's name.
    pub const OFFSET_SUBSYSTEM_NQN: u16 = 256;
    /// Offset of the host's name.
    pub const OFFSET_HOST_NQN: u16 = 512;

    /// Data of a host that connects.
    #[must_use]
    pub fn new(host_id: [u8; 16], cntlid: u16, subsystem: &Nqn, host: &Nqn) -> Self {
        Self {
            host_id,
            cntlid: U16::new(cntlid),
            reserved1: [0; 238],
            subsystem_nqn: subsystem.to_field(),
            host_nqn: host.to_field(),
            reserved2: [0; 256],
        }
    }
}

/// The result of a Connect refused with [`Status::CONNECT_INVALID_PARAMETERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidParameter {
    /// Offset of the parameter.
    pub offset: u16,
    /// The offset is in the data, not in the command.
    pub in_data: bool,
}

impl InvalidParameter {
    /// As result of a completion.
    #[must_use]
    pub fn encode(self) -> u64 {
        u64::from(self.offset) | u64::from(self.in_data) << 16
    }

    /// From the result of a completion.
    #[must_use]
    pub fn parse(result: u64) -> Self {
        let [a, b, attributes, ..] = result.to_le_bytes();
        Self {
            offset: u16::from_le_bytes([a, b]),
            in_data: attributes & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_round_trip() {
        let connect = Connect {
            qid: 3,
            sqsize: 127,
            attributes: 4,
            kato_ms: 15_000,
        };
        for command in [
            FabricsCommand::Connect(connect),
            FabricsCommand::PropertyGet {
                offset: 0x1c,
                wide: false,
            },
            FabricsCommand::PropertyGet {
                offset: 0,
                wide: true,
            },
            FabricsCommand::PropertySet {
                offset: 0x14,
                wide: false,
                value: 0x0046_0001,
            },
            FabricsCommand::PropertySet {
                offset: 0,
                wide: true,
                value: u64::MAX - 5,
            },
            FabricsCommand::Disconnect,
        ] {
            let sqe = command.encode(77);
            assert_eq!(FabricsCommand::parse(&sqe), Ok(command));
            assert_eq!(sqe.cid.get(), 77);
        }
        assert!(!connect.has_flow_control());
        let sqe = FabricsCommand::Connect(connect).encode(1);
        assert_eq!(
            sqe.as_bytes()[40..52],
            [0, 0, 3, 0, 127, 0, 4, 0, 0x98, 0x3a, 0, 0]
        );
        assert_eq!(sqe.as_bytes()[4], 1);
    }

    #[test]
    fn refusals() {
        let connect = Connect {
            qid: 0,
            sqsize: 31,
            attributes: 0,
            kato_ms: 0,
        };
        let mut sqe = FabricsCommand::Connect(connect).encode(1);
        sqe.cdw10 = dword(1, 0);
        assert_eq!(
            FabricsCommand::parse(&sqe),
            Err(Status::CONNECT_INCOMPATIBLE_FORMAT.dnr())
        );
        let mut sqe = FabricsCommand::PropertyGet {
            offset: 0,
            wide: true,
        }
        .encode(1);
        sqe.cdw10 = U32::new(2);
        assert_eq!(
            FabricsCommand::parse(&sqe),
            Err(Status::INVALID_FIELD.dnr())
        );
        sqe.nsid = U32::new(5);
        assert_eq!(
            FabricsCommand::parse(&sqe),
            Err(Status::INVALID_OPCODE.dnr())
        );
    }

    #[test]
    fn invalid_parameters_round_trip() {
        let parameter = InvalidParameter {
            offset: ConnectData::OFFSET_HOST_NQN,
            in_data: true,
        };
        assert_eq!(parameter.encode(), 0x1_0200);
        assert_eq!(InvalidParameter::parse(parameter.encode()), parameter);
    }
}
