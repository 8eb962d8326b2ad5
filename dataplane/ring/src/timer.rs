//! One-shot timers. Nothing ticks: the reactor sleeps until the next one is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

use crate::error::RingError;
use crate::slab::{Key, Slab};

/// Names a timer that was set and has not fired.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TimerId(pub(crate) Key);

impl TimerId {
    /// A name for a timer that no reactor knows: a simulation makes its own.
    pub fn simulated(number: u64) -> Self {
        Self(Key::from_bits(number))
    }
}

/// What a timer does when it is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Due {
    /// Tells the user.
    User(u64),
    /// Takes up accepting again after it failed.
    Accept(Key),
}

pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, Key)>>,
    live: Slab<Due>,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            heap: BinaryHeap::new(),
            live: Slab::new(),
        }
    }

    pub(crate) fn set(&mut self, at: Instant, due: Due) -> Result<TimerId, RingError> {
        let key = self
            .live
            .insert(due)
            .map_err(|_| RingError::Full { what: "timer" })?;
        self.heap.push(Reverse((at, key)));
        // Cancelled timers stay in the heap until they are due: clear them out before they pile up.
        if self.heap.len() > 2 * self.live.len() + 64 {
            let live = &self.live;
            self.heap
                .retain(|Reverse((_, key))| live.get(*key).is_some());
        }
        Ok(TimerId(key))
    }

    pub(crate) fn cancel(&mut self, id: TimerId) {
        self.live.remove(id.0);
    }

    /// When the next timer is due.
    pub(crate) fn next(&mut self) -> Option<Instant> {
        while let Some(Reverse((at, key))) = self.heap.peek().copied() {
            if self.live.get(key).is_some() {
                return Some(at);
            }
            self.heap.pop();
        }
        None
    }

    /// Takes one timer that is due at `now`.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(TimerId, Due)> {
        while let Some(Reverse((at, key))) = self.heap.peek().copied() {
            if at > now && self.live.get(key).is_some() {
                return None;
            }
            self.heap.pop();
            if let Some(due) = self.live.remove(key) {
                return Some((TimerId(key), due));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn fires_in_order_and_not_when_cancelled() {
        let mut timers = Timers::new();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        timers.set(at(30), Due::User(3)).unwrap();
        let second = timers.set(at(20), Due::User(2)).unwrap();
        timers.set(at(10), Due::User(1)).unwrap();
        timers.cancel(second);
        assert_eq!(timers.next(), Some(at(10)));
        assert!(timers.pop(at(9)).is_none());
        assert_eq!(timers.pop(at(40)).unwrap().1, Due::User(1));
        assert_eq!(timers.pop(at(40)).unwrap().1, Due::User(3));
        assert!(timers.pop(at(40)).is_none());
        for _ in 0..10_000 {
            let id = timers.set(at(50), Due::User(0)).unwrap();
            timers.cancel(id);
        }
        assert!(timers.heap.len() < 100, "cancelled timers do not pile up");
        assert_eq!(timers.next(), None);
    }
}
