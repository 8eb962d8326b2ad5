//! A drive that loses power, for tests: what was not synced survives in any part.
//!
//! Every write and every zeroing since the last sync is kept whole, lost, or torn at sectors of 512 bytes,
//! each by itself, when the power is cut. Reads before the cut see everything, as a drive's cache shows it.

use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Media;
use crate::blocks::index;

const SECTOR: usize = 512;

struct Write {
    offset: usize,
    data: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    durable: Vec<u8>,
    view: Vec<u8>,
    unsynced: Vec<Write>,
    operations: u64,
    cut_at: Option<u64>,
    is_off: bool,
    failing_syncs: bool,
    full: bool,
    unreadable: Vec<Range<u64>>,
}

/// A simulated drive.
#[derive(Default)]
pub struct SimMedia(Mutex<Inner>);

/// Small, repeatable random numbers (xorshift): a test's seed says it all.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next one.
    pub fn next_u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next_u64() >> 11) % bound.max(1)
    }
}

impl SimMedia {
    /// A drive of zeroes.
    pub fn new(size_bytes: u64) -> Self {
        Self::with_content(vec![0; index(size_bytes)])
    }

    /// A drive with this on it, durably.
    pub fn with_content(content: Vec<u8>) -> Self {
        Self(Mutex::new(Inner {
            view: content.clone(),
            durable: content,
            ..Inner::default()
        }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes, zeroings and syncs so far.
    pub fn operations(&self) -> u64 {
        self.inner().operations
    }

    /// The operation of this number, counted from the start, is the last: the power fails during it.
    pub fn cut_power_at(&self, operation: u64) {
        self.inner().cut_at = Some(operation);
    }

    /// Whether the power has failed.
    pub fn is_off(&self) -> bool {
        self.inner().is_off
    }

    /// Every sync fails from now on, or succeeds again.
    pub fn fail_syncs(&self, fail: bool) {
        self.inner().failing_syncs = fail;
    }

    /// Zeroing finds no room from now on, or finds some again.
    pub fn make_full(&self, full: bool) {
        self.inner().full = full;
    }

    /// Reads that touch these bytes fail from now on.
    pub fn make_unreadable(&self, bytes: Range<u64>) {
        self.inner().unreadable.push(bytes);
    }

    /// What is on the drive as its users see it.
    pub fn content(&self) -> Vec<u8> {
        self.inner().view.clone()
    }

    /// What is on the drive after a power cut now.
    pub fn after_power_cut(&self, random: &mut Random) -> Vec<u8> {
        let inner = self.inner();
        let mut content = inner.durable.clone();
        for write in &inner.unsynced {
            let fate = random.below(3);
            for (n, sector) in write.data.chunks(SECTOR).enumerate() {
                let kept = match fate {
                    0 => true,
                    1 => false,
                    _ => random.below(2) == 0,
                };
                let start = write.offset + n * SECTOR;
                if let Some(place) = content
                    .get_mut(start..start + sector.len())
                    .filter(|_| kept)
                {
                    place.copy_from_slice(sector);
                }
            }
        }
        content
    }
}

fn power_failed() -> io::Error {
    io::Error::other("the power has failed")
}

impl Inner {
    /// Counts an operation; true if the power fails during it.
    fn count(&mut self) -> io::Result<bool> {
        if self.is_off {
            return Err(power_failed());
        }
        self.operations += 1;
        self.is_off = self.cut_at.is_some_and(|at| self.operations >= at);
        Ok(self.is_off)
    }

    fn write(&mut self, offset: u64, data: Vec<u8>) -> io::Result<()> {
        let fails = self.count()?;
        let offset = index(offset);
        let end = offset
            .checked_add(data.len())
            .ok_or(io::ErrorKind::InvalidInput)?;
        self.view
            .get_mut(offset..end)
            .ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(&data);
        self.unsynced.push(Write { offset, data });
        if fails { Err(power_failed()) } else { Ok(()) }
    }
}

impl Media for SimMedia {
    fn path(&self) -> &str {
        "simulated drive"
    }

    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.inner().view.len() as u64)
    }

    /// Durable at once.
    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.is_off {
            return Err(power_failed());
        }
        let len = index(size_bytes).max(inner.view.len());
        inner.view.resize(len, 0xee);
        inner.durable.resize(len, 0xee);
        Ok(())
    }

    fn block_bytes(&self) -> u32 {
        512
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let inner = self.inner();
        if inner.is_off {
            return Err(power_failed());
        }
        let end = offset + buffer.len() as u64;
        if inner
            .unreadable
            .iter()
            .any(|bad| bad.start < end && offset < bad.end)
        {
            return Err(io::Error::other("unreadable sector"));
        }
        let from = inner
            .view
            .get(index(offset)..index(end))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(from);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner().write(offset, data.to_vec())
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inner.write(offset, vec![0; index(len)])
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner();
        if inner.count()? {
            return Err(power_failed());
        }
        if inner.failing_syncs {
            return Err(io::Error::other("sync failed"));
        }
        let Inner {
            durable, unsynced, ..
        } = &mut *inner;
        for write in unsynced.drain(..) {
            if let Some(place) = durable.get_mut(write.offset..write.offset + write.data.len()) {
                place.copy_from_slice(&write.data);
            }
        }
        Ok(())
    }
}
