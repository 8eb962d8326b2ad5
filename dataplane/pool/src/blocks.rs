//! Buffers that a drive opened for direct I/O accepts.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Size and alignment of every piece of metadata, bytes.
pub const BLOCK_BYTES: usize = 4096;

/// [`BLOCK_BYTES`] as an offset.
pub(crate) const BLOCK: u64 = 4096;

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// A zeroed run of 4096-byte blocks, aligned to 4096 bytes in memory.
#[derive(Clone)]
pub struct Blocks(Vec<Block>);

impl Blocks {
    /// `count` blocks of zeroes.
    pub fn new(count: usize) -> Self {
        Self(vec![Block([0; BLOCK_BYTES]); count])
    }

    /// As many blocks as `len_bytes` needs, zeroed.
    pub fn for_bytes(len_bytes: usize) -> Self {
        Self::new(len_bytes.div_ceil(BLOCK_BYTES))
    }

    /// The contents.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice().as_bytes()
    }

    /// The contents, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_mut_slice().as_mut_bytes()
    }

    /// How many blocks.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// An offset or length as an index; a value that does not fit memory becomes one that no buffer has.
pub(crate) fn index(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
