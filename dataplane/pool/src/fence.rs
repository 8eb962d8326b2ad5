//! Bytes of a volume that nobody else may look up for a while.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::volume::Volume;

/// Keeps others away from what an I/O in flight changes when nobody waits for that I/O any more: lookups that overlap
/// it are refused as busy until this is dropped. So an I/O that the drive takes long for cannot undo one that was
/// begun later. What was looked up before is not affected.
#[derive(Debug)]
#[must_use = "dropping it lets others in"]
pub struct Fence {
    volume: Arc<Volume>,
    number: u64,
}

/// The fences of a volume.
#[derive(Debug, Default)]
pub(crate) struct Fences {
    count: AtomicUsize,
    all: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    last: u64,
    /// By number; bytes.
    ranges: Vec<(u64, Range<u64>)>,
}

impl Fences {
    /// Whether bytes are behind a fence. Cheap when there is none.
    pub(crate) fn block(&self, offset: u64, len: u64) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let end = offset.saturating_add(len);
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ranges = all.ranges.iter();
        ranges.any(|(_, range)| range.start < end && offset < range.end)
    }

    fn change<T>(&self, change: impl FnOnce(&mut All) -> T) -> T {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut all);
        self.count.store(all.ranges.len(), Ordering::Release);
        result
    }
}

impl Volume {
    /// Fences bytes off.
    pub fn fence(self: &Arc<Self>, offset: u64, len: u64) -> Fence {
        let range = offset..offset.saturating_add(len);
        let number = self.fences.change(|all| {
            all.last = all.last.wrapping_add(1);
            all.ranges.push((all.last, range));
            all.last
        });
        Fence {
            volume: Arc::clone(self),
            number,
        }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let number = self.number;
        self.volume
            .fences
            .change(|all| all.ranges.retain(|(other, _)| *other != number));
    }
}
