//! Where each extent of a volume lies: four bytes an extent, read without a lock.
//!
//! Leaves of 1024 extents are made when the first of them is mapped; the tables above them double, so a
//! volume grows without moving anything a reader may look at. An untouched TiB of 1 MiB extents costs 16 KiB.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::format::record::Run;

const LEAF: u32 = 1024;
const FIRST_TABLE: u32 = 64;
/// Enough tables for every `u32`.
const TABLES: usize = 17;

type Leaf = [AtomicU32; LEAF as usize];
type Table = Box<[OnceLock<Box<Leaf>>]>;

/// The map of one volume. One thread writes, any number read.
#[derive(Debug, Default)]
pub(crate) struct ExtentMap {
    tables: [OnceLock<Table>; TABLES],
}

/// Table, index in it.
fn locate(leaf: u32) -> (u32, u32) {
    let table = (leaf / FIRST_TABLE + 1).ilog2();
    (table, leaf - FIRST_TABLE * ((1 << table) - 1))
}

fn at(value: u32) -> usize {
    crate::blocks::index(u64::from(value))
}

impl ExtentMap {
    fn leaf(&self, leaf: u32) -> Option<&Leaf> {
        let (table, place) = locate(leaf);
        self.tables
            .get(at(table))?
            .get()?
            .get(at(place))?
            .get()
            .map(AsRef::as_ref)
    }

    fn leaf_or_new(&self, leaf: u32) -> Option<&Leaf> {
        let (table, place) = locate(leaf);
        let places = self
            .tables
            .get(at(table))?
            .get_or_init(|| (0..FIRST_TABLE << table).map(|_| OnceLock::new()).collect());
        let made = places
            .get(at(place))?
            .get_or_init(|| Box::new([const { AtomicU32::new(0) }; LEAF as usize]));
        Some(made.as_ref())
    }

    /// The drive's extent behind `extent`, none for a hole. Sequentially consistent: ordered after the
    /// caller was counted in (see [`crate::grace`]).
    pub(crate) fn get(&self, extent: u32) -> Option<u32> {
        self.leaf(extent / LEAF)?
            .get(at(extent % LEAF))?
            .load(SeqCst)
            .checked_sub(1)
    }

    /// Maps `extent`, or makes it a hole; gives what was there.
    pub(crate) fn set(&self, extent: u32, physical: Option<u32>) -> Option<u32> {
        let value = physical.map_or(0, |p| p.saturating_add(1));
        let leaf = match physical {
            Some(_) => self.leaf_or_new(extent / LEAF)?,
            None => self.leaf(extent / LEAF)?,
        };
        leaf.get(at(extent % LEAF))?
            .swap(value, SeqCst)
            .checked_sub(1)
    }

    /// Every mapped run among the extents `from..to`, in order.
    pub(crate) fn for_each_run(&self, from: u32, to: u32, mut f: impl FnMut(Run)) {
        let mut run: Option<Run> = None;
        let mut extent = from;
        while extent < to {
            if extent.is_multiple_of(LEAF) && self.leaf(extent / LEAF).is_none() {
                extent = extent.saturating_add(LEAF);
                continue;
            }
            if let Some(physical) = self.get(extent) {
                match &mut run {
                    Some(r) if r.joins(extent, physical) => r.count += 1,
                    _ => {
                        if let Some(done) = run.replace(Run {
                            first: extent,
                            physical,
                            count: 1,
                        }) {
                            f(done);
                        }
                    }
                }
            }
            extent += 1;
        }
        if let Some(done) = run {
            f(done);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn tables_cover_every_extent_once() {
        let mut next = 0;
        for table in 0..u32::try_from(TABLES).unwrap() {
            assert_eq!(locate(next), (table, 0));
            let last = next + (FIRST_TABLE << table) - 1;
            assert_eq!(locate(last), (table, (FIRST_TABLE << table) - 1));
            next = last + 1;
        }
        assert!(u64::from(next) * u64::from(LEAF) > u64::from(u32::MAX));
        let map = ExtentMap::default();
        map.set(u32::MAX - 1, Some(7));
        assert_eq!(map.get(u32::MAX - 1), Some(7));
    }

    proptest! {
        #[test]
        fn behaves_like_a_map(ops in proptest::collection::vec((0u32..200_000, proptest::option::of(0u32..50)), 0..200)) {
            let map = ExtentMap::default();
            let mut model = BTreeMap::new();
            for (extent, physical) in ops {
                let old = match physical { Some(p) => model.insert(extent, p), None => model.remove(&extent) };
                prop_assert_eq!(map.set(extent, physical), old);
                prop_assert_eq!(map.get(extent), physical);
            }
            let mut seen = BTreeMap::new();
            map.for_each_run(0, 200_000, |r| for i in 0..r.count { seen.insert(r.first + i, r.physical + i); });
            prop_assert_eq!(seen, model);
        }
    }
}
