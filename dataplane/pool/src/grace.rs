//! When can nobody reach a freed extent any more?
//!
//! A reactor counts every I/O in before it looks extents up and out after the drive has completed it, in
//! one of two counters of its own. Extents freed at a time T are out of reach once each counter of each
//! reader was seen at zero after T: whoever could have looked one up before T was counted then, and whoever
//! is counted in later finds the hole. The two need not be zero together; the clock sends new I/O to the
//! other counter while one drains, so a busy reader delays a cycle by no more than its longest I/O.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

/// The two counters of one reader, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Slot {
    active: [AtomicU32; 2],
}

impl Slot {
    pub(crate) fn enter(&self, parity: usize) {
        if let Some(counter) = self.active.get(parity) {
            counter.fetch_add(1, SeqCst);
        }
    }

    pub(crate) fn leave(&self, parity: usize) {
        if let Some(counter) = self.active.get(parity) {
            counter.fetch_sub(1, SeqCst);
        }
    }

    fn is_idle(&self, parity: usize) -> bool {
        self.active
            .get(parity)
            .is_none_or(|counter| counter.load(SeqCst) == 0)
    }

    /// Whether each counter is at zero, one looked at after the other.
    pub(crate) fn is_all_idle(&self) -> bool {
        self.is_idle(0) && self.is_idle(1)
    }
}

/// Which counter new I/O uses, and all readers of a pool.
#[derive(Debug, Default)]
pub(crate) struct GraceClock {
    parity: AtomicUsize,
    slots: Mutex<Vec<Arc<Slot>>>,
}

impl GraceClock {
    pub(crate) fn register(&self) -> Arc<Slot> {
        let slot = Arc::new(Slot::default());
        self.slots
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(&slot));
        slot
    }

    pub(crate) fn parity(&self) -> usize {
        self.parity.load(SeqCst)
    }

    fn flip(&self) -> usize {
        self.parity.fetch_xor(1, SeqCst)
    }

    /// Whether no reader has I/O in flight under `parity`; forgets readers that are gone and idle.
    fn is_idle(&self, parity: usize) -> bool {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|slot| Arc::strong_count(slot) > 1 || !slot.is_all_idle());
        slots.iter().all(|slot| slot.is_idle(parity))
    }
}

/// One wait of the drive's thread for all I/O that was in flight at its start.
#[derive(Debug)]
pub(crate) struct GraceCycle {
    draining: usize,
    left: u8,
}

impl GraceCycle {
    /// Starts to wait for everything that is in flight now.
    pub(crate) fn start(clock: &GraceClock) -> Self {
        Self {
            draining: clock.flip(),
            left: 2,
        }
    }

    /// Whether all of it has ended.
    pub(crate) fn poll(&mut self, clock: &GraceClock) -> bool {
        while self.left > 0 && clock.is_idle(self.draining) {
            self.left -= 1;
            if self.left > 0 {
                self.draining = clock.flip();
            }
        }
        self.left == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_io_of_both_parities_and_not_for_later_io() {
        let clock = GraceClock::default();
        let slot = clock.register();
        slot.enter(clock.parity());
        let old = clock.parity();
        let mut cycle = GraceCycle::start(&clock);
        assert!(!cycle.poll(&clock));
        let new = clock.parity();
        assert_ne!(old, new);
        slot.enter(new);
        slot.leave(old);
        assert!(
            !cycle.poll(&clock),
            "the other counter must be seen at zero as well"
        );
        slot.enter(clock.parity());
        slot.leave(new);
        assert!(
            cycle.poll(&clock),
            "I/O counted in after the second flip is not waited for"
        );
    }

    #[test]
    fn an_idle_clock_passes_at_once_and_forgets_dropped_readers() {
        let clock = GraceClock::default();
        drop(clock.register());
        assert!(GraceCycle::start(&clock).poll(&clock));
        assert!(clock.slots.lock().unwrap().is_empty());
    }

    #[test]
    fn a_reader_dropped_with_io_in_flight_is_still_waited_for() {
        let clock = GraceClock::default();
        let slot = clock.register();
        slot.enter(clock.parity());
        drop(slot);
        assert!(!GraceCycle::start(&clock).poll(&clock));
    }
}
