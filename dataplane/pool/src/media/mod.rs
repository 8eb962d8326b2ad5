//! What a pool lies on.

mod file;
mod memory;
pub mod sim;

use std::io;

pub use file::FileMedia;
pub use memory::MemoryMedia;

/// A drive, as the pool's own thread uses it: blocking, for metadata and for zeroing. Reactors do their I/O
/// to the same drive by their own means.
///
/// The pool uses offsets and lengths that are multiples of 4096 and buffers aligned to 4096
/// ([`crate::Blocks`]), except that it never assumes more than 512 bytes to be written as a whole.
pub trait Media: Send + Sync {
    /// Where it is, for messages.
    fn path(&self) -> &str;

    /// Its size now, bytes.
    fn size_bytes(&self) -> io::Result<u64>;

    /// Makes it at least `size_bytes` large, if that is something that can be done to it; otherwise nothing.
    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        let _ = size_bytes;
        Ok(())
    }

    /// The smallest piece that can be read or written, bytes: a volume's blocks must not be smaller.
    fn block_bytes(&self) -> u32;

    /// Fills `buffer` from `offset`. A short read is an error.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`. After it has returned, a sync by anyone covers it.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes the bytes read as zeroes, with room behind them where the medium can promise that.
    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()>;

    /// The bytes are no longer needed; what they read as afterwards does not matter.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Everything written before is durable.
    fn sync(&self) -> io::Result<()>;
}
