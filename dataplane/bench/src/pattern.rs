//! Where the next request goes, and what verified blocks look like.

use crate::options::Pattern;

/// Marks a block that this program wrote.
const MAGIC: u64 = 0x726f_6164_7374_6561;
/// Magic, place, generation, and the checksum of the block with zeroes in place of it.
const HEADER_BYTES: usize = 32;
const CRC_AT: usize = 24;

/// xorshift64*: good enough to choose places, and costs next to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.next()) * u128::from(bound);
        u64::try_from(wide >> 64).unwrap_or(0)
    }
}

/// Chooses requests among `units` places; one place has one request at a time.
#[derive(Debug)]
pub(crate) struct Chooser {
    pattern: Pattern,
    reads: u8,
    random: Random,
    units: u64,
    next: u64,
    busy: Option<Vec<bool>>,
}

impl Chooser {
    /// With `exclusive`, a place is not given out again before [`Self::release`].
    pub(crate) fn new(pattern: Pattern, mix: u8, units: u64, seed: u64, exclusive: bool) -> Self {
        let count = usize::try_from(units).unwrap_or(0);
        Self {
            pattern,
            reads: pattern.reads(mix),
            random: Random::new(seed),
            units,
            next: 0,
            busy: exclusive.then(|| vec![false; count]),
        }
    }

    /// A place, and whether to read. `None` when all places are busy.
    pub(crate) fn choose(&mut self) -> Option<(u64, bool)> {
        let is_read = match self.reads {
            100 => true,
            0 => false,
            reads => self.random.below(100) < u64::from(reads),
        };
        let first = if self.pattern.is_random() {
            self.random.below(self.units)
        } else {
            self.next
        };
        let mut unit = first;
        while let Some(busy) = &mut self.busy {
            match usize::try_from(unit).ok().and_then(|at| busy.get_mut(at)) {
                Some(taken) if !*taken => {
                    *taken = true;
                    break;
                }
                _ => unit = (unit + 1) % self.units,
            }
            if unit == first {
                return None;
            }
        }
        self.next = (unit + 1) % self.units;
        Some((unit, is_read))
    }

    pub(crate) fn release(&mut self, unit: u64) {
        if let (Some(busy), Ok(at)) = (&mut self.busy, usize::try_from(unit))
            && let Some(taken) = busy.get_mut(at)
        {
            *taken = false;
        }
    }
}

/// Makes `block` the one of this place and generation.
pub(crate) fn fill(block: &mut [u8], place: u64, generation: u64) {
    let mut random = Random::new(place ^ generation << 40);
    let (words, _) = block.as_chunks_mut::<8>();
    for word in words.iter_mut().skip(HEADER_BYTES / 8) {
        *word = random.next().to_le_bytes();
    }
    for (word, value) in words.iter_mut().zip([MAGIC, place, generation, 0]) {
        *word = value.to_le_bytes();
    }
    let crc = u64::from(crc32c::crc32c(block));
    if let Some(word) = block.get_mut(CRC_AT..CRC_AT + 8) {
        word.copy_from_slice(&crc.to_le_bytes());
    }
}

/// What is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Nothing but zeroes.
    Zeroes,
    /// A block of this place and generation, whole.
    Written { place: u64, generation: u64 },
    /// Neither.
    Damaged,
}

pub(crate) fn inspect(block: &mut [u8]) -> Content {
    let (words, _) = block.as_chunks_mut::<8>();
    let [magic, place, generation, crc, ..] = words else {
        return Content::Damaged;
    };
    let [magic, place, generation] =
        [magic, place, generation].map(|word| u64::from_le_bytes(*word));
    let wanted = u64::from_le_bytes(std::mem::take(crc));
    if magic != MAGIC {
        return match block.iter().all(|byte| *byte == 0) && wanted == 0 {
            true => Content::Zeroes,
            false => Content::Damaged,
        };
    }
    match u64::from(crc32c::crc32c(block)) == wanted {
        true => Content::Written { place, generation },
        false => Content::Damaged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_is_found() {
        let mut block = vec![0; 512];
        assert_eq!(inspect(&mut block), Content::Zeroes);
        fill(&mut block, 7, 3);
        let whole = block.clone();
        let good = Content::Written {
            place: 7,
            generation: 3,
        };
        assert_eq!(inspect(&mut block), good);
        for at in 0..512 {
            let mut block = whole.clone();
            block[at] ^= 0x10;
            assert_ne!(inspect(&mut block), good, "byte {at}");
        }
    }

    #[test]
    fn places_are_exclusive_and_all_are_reached() {
        for pattern in [Pattern::Write, Pattern::Randwrite] {
            let mut chooser = Chooser::new(pattern, 0, 8, 1, true);
            let mut seen: Vec<_> = (0..8).filter_map(|_| chooser.choose()).collect();
            assert_eq!(chooser.choose(), None);
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len(), 8);
            chooser.release(5);
            assert_eq!(chooser.choose(), Some((5, false)));
        }
    }

    #[test]
    fn the_mix_is_kept() {
        let mut chooser = Chooser::new(Pattern::Randrw, 70, 1000, 3, false);
        let reads = (0..10_000).filter(|_| chooser.choose().is_some_and(|c| c.1));
        assert!((6700..7300).contains(&reads.count()));
    }
}
