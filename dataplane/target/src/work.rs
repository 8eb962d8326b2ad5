//! What the commands of a connection do: I/O in flight, which outlives the connection and which a preemption must wait
//! for, and counts for the health log.
//!
//! A host that lost its connection sends its writes again on a new one, and newer ones after them. An old write that
//! the drive still works on could then land last and undo a newer one. So a host is not let in again while I/O of a
//! controller of its that ended is in flight: it gets "controller busy", and tries again. A rim that can hold back the
//! I/O that would overtake says so, by [`Abandoned::keep_order`]: then the host is let in at once.
//!
//! Preempt and Abort completes when no I/O of the preempted hosts is in flight that began before. Its queues go on with
//! what they may still do, so "nothing in flight" may never be seen: a queue that is asked counts new I/O in another
//! counter, and says when the old one is empty.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use crate::io::{IoOp, IoRequest};

/// What others see of a queue's I/O. Only its owner writes, but for `asked`.
#[derive(Debug, Default)]
struct Shared {
    /// I/O in flight, and one while commands are looked at.
    busy: AtomicUsize,
    /// The rim lets nothing overtake what is in flight.
    is_ordered: AtomicBool,
    /// Counts those who asked for a drain.
    asked: AtomicU64,
    /// All I/O that began before this one asked has ended.
    passed: AtomicU64,
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

/// Counts one connection's I/O in flight. Only its owner counts; dropping it says that nothing is in flight.
#[derive(Debug, Default)]
pub(crate) struct Work {
    shared: Arc<Shared>,
    /// I/O in flight, by phase.
    in_flight: [u32; 2],
    phase: Phase,
    /// The last one who asked and is being served: it waits for the other phase.
    serving: u64,
}

/// Which counter an I/O is counted in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The one.
    #[default]
    Even,
    /// The other.
    Odd,
}

impl Phase {
    fn other(self) -> Self {
        match self {
            Self::Even => Self::Odd,
            Self::Odd => Self::Even,
        }
    }
}

/// A look at a [`Work`] from elsewhere.
#[derive(Debug)]
pub(crate) struct Watch(Arc<Shared>);

impl Work {
    pub(crate) fn begin(&mut self) -> Phase {
        self.add(1);
        let phase = self.phase;
        let count = self.count(phase);
        *count = count.saturating_add(1);
        phase
    }

    pub(crate) fn end(&mut self, phase: Phase) {
        let count = self.count(phase);
        *count = count.saturating_sub(1);
        self.serve();
        self.add(usize::MAX);
    }

    /// Commands are looked at from now on. Whoever changes what they may do sees this, or they see the change: hence
    /// the one locked instruction, for a whole batch of them.
    pub(crate) fn enter(&mut self) {
        self.shared.busy.fetch_add(1, Ordering::SeqCst);
        self.serve();
    }

    /// All commands were looked at.
    pub(crate) fn leave(&mut self) {
        self.add(usize::MAX);
    }

    /// An I/O command came; it becomes this request if it passed every check.
    pub(crate) fn count_command(&self, request: Option<&IoRequest>) {
        add(&self.shared.commands, 1);
        let Some(request) = request else {
            return;
        };
        let bytes = u64::from(request.length);
        match request.op {
            IoOp::Read => {
                add(&self.shared.reads, 1);
                add(&self.shared.read_bytes, bytes);
            }
            IoOp::Write => {
                add(&self.shared.writes, 1);
                add(&self.shared.written_bytes, bytes);
            }
            _ => {}
        }
    }

    fn count(&mut self, phase: Phase) -> &mut u32 {
        let [even, odd] = &mut self.in_flight;
        match phase {
            Phase::Even => even,
            Phase::Odd => odd,
        }
    }

    /// Says that the old phase is over if it is, and begins a new one for those who asked since.
    fn serve(&mut self) {
        let asked = self.shared.asked.load(Ordering::SeqCst);
        if asked == self.serving && self.shared.passed.load(Ordering::Relaxed) == asked {
            return;
        }
        if *self.count(self.phase.other()) > 0 {
            return;
        }
        self.shared.passed.store(self.serving, Ordering::Release);
        if asked != self.serving {
            self.phase = self.phase.other();
            self.serving = asked;
            if *self.count(self.phase.other()) == 0 {
                self.shared.passed.store(asked, Ordering::Release);
            }
        }
    }

    /// Adds without a locked instruction: there is one writer.
    fn add(&self, difference: usize) {
        let count = self.shared.busy.load(Ordering::Relaxed);
        self.shared
            .busy
            .store(count.wrapping_add(difference), Ordering::Release);
    }

    pub(crate) fn watch(&self) -> Watch {
        Watch(Arc::clone(&self.shared))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.shared.busy.store(0, Ordering::Release);
    }
}

impl Watch {
    /// Whether I/O is in flight that later I/O could overtake.
    pub(crate) fn is_busy(&self) -> bool {
        self.0.busy.load(Ordering::Acquire) != 0 && !self.0.is_ordered.load(Ordering::Acquire)
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

    /// Asks for the end of all I/O that is in flight now.
    fn ask(&self) -> Asked {
        Asked {
            shared: Arc::downgrade(&self.0),
            ticket: self.0.asked.fetch_add(1, Ordering::SeqCst).wrapping_add(1),
        }
    }
}

#[derive(Debug)]
struct Asked {
    shared: Weak<Shared>,
    ticket: u64,
}

impl Asked {
    fn is_over(&self) -> bool {
        self.shared.upgrade().is_none_or(|shared| {
            shared.busy.load(Ordering::SeqCst) == 0
                || shared.passed.load(Ordering::Acquire) >= self.ticket
        })
    }
}

/// A wait for the I/O of several queues that was in flight when it began.
#[derive(Debug, Default)]
pub(crate) struct Drain(Vec<Asked>);

impl Drain {
    /// Waits for this queue too.
    pub(crate) fn add(&mut self, watch: &Watch) {
        self.0.push(watch.ask());
    }

    /// Whether all of it has ended. Ask again until it has.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.retain(|asked| !asked.is_over());
        self.0.is_empty()
    }
}

/// I/O in flight of a connection that ended. Keep it until the last of it ended.
#[derive(Debug)]
#[must_use = "dropping it says that no I/O of the connection is in flight any more"]
pub struct Abandoned {
    pub(crate) work: Work,
}

impl Abandoned {
    /// The rim sees to it from now on that I/O that comes to bytes which the I/O in flight changes begins after its
    /// end: the host need not be kept out for it.
    pub fn keep_order(&self) {
        self.work.shared.is_ordered.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(work: &Work) -> Drain {
        let mut drain = Drain::default();
        drain.add(&work.watch());
        drain
    }

    #[test]
    fn an_idle_queue_is_drained_at_once() {
        let work = Work::default();
        assert!(drain(&work).is_over());
        assert!(Drain::default().is_over());
    }

    #[test]
    fn old_io_is_waited_for_and_later_io_is_not() {
        let mut work = Work::default();
        let old = work.begin();
        let mut first = drain(&work);
        work.enter();
        let new = work.begin();
        work.leave();
        assert!(!first.is_over());
        let mut second = drain(&work);
        work.end(old);
        assert!(first.is_over(), "its I/O has ended");
        assert!(!second.is_over(), "that began before it");
        work.enter();
        let newest = work.begin();
        work.leave();
        work.end(new);
        assert!(second.is_over());
        work.end(newest);
        assert!(!work.watch().is_busy());
    }

    #[test]
    fn a_batch_of_commands_is_waited_for() {
        let mut work = Work::default();
        work.enter();
        let mut drain = drain(&work);
        assert!(!drain.is_over(), "a command may have been looked at before");
        work.leave();
        assert!(drain.is_over());
    }

    #[test]
    fn every_one_who_asks_is_served_under_load() {
        // Two I/Os are always in flight: nothing but phases can end a drain.
        let mut work = Work::default();
        let mut flying = vec![work.begin(), work.begin()];
        for round in 0..20 {
            let mut drain = drain(&work);
            let mut turns = 0;
            while !drain.is_over() {
                work.enter();
                flying.push(work.begin());
                work.leave();
                let oldest = flying.remove(0);
                work.end(oldest);
                turns += 1;
                assert!(turns < 8, "round {round}");
            }
            assert!(turns > 0);
        }
    }

    #[test]
    fn a_queue_that_is_gone_is_drained() {
        let mut work = Work::default();
        let _ = work.begin();
        let watch = work.watch();
        let mut drain = Drain::default();
        drain.add(&watch);
        assert!(!drain.is_over());
        drop(work);
        assert!(drain.is_over() && !watch.is_alive());
    }
}
