//! The header and the seal of a half.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{VERSION, crc_holds, put_crc};
use crate::blocks::{BLOCK_BYTES, Blocks};

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
    reserved: [u8; 4020],
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
    reserved: [u8; 4020],
    crc: U32,
}

const _: () = assert!(size_of::<HeaderWire>() == BLOCK_BYTES);
const _: () = assert!(size_of::<SealWire>() == BLOCK_BYTES);

fn block(bytes: &[u8]) -> Blocks {
    let mut block = Blocks::new(1);
    block.as_bytes_mut().copy_from_slice(bytes);
    put_crc(block.as_bytes_mut());
    block
}

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
            reserved: [0; 4020],
            crc: 0.into(),
        };
        block(wire.as_bytes())
    }

    /// The header in `block`, if a good one of this pool is there.
    pub fn decode(block: &[u8], pool_uuid: Uuid) -> Option<Self> {
        let wire = HeaderWire::read_from_bytes(block).ok()?;
        let header = Self {
            pool_uuid: Uuid::from_bytes(wire.pool),
            id: Uuid::from_bytes(wire.id),
            generation: wire.generation.get(),
            first_seq: wire.first_seq.get(),
            batches: wire.batches.get(),
        };
        let ours = wire.magic == HEADER_MAGIC && wire.version.get() == VERSION && crc_holds(block);
        (ours && header.pool_uuid == pool_uuid).then_some(header)
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
            reserved: [0; 4020],
            crc: 0.into(),
        };
        block(wire.as_bytes())
    }

    /// The seal in `block`, if it is a good one for the checkpoint `id`.
    pub fn decode(block: &[u8], id: Uuid) -> Option<Self> {
        let wire = SealWire::read_from_bytes(block).ok()?;
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
