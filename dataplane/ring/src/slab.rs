//! Slots with generations: a key of a slot that was freed and used again is not mistaken for the new one.

/// Bits of a slot's index in a key's packed form.
const INDEX_BITS: u32 = 24;
/// Bits of a slot's generation in a key's packed form.
const GENERATION_BITS: u32 = 36;
/// Slots a slab can have.
pub(crate) const SLOTS_MAX: usize = 1 << INDEX_BITS;

/// Names one use of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct Key(u64);

impl Key {
    /// The key as the low 60 bits of a number.
    pub(crate) fn bits(self) -> u64 {
        self.0
    }

    /// The key that [`Key::bits`] gave; the upper four bits are ignored.
    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits & ((1 << (INDEX_BITS + GENERATION_BITS)) - 1))
    }

    fn new(index: usize, generation: u64) -> Self {
        Self((generation << INDEX_BITS) | index as u64)
    }

    fn index(self) -> usize {
        // 24 bits fit a usize on every platform that has io_uring.
        usize::try_from(self.0 & ((1 << INDEX_BITS) - 1)).unwrap_or(usize::MAX)
    }
}

struct Slot<T> {
    key: Key,
    value: Option<T>,
}

/// A growing table of slots.
pub(crate) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Stores `value`; gives it back when all 2^24 slots are taken.
    pub(crate) fn insert(&mut self, value: T) -> Result<Key, T> {
        if let Some(index) = self.free.pop()
            && let Some(slot) = self.slots.get_mut(index)
        {
            slot.value = Some(value);
            return Ok(slot.key);
        }
        let index = self.slots.len();
        if index >= SLOTS_MAX {
            return Err(value);
        }
        let key = Key::new(index, 1);
        self.slots.push(Slot {
            key,
            value: Some(value),
        });
        Ok(key)
    }

    pub(crate) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.index())?;
        if slot.key == key {
            slot.value.as_ref()
        } else {
            None
        }
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.key == key {
            slot.value.as_mut()
        } else {
            None
        }
    }

    /// Frees the slot; its key is dead from here on.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.index())?;
        if slot.key != key {
            return None;
        }
        let value = slot.value.take()?;
        let generation = (key.0 >> INDEX_BITS).wrapping_add(1) & ((1 << GENERATION_BITS) - 1);
        slot.key = Key::new(key.index(), generation);
        self.free.push(key.index());
        Some(value)
    }

    /// Slots in use.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_key_finds_nothing() {
        let mut slab = Slab::new();
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b').unwrap();
        assert_ne!(first, second);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut 'b'));
        assert_eq!(slab.len(), 1);
        assert_eq!(Key::from_bits(second.bits() | 0xf << 60), second);
    }
}
