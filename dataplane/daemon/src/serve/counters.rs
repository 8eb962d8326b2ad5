//! Counters of volumes: each reactor counts for itself, readers add up.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

/// What was done to a volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct IoCounters {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) flushes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
    /// Commands that failed.
    pub(crate) errors: u64,
}

/// One reactor's counters of one volume, on a cache line of their own. Only that reactor writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Counters {
    reads: AtomicU64,
    writes: AtomicU64,
    flushes: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    errors: AtomicU64,
}

/// Adds without a locked instruction: there is one writer.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(count), Relaxed);
}

impl Counters {
    pub(super) fn read(&self, bytes: u64) {
        add(&self.reads, 1);
        add(&self.read_bytes, bytes);
    }

    pub(super) fn wrote(&self, bytes: u64) {
        add(&self.writes, 1);
        add(&self.written_bytes, bytes);
    }

    pub(super) fn flushed(&self) {
        add(&self.flushes, 1);
    }

    pub(super) fn failed(&self) {
        add(&self.errors, 1);
    }
}

/// The counters of one volume, one for each reactor.
pub(super) type VolumeCounters = Arc<[Counters]>;

/// All volumes' counters.
pub(super) struct CounterTable {
    reactors: usize,
    volumes: Mutex<HashMap<Uuid, VolumeCounters>>,
}

impl CounterTable {
    pub(super) fn new(reactors: usize) -> Self {
        Self {
            reactors,
            volumes: Mutex::new(HashMap::new()),
        }
    }

    /// The counters of a volume, made if they are not there.
    pub(super) fn of(&self, volume: Uuid) -> VolumeCounters {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || (0..self.reactors).map(|_| Counters::default()).collect();
        Arc::clone(volumes.entry(volume).or_insert_with(make))
    }

    /// Forgets all volumes but these.
    pub(super) fn keep(&self, wanted: impl Fn(Uuid) -> bool) {
        let mut volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        volumes.retain(|&uuid, _| wanted(uuid));
    }

    pub(super) fn sum(&self, volume: Uuid) -> IoCounters {
        let volumes = self.volumes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = IoCounters::default();
        for one in volumes
            .get(&volume)
            .into_iter()
            .flat_map(|counters| counters.iter())
        {
            sum.reads += one.reads.load(Relaxed);
            sum.writes += one.writes.load(Relaxed);
            sum.flushes += one.flushes.load(Relaxed);
            sum.read_bytes += one.read_bytes.load(Relaxed);
            sum.written_bytes += one.written_bytes.load(Relaxed);
            sum.errors += one.errors.load(Relaxed);
        }
        sum
    }
}
