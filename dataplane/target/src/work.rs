//! I/O in flight that outlives its connection.
//!
//! A host that lost its connection sends its writes again on a new one, and newer ones after them. An old write that
//! the drive still works on could then land last and undo a newer one. So a host is not let in again while I/O of a
//! controller of its that ended is in flight: it gets "controller busy", and tries again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts one connection's I/O in flight. Only its owner counts; dropping it says that nothing is in flight.
#[derive(Debug, Default)]
pub(crate) struct Work(Arc<AtomicUsize>);

/// A look at a [`Work`] from elsewhere.
#[derive(Debug)]
pub(crate) struct Watch(Arc<AtomicUsize>);

impl Work {
    pub(crate) fn begin(&self) {
        self.add(1);
    }

    pub(crate) fn end(&self) {
        self.add(usize::MAX);
    }

    /// Adds without a locked instruction: there is one writer.
    fn add(&self, difference: usize) {
        let count = self.0.load(Ordering::Relaxed);
        self.0
            .store(count.wrapping_add(difference), Ordering::Release);
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.0))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

impl Watch {
    /// Whether I/O is in flight.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Whether I/O may yet be in flight.
    pub(crate) fn is_alive(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// I/O in flight of a connection that ended. Keep it until the last of it ended.
#[derive(Debug)]
#[must_use = "dropping it says that no I/O of the connection is in flight any more"]
pub struct Abandoned {
    pub(crate) _work: Work,
}
