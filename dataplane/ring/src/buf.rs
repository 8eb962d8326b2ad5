//! Aligned I/O buffers that belong to whoever holds them, and the bounded pool they come from.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::arena::Arena;
use crate::error::RingError;

/// Smallest buffer, and the alignment of all: what direct I/O asks for at most.
pub const BUF_MIN_BYTES: usize = 4096;
/// Largest buffer.
pub const BUF_MAX_BYTES: usize = 1 << 20;
/// Size classes: powers of two from the smallest to the largest.
const CLASSES: usize = 9;

fn class_bytes(class: usize) -> usize {
    BUF_MIN_BYTES << class
}

fn class_of(len: usize) -> Option<usize> {
    (0..CLASSES).find(|&class| len <= class_bytes(class))
}

/// A piece of memory of one class's size, aligned to [`BUF_MIN_BYTES`], always initialised.
pub(crate) struct Block {
    ptr: NonNull<u8>,
    class: usize,
    /// Part of an arena.
    is_cut: bool,
}

// SAFETY: a Block owns its memory alone; nothing of it is tied to a thread.
unsafe impl Send for Block {}
// SAFETY: a shared Block only gives shared access to its bytes.
unsafe impl Sync for Block {}

impl Block {
    fn layout(class: usize) -> Option<Layout> {
        Layout::from_size_align(class_bytes(class), BUF_MIN_BYTES).ok()
    }

    fn new(class: usize) -> Option<Self> {
        let layout = Self::layout(class)?;
        // SAFETY: the layout's size is never zero.
        let ptr = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self {
            ptr,
            class,
            is_cut: false,
        })
    }

    /// A part of an arena.
    ///
    /// # Safety
    /// From `ptr` on are initialised bytes of the class's size, aligned to [`BUF_MIN_BYTES`], which belong to nobody
    /// else as long as the block, and outlive it.
    pub(crate) unsafe fn cut(ptr: NonNull<u8>, class: usize) -> Self {
        Self {
            ptr,
            class,
            is_cut: true,
        }
    }

    pub(crate) fn address(&self) -> usize {
        self.ptr.as_ptr().addr()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.is_cut {
            return;
        }
        if let Some(layout) = Self::layout(self.class) {
            // SAFETY: the memory came from alloc_zeroed with this very layout and is freed once, here.
            unsafe { dealloc(self.ptr.as_ptr(), layout) }
        }
    }
}

struct PoolState {
    /// Bytes of all blocks, in use or free.
    total_bytes: usize,
    /// Bytes of blocks in use.
    used_bytes: usize,
    free: [Vec<Block>; CLASSES],
    /// Where blocks are cut from; none: each has memory of its own. After `free`, whose blocks lie in it.
    arena: Option<Arena>,
}

impl PoolState {
    /// Sees to it that there is a free block of a class cut from the arena.
    fn cut(&mut self, class: usize) -> Option<()> {
        let Self { free, arena, .. } = self;
        let arena = arena.as_mut()?;
        if !free.get(class)?.is_empty() {
            return Some(());
        }
        let blocks = match arena.cut(class, class_bytes(class)) {
            Some(blocks) => blocks,
            None => {
                let keep = |stays: &dyn Fn(&Block) -> bool| {
                    free.iter_mut()
                        .for_each(|list| list.retain(|block| stays(block)));
                };
                arena.mend(keep).then_some(())?;
                arena.cut(class, class_bytes(class))?
            }
        };
        free.get_mut(class)?.extend(blocks);
        Some(())
    }
}

struct PoolShared {
    limit_bytes: usize,
    state: Mutex<PoolState>,
}

/// A bounded source of [`IoBuf`]s. Clones share the bound. Buffers may be used and dropped on any thread.
#[derive(Clone)]
pub struct BufPool(Arc<PoolShared>);

impl BufPool {
    /// A pool whose buffers, free ones included, never hold more than `limit_bytes`.
    pub fn new(limit_bytes: usize) -> Self {
        let free = std::array::from_fn(|_| Vec::new());
        let state = Mutex::new(PoolState {
            total_bytes: 0,
            used_bytes: 0,
            free,
            arena: None,
        });
        Self(Arc::new(PoolShared { limit_bytes, state }))
    }

    /// A pool whose buffers all lie in one range of memory, of at most `limit_bytes`.
    ///
    /// # Errors
    /// [`RingError::Map`].
    pub fn in_arena(limit_bytes: usize) -> Result<Self, RingError> {
        let arena = Arena::new(limit_bytes)?;
        let this = Self::new(arena.range().1);
        this.lock().arena = Some(arena);
        Ok(this)
    }

    /// The range that all buffers lie in, if there is one: where it begins, and its bytes. It stays there as long as
    /// any clone of the pool, or any of its buffers.
    pub fn range(&self) -> Option<(NonNull<u8>, usize)> {
        Some(self.lock().arena.as_ref()?.range())
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A buffer with `len` bytes in use, whose content is whatever an earlier user left.
    ///
    /// `None` when `len` is over [`BUF_MAX_BYTES`] or the pool is exhausted: wait until a buffer comes back.
    pub fn alloc(&self, len: usize) -> Option<IoBuf> {
        let class = class_of(len)?;
        let size = class_bytes(class);
        let mut state = self.lock();
        if state.arena.is_some() {
            state.cut(class)?;
        }
        let block = match state.free.get_mut(class)?.pop() {
            Some(block) => block,
            None => {
                if state.used_bytes + size > self.0.limit_bytes {
                    return None;
                }
                while state.total_bytes + size > self.0.limit_bytes {
                    let victim = state.free.iter_mut().rev().find_map(Vec::pop)?;
                    state.total_bytes -= class_bytes(victim.class);
                }
                let block = Block::new(class)?;
                state.total_bytes += size;
                block
            }
        };
        state.used_bytes += size;
        if let Some(arena) = &mut state.arena {
            arena.take(&block);
        }
        Some(IoBuf {
            block: Some(block),
            len,
            home: self.clone(),
        })
    }

    /// Bytes of buffers that somebody holds now, by size class.
    pub fn used_bytes(&self) -> usize {
        self.lock().used_bytes
    }

    /// The bound given to [`BufPool::new`].
    pub fn limit_bytes(&self) -> usize {
        self.0.limit_bytes
    }

    fn give_back(&self, block: Block) {
        let mut state = self.lock();
        state.used_bytes -= class_bytes(block.class);
        if let Some(arena) = &mut state.arena {
            arena.give_back(&block);
        }
        let class = block.class;
        if let Some(list) = state.free.get_mut(class) {
            list.push(block);
        }
    }
}

/// An owned buffer, aligned to [`BUF_MIN_BYTES`]; dropping it gives it back to its pool.
///
/// It dereferences to the bytes in use (`len`), which [`IoBuf::set_len`] changes within the capacity.
pub struct IoBuf {
    block: Option<Block>,
    len: usize,
    home: BufPool,
}

impl IoBuf {
    /// Bytes the buffer can hold: its size class.
    pub fn capacity(&self) -> usize {
        self.block
            .as_ref()
            .map_or(0, |block| class_bytes(block.class))
    }

    /// Sets the bytes in use; more than the capacity gives the capacity.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.capacity());
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.block
            .as_ref()
            .map_or(std::ptr::null_mut(), |block| block.ptr.as_ptr())
    }
}

impl Deref for IoBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match &self.block {
            // SAFETY: the block has at least `len` initialised bytes and lives as long as `self`.
            Some(block) => unsafe { std::slice::from_raw_parts(block.ptr.as_ptr(), self.len) },
            None => &[],
        }
    }
}

impl DerefMut for IoBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        match &self.block {
            // SAFETY: as in `deref`, and `&mut self` makes this the only access.
            Some(block) => unsafe { std::slice::from_raw_parts_mut(block.ptr.as_ptr(), self.len) },
            None => &mut [],
        }
    }
}

impl AsRef<[u8]> for IoBuf {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for IoBuf {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl Drop for IoBuf {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.home.give_back(block);
        }
    }
}

impl std::fmt::Debug for IoBuf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IoBuf({}/{})", self.len, self.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arena_is_cut_and_mended() {
        let pool = BufPool::in_arena(3 * BUF_MAX_BYTES).unwrap();
        let (base, size) = pool.range().unwrap();
        let within = |buf: &IoBuf| {
            let start = buf.as_ptr().addr();
            start >= base.as_ptr().addr()
                && start + buf.capacity() <= base.as_ptr().addr() + size
                && start.is_multiple_of(BUF_MIN_BYTES)
        };
        let mut held: Vec<IoBuf> = Vec::new();
        let mut random = 7u32;
        for _ in 0..20_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let len = 1usize << ((random >> 20) % 21);
            if random.is_multiple_of(3) && !held.is_empty() {
                held.swap_remove((random >> 8) as usize % held.len());
            } else if let Some(mut buf) = pool.alloc(len) {
                assert!(within(&buf));
                buf.fill(random.to_le_bytes()[1]);
                held.push(buf);
            } else if random.is_multiple_of(5) {
                held.clear();
            }
            let mut ranges: Vec<_> = held
                .iter()
                .map(|b| (b.as_ptr().addr(), b.capacity()))
                .collect();
            ranges.sort_unstable();
            assert!(ranges.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
            let used: usize = held.iter().map(IoBuf::capacity).sum();
            assert_eq!(pool.used_bytes(), used);
        }
        held.clear();
        let whole: Vec<_> = (0..3).map(|_| pool.alloc(BUF_MAX_BYTES).unwrap()).collect();
        assert!(pool.alloc(1).is_none());
        drop(whole);
        assert!(pool.alloc(1).is_some());
    }

    #[test]
    fn the_pool_is_bounded_and_reuses() {
        let pool = BufPool::new(3 * BUF_MIN_BYTES);
        let mut small = pool.alloc(100).unwrap();
        assert_eq!((small.len(), small.capacity()), (100, BUF_MIN_BYTES));
        small.fill(7);
        let large = pool.alloc(BUF_MIN_BYTES + 1).unwrap();
        assert!(pool.alloc(1).is_none(), "the bound holds");
        assert!(pool.alloc(BUF_MAX_BYTES + 1).is_none());
        drop(large);
        assert_eq!(pool.used_bytes(), BUF_MIN_BYTES);
        let other = pool.alloc(1).unwrap();
        assert!(
            pool.alloc(1).is_some(),
            "a free block of another class makes room"
        );
        assert_eq!(other.as_ptr() as usize % BUF_MIN_BYTES, 0);
        drop((small, other));
        assert_eq!(pool.used_bytes(), 0);
    }
}
