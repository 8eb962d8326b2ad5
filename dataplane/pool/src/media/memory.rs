//! Memory as a drive: gone with the process. For tests; a daemon gives the pool the memory that its
//! reactors use.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::Media;
use crate::blocks::index;

/// A drive in memory. Pages that were never written cost nothing.
#[derive(Debug)]
pub struct MemoryMedia {
    bytes: Mutex<Vec<u8>>,
}

impl MemoryMedia {
    /// A drive of zeroes.
    pub fn new(size_bytes: u64) -> Self {
        Self {
            bytes: Mutex::new(vec![0; index(size_bytes)]),
        }
    }

    fn with<T>(&self, offset: u64, len: u64, f: impl FnOnce(&mut [u8]) -> T) -> io::Result<T> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let range = bytes
            .get_mut(index(offset)..index(end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(f(range))
    }
}

impl Media for MemoryMedia {
    fn path(&self) -> &str {
        "memory"
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self
            .bytes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64)
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.with(offset, buffer.len() as u64, |bytes| {
            buffer.copy_from_slice(bytes)
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(offset, data.len() as u64, |bytes| {
            bytes.copy_from_slice(data)
        })
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.with(offset, len, |bytes| bytes.fill(0))
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
