//! The header and the seal of a half.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{SECTOR_BYTES, VERSION, crc_holds, sector_block};
use crate::blocks::Blocks;

const HEADER_MAGIC: [u8; 8] = *b"RDSTHALF";
const SEAL_MAGIC: [u8; 8] = *b"RDSTSEAL";

/// What a half holds. Written after its checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The pool.
    pub pool_uuid: Uuid,
    /// The checkpoint; its batches and those of its journal repeat it.
    pub id: Uuid,
    /// Counts up with every checkpoint.
    pub generation: u64,
    /// Sequence number of the first batch of its journal.
    pub first_seq: u64,
    /// Batches in the checkpoint.
    pub batches: u64,
}

/// A half's last word: its checkpoint and its journal up to here are the successor's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seal {
    /// The pool.
    pub pool_uuid: Uuid,
    /// The checkpoint that is sealed.
    pub id: Uuid,
    /// The checkpoint that takes over.
    pub successor: Uuid,
    /// The last sequence number before the successor's journal.
    pub final_seq: u64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct HeaderWire {
    magic: [u8; 8],
    version: U32,
    zero: U32,
    pool: [u8; 16],
    id: [u8; 16],
    generation: U64,
    first_seq: U64,
    batches: U64,
    reserved: [u8; 436],
    crc: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct SealWire {
    magic: [u8; 8],
    version: U32,
    zero: U32,
    pool: [u8; 16],
    id: [u8; 16],
    successor: [u8; 16],
    final_seq: U64,
    reserved: [u8; 436],
    crc: U32,
}

const _: () = assert!(size_of::<HeaderWire>() == SECTOR_BYTES);
const _: () = assert!(size_of::<SealWire>() == SECTOR_BYTES);

impl Header {
    /// Its block.
    pub fn encode(&self) -> Blocks {
        let wire = HeaderWire {
            magic: HEADER_MAGIC,
            version: VERSION.into(),
            zero: 0.into(),
            pool: self.pool_uuid.into_bytes(),
            id: self.id.into_bytes(),
            generation: self.generation.into(),
            first_seq: self.first_seq.into(),
            batches: self.batches.into(),
            reserved: [0; 436],
            crc: 0.into(),
        };
        sector_block(wire.as_bytes())
    }

    /// The header in `block`, if a good one is there, of whatever pool.
    pub fn decode(block: &[u8]) -> Option<Self> {
        let (wire, _) = HeaderWire::read_from_prefix(block).ok()?;
        let header = Self {
            pool_uuid: Uuid::from_bytes(wire.pool),
            id: Uuid::from_bytes(wire.id),
            generation: wire.generation.get(),
            first_seq: wire.first_seq.get(),
            batches: wire.batches.get(),
        };
        let good = wire.magic == HEADER_MAGIC && wire.version.get() == VERSION && crc_holds(block);
        good.then_some(header)
    }
}

impl Seal {
    /// Its block.
    pub fn encode(&self) -> Blocks {
        let wire = SealWire {
            magic: SEAL_MAGIC,
            version: VERSION.into(),
            zero: 0.into(),
            pool: self.pool_uuid.into_bytes(),
            id: self.id.into_bytes(),
            successor: self.successor.into_bytes(),
            final_seq: self.final_seq.into(),
            reserved: [0; 436],
            crc: 0.into(),
        };
        sector_block(wire.as_bytes())
    }

    /// The seal in `block`, if it is a good one for the checkpoint `id`.
    pub fn decode(block: &[u8], id: Uuid) -> Option<Self> {
        let (wire, _) = SealWire::read_from_prefix(block).ok()?;
        let seal = Self {
            pool_uuid: Uuid::from_bytes(wire.pool),
            id: Uuid::from_bytes(wire.id),
            successor: Uuid::from_bytes(wire.successor),
            final_seq: wire.final_seq.get(),
        };
        let good = wire.magic == SEAL_MAGIC && wire.version.get() == VERSION && crc_holds(block);
        (good && seal.id == id).then_some(seal)
    }
}
