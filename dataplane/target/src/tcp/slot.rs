//! Commands in flight.

use roadstead_nvme::Sqe;

use crate::io::IoRequest;
use crate::queue::Tag;
use crate::work::Phase;

/// A command in flight.
#[derive(Debug)]
pub(super) enum Slot<B> {
    /// None.
    Free,
    /// The queue keeps it.
    Held { cid: u16 },
    /// Data of a command that is no I/O comes.
    Control(Box<Control>),
    /// A read or a write that waits for a buffer; a write's data came with the command, or will be asked for.
    Waiting {
        cid: u16,
        request: IoRequest,
        data: Option<Vec<u8>>,
    },
    /// A write whose data is whole in the input that is being worked on.
    Direct { cid: u16, request: IoRequest },
    /// A write's data comes, and there was no buffer for it.
    Stash {
        cid: u16,
        request: IoRequest,
        data: Vec<u8>,
        intact: bool,
    },
    /// A write's data comes.
    Collect {
        cid: u16,
        request: IoRequest,
        buffer: B,
        received: u32,
        asked: bool,
        intact: bool,
    },
    /// The rim works on it.
    Io {
        cid: u16,
        is_read: bool,
        length: u32,
        phase: Phase,
    },
}

/// Data of a command that is no I/O.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) cid: u16,
    pub(super) sqe: Sqe,
    pub(super) data: Vec<u8>,
    pub(super) length: u32,
    pub(super) asked: bool,
    pub(super) intact: bool,
}

/// Why a command gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// As many are in flight as may be.
    Full,
    /// Its identifier is in use.
    Conflict,
}

/// All commands in flight of a connection. Grows with use up to the queue's size.
#[derive(Debug)]
pub(super) struct Slots<B> {
    slots: Vec<Slot<B>>,
    /// The identifier of the command in each slot; of no meaning in free ones.
    cids: Vec<u16>,
    free: Vec<u16>,
    /// How many identifiers in use have this low byte. Hosts that count upwards never have two, so looking through
    /// all of them is rare.
    low_bytes: [u16; 256],
}

impl<B> Slots<B> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            cids: Vec::new(),
            free: Vec::new(),
            low_bytes: [0; 256],
        }
    }

    /// A free slot for a command, when fewer than `limit` are in use.
    pub(super) fn allocate(&mut self, limit: u16, cid: u16) -> Result<Tag, NoSlot> {
        if self.low_byte(cid).is_some_and(|count| *count > 0) && self.is_in_use(cid) {
            return Err(NoSlot::Conflict);
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                let index = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
                if index >= limit {
                    return Err(NoSlot::Full);
                }
                self.slots.push(Slot::Free);
                self.cids.push(cid);
                index
            }
        };
        if let Some(place) = self.cids.get_mut(usize::from(index)) {
            *place = cid;
        }
        if let Some(count) = self.low_byte(cid) {
            *count += 1;
        }
        Ok(Tag(index))
    }

    fn low_byte(&mut self, cid: u16) -> Option<&mut u16> {
        self.low_bytes.get_mut(usize::from(cid & 0xff))
    }

    fn is_in_use(&self, cid: u16) -> bool {
        let all = self.cids.iter().zip(0_u16..);
        let mut same = all.filter(|(other, _)| **other == cid);
        same.any(|(_, index)| !self.free.contains(&index))
    }

    pub(super) fn get_mut(&mut self, tag: Tag) -> Option<&mut Slot<B>> {
        self.slots.get_mut(usize::from(tag.0))
    }

    pub(super) fn set(&mut self, tag: Tag, slot: Slot<B>) {
        if let Some(place) = self.get_mut(tag) {
            *place = slot;
        }
    }

    /// Takes the command out, to put another state in or to [`Self::release`].
    pub(super) fn take(&mut self, tag: Tag) -> Slot<B> {
        self.get_mut(tag)
            .map_or(Slot::Free, |slot| std::mem::replace(slot, Slot::Free))
    }

    /// The command was completed.
    pub(super) fn release(&mut self, tag: Tag) {
        self.set(tag, Slot::Free);
        let cid = self.cids.get(usize::from(tag.0)).copied();
        if let Some(count) = cid.and_then(|cid| self.low_byte(cid)) {
            *count = count.saturating_sub(1);
        }
        self.free.push(tag.0);
    }

    /// Commands in flight.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_in_use_are_refused_and_free_ones_taken() {
        let mut slots = Slots::<Vec<u8>>::new();
        let first = slots.allocate(3, 0x0105).unwrap();
        assert_eq!(slots.allocate(3, 0x0105), Err(NoSlot::Conflict));
        let second = slots.allocate(3, 0x0205).unwrap();
        slots.release(first);
        let third = slots.allocate(3, 0x0105).unwrap();
        assert_eq!(slots.allocate(3, 0x0205), Err(NoSlot::Conflict));
        slots.release(second);
        slots.release(third);
        assert!(slots.allocate(3, 0x0105).is_ok());
        assert!(slots.allocate(3, 1).is_ok());
        assert!(slots.allocate(3, 2).is_ok());
        assert_eq!(slots.allocate(3, 3), Err(NoSlot::Full));
        assert_eq!(slots.used(), 3);
    }
}
