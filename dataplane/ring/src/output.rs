//! What a connection has to send: small bytes and owned buffers, in order.

use crate::buf::IoBuf;
use crate::memory::{OutOfRange, SharedMemory};

/// A buffer within the stream of bytes.
struct Piece {
    /// Bytes of `Output::bytes` that go before it.
    after: usize,
    buf: IoBuf,
    start: usize,
    len: usize,
}

/// Bytes to send, in order. Filled by the user, sent by the reactor with one call per turn.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    pieces: Vec<Piece>,
    pieces_bytes: usize,
}

/// A vector that is kept for the next use keeps at most this much memory.
const KEEP_BYTES: usize = 2 << 20;

impl Output {
    /// Appends a copy of `bytes`.
    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The vector that small bytes are appended to: an encoder may push to it. Nothing that is
    /// already there may be taken away or changed.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends `len` zero bytes and gives access to them.
    pub fn put_zeros(&mut self, len: usize) -> &mut [u8] {
        let start = self.bytes.len();
        self.bytes.resize(start + len, 0);
        self.bytes.get_mut(start..).unwrap_or_default()
    }

    /// Appends a copy of a range of a memory drive and gives access to it (for a digest).
    ///
    /// # Errors
    /// The range is not within the memory; nothing was appended.
    pub fn put_memory(
        &mut self,
        memory: &SharedMemory,
        offset_bytes: u64,
        len: usize,
    ) -> Result<&[u8], OutOfRange> {
        let start = self.bytes.len();
        memory.append_to(offset_bytes, len, &mut self.bytes)?;
        Ok(self.bytes.get(start..).unwrap_or_default())
    }

    /// Appends `len` bytes of `buf` from `start`, without a copy. What lies outside the buffer's bytes
    /// in use is not sent.
    pub fn put_buf(&mut self, buf: IoBuf, start: usize, len: usize) {
        let start = start.min(buf.len());
        let len = len.min(buf.len() - start);
        self.pieces_bytes += len;
        self.pieces.push(Piece {
            after: self.bytes.len(),
            buf,
            start,
            len,
        });
    }

    /// Bytes appended and not yet taken for sending.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.pieces_bytes
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops everything and keeps a little memory for the next use.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_BYTES);
        self.pieces.clear();
        self.pieces_bytes = 0;
    }

    /// The memory to send, after skipping the first `skip` bytes.
    pub(crate) fn vectors(&self, skip: usize, into: &mut Vec<libc::iovec>) {
        into.clear();
        let mut skip = skip;
        let mut from = 0;
        for piece in &self.pieces {
            let after = piece.after.min(self.bytes.len()).max(from);
            push(
                into,
                self.bytes.get(from..after).unwrap_or_default(),
                &mut skip,
            );
            from = after;
            let payload = piece
                .buf
                .get(piece.start..piece.start + piece.len)
                .unwrap_or_default();
            push(into, payload, &mut skip);
        }
        push(into, self.bytes.get(from..).unwrap_or_default(), &mut skip);
    }
}

fn push(into: &mut Vec<libc::iovec>, bytes: &[u8], skip: &mut usize) {
    let skipped = bytes.len().min(*skip);
    *skip -= skipped;
    let bytes = bytes.get(skipped..).unwrap_or_default();
    if !bytes.is_empty() {
        let iov_base = bytes.as_ptr().cast_mut().cast();
        into.push(libc::iovec {
            iov_base,
            iov_len: bytes.len(),
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
            output.put_zeros(2)[0] = 9;
            want.extend([9, 0]);
        }
        assert_eq!(output.len(), want.len());
        for skip in 0..=want.len() {
            assert_eq!(flatten(&output, skip), want[skip..]);
        }
        output.clear();
        assert!(output.is_empty());
        assert_eq!(pool.used_bytes(), 0);
    }
}
