//! Every target with its seeds, and with what becomes of them by random changes.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::panic::catch_unwind;
use std::path::PathBuf;

use roadstead_fuzz::TARGETS;

/// Random changes of each seed; `CASES` sets another number.
const CASES: u64 = 3000;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("seeds")
        .join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

/// xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[2]
    }

    /// Some changes: of bytes, of length, with parts of another seed.
    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        for _ in 0..self.index(5) + 1 {
            let at = self.index(bytes.len());
            match self.index(6) {
                0 | 1 if !bytes.is_empty() => bytes[at] = self.byte(),
                2 if !bytes.is_empty() => bytes[at] ^= 1 << self.index(8),
                3 => bytes.truncate(at),
                4 => bytes.insert(at, self.byte()),
                _ => {
                    let from = self.index(other.len());
                    let part = &other[from..(from + self.index(80)).min(other.len())];
                    bytes.splice(at..at, part.iter().copied());
                }
            }
        }
    }
}

#[test]
fn every_target_holds_for_its_seeds_and_what_is_near_them() {
    let cases = std::env::var("CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(CASES);
    for (name, body) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has no seeds");
        let mut random = Random(0x5eed_0000 + name.len() as u64);
        for (number, seed) in seeds.iter().enumerate() {
            for case in 0..=cases {
                let mut bytes = seed.clone();
                if case > 0 {
                    let other = random.index(seeds.len());
                    random.change(&mut bytes, &seeds[other]);
                }
                if catch_unwind(|| body(&bytes)).is_err() {
                    panic!("{name} fails for change {case} of seed {number}: {bytes:02x?}");
                }
            }
        }
    }
}
