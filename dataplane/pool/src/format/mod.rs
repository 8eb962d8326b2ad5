//! Byte layouts on the medium, version 1. Little-endian, in blocks of 4096 bytes.
//!
//! ```text
//! 0        label, copy 0
//! 32 KiB   label, copy 1
//! 64 KiB   half 0: header | checkpoint | journal | journal, second copy | seal
//!          half 1: the same
//!          extents, aligned to their size
//! end      label, copy 2, in the last whole block
//! ```
//! A checkpoint is a log of batches that makes the whole state from nothing; the journal is the log after
//! it. Both consist of the same batches of the same records. When a journal is full, the state is written
//! as a checkpoint into the other half, synced, and the old half is sealed: its seal names the successor
//! and the last sequence number that counts. Every checkpoint has a random id that its batches repeat, so
//! what an earlier use of the space has left is never taken for part of it.

pub mod batch;
mod geometry;
pub mod half;
pub mod label;
pub mod record;

use crate::blocks::Blocks;
pub(crate) use geometry::{EXTENT_BYTES, JOURNAL_BYTES, LABEL_OFFSETS, META_OFFSET};

pub use geometry::{Geometry, Half};

/// The version that this program writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Labels, headers and seals are one sector; the rest of their block is zeroes and does not count. A sector
/// is written whole or not at all, so none of them is ever torn.
const SECTOR_BYTES: usize = 512;

/// The block that begins with `sector`, whose last four bytes become the CRC-32C of those before them.
fn sector_block(sector: &[u8]) -> Blocks {
    let mut block = Blocks::new(1);
    if let Some((place, _)) = block.as_bytes_mut().split_first_chunk_mut::<SECTOR_BYTES>() {
        place.copy_from_slice(sector);
        if let Some((body, crc)) = place.split_last_chunk_mut::<4>() {
            *crc = crc32c::crc32c(body).to_le_bytes();
        }
    }
    block
}

/// Whether the last four bytes of the sector that begins `block` are the CRC-32C of those before them.
fn crc_holds(block: &[u8]) -> bool {
    let parts = block
        .first_chunk::<SECTOR_BYTES>()
        .and_then(|sector| sector.split_last_chunk::<4>());
    parts.is_some_and(|(body, crc)| crc32c::crc32c(body).to_le_bytes() == *crc)
}
