//! The commands in flight on one I/O queue.

use std::time::{Duration, Instant};

use crate::flow::Part;

/// Most commands in flight on a queue: the width of a command identifier's slot number.
pub const QUEUE_DEPTH_MAX: u16 = 1 << SLOT_BITS;
const SLOT_BITS: u16 = 10;
const SLOT_MASK: u16 = QUEUE_DEPTH_MAX - 1;
const GENERATIONS: u16 = 1 << (15 - SLOT_BITS);

/// The slot of a request's command on its queue, by its identifier: no two in flight have the same, and each is below the
/// queue's depth. `None` for commands that are no requests.
pub fn slot_of(cid: u16) -> Option<usize> {
    (cid & CONTROL_CID == 0).then_some(usize::from(cid & SLOT_MASK))
}

/// Identifiers of commands that are not requests have this bit.
pub(crate) const CONTROL_CID: u16 = 0x8000;

/// Where the data of a command in flight goes to or comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The request's token.
    pub token: u64,
    /// Where the command's data begins in the request's, in bytes.
    pub offset_bytes: u64,
    /// The command's data, in bytes.
    pub length_bytes: u32,
    /// The target sends it.
    pub is_read: bool,
}

/// A command in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InFlight {
    pub(crate) part: Part,
    pub(crate) transfer: Transfer,
    /// Bytes that came, for reads; that were asked for, for writes.
    pub(crate) moved_bytes: u32,
    pub(crate) started: Instant,
    pub(crate) is_aborted: bool,
    /// Its data came with a wrong checksum.
    pub(crate) is_damaged: bool,
}

impl InFlight {
    /// Takes note of bytes that come; `None` when they are not the next or beyond the end.
    pub(crate) fn received(&mut self, offset: u32, length: u32) -> Option<Transfer> {
        let is_next = self.transfer.is_read && offset == self.moved_bytes;
        is_next.then(|| self.moved(offset, length)).flatten()
    }

    /// Takes note of bytes that are asked for, in any order; `None` when they are beyond the end, or more than there
    /// are.
    pub(crate) fn asked(&mut self, offset: u32, length: u32) -> Option<Transfer> {
        let is_write = !self.transfer.is_read;
        is_write.then(|| self.moved(offset, length)).flatten()
    }

    fn moved(&mut self, offset: u32, length: u32) -> Option<Transfer> {
        let moved_bytes = self.moved_bytes.checked_add(length)?;
        let end = offset.checked_add(length)?.max(moved_bytes);
        if end > self.transfer.length_bytes {
            return None;
        }
        self.moved_bytes = moved_bytes;
        Some(self.transfer)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: u16,
    command: Option<InFlight>,
}

/// One I/O queue.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// The I/O Connect was accepted.
    pub(crate) connected: bool,
    /// No command in flight needs [`Self::check`] before.
    pub(crate) check_at: Instant,
    times: Times,
}

/// How long commands may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Until a command is aborted.
    pub(crate) io_timeout: Duration,
    /// From then until its controller is reset.
    pub(crate) abort_timeout: Duration,
}

/// What to do about commands that are not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Check {
    Fine,
    /// Abort the command with this identifier.
    Abort(u16),
    Reset,
}

impl Queue {
    pub(crate) fn new(depth: u16, times: Times, now: Instant) -> Self {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX);
        let slot = Slot {
            generation: 0,
            command: None,
        };
        Self {
            slots: vec![slot; usize::from(depth)],
            free: (0..depth).rev().collect(),
            connected: false,
            check_at: now,
            times,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.connected && !self.free.is_empty()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot; the identifier is the command's. `None` when all are in use.
    pub(crate) fn start(&mut self, command: InFlight) -> Option<u16> {
        let number = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(number))?;
        let started = command.started;
        slot.command = Some(command);
        let cid = slot.generation << SLOT_BITS | number;
        if self.in_flight() == 1 {
            self.check_at = started + self.times.io_timeout;
        }
        Some(cid)
    }

    pub(crate) fn get(&mut self, cid: u16) -> Option<&mut InFlight> {
        let slot = self.slots.get_mut(usize::from(cid & SLOT_MASK))?;
        if slot.generation != cid >> SLOT_BITS {
            return None;
        }
        slot.command.as_mut()
    }

    /// Frees the slot. `None` for an identifier that is not in flight.
    pub(crate) fn finish(&mut self, cid: u16) -> Option<InFlight> {
        let number = cid & SLOT_MASK;
        let slot = self.slots.get_mut(usize::from(number))?;
        if slot.generation != cid >> SLOT_BITS {
            return None;
        }
        let command = slot.command.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(number);
        Some(command)
    }

    /// Looks for commands that are in flight for too long. Marks the one to be aborted as aborted.
    pub(crate) fn check(&mut self, may_abort: bool, now: Instant) -> Check {
        if self.in_flight() == 0 || now < self.check_at {
            return Check::Fine;
        }
        let Times {
            io_timeout,
            abort_timeout,
        } = self.times;
        let mut next = now + io_timeout;
        let mut verdict = Check::Fine;
        for (slot, number) in self.slots.iter_mut().zip(0_u16..) {
            let Some(command) = &mut slot.command else {
                continue;
            };
            let mut due = command.started + io_timeout;
            if due <= now {
                due += abort_timeout;
                if due <= now {
                    return Check::Reset;
                }
                if may_abort && !command.is_aborted && verdict == Check::Fine {
                    command.is_aborted = true;
                    verdict = Check::Abort(slot.generation << SLOT_BITS | number);
                }
            }
            next = next.min(due);
        }
        self.check_at = next;
        verdict
    }

    /// Takes every command, for the connection is gone.
    pub(crate) fn abandon(self) -> impl Iterator<Item = Part> {
        self.slots
            .into_iter()
            .filter_map(|slot| slot.command.map(|command| command.part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times {
        io_timeout: Duration::from_secs(30),
        abort_timeout: Duration::from_secs(5),
    };

    fn command(request: u32) -> InFlight {
        InFlight {
            part: Part::whole(request, 1, u64::from(request)),
            transfer: Transfer {
                token: 0,
                offset_bytes: 0,
                length_bytes: 0,
                is_read: false,
            },
            moved_bytes: 0,
            started: Instant::now(),
            is_aborted: false,
            is_damaged: false,
        }
    }

    #[test]
    fn an_identifier_completes_once() {
        let now = Instant::now();
        let mut queue = Queue::new(2, TIMES, now);
        assert!(!queue.has_room());
        queue.connected = true;
        let first = queue.start(command(1)).unwrap();
        let second = queue.start(command(2)).unwrap();
        assert!(queue.start(command(3)).is_none() && !queue.has_room());
        assert!(queue.finish(first).is_some());
        assert!(queue.finish(first).is_none());
        let third = queue.start(command(3)).unwrap();
        assert_ne!(first, third, "a slot's next command has another name");
        assert!(queue.get(first).is_none() && queue.get(third).is_some());
        for wrong in [CONTROL_CID | second, 7, SLOT_MASK] {
            assert!(queue.finish(wrong).is_none());
        }
        assert_eq!(queue.abandon().count(), 2);
    }

    #[test]
    fn identifiers_never_collide_with_control_commands() {
        let now = Instant::now();
        let mut queue = Queue::new(1, TIMES, now);
        for _ in 0..1000 {
            let cid = queue.start(command(0)).unwrap();
            assert_eq!(cid & CONTROL_CID, 0);
            queue.finish(cid).unwrap();
        }
    }

    #[test]
    fn a_stuck_command_is_aborted_and_then_costs_a_reset() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut queue = Queue::new(4, TIMES, begin);
        let started = |request, seconds| InFlight {
            started: at(seconds),
            ..command(request)
        };
        let stuck = queue.start(started(1, 0)).unwrap();
        let other = queue.start(started(2, 20)).unwrap();
        assert_eq!(queue.check_at, at(30));
        assert_eq!(queue.check(true, at(29)), Check::Fine);
        // Others that complete change nothing.
        let quick = queue.start(started(3, 29)).unwrap();
        assert!(queue.finish(quick).is_some());
        assert_eq!(queue.check(true, at(30)), Check::Abort(stuck));
        assert_eq!(
            (queue.check(true, at(31)), queue.check_at),
            (Check::Fine, at(35))
        );
        let mut answered = queue.clone();
        assert_eq!(queue.check(true, at(35)), Check::Reset);
        assert!(answered.finish(stuck).is_some());
        assert_eq!(answered.check(true, at(35)), Check::Fine);
        assert_eq!(answered.check_at, at(50));
        // One Abort at a time.
        assert_eq!(answered.check(false, at(50)), Check::Fine);
        assert_eq!(answered.check(true, at(55)), Check::Reset);
        assert!(answered.finish(other).is_some());
        assert_eq!(answered.check(true, at(99)), Check::Fine);
    }
}
