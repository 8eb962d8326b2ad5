//! What a reactor costs: counts that others may read while it runs.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts of one reactor since its start, on a cache line of their own. Only the reactor writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Activity {
    enters: AtomicU64,
    sleeps: AtomicU64,
}

impl Activity {
    /// System calls: every one of a running reactor is an `io_uring_enter`, but for those that open and close things.
    pub fn enters(&self) -> u64 {
        self.enters.load(Relaxed)
    }

    /// Those among them that waited for something to happen.
    pub fn sleeps(&self) -> u64 {
        self.sleeps.load(Relaxed)
    }

    pub(crate) fn entered(&self) {
        add(&self.enters);
    }

    pub(crate) fn slept(&self) {
        add(&self.enters);
        add(&self.sleeps);
    }
}

/// Adds without a locked instruction: there is one writer.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed).wrapping_add(1), Relaxed);
}
