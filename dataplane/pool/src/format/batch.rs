//! Batches of records: what checkpoints and journals consist of.
//!
//! A batch is 1 to 4 blocks: a header of 64 bytes, records, zeroes. Its checksum covers every byte of it.

use std::ops::Range;

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::record::{Malformed, Record};
use crate::blocks::{BLOCK_BYTES, Blocks, index};

const MAGIC: [u8; 8] = *b"RDSTBTCH";
/// Largest batch, blocks.
pub const MAX_BLOCKS: usize = 4;
const HEADER_BYTES: usize = 64;
const CRC: Range<usize> = 60..64;
/// Room for records in the largest batch, bytes.
pub const MAX_PAYLOAD_BYTES: usize = MAX_BLOCKS * BLOCK_BYTES - HEADER_BYTES;

/// Where a batch belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// To the checkpoint; sequence numbers count from 0.
    Checkpoint,
    /// To the journal; sequence numbers go on from checkpoint to checkpoint.
    Journal,
}

impl Log {
    fn code(self) -> u32 {
        match self {
            Self::Checkpoint => 1,
            Self::Journal => 2,
        }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    id: [u8; 16],
    seq: U64,
    durable_seq: U64,
    log: U32,
    blocks: U32,
    payload_bytes: U32,
    zero: U32,
    reserved: U32,
    crc: U32,
}

const _: () = assert!(size_of::<Wire>() == HEADER_BYTES);

/// The identity of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The checkpoint it belongs to.
    pub id: Uuid,
    /// Checkpoint or journal.
    pub log: Log,
    /// Its place in the log.
    pub seq: u64,
    /// In a journal: the last batch that was known to be durable when this one was written.
    pub durable_seq: u64,
}

/// A batch read from the medium.
#[derive(Debug)]
pub struct Batch<'a> {
    /// What was known to be durable when it was written.
    pub durable_seq: u64,
    /// Its sequence number.
    pub seq: u64,
    /// Its length, blocks.
    pub blocks: usize,
    payload: &'a [u8],
}

/// How many of `records` fit one batch; their bytes are left in `payload`.
pub fn pack(records: &[Record], payload: &mut Vec<u8>) -> usize {
    payload.clear();
    for (n, record) in records.iter().enumerate() {
        let before = payload.len();
        record.encode(payload);
        if payload.len() > MAX_PAYLOAD_BYTES {
            payload.truncate(before);
            return n;
        }
    }
    records.len()
}

/// Blocks that a batch with this payload has.
pub fn blocks_for(payload: &[u8]) -> usize {
    (HEADER_BYTES + payload.len()).div_ceil(BLOCK_BYTES)
}

/// The bytes of a batch. `payload` comes from [`pack`].
pub fn encode(stamp: &Stamp, payload: &[u8]) -> Blocks {
    let mut blocks = Blocks::new(blocks_for(payload));
    let wire = Wire {
        magic: MAGIC,
        id: stamp.id.into_bytes(),
        seq: stamp.seq.into(),
        durable_seq: stamp.durable_seq.into(),
        log: stamp.log.code().into(),
        blocks: u32::try_from(blocks.count()).unwrap_or(0).into(),
        payload_bytes: u32::try_from(payload.len()).unwrap_or(0).into(),
        zero: 0.into(),
        reserved: 0.into(),
        crc: 0.into(),
    };
    let bytes = blocks.as_bytes_mut();
    if let Some((header, rest)) = bytes.split_at_mut_checked(HEADER_BYTES) {
        header.copy_from_slice(wire.as_bytes());
        if let Some(place) = rest.get_mut(..payload.len()) {
            place.copy_from_slice(payload);
        }
    }
    let crc = checksum(bytes).to_le_bytes();
    if let Some(place) = bytes.get_mut(CRC) {
        place.copy_from_slice(&crc);
    }
    blocks
}

/// CRC-32C of the batch with its checksum field as zeroes.
fn checksum(bytes: &[u8]) -> u32 {
    let head = crc32c::crc32c(bytes.get(..CRC.start).unwrap_or_default());
    let zero = crc32c::crc32c_append(head, &[0; 4]);
    crc32c::crc32c_append(zero, bytes.get(CRC.end..).unwrap_or_default())
}

/// The batch of checkpoint `id` at the start of `bytes`, if a whole good one is there.
pub fn decode(bytes: &[u8], id: Uuid, log: Log) -> Option<Batch<'_>> {
    let (wire, _) = Wire::read_from_prefix(bytes).ok()?;
    // Told first, because most blocks are not: a scan looks at thousands.
    (wire.id == id.into_bytes()).then(|| good(bytes, &wire, log))?
}

/// The sequence number of the batch at the start of `bytes`, of whatever checkpoint.
pub fn seq_of_any(bytes: &[u8], log: Log) -> Option<u64> {
    let (wire, _) = Wire::read_from_prefix(bytes).ok()?;
    good(bytes, &wire, log).map(|batch| batch.seq)
}

fn good<'a>(bytes: &'a [u8], wire: &Wire, log: Log) -> Option<Batch<'a>> {
    let blocks = index(wire.blocks.get().into());
    if wire.magic != MAGIC || wire.log.get() != log.code() || blocks > MAX_BLOCKS {
        return None;
    }
    let whole = bytes.get(..blocks * BLOCK_BYTES)?;
    let payload_end = HEADER_BYTES.checked_add(index(wire.payload_bytes.get().into()))?;
    let payload = whole.get(HEADER_BYTES..payload_end)?;
    (checksum(whole) == wire.crc.get()).then_some(Batch {
        durable_seq: wire.durable_seq.get(),
        seq: wire.seq.get(),
        blocks,
        payload,
    })
}

impl Batch<'_> {
    /// Its records.
    pub fn records(&self) -> Result<Vec<Record>, Malformed> {
        let mut rest = self.payload;
        let mut records = Vec::new();
        while !rest.is_empty() {
            records.push(Record::decode(&mut rest)?);
        }
        Ok(records)
    }
}
