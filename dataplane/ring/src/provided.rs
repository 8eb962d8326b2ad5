//! The ring of receive buffers that the kernel picks from.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// The only buffer group there is.
pub(crate) const GROUP: u16 = 0;
const PAGE: usize = 4096;

/// Memory of the ring and of its buffers. It must outlive the `IoUring` it is registered with,
/// or at least every operation in flight there.
pub(crate) struct RecvBuffers {
    ring: NonNull<BufRingEntry>,
    ring_layout: Layout,
    data: NonNull<u8>,
    data_layout: Layout,
    count: u16,
    buf_bytes: u32,
    tail: u16,
}

impl RecvBuffers {
    /// `count` (a power of two) buffers of `buf_bytes` each.
    pub(crate) fn new(uring: &IoUring, count: u16, buf_bytes: u32) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        if !count.is_power_of_two() || buf_bytes == 0 {
            return Err(invalid());
        }
        let ring_bytes = usize::from(count) * size_of::<BufRingEntry>();
        let data_bytes =
            usize::try_from(u64::from(count) * u64::from(buf_bytes)).map_err(|_| invalid())?;
        let ring_layout = Layout::from_size_align(ring_bytes, PAGE).map_err(|_| invalid())?;
        let data_layout = Layout::from_size_align(data_bytes, PAGE).map_err(|_| invalid())?;
        // SAFETY: neither layout has size zero; zeroed memory is a valid ring without entries.
        let (ring, data) = unsafe { (alloc_zeroed(ring_layout), alloc_zeroed(data_layout)) };
        let (Some(ring), Some(data)) = (NonNull::new(ring), NonNull::new(data)) else {
            return Err(io::ErrorKind::OutOfMemory.into());
        };
        let mut this = Self {
            ring: ring.cast(),
            ring_layout,
            data,
            data_layout,
            count,
            buf_bytes,
            tail: 0,
        };
        // SAFETY: the ring's memory has room for `count` entries, is page aligned, and is freed only in
        // drop, which the reactor lets happen after every operation has ended.
        unsafe {
            let address = this.ring.as_ptr() as u64;
            uring
                .submitter()
                .register_buf_ring_with_flags(address, count, GROUP, 0)?;
        }
        for id in 0..count {
            this.put(id);
        }
        this.publish();
        Ok(this)
    }

    /// The first `len` bytes of a buffer that the kernel handed over in a completion.
    pub(crate) fn bytes(&self, id: u16, len: usize) -> &[u8] {
        let buf_bytes = usize::try_from(self.buf_bytes).unwrap_or(0);
        let id = usize::from(id % self.count);
        // SAFETY: the range lies within `data`, which is initialised; the kernel does not write to the
        // buffer between its completion and `recycle`, which needs `&mut self`.
        unsafe {
            std::slice::from_raw_parts(self.data.as_ptr().add(id * buf_bytes), len.min(buf_bytes))
        }
    }

    /// Gives a buffer back to the kernel.
    pub(crate) fn recycle(&mut self, id: u16) {
        self.put(id);
        self.publish();
    }

    fn put(&mut self, id: u16) {
        let id = id % self.count;
        let slot = usize::from(self.tail % self.count);
        // SAFETY: `slot` is below `count`; the kernel reads entries only up to the published tail. The tail
        // itself shares memory with the first entry's reserved field, which the setters do not touch.
        unsafe {
            let offset = usize::from(id) * usize::try_from(self.buf_bytes).unwrap_or(0);
            let entry = &mut *self.ring.as_ptr().add(slot);
            entry.set_addr(self.data.as_ptr().add(offset) as u64);
            entry.set_len(self.buf_bytes);
            entry.set_bid(id);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        // SAFETY: the ring's base is valid, and its tail is only accessed atomically, by us and the kernel.
        let tail = unsafe { &*BufRingEntry::tail(self.ring.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for RecvBuffers {
    fn drop(&mut self) {
        // SAFETY: both came from alloc_zeroed with these layouts; no operation that could use them is left.
        unsafe {
            dealloc(self.ring.as_ptr().cast(), self.ring_layout);
            dealloc(self.data.as_ptr(), self.data_layout);
        }
    }
}
