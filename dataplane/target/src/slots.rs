//! The commands in flight of a connection.

use crate::queue::Tag;

/// Why a command gets no slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSlot {
    /// As many are in flight as may be.
    Full,
    /// Its identifier is in use.
    Conflict,
}

/// All commands in flight of a connection, each with what its transport keeps of it; the default is that of a free place.
/// Grows with use up to the queue's size.
#[derive(Debug)]
pub(crate) struct Slots<S> {
    slots: Vec<S>,
    /// The identifier of the command in each slot; of no meaning in free ones.
    cids: Vec<u16>,
    free: Vec<u16>,
    /// How many identifiers in use have this low byte. Hosts that count upwards never have two, so looking through
    /// all of them is rare.
    low_bytes: [u16; 256],
}

impl<S: Default> Slots<S> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            cids: Vec::new(),
            free: Vec::new(),
            low_bytes: [0; 256],
        }
    }

    /// A free slot for a command, when fewer than `limit` are in use.
    pub(crate) fn allocate(&mut self, limit: u16, cid: u16) -> Result<Tag, NoSlot> {
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
                self.slots.push(S::default());
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

    pub(crate) fn get_mut(&mut self, tag: Tag) -> Option<&mut S> {
        self.slots.get_mut(usize::from(tag.0))
    }

    pub(crate) fn set(&mut self, tag: Tag, slot: S) {
        if let Some(place) = self.get_mut(tag) {
            *place = slot;
        }
    }

    /// Takes the command out, to put another state in or to [`Self::release`].
    pub(crate) fn take(&mut self, tag: Tag) -> S {
        self.get_mut(tag).map(std::mem::take).unwrap_or_default()
    }

    /// The command was completed.
    pub(crate) fn release(&mut self, tag: Tag) {
        self.set(tag, S::default());
        let cid = self.cids.get(usize::from(tag.0)).copied();
        if let Some(count) = cid.and_then(|cid| self.low_byte(cid)) {
            *count = count.saturating_sub(1);
        }
        self.free.push(tag.0);
    }

    /// Commands in flight.
    pub(crate) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_in_use_are_refused_and_free_ones_taken() {
        let mut slots = Slots::<u8>::new();
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
