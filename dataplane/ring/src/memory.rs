//! Memory that several reactors use as a drive.

use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::error::RingError;

/// A range that is not within the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "bytes {offset_bytes} to {offset_bytes}+{len} are outside of a memory drive of {size_bytes} bytes"
)]
pub struct OutOfRange {
    /// Start of the range.
    pub offset_bytes: u64,
    /// Its length in bytes.
    pub len: usize,
    /// The memory's size.
    pub size_bytes: u64,
}

/// Zeroed memory goes back to the system in whole large pages, so that none is broken up.
const LARGE_PAGE: usize = 2 << 20;
/// Bytes that the processor fetches at once.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// An anonymous mapping, zero at first, that threads copy into and out of without locks.
///
/// Copies that overlap in time give a mix of old and new bytes, as a drive does with overlapping commands; no
/// reference into the memory ever exists.
pub struct SharedMemory {
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to no thread, and all access is by raw copies that tolerate others.
unsafe impl Send for SharedMemory {}
// SAFETY: as above. The memory is treated as a device's: it is reached only by memcpy and memset through raw
// pointers, never by a reference, so that a torn read is a mix of bytes and nothing worse.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Maps `size` bytes of zeroes; the system gives memory when it is first written.
    ///
    /// # Errors
    /// [`RingError::Map`].
    pub fn new(size: usize) -> Result<Self, RingError> {
        let failed = |source: rustix::io::Errno| RingError::Map {
            len_bytes: size,
            source: source.into(),
        };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no existing memory.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), size, prot, flags) }.map_err(failed)?;
        // Large pages spare the translation misses of random access; a kernel without them says no.
        // SAFETY: the range is the mapping just made; the advice does not change its content.
        let _ = unsafe { madvise(base, size, Advice::LinuxHugepage) };
        let base = NonNull::new(base.cast()).ok_or(RingError::Map {
            len_bytes: size,
            source: std::io::ErrorKind::InvalidData.into(),
        })?;
        Ok(Self { base, size })
    }

    /// Size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size as u64
    }

    fn at(&self, offset_bytes: u64, len: usize) -> Result<*mut u8, OutOfRange> {
        let error = OutOfRange {
            offset_bytes,
            len,
            size_bytes: self.size_bytes(),
        };
        let offset = usize::try_from(offset_bytes).map_err(|_| error)?;
        match offset.checked_add(len) {
            // SAFETY: `offset` is at most the mapping's size.
            Some(end) if end <= self.size => Ok(unsafe { self.base.as_ptr().add(offset) }),
            _ => Err(error),
        }
    }

    /// Where a range begins, for the kernel to read; valid as long as `self`.
    pub(crate) fn place(&self, offset_bytes: u64, len: usize) -> Result<*const u8, OutOfRange> {
        self.at(offset_bytes, len).map(<*mut u8>::cast_const)
    }

    /// Says that a range is about to be read: a processor that can brings it near meanwhile. A range that is not
    /// within the memory is none.
    pub fn expect_read(&self, offset_bytes: u64, len: usize) {
        #[cfg(target_arch = "x86_64")]
        if let Ok(start) = self.at(offset_bytes, len) {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            for line in (0..len).step_by(LINE) {
                // SAFETY: the line begins within the checked range, and a prefetch reads nothing into the program.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(start.add(line).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (offset_bytes, len);
    }

    /// Copies from the memory into `into`.
    ///
    /// # Errors
    /// The range is not within the memory; nothing was copied.
    pub fn read(&self, offset_bytes: u64, into: &mut [u8]) -> Result<(), OutOfRange> {
        let from = self.at(offset_bytes, into.len())?;
        // SAFETY: `at` checked the range; `into` is not part of the mapping, as nothing references it.
        unsafe { libc::memcpy(into.as_mut_ptr().cast(), from.cast(), into.len()) };
        Ok(())
    }

    /// Copies `from` into the memory.
    ///
    /// # Errors
    /// The range is not within the memory; nothing was copied.
    pub fn write(&self, offset_bytes: u64, from: &[u8]) -> Result<(), OutOfRange> {
        let to = self.at(offset_bytes, from.len())?;
        // SAFETY: as in `read`, the other way round.
        unsafe { copy_past_caches(to, from) };
        Ok(())
    }

    /// Makes a range zero. Whole large pages (2 MiB) are given back to the system.
    ///
    /// # Errors
    /// The range is not within the memory; nothing was changed.
    pub fn zero(&self, offset_bytes: u64, len: usize) -> Result<(), OutOfRange> {
        let start = self.at(offset_bytes, len)?;
        let head = start.align_offset(LARGE_PAGE).min(len);
        let pages = (len - head) / LARGE_PAGE * LARGE_PAGE;
        if pages > 0 {
            // SAFETY: the whole pages lie within the range that `at` checked; a private anonymous page
            // reads as zero after this advice.
            let released = unsafe { madvise(start.add(head).cast(), pages, Advice::LinuxDontNeed) };
            if released.is_ok() {
                let tail = len - head - pages;
                // SAFETY: head and tail are the parts of the checked range before and after the pages.
                unsafe {
                    libc::memset(start.cast(), 0, head);
                    libc::memset(start.add(head + pages).cast(), 0, tail);
                }
                return Ok(());
            }
        }
        // SAFETY: `at` checked the range.
        unsafe { libc::memset(start.cast(), 0, len) };
        Ok(())
    }
}

/// Shortest copy that is worth going past the caches.
#[cfg(target_arch = "x86_64")]
const PAST_CACHES_MIN: usize = 4096;

/// Copies `from` to `to`. What is long goes past the caches: a drive is much larger than they are, and a store
/// through them first fetches the line that it then overwrites, which doubles the time.
///
/// # Safety
/// `to` is valid for writes of `from.len()` bytes, and no reference to them exists.
unsafe fn copy_past_caches(to: *mut u8, from: &[u8]) {
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if from.len() >= PAST_CACHES_MIN && to.align_offset(LINE) == 0 {
        use std::arch::x86_64::{_mm_loadu_si128, _mm_sfence, _mm_stream_si128};
        const WORD: usize = 16;
        let lines = from.chunks_exact(LINE);
        done = from.len() - lines.remainder().len();
        for (line, start) in lines.zip((0..).step_by(LINE)) {
            for word in (0..LINE).step_by(WORD) {
                // SAFETY: `word + WORD` is at most the line's length, and the same range from `start` is within what
                // the caller vouches for; `to` is aligned to a line. The instructions are part of every x86-64.
                unsafe {
                    let value = _mm_loadu_si128(line.as_ptr().add(word).cast());
                    _mm_stream_si128(to.add(start + word).cast(), value);
                }
            }
        }
        // Such stores are not ordered with those that tell others of them.
        // SAFETY: part of every x86-64.
        unsafe { _mm_sfence() };
    }
    let rest = from.get(done..).unwrap_or_default();
    // SAFETY: `done` is at most `from.len()`, and the caller vouches for as many bytes at `to`.
    unsafe { libc::memcpy(to.add(done).cast(), rest.as_ptr().cast(), rest.len()) };
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new`, and no copy can run any more: each borrows `self`.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.size) };
    }
}

impl std::fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedMemory({} bytes)", self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_at_every_alignment_and_length() {
        let memory = SharedMemory::new(1 << 20).unwrap();
        let data: Vec<u8> = (0..70_000_u32).map(|n| (n % 251) as u8 | 1).collect();
        for offset in [0usize, 1, 63, 64, 512, 4096, 4100] {
            for len in [0, 1, 63, 512, 4095, 4096, 4097, 4160, 65_536, 70_000] {
                memory.zero(0, 1 << 20).unwrap();
                memory.write(offset as u64, &data[..len]).unwrap();
                let mut all = vec![1; 80_000];
                memory.read(0, &mut all).unwrap();
                assert!(all[..offset].iter().all(|&b| b == 0), "{offset} {len}");
                assert_eq!(all[offset..offset + len], data[..len], "{offset} {len}");
                assert!(
                    all[offset + len..].iter().all(|&b| b == 0),
                    "{offset} {len}"
                );
            }
        }
    }

    #[test]
    fn copies_and_zeroes_exactly_its_range() {
        let size = 9 << 20;
        let memory = SharedMemory::new(size).unwrap();
        memory.write(0, &vec![0xab; size]).unwrap();
        for (offset, len) in [
            (1usize, 10usize),
            (4095, 2),
            (5000, 600_000),
            (1 << 20, 1 << 20),
        ] {
            memory.zero(offset as u64, len).unwrap();
            let mut all = vec![1; size];
            memory.read(0, &mut all).unwrap();
            assert!(all[offset..offset + len].iter().all(|&b| b == 0));
            assert!(all[..offset].iter().all(|&b| b == 0xab));
            assert!(all[offset + len..].iter().all(|&b| b == 0xab));
            memory.write(offset as u64, &vec![0xab; len]).unwrap();
        }
        for (offset, len) in [(size as u64, 1), (u64::MAX, 2), (0, size + 1)] {
            assert!(memory.zero(offset, len).is_err());
        }
    }
}
