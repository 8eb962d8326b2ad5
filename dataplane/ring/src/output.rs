//! What a connection has to send: small bytes and owned buffers, in order.

use crate::buf::IoBuf;

/// A buffer within the stream of bytes.
struct Piece {
    /// Small bytes that go before it.
    after: usize,
    buf: IoBuf,
    start: usize,
    len: usize,
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
            buf,
            start,
            len,
        });
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
            // SAFETY: the vectors point to initialised memory that `self` keeps until `clear`.
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
        let mut skip = skip;
        let mut from = 0;
        for piece in &self.pieces {
            let after = piece.after.min(bytes.len()).max(from);
            push(into, bytes.get(from..after).unwrap_or_default(), &mut skip);
            from = after;
            let payload = piece
                .buf
                .get(piece.start..piece.start + piece.len)
                .unwrap_or_default();
            push(into, payload, &mut skip);
        }
        push(into, bytes.get(from..).unwrap_or_default(), &mut skip);
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
}
