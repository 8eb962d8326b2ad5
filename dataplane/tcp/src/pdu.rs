//! The PDUs (TCP transport section 3.6).

use roadstead_nvme::{Cqe, Sqe};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PDU types.
pub mod kind {
    /// Initialize connection request.
    pub const IC_REQ: u8 = 0x00;
    /// Initialize connection response.
    pub const IC_RESP: u8 = 0x01;
    /// Host ends the connection.
    pub const H2C_TERM_REQ: u8 = 0x02;
    /// Controller ends the connection.
    pub const C2H_TERM_REQ: u8 = 0x03;
    /// Command capsule.
    pub const CAPSULE_CMD: u8 = 0x04;
    /// Response capsule.
    pub const CAPSULE_RESP: u8 = 0x05;
    /// Host to controller data.
    pub const H2C_DATA: u8 = 0x06;
    /// Controller to host data.
    pub const C2H_DATA: u8 = 0x07;
    /// Ready to transfer.
    pub const R2T: u8 = 0x09;
}

/// Bits of the common header's flags.
pub mod flag {
    /// A header digest follows the header.
    pub const HEADER_DIGEST: u8 = 0x01;
    /// A data digest follows the data.
    pub const DATA_DIGEST: u8 = 0x02;
    /// The last data PDU of a transfer.
    pub const LAST: u8 = 0x04;
    /// The command succeeded and no response capsule follows.
    pub const SUCCESS: u8 = 0x08;
}

/// Offsets of fields, for error reports.
pub mod offset {
    /// PDU type.
    pub const TYPE: u32 = 0;
    /// Flags.
    pub const FLAGS: u32 = 1;
    /// Header length.
    pub const HLEN: u32 = 2;
    /// Data offset.
    pub const PDO: u32 = 3;
    /// PDU length.
    pub const PLEN: u32 = 4;
    /// ICReq, ICResp: version.
    pub const VERSION: u32 = 8;
    /// ICReq, ICResp: alignment of data.
    pub const ALIGNMENT: u32 = 10;
    /// ICReq, ICResp: digests.
    pub const DIGESTS: u32 = 11;
    /// ICResp: most bytes in an H2CData.
    pub const MAX_DATA: u32 = 12;
    /// Data PDUs and R2T: command identifier.
    pub const CID: u32 = 8;
    /// H2CData and R2T: transfer tag.
    pub const TAG: u32 = 10;
    /// Data PDUs and R2T: data offset.
    pub const DATA_OFFSET: u32 = 12;
    /// Data PDUs and R2T: data length.
    pub const DATA_LENGTH: u32 = 16;
}

/// The first eight bytes of every PDU.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub(crate) struct Common {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) hlen: u8,
    pub(crate) pdo: u8,
    pub(crate) plen: U32,
}

/// ICReq and ICResp.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct IcWire {
    pub(crate) common: Common,
    pub(crate) version: U16,
    pub(crate) alignment: u8,
    pub(crate) digests: u8,
    pub(crate) limit: U32,
    pub(crate) reserved: [u8; 112],
}

/// The termination requests, without the head they repeat.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TermWire {
    pub(crate) common: Common,
    pub(crate) status: U16,
    pub(crate) information: U32,
    pub(crate) reserved: [u8; 10],
}

/// Command capsule without data.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct CommandWire {
    pub(crate) common: Common,
    pub(crate) sqe: Sqe,
}

/// Response capsule.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct ResponseWire {
    pub(crate) common: Common,
    pub(crate) cqe: Cqe,
}

/// H2CData, C2HData and R2T.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(crate) struct TransferWire {
    pub(crate) common: Common,
    pub(crate) cid: U16,
    pub(crate) tag: U16,
    pub(crate) offset: U32,
    pub(crate) length: U32,
    pub(crate) reserved: [u8; 4],
}

pub(crate) const COMMON_BYTES: usize = size_of::<Common>();
const _: () = assert!(COMMON_BYTES == 8);
const _: () = assert!(size_of::<IcWire>() == 128);
const _: () = assert!(size_of::<TermWire>() == 24);
const _: () = assert!(size_of::<CommandWire>() == 72);
const _: () = assert!(size_of::<ResponseWire>() == 24);
const _: () = assert!(size_of::<TransferWire>() == 24);

/// Bits of the digest field of ICReq and ICResp.
pub(crate) const DIGEST_HEADER: u8 = 0x01;
pub(crate) const DIGEST_DATA: u8 = 0x02;
/// The largest zero's based alignment: 128 bytes.
pub(crate) const ALIGNMENT_MAX: u8 = 31;

/// The least value of [`IcResp::max_data`].
pub const MAX_DATA_MIN: u32 = 4096;

/// Turns the zero's based dwords of [`IcReq::alignment`] and [`IcResp::alignment`] into bytes, at most 128.
#[must_use]
pub fn alignment_bytes(alignment: u8) -> u8 {
    (alignment.min(ALIGNMENT_MAX) + 1) * 4
}

/// Initialize connection request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcReq {
    /// PDU format version; only 0 exists. The reader hands any value out: the answer to an unknown one is up to the
    /// controller.
    pub version: u16,
    /// How the host wants data in C2HData aligned: dwords, zero's based, at most 31.
    pub alignment: u8,
    /// The host asks for header digests.
    pub header_digest: bool,
    /// The host asks for data digests.
    pub data_digest: bool,
    /// R2Ts in flight that the host accepts for a command, at least 1.
    pub max_r2t: u64,
}

/// Initialize connection response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcResp {
    /// PDU format version; only 0 exists.
    pub version: u16,
    /// How the controller wants data in command capsules and H2CData aligned: dwords, zero's based, at most 31.
    pub alignment: u8,
    /// Header digests are on.
    pub header_digest: bool,
    /// Data digests are on.
    pub data_digest: bool,
    /// Most data bytes in an H2CData; at least [`MAX_DATA_MIN`], a multiple of 4.
    pub max_data: u32,
}

/// The head of H2CData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct H2cData {
    /// Command identifier.
    pub cid: u16,
    /// Transfer tag of the R2T this answers.
    pub tag: u16,
    /// Bytes from the start of the command's data.
    pub offset: u32,
    /// Data bytes that follow; never zero.
    pub length: u32,
    /// The last H2CData for its R2T.
    pub last: bool,
}

/// The head of C2HData.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct C2hData {
    /// Command identifier.
    pub cid: u16,
    /// Bytes from the start of the command's data.
    pub offset: u32,
    /// Data bytes that follow; never zero.
    pub length: u32,
    /// The last C2HData of the command.
    pub last: bool,
    /// The command succeeded and no response capsule follows. Only with `last`.
    pub success: bool,
}

/// Ready to transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R2t {
    /// Command identifier.
    pub cid: u16,
    /// Chosen by the controller, repeated in H2CData.
    pub tag: u16,
    /// Bytes from the start of the command's data.
    pub offset: u32,
    /// Bytes that are asked for; never zero.
    pub length: u32,
}

/// A termination request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TermReq {
    /// What was wrong.
    pub status: crate::FatalStatus,
    /// Offset of the field or the digest.
    pub information: u32,
}

/// A PDU without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pdu {
    /// Host to controller, first of all.
    IcReq(IcReq),
    /// The controller's answer.
    IcResp(IcResp),
    /// The host found a fatal error.
    H2cTermReq(TermReq),
    /// The controller found a fatal error.
    C2hTermReq(TermReq),
    /// A command.
    CapsuleCmd {
        /// The command.
        sqe: Sqe,
        /// Data bytes that follow; zero for none.
        data_length: u32,
    },
    /// A completion.
    CapsuleResp(Cqe),
    /// Data from the host.
    H2cData(H2cData),
    /// Data from the controller.
    C2hData(C2hData),
    /// The controller asks for data.
    R2t(R2t),
}

impl Pdu {
    /// Data bytes that follow the head; zero for none.
    #[must_use]
    pub fn data_length(&self) -> u32 {
        match self {
            Self::CapsuleCmd { data_length, .. } => *data_length,
            Self::H2cData(data) => data.length,
            Self::C2hData(data) => data.length,
            Self::IcReq(_)
            | Self::IcResp(_)
            | Self::H2cTermReq(_)
            | Self::C2hTermReq(_)
            | Self::CapsuleResp(_)
            | Self::R2t(_) => 0,
        }
    }
}
