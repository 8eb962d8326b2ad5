//! One bit an extent.

use crate::blocks::index;

/// A set of extents, 128 KiB a TiB of 1 MiB extents.
#[derive(Clone)]
pub(crate) struct Bitmap {
    words: Vec<u64>,
    len: u32,
}

impl Bitmap {
    /// An empty set over `len` extents.
    pub(crate) fn new(len: u32) -> Self {
        Self {
            words: vec![0; index(u64::from(len).div_ceil(64))],
            len,
        }
    }

    /// Extents are added at the end; they are not in the set. It never gets smaller.
    pub(crate) fn grow(&mut self, len: u32) {
        self.len = self.len.max(len);
        self.words
            .resize(index(u64::from(self.len).div_ceil(64)), 0);
    }

    fn place(extent: u32) -> (usize, u64) {
        (index(u64::from(extent / 64)), 1 << (extent % 64))
    }

    /// Whether `extent` is in the set; extents past the end are.
    pub(crate) fn contains(&self, extent: u32) -> bool {
        let (word, bit) = Self::place(extent);
        extent >= self.len || self.words.get(word).is_none_or(|w| w & bit != 0)
    }

    /// Adds `extent`; false if it was there.
    pub(crate) fn insert(&mut self, extent: u32) -> bool {
        if self.contains(extent) {
            return false;
        }
        let (word, bit) = Self::place(extent);
        if let Some(w) = self.words.get_mut(word) {
            *w |= bit;
        }
        true
    }

    /// Takes `extent` out; false if it was not there.
    pub(crate) fn remove(&mut self, extent: u32) -> bool {
        if extent >= self.len || !self.contains(extent) {
            return false;
        }
        let (word, bit) = Self::place(extent);
        if let Some(w) = self.words.get_mut(word) {
            *w &= !bit;
        }
        true
    }

    /// The first extent not in the set at or after `from`.
    pub(crate) fn next_absent(&self, from: u32) -> Option<u32> {
        let mut at = from;
        while at < self.len {
            let (word, _) = Self::place(at);
            let free = !self.words.get(word)? & (u64::MAX << (at % 64));
            if free != 0 {
                let found = (at - at % 64).checked_add(free.trailing_zeros())?;
                return (found < self.len).then_some(found);
            }
            at = (at - at % 64).checked_add(64)?;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::Bitmap;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn behaves_like_a_set(len in 1u32..300, ops in proptest::collection::vec((any::<bool>(), 0u32..300), 0..400)) {
            let mut map = Bitmap::new(len);
            let mut model = BTreeSet::new();
            for (add, extent) in ops {
                if add {
                    prop_assert_eq!(map.insert(extent), extent < len && model.insert(extent));
                } else {
                    prop_assert_eq!(map.remove(extent), model.remove(&extent));
                }
                for from in [0, extent] {
                    let free = (from..len).find(|e| !model.contains(e));
                    prop_assert_eq!(map.next_absent(from), free);
                }
            }
        }
    }
}
