//! Queue entries and data pointers (sections 3.3.3, 4.1).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::status::Status;

/// Bytes of a submission queue entry.
pub const SQE_BYTES: usize = 64;
/// Bytes of a completion queue entry.
pub const CQE_BYTES: usize = 16;

/// A submission queue entry. Fabrics commands use the same layout with the fabrics command type in the
/// lowest byte of `nsid` (section 3.3.3.2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Sqe {
    /// Opcode.
    pub opcode: u8,
    /// Bits 1:0 fused operation, bits 7:6 how the data pointer is to be read.
    pub flags: u8,
    /// Command identifier.
    pub cid: U16,
    /// Namespace identifier.
    pub nsid: U32,
    /// Command dword 2.
    pub cdw2: U32,
    /// Command dword 3.
    pub cdw3: U32,
    /// Metadata pointer.
    pub mptr: U64,
    /// Data pointer; fabrics only know scatter gather lists.
    pub dptr: SglDescriptor,
    /// Command dword 10.
    pub cdw10: U32,
    /// Command dword 11.
    pub cdw11: U32,
    /// Command dword 12.
    pub cdw12: U32,
    /// Command dword 13.
    pub cdw13: U32,
    /// Command dword 14.
    pub cdw14: U32,
    /// Command dword 15.
    pub cdw15: U32,
}

const _: () = assert!(size_of::<Sqe>() == SQE_BYTES);

impl Sqe {
    /// `flags` that say: data pointer is a scatter gather list, metadata (none) is one buffer.
    pub const FLAGS_SGL: u8 = 0x40;
    /// The bits of `flags` that fuse two commands.
    pub const FLAGS_FUSE_MASK: u8 = 0x03;
    /// `flags`: first command of a fused pair.
    pub const FLAGS_FUSE_FIRST: u8 = 0x01;
    /// `flags`: second command of a fused pair.
    pub const FLAGS_FUSE_SECOND: u8 = 0x02;
    /// The bits of `flags` that say how the data pointer is to be read.
    pub const FLAGS_PSDT_MASK: u8 = 0xc0;

    /// An entry with all other fields zero and [`Self::FLAGS_SGL`].
    #[must_use]
    pub fn new(opcode: u8, cid: u16, nsid: u32) -> Self {
        let mut sqe = Self::new_zeroed_entry();
        sqe.opcode = opcode;
        sqe.flags = Self::FLAGS_SGL;
        sqe.cid = U16::new(cid);
        sqe.nsid = U32::new(nsid);
        sqe
    }

    fn new_zeroed_entry() -> Self {
        zerocopy::FromZeros::new_zeroed()
    }

    /// The lower half of command dword 10.
    #[must_use]
    pub fn cdw10_low(&self) -> u16 {
        let [a, b, ..] = self.cdw10.to_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The upper half of command dword 10.
    #[must_use]
    pub fn cdw10_high(&self) -> u16 {
        let [.., c, d] = self.cdw10.to_bytes();
        u16::from_le_bytes([c, d])
    }

    /// The lower half of command dword 11.
    #[must_use]
    pub fn cdw11_low(&self) -> u16 {
        let [a, b, ..] = self.cdw11.to_bytes();
        u16::from_le_bytes([a, b])
    }

    /// The upper half of command dword 11.
    #[must_use]
    pub fn cdw11_high(&self) -> u16 {
        let [.., c, d] = self.cdw11.to_bytes();
        u16::from_le_bytes([c, d])
    }

    /// The lower half of command dword 12.
    #[must_use]
    pub fn cdw12_low(&self) -> u16 {
        let [a, b, ..] = self.cdw12.to_bytes();
        u16::from_le_bytes([a, b])
    }

    /// Command dwords 10 and 11 as one number, such as a starting block.
    #[must_use]
    pub fn cdw10_11(&self) -> u64 {
        u64::from(self.cdw11.get()) << 32 | u64::from(self.cdw10.get())
    }

    /// Sets command dwords 10 and 11.
    pub fn set_cdw10_11(&mut self, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.cdw10 = U32::from_bytes([a, b, c, d]);
        self.cdw11 = U32::from_bytes([e, f, g, h]);
    }
}

/// Puts two halves into a dword.
#[must_use]
pub fn dword(low: u16, high: u16) -> U32 {
    U32::new(u32::from(high) << 16 | u32::from(low))
}

/// A completion queue entry (section 3.3.3.2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Cqe {
    /// Command specific; property values and queue counts come back here.
    pub result: U64,
    /// Submission queue head pointer; 0xffff when flow control is off.
    pub sqhd: U16,
    /// Submission queue identifier; reserved in fabrics.
    pub sqid: U16,
    /// The command this completes.
    pub cid: U16,
    /// Bit 0 phase (reserved in fabrics), bits 15:1 status.
    pub status: U16,
}

const _: () = assert!(size_of::<Cqe>() == CQE_BYTES);

impl Cqe {
    /// A completion without submission queue head.
    #[must_use]
    pub fn new(cid: u16, status: Status, result: u64) -> Self {
        Self {
            result: U64::new(result),
            sqhd: U16::ZERO,
            sqid: U16::ZERO,
            cid: U16::new(cid),
            status: U16::new(status.0 << 1),
        }
    }

    /// The status without the phase bit.
    #[must_use]
    pub fn status(&self) -> Status {
        Status(self.status.get() >> 1)
    }
}

/// A scatter gather list descriptor (section 4.1.2).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct SglDescriptor {
    /// Address, or offset in the capsule.
    pub address: U64,
    /// Bytes.
    pub length: U32,
    /// Reserved here.
    pub reserved: [u8; 3],
    /// Type in the upper, sub type in the lower four bits.
    pub identifier: u8,
}

const _: () = assert!(size_of::<SglDescriptor>() == 16);

impl SglDescriptor {
    /// A data block at an offset in the capsule.
    pub const IN_CAPSULE: u8 = 0x01;
    /// A data block that the transport moves.
    pub const TRANSPORT: u8 = 0x5a;
}

/// Where the data of a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPointer {
    /// In the command capsule, behind the entry.
    InCapsule {
        /// Bytes from the start of the capsule's data.
        offset: u64,
        /// Bytes.
        length: u32,
    },
    /// Moved by the transport; zero bytes when the command has no data.
    Transport {
        /// Bytes.
        length: u32,
    },
}

impl DataPointer {
    /// Reads a descriptor.
    ///
    /// # Errors
    /// [`Status::SGL_TYPE_INVALID`] for every descriptor that NVMe/TCP does not know. A descriptor of zeros
    /// stands for no data, as some hosts send it.
    pub fn parse(sgl: &SglDescriptor) -> Result<Self, Status> {
        let length = sgl.length.get();
        match sgl.identifier {
            SglDescriptor::TRANSPORT => Ok(Self::Transport { length }),
            SglDescriptor::IN_CAPSULE => Ok(Self::InCapsule {
                offset: sgl.address.get(),
                length,
            }),
            0 if length == 0 => Ok(Self::Transport { length: 0 }),
            _ => Err(Status::SGL_TYPE_INVALID),
        }
    }

    /// Writes a descriptor.
    #[must_use]
    pub fn encode(self) -> SglDescriptor {
        let (address, length, identifier) = match self {
            Self::InCapsule { offset, length } => (offset, length, SglDescriptor::IN_CAPSULE),
            Self::Transport { length } => (0, length, SglDescriptor::TRANSPORT),
        };
        SglDescriptor {
            address: U64::new(address),
            length: U32::new(length),
            reserved: [0; 3],
            identifier,
        }
    }

    /// Bytes that the descriptor stands for.
    #[must_use]
    pub fn length(self) -> u32 {
        match self {
            Self::InCapsule { length, .. } | Self::Transport { length } => length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_pointers_round_trip() {
        for pointer in [
            DataPointer::InCapsule {
                offset: 4096,
                length: 512,
            },
            DataPointer::Transport { length: 0 },
            DataPointer::Transport { length: 1 << 20 },
        ] {
            assert_eq!(DataPointer::parse(&pointer.encode()), Ok(pointer));
        }
    }

    #[test]
    fn foreign_descriptors_are_refused() {
        let mut sgl = DataPointer::Transport { length: 8 }.encode();
        for identifier in (0..=u8::MAX).filter(|id| ![0x01, 0x5a].contains(id)) {
            sgl.identifier = identifier;
            assert_eq!(DataPointer::parse(&sgl), Err(Status::SGL_TYPE_INVALID));
        }
    }

    #[test]
    fn fields_stand_where_the_wire_has_them() {
        let mut sqe = Sqe::new(0x01, 0x1234, 7);
        sqe.set_cdw10_11(0x8877_6655_4433_2211);
        sqe.cdw12 = dword(0xaabb, 0xccdd);
        let bytes = sqe.as_bytes();
        assert_eq!(bytes[..8], [0x01, 0x40, 0x34, 0x12, 7, 0, 0, 0]);
        assert_eq!(
            bytes[40..52],
            [
                0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0xbb, 0xaa, 0xdd, 0xcc
            ]
        );
        assert_eq!(sqe.cdw10_11(), 0x8877_6655_4433_2211);
        assert_eq!(
            (sqe.cdw10_low(), sqe.cdw11_high(), sqe.cdw12_low()),
            (0x2211, 0x8877, 0xaabb)
        );
        let cqe = Cqe::new(5, Status::INVALID_FIELD.dnr(), 0x0102);
        assert_eq!(
            cqe.as_bytes(),
            [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0x04, 0x80]
        );
    }
}
