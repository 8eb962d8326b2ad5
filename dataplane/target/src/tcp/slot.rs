//! Commands in flight.

use roadstead_nvme::Sqe;

use crate::io::IoRequest;
use crate::queue::Tag;

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

/// All commands in flight of a connection. Grows with use up to the queue's size.
#[derive(Debug)]
pub(super) struct Slots<B> {
    slots: Vec<Slot<B>>,
    free: Vec<u16>,
}

impl<B> Slots<B> {
    pub(super) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// A free slot, when fewer than `limit` are in use.
    pub(super) fn allocate(&mut self, limit: u16) -> Option<Tag> {
        if let Some(index) = self.free.pop() {
            return Some(Tag(index));
        }
        let index = u16::try_from(self.slots.len())
            .ok()
            .filter(|index| *index < limit)?;
        self.slots.push(Slot::Free);
        Some(Tag(index))
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
        self.free.push(tag.0);
    }

    /// Commands in flight.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
