//! The commands in flight on one I/O queue.

use std::time::Instant;

use crate::flow::Part;

/// Most commands in flight on a queue: the width of a command identifier's slot number.
pub const QUEUE_DEPTH_MAX: u16 = 1 << SLOT_BITS;
const SLOT_BITS: u16 = 10;
const SLOT_MASK: u16 = QUEUE_DEPTH_MAX - 1;
const GENERATIONS: u16 = 1 << (15 - SLOT_BITS);

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
}

impl InFlight {
    /// Takes note of the next bytes; `None` when they are not the next or beyond the end.
    pub(crate) fn moved(&mut self, is_read: bool, offset: u32, length: u32) -> Option<Transfer> {
        let end = offset.checked_add(length)?;
        let is_next = offset == self.moved_bytes && end <= self.transfer.length_bytes;
        if self.transfer.is_read != is_read || !is_next {
            return None;
        }
        self.moved_bytes = end;
        Some(self.transfer)
    }
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    generation: u16,
    command: Option<InFlight>,
}

/// One I/O queue.
#[derive(Debug)]
pub(crate) struct Queue {
    slots: Vec<Slot>,
    free: Vec<u16>,
    /// The I/O Connect was accepted.
    pub(crate) connected: bool,
    /// When a command last completed, or the first one of now was sent.
    pub(crate) progress: Instant,
}

impl Queue {
    pub(crate) fn new(depth: u16, now: Instant) -> Self {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX);
        let slot = Slot {
            generation: 0,
            command: None,
        };
        Self {
            slots: vec![slot; usize::from(depth)],
            free: (0..depth).rev().collect(),
            connected: false,
            progress: now,
        }
    }

    pub(crate) fn has_room(&self) -> bool {
        self.connected && !self.free.is_empty()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a slot; the identifier is the command's. `None` when all are in use.
    pub(crate) fn start(&mut self, command: InFlight, now: Instant) -> Option<u16> {
        let number = self.free.pop()?;
        let slot = self.slots.get_mut(usize::from(number))?;
        slot.command = Some(command);
        let cid = slot.generation << SLOT_BITS | number;
        if self.in_flight() == 1 {
            self.progress = now;
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
    pub(crate) fn finish(&mut self, cid: u16, now: Instant) -> Option<InFlight> {
        let number = cid & SLOT_MASK;
        let slot = self.slots.get_mut(usize::from(number))?;
        if slot.generation != cid >> SLOT_BITS {
            return None;
        }
        let command = slot.command.take()?;
        slot.generation = (slot.generation + 1) % GENERATIONS;
        self.free.push(number);
        self.progress = now;
        Some(command)
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
        }
    }

    #[test]
    fn an_identifier_completes_once() {
        let now = Instant::now();
        let mut queue = Queue::new(2, now);
        assert!(!queue.has_room());
        queue.connected = true;
        let first = queue.start(command(1), now).unwrap();
        let second = queue.start(command(2), now).unwrap();
        assert!(queue.start(command(3), now).is_none() && !queue.has_room());
        assert!(queue.finish(first, now).is_some());
        assert!(queue.finish(first, now).is_none());
        let third = queue.start(command(3), now).unwrap();
        assert_ne!(first, third, "a slot's next command has another name");
        assert!(queue.get(first).is_none() && queue.get(third).is_some());
        for wrong in [CONTROL_CID | second, 7, SLOT_MASK] {
            assert!(queue.finish(wrong, now).is_none());
        }
        assert_eq!(queue.abandon().count(), 2);
    }

    #[test]
    fn identifiers_never_collide_with_control_commands() {
        let now = Instant::now();
        let mut queue = Queue::new(1, now);
        for _ in 0..1000 {
            let cid = queue.start(command(0), now).unwrap();
            assert_eq!(cid & CONTROL_CID, 0);
            queue.finish(cid, now).unwrap();
        }
    }
}
