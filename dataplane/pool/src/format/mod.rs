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

pub(crate) use geometry::{EXTENT_BYTES, JOURNAL_BYTES, LABEL_OFFSETS};
pub use geometry::{Geometry, Half};

/// The version that this program writes, and the newest it reads.
pub const VERSION: u32 = 1;

/// Seals `bytes`: the last four become the CRC-32C of those before them.
fn put_crc(bytes: &mut [u8]) {
    if let Some((body, crc)) = bytes.split_last_chunk_mut::<4>() {
        *crc = crc32c::crc32c(body).to_le_bytes();
    }
}

/// Whether the last four bytes are the CRC-32C of those before them.
fn crc_holds(bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<4>()
        .is_some_and(|(body, crc)| crc32c::crc32c(body).to_le_bytes() == *crc)
}
