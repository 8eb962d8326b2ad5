//! What a send queue has in flight: whose buffer is free when.

use std::collections::VecDeque;

/// What a work request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads the other end's memory.
    Read,
    /// Writes the other end's memory.
    Write,
    /// Sends a message.
    Send,
}

/// How a work request ended: the status of its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkStatus(pub u32);

impl WorkStatus {
    /// It was done.
    pub const SUCCESS: Self = Self(0);
    const NAMES: [(u32, &'static str); 9] = [
        (0, "done"),
        (1, "a buffer was too small"),
        (4, "local memory may not be touched"),
        (5, "dropped, because the connection ended"),
        (9, "the other end refused the request"),
        (10, "the other end's memory may not be touched"),
        (11, "the other end could not do it"),
        (12, "the other end does not answer"),
        (13, "the other end had no room to receive"),
    ];

    /// Whether it was done.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }

    /// Whether it was dropped because something before it failed or the connection ended.
    #[must_use]
    pub fn is_flushed(self) -> bool {
        self.0 == 5
    }
}

impl std::fmt::Display for WorkStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::NAMES.iter().find(|(code, _)| *code == self.0) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "status {}", self.0),
        }
    }
}

/// A work request that ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Finished<B> {
    /// The one given with it.
    pub token: u64,
    /// What it did.
    pub kind: Kind,
    /// How it ended.
    pub status: WorkStatus,
    /// Its buffer, if it had one.
    pub buffer: Option<B>,
}

#[derive(Debug)]
struct Entry<B> {
    token: u64,
    kind: Kind,
    buffer: Option<B>,
}

/// The work requests of one send queue that are not known to have ended, oldest first.
///
/// A send queue works in order, so a completion tells of all requests before it, too.
#[derive(Debug)]
pub(crate) struct Ledger<B> {
    entries: VecDeque<Entry<B>>,
    /// Number of the oldest.
    first: u64,
    entries_max: usize,
    /// Requests since the last that has a completion of its own.
    silent: usize,
    /// Whether one of those has a buffer.
    keeps_buffer: bool,
}

/// A request after so many without a completion of their own gets one; in a small queue after half of it, for what is
/// silent keeps its room.
const SILENT_MAX: usize = 16;

impl<B> Ledger<B> {
    pub(crate) fn new(entries_max: usize) -> Self {
        Self {
            entries: VecDeque::with_capacity(entries_max),
            first: 0,
            entries_max,
            silent: 0,
            keeps_buffer: false,
        }
    }

    /// Requests that fit.
    pub(crate) fn room(&self) -> usize {
        self.entries_max - self.entries.len()
    }

    /// The number of the next request.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Adds a request. Reads always have a completion of their own: true then.
    pub(crate) fn push(&mut self, token: u64, kind: Kind, buffer: Option<B>) -> bool {
        let is_signalled = kind == Kind::Read;
        if is_signalled {
            self.signalled();
        } else {
            self.silent += 1;
            self.keeps_buffer |= buffer.is_some();
        }
        self.entries.push_back(Entry {
            token,
            kind,
            buffer,
        });
        is_signalled
    }

    /// Whether the last request of a batch needs a completion, for buffers or room to come back. It has one then.
    pub(crate) fn needs_signal(&mut self) -> bool {
        let silent_max = SILENT_MAX.min(self.entries_max / 2).max(1);
        let needed = self.keeps_buffer || self.silent >= silent_max;
        if needed {
            self.signalled();
        }
        needed
    }

    fn signalled(&mut self) {
        self.silent = 0;
        self.keeps_buffer = false;
    }

    /// A request completed, and with it all before it.
    pub(crate) fn completed(
        &mut self,
        number: u64,
        status: WorkStatus,
        out: &mut Vec<Finished<B>>,
    ) {
        while self.first <= number
            && let Some(entry) = self.entries.pop_front()
        {
            let is_last = self.first == number;
            self.first += 1;
            out.push(Finished {
                token: entry.token,
                kind: entry.kind,
                status: if is_last { status } else { WorkStatus::SUCCESS },
                buffer: entry.buffer,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a send queue does: works in order, tells only of requests that asked for it, and of all after a failure.
    struct Hardware {
        queue: VecDeque<(u64, bool)>,
        done: u64,
    }

    impl Hardware {
        /// The next completion.
        fn complete(&mut self, is_broken: bool) -> Option<u64> {
            while let Some((number, is_signalled)) = self.queue.pop_front() {
                self.done = number + 1;
                if is_signalled || is_broken {
                    return Some(number);
                }
            }
            None
        }
    }

    proptest! {
        /// Everything comes back once, in order, not before the queue is done with it, and never not at all.
        #[test]
        fn everything_comes_back_once_and_not_before_its_proof(
            entries_max in 1..70_usize,
            steps in proptest::collection::vec((0..6_u8, any::<bool>()), 1..400),
            is_broken in any::<bool>(),
        ) {
            let mut ledger = Ledger::new(entries_max);
            let mut hardware = Hardware { queue: VecDeque::new(), done: 0 };
            // Requests of a batch that the queue does not have yet.
            let mut batch: Vec<(u64, bool)> = Vec::new();
            let (mut token, mut returned, mut out) = (0_u64, 0_u64, Vec::new());
            let mut check = |out: &mut Vec<Finished<u64>>, done: u64, token: u64, room: usize| {
                for finished in out.drain(..) {
                    prop_assert_eq!(finished.token, returned);
                    prop_assert!(finished.token < done);
                    prop_assert_eq!(finished.buffer.unwrap_or(returned), returned);
                    returned += 1;
                }
                prop_assert_eq!(room as u64, entries_max as u64 - (token - returned));
                Ok(())
            };
            for (step, with_buffer) in steps {
                match step {
                    0..=2 if ledger.room() > 0 => {
                        let kind = [Kind::Read, Kind::Write, Kind::Send][usize::from(step)];
                        prop_assert_eq!(ledger.next(), token);
                        batch.push((token, ledger.push(token, kind, with_buffer.then_some(token))));
                        token += 1;
                    }
                    3 => {
                        if let Some(last) = batch.last_mut() {
                            last.1 |= ledger.needs_signal();
                        }
                        hardware.queue.extend(batch.drain(..));
                    }
                    _ => {
                        if let Some(number) = hardware.complete(false) {
                            ledger.completed(number, WorkStatus::SUCCESS, &mut out);
                        }
                    }
                }
                check(&mut out, hardware.done, token, ledger.room())?;
            }
            if let Some(last) = batch.last_mut() {
                last.1 |= ledger.needs_signal();
            }
            hardware.queue.extend(batch.drain(..));
            while let Some(number) = hardware.complete(is_broken) {
                ledger.completed(number, WorkStatus(u32::from(is_broken) * 5), &mut out);
            }
            check(&mut out, hardware.done, token, ledger.room())?;
            // An idle queue has room, and holds no buffer, whether it failed or not.
            prop_assert!(ledger.room() > 0);
            prop_assert!(ledger.entries.iter().all(|entry| entry.buffer.is_none()));
        }
    }

    #[test]
    fn a_failure_is_that_of_its_request_alone() {
        let mut ledger = Ledger::new(8);
        for token in 0..3 {
            ledger.push(token, Kind::Send, Some(token));
        }
        let mut out = Vec::new();
        ledger.completed(1, WorkStatus(12), &mut out);
        let ends: Vec<_> = out
            .iter()
            .map(|f| (f.token, f.status.is_success()))
            .collect();
        assert_eq!(ends, [(0, true), (1, false)]);
        assert_eq!(out[1].status.to_string(), "the other end does not answer");
        out.clear();
        ledger.completed(1, WorkStatus::SUCCESS, &mut out);
        assert!(out.is_empty() && ledger.room() == 7);
    }
}
