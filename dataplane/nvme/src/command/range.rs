//! Lists of ranges that commands bring as data.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

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

/// A source range of Copy, format 0.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CopyRange {
    /// Reserved.
    pub reserved0: U64,
    /// First block.
    pub start: U64,
    /// Blocks, zero's based.
    pub count: U16,
    /// Reserved.
    pub reserved18: [u8; 6],
    /// Protection information, which exists only with metadata.
    pub protection: [u8; 8],
}

/// Bytes of a source range of Copy.
pub const COPY_RANGE_BYTES: u32 = 32;

const _: () = assert!(size_of::<CopyRange>() == 32);

impl CopyRange {
    /// A range of 1 to 65536 blocks.
    #[must_use]
    pub fn new(start: u64, count: u32) -> Self {
        let zero_based = u16::try_from(count.clamp(1, 65536) - 1).unwrap_or(u16::MAX);
        Self {
            reserved0: U64::ZERO,
            start: U64::new(start),
            count: U16::new(zero_based),
            reserved18: [0; 6],
            protection: [0; 8],
        }
    }

    /// Blocks: 1 to 65536.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        u32::from(self.count.get()) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stand_where_the_wire_has_them() {
        let range = CopyRange::new(0x1122_3344_5566_7788, 65536);
        assert_eq!(range.blocks(), 65536);
        let bytes = range.as_bytes();
        assert_eq!(
            bytes[8..18],
            [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0xff, 0xff]
        );
        assert_eq!((&bytes[..8], &bytes[18..]), (&[0; 8][..], &[0; 14][..]));
        let bytes = DsmRange::new(5, 6);
        assert_eq!(
            bytes.as_bytes(),
            [0, 0, 0, 0, 6, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
        );
    }
}
