//! What a connection has to send: small bytes, owned buffers and lent memory, in order.

use std::rc::Rc;
use std::sync::Arc;

use crate::buf::IoBuf;
use crate::memory::{OutOfRange, SharedMemory};

/// Owns memory that is sent from where it lies.
pub trait Lender {
    /// The memory; always the same.
    fn memory(&self) -> Option<&SharedMemory>;

    /// Bytes that were lent with this receipt are not looked at any more.
    fn returned(&self, receipt: u8);
}

/// What a piece consists of.
enum Source {
    Buf {
        buf: IoBuf,
        start: usize,
    },
    Shared {
        bytes: Arc<Vec<u8>>,
        start: usize,
    },
    /// Bytes from `base` on, in memory that the lender keeps.
    Lent {
        base: *const u8,
        lender: Rc<dyn Lender>,
        receipt: u8,
    },
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Self::Lent {
            lender, receipt, ..
        } = self
        {
            lender.returned(*receipt);
        }
    }
}

/// Bytes that are not copied, within the stream.
struct Piece {
    /// Small bytes that go before it.
    after: usize,
    source: Source,
    len: usize,
}

impl Piece {
    fn vector(&self) -> libc::iovec {
        let (base, len) = match &self.source {
            Source::Buf { buf, start } => {
                let bytes = buf.get(*start..*start + self.len).unwrap_or_default();
                (bytes.as_ptr(), bytes.len())
            }
            Source::Shared { bytes, start } => {
                let bytes = bytes.get(*start..*start + self.len).unwrap_or_default();
                (bytes.as_ptr(), bytes.len())
            }
            Source::Lent { base, .. } => (*base, self.len),
        };
        libc::iovec {
            iov_base: base.cast_mut().cast(),
            iov_len: len,
        }
    }
}

/// Bytes to send, in order. Filled by the user, sent by the reactor with one call per turn.
#[derive(Default)]
pub struct Output {
    /// Memory for small bytes, initialised once and used again and again.
    memory: Vec<u8>,
    /// How much of `memory` is in use.
    used: usize,
    pieces: Vec<Piece>,
    pieces_bytes: usize,
}

/// Memory that is kept for the next use at most.
const KEEP_BYTES: usize = 2 << 20;

impl Output {
    /// Appends a copy of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.area(bytes.len()).copy_from_slice(bytes);
    }

    /// Appends `len` bytes with any contents and gives access to them: fill them before anything else is done
    /// here, or take them back with [`Output::retract`].
    pub fn area(&mut self, len: usize) -> &mut [u8] {
        let start = self.used;
        self.used += len;
        if self.used > self.memory.len() {
            // To the vector's growth, so that the next few need nothing.
            self.memory.reserve(self.used - self.memory.len());
            self.memory.resize(self.memory.capacity(), 0);
        }
        self.memory.get_mut(start..self.used).unwrap_or_default()
    }

    /// Takes back the last `len` bytes of the last [`Output::area`].
    pub fn retract(&mut self, len: usize) {
        let fixed = self.pieces.last().map_or(0, |piece| piece.after);
        self.used = self.used.saturating_sub(len).max(fixed);
    }

    /// Appends `len` bytes of `buf` from `start`, without a copy. What lies outside the buffer's bytes
    /// in use is not sent.
    pub fn put_buf(&mut self, buf: IoBuf, start: usize, len: usize) {
        let start = start.min(buf.len());
        let len = len.min(buf.len() - start);
        self.pieces_bytes += len;
        self.pieces.push(Piece {
            after: self.used,
            source: Source::Buf { buf, start },
            len,
        });
    }

    /// Appends `len` bytes of `bytes` from `start`, without a copy; shared until they were sent. What lies outside is
    /// not sent.
    pub fn put_shared(&mut self, bytes: Arc<Vec<u8>>, start: usize, len: usize) {
        let start = start.min(bytes.len());
        let len = len.min(bytes.len() - start);
        self.pieces_bytes += len;
        self.pieces.push(Piece {
            after: self.used,
            source: Source::Shared { bytes, start },
            len,
        });
    }

    /// Appends `len` bytes of the lender's memory, without a copy: they are read when they are sent, and may change
    /// until then. The lender hears of it when they were sent or dropped, in every case exactly once.
    ///
    /// # Errors
    /// The range is not within the memory; nothing was appended, and the lender was told.
    pub fn put_lent(
        &mut self,
        lender: Rc<dyn Lender>,
        offset_bytes: u64,
        len: usize,
        receipt: u8,
    ) -> Result<(), OutOfRange> {
        let outside = OutOfRange {
            offset_bytes,
            len,
            size_bytes: 0,
        };
        let place = lender
            .memory()
            .ok_or(outside)
            .and_then(|memory| memory.place(offset_bytes, len));
        let source = Source::Lent {
            base: *place.as_ref().unwrap_or(&std::ptr::null()),
            lender,
            receipt,
        };
        place?;
        self.pieces_bytes += len;
        self.pieces.push(Piece {
            after: self.used,
            source,
            len,
        });
        Ok(())
    }

    /// Bytes appended and not yet taken for sending.
    pub fn len(&self) -> usize {
        self.used + self.pieces_bytes
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Moves everything to the end of `into`, as a simulated network sends it.
    pub fn take(&mut self, into: &mut Vec<u8>) {
        let mut vectors = Vec::new();
        self.vectors(0, &mut vectors);
        for vector in vectors {
            // SAFETY: the vectors point to initialised memory that `self`, or who lent it, keeps until `clear`.
            into.extend_from_slice(unsafe {
                std::slice::from_raw_parts(vector.iov_base.cast(), vector.iov_len)
            });
        }
        self.clear();
    }

    /// Drops everything and keeps a little memory for the next use.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
        if self.memory.len() > KEEP_BYTES {
            self.memory = Vec::new();
        }
        self.pieces.clear();
        self.pieces_bytes = 0;
    }

    /// The memory to send, after skipping the first `skip` bytes.
    pub(crate) fn vectors(&self, skip: usize, into: &mut Vec<libc::iovec>) {
        into.clear();
        let bytes = self.memory.get(..self.used).unwrap_or_default();
        let small = |bytes: &[u8]| libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let mut skip = skip;
        let mut from = 0;
        for piece in &self.pieces {
            let after = piece.after.min(bytes.len()).max(from);
            let before = bytes.get(from..after).unwrap_or_default();
            push(into, small(before), &mut skip);
            from = after;
            push(into, piece.vector(), &mut skip);
        }
        let rest = bytes.get(from..).unwrap_or_default();
        push(into, small(rest), &mut skip);
    }
}

fn push(into: &mut Vec<libc::iovec>, vector: libc::iovec, skip: &mut usize) {
    let skipped = vector.iov_len.min(*skip);
    *skip -= skipped;
    if vector.iov_len > skipped {
        into.push(libc::iovec {
            iov_base: vector.iov_base.cast::<u8>().wrapping_add(skipped).cast(),
            iov_len: vector.iov_len - skipped,
        });
    }
}

/// What one send operation owns while it is in flight. Boxed, so that the kernel's pointers stay valid.
pub(crate) struct Sending {
    pub(crate) output: Output,
    pub(crate) done: usize,
    vectors: Vec<libc::iovec>,
    header: libc::msghdr,
}

/// Vectors one `sendmsg` takes at most (UIO_MAXIOV); the rest follows in the next.
const VECTORS_MAX: usize = 1024;

impl Sending {
    pub(crate) fn new() -> Self {
        // SAFETY: msghdr is plain old data for which all zeroes (null pointers, no lengths) is valid.
        let header = unsafe { std::mem::zeroed() };
        Self {
            output: Output::default(),
            done: 0,
            vectors: Vec::new(),
            header,
        }
    }

    /// The message for what is left, valid until `self` is changed or moved.
    pub(crate) fn message(&mut self) -> *const libc::msghdr {
        self.output.vectors(self.done, &mut self.vectors);
        self.vectors.truncate(VECTORS_MAX);
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        &raw const self.header
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buf::BufPool;

    fn flatten(output: &Output, skip: usize) -> Vec<u8> {
        let mut vectors = Vec::new();
        output.vectors(skip, &mut vectors);
        let mut all = Vec::new();
        for v in vectors {
            // SAFETY: the vectors point into `output`, which is borrowed.
            all.extend_from_slice(unsafe {
                std::slice::from_raw_parts(v.iov_base.cast(), v.iov_len)
            });
        }
        all
    }

    #[test]
    fn order_is_kept_from_any_position() {
        let pool = BufPool::new(1 << 20);
        let mut output = Output::default();
        let mut want = Vec::new();
        for i in 0..5u8 {
            output.put(&[i; 3]);
            want.extend([i; 3]);
            let mut buf = pool.alloc(10).unwrap();
            buf.fill(100 + i);
            output.put_buf(buf, 2, 5);
            want.extend([100 + i; 5]);
            output.put_shared(Arc::new(vec![1, i, i, 1]), 1, 2);
            want.extend([i; 2]);
            output.area(2).copy_from_slice(&[9, 0]);
            output.area(5).fill(77);
            output.retract(5);
            want.extend([9, 0]);
        }
        assert_eq!(output.len(), want.len());
        for skip in 0..=want.len() {
            assert_eq!(flatten(&output, skip), want[skip..]);
        }
        let mut taken = Vec::new();
        output.take(&mut taken);
        assert_eq!(taken, want);
        assert!(output.is_empty());
        assert_eq!(pool.used_bytes(), 0);
    }

    struct Drive {
        memory: SharedMemory,
        returned: std::cell::RefCell<Vec<u8>>,
    }

    impl Lender for Drive {
        fn memory(&self) -> Option<&SharedMemory> {
            Some(&self.memory)
        }

        fn returned(&self, receipt: u8) {
            self.returned.borrow_mut().push(receipt);
        }
    }

    #[test]
    fn lent_bytes_are_read_late_and_returned_once() {
        let drive = Rc::new(Drive {
            memory: SharedMemory::new(8192).unwrap(),
            returned: std::cell::RefCell::default(),
        });
        let mut output = Output::default();
        output.put(b"head");
        output.put_lent(drive.clone(), 4096, 3, 7).unwrap();
        output.put(b"tail");
        drive.memory.write(4096, b"abc").unwrap();
        assert_eq!(flatten(&output, 0), b"headabctail");
        assert_eq!(flatten(&output, 5), b"bctail");
        assert_eq!(output.len(), 11);
        assert!(drive.returned.borrow().is_empty());
        output.clear();
        assert_eq!(*drive.returned.borrow(), [7]);
        assert!(output.put_lent(drive.clone(), 8190, 3, 8).is_err());
        assert_eq!(*drive.returned.borrow(), [7, 8]);
        assert!(output.is_empty());
    }
}
