//! What the commands of a connection do: I/O in flight, which outlives the connection, and counts for the health log.
//!
//! A host that lost its connection sends its writes again on a new one, and newer ones after them. An old write that
//! the drive still works on could then land last and undo a newer one. So a host is not let in again while I/O of a
//! controller of its that ended is in flight: it gets "controller busy", and tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::io::{IoOp, IoRequest};

/// Counts of one connection. Only its owner counts; dropping it says that nothing is in flight.
#[derive(Debug, Default)]
pub(crate) struct Work(Arc<Counts>);

/// A look at a [`Work`] from elsewhere.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    in_flight: AtomicUsize,
    commands: AtomicU64,
    reads: AtomicU64,
    writes: AtomicU64,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
}

/// What was done, for the health log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// I/O commands, whatever became of them.
    pub(crate) commands: u64,
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_bytes: u64,
}

impl Totals {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            commands: self.commands.wrapping_add(other.commands),
            reads: self.reads.wrapping_add(other.reads),
            writes: self.writes.wrapping_add(other.writes),
            read_bytes: self.read_bytes.wrapping_add(other.read_bytes),
            written_bytes: self.written_bytes.wrapping_add(other.written_bytes),
        }
    }
}

/// Adds without a locked instruction: there is one writer.
fn add(counter: &AtomicU64, count: u64) {
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.wrapping_add(count), Ordering::Relaxed);
}

impl Work {
    pub(crate) fn begin(&self) {
        self.add(1);
    }

    pub(crate) fn end(&self) {
        self.add(usize::MAX);
    }

    /// Adds without a locked instruction: there is one writer.
    fn add(&self, difference: usize) {
        let count = self.0.in_flight.load(Ordering::Relaxed);
        let count = count.wrapping_add(difference);
        self.0.in_flight.store(count, Ordering::Release);
    }

    /// An I/O command came; it becomes this request if it passed every check.
    pub(crate) fn count(&self, request: Option<&IoRequest>) {
        add(&self.0.commands, 1);
        let Some(request) = request else {
            return;
        };
        let bytes = u64::from(request.length);
        match request.op {
            IoOp::Read => {
                add(&self.0.reads, 1);
                add(&self.0.read_bytes, bytes);
            }
            IoOp::Write => {
                add(&self.0.writes, 1);
                add(&self.0.written_bytes, bytes);
            }
            _ => {}
        }
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.0))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.in_flight.store(0, Ordering::Release);
    }
}

impl Watch {
    /// Whether I/O is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.in_flight.load(Ordering::Acquire) != 0
    }

    /// Whether I/O may yet be in flight.
    pub(crate) fn is_alive(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    pub(crate) fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            commands: load(&self.0.commands),
            reads: load(&self.0.reads),
            writes: load(&self.0.writes),
            read_bytes: load(&self.0.read_bytes),
            written_bytes: load(&self.0.written_bytes),
        }
    }
}

/// I/O in flight of a connection that ended. Keep it until the last of it ended.
#[derive(Debug)]
#[must_use = "dropping it says that no I/O of the connection is in flight any more"]
pub struct Abandoned {
    pub(crate) _work: Work,
}
