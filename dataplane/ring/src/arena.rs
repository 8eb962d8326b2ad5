//! One piece of memory that buffers are cut from, for devices that must know it in advance.

use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::buf::{BUF_MAX_BYTES, Block};
use crate::error::RingError;

/// Chunks of [`BUF_MAX_BYTES`], each cut into blocks of one size at a time.
pub(crate) struct Arena {
    base: NonNull<u8>,
    /// What each chunk is cut into.
    chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    /// Bytes of its blocks; 0: not cut.
    block_bytes: usize,
    /// Blocks that nobody holds.
    free: usize,
}

// SAFETY: the mapping belongs to no thread. Blocks that were cut from it are each held by one owner.
unsafe impl Send for Arena {}
// SAFETY: a shared arena gives no access to its memory.
unsafe impl Sync for Arena {}

impl Arena {
    /// Maps `size_bytes`, rounded down to whole chunks of [`BUF_MAX_BYTES`].
    ///
    /// # Errors
    /// [`RingError::Map`].
    pub(crate) fn new(size_bytes: usize) -> Result<Self, RingError> {
        let count = (size_bytes / BUF_MAX_BYTES).max(1);
        let size = count * BUF_MAX_BYTES;
        let failed = |source: std::io::Error| RingError::Map {
            len_bytes: size,
            source,
        };
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { mmap_anonymous(std::ptr::null_mut(), size, prot, flags) }
            .map_err(|error| failed(error.into()))?;
        // SAFETY: the range is the mapping just made; the advice does not change its content.
        let _ = unsafe { madvise(base, size, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast())
            .ok_or_else(|| failed(std::io::ErrorKind::InvalidData.into()))?;
        Ok(Self {
            base,
            chunks: vec![Chunk::default(); count],
        })
    }

    /// Its memory: where it begins, and its bytes. It stays there as long as the arena.
    pub(crate) fn range(&self) -> (NonNull<u8>, usize) {
        (self.base, self.chunks.len() * BUF_MAX_BYTES)
    }

    /// Cuts a chunk that is whole into blocks of a class. None is left otherwise.
    pub(crate) fn cut(&mut self, class: usize, block_bytes: usize) -> Option<Vec<Block>> {
        let index = self
            .chunks
            .iter()
            .position(|chunk| chunk.block_bytes == 0)?;
        let count = BUF_MAX_BYTES / block_bytes;
        let chunk = self.chunks.get_mut(index)?;
        *chunk = Chunk {
            block_bytes,
            free: count,
        };
        // SAFETY: the chunk lies within the mapping.
        let start = unsafe { self.base.add(index * BUF_MAX_BYTES) };
        // SAFETY: every block lies within the chunk, which was whole: nobody else has a part of it.
        let block = |i| unsafe { Block::cut(start.add(i * block_bytes), class) };
        Some((0..count).map(block).collect())
    }

    fn chunk_of(&mut self, block: &Block) -> Option<&mut Chunk> {
        let offset = block.address().checked_sub(self.base.as_ptr().addr())?;
        self.chunks.get_mut(offset / BUF_MAX_BYTES)
    }

    /// A block is held from now on.
    pub(crate) fn take(&mut self, block: &Block) {
        if let Some(chunk) = self.chunk_of(block) {
            chunk.free -= 1;
        }
    }

    /// A block is held no longer.
    pub(crate) fn give_back(&mut self, block: &Block) {
        if let Some(chunk) = self.chunk_of(block) {
            chunk.free += 1;
        }
    }

    /// Makes one chunk whole whose blocks nobody holds: `keep` tells the owner of the free blocks which ones stay.
    pub(crate) fn mend(&mut self, keep: impl FnOnce(&dyn Fn(&Block) -> bool)) -> bool {
        let is_idle = |chunk: &Chunk| {
            chunk.block_bytes > 0 && chunk.free * chunk.block_bytes == BUF_MAX_BYTES
        };
        let Some(index) = self.chunks.iter().position(is_idle) else {
            return false;
        };
        let start = self.base.as_ptr().addr() + index * BUF_MAX_BYTES;
        keep(&|block| !(start..start + BUF_MAX_BYTES).contains(&block.address()));
        if let Some(chunk) = self.chunks.get_mut(index) {
            *chunk = Chunk::default();
        }
        true
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let (base, size) = self.range();
        // SAFETY: the mapping was made in `new`; the pool that owns the arena ends after the last of its blocks.
        let _ = unsafe { munmap(base.as_ptr().cast(), size) };
    }
}
