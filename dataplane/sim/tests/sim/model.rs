//! What a block may hold: slow and obvious. All writes of a block are kept, with when they began and ended.

use std::collections::BTreeMap;

/// A point in the order of everything that happens.
pub type Moment = u64;
/// What a write puts into its blocks; 0 for zeroes.
pub type Stamp = u64;

#[derive(Clone, Copy, Debug)]
struct Write {
    id: u64,
    stamp: Stamp,
    began: Moment,
    /// When its end was known; none while it may still land.
    ended: Option<Moment>,
    /// It succeeded, and no loss of power can have undone it.
    sure: bool,
    /// It survives a loss of power.
    durable: bool,
    /// Power was lost while it was on its way: a large one may have been done in part before, and that part be undone.
    torn: bool,
}

/// One namespace.
#[derive(Default)]
pub struct Model {
    blocks: BTreeMap<u64, Vec<Write>>,
}

impl Model {
    /// A write, or the writing of zeroes, is submitted.
    pub fn begins(&mut self, id: u64, stamp: Stamp, blocks: std::ops::Range<u64>, now: Moment) {
        let write = Write {
            id,
            stamp,
            began: now,
            ended: None,
            sure: false,
            durable: false,
            torn: false,
        };
        for block in blocks {
            self.blocks.entry(block).or_default().push(write);
        }
    }

    fn each(&mut self, mut change: impl FnMut(&mut Write)) {
        self.blocks.values_mut().flatten().for_each(&mut change);
    }

    /// It succeeded.
    pub fn succeeds(&mut self, id: u64, durable: bool, now: Moment) {
        self.each(|write| {
            if write.id == id {
                write.sure = durable || !write.torn;
                (write.ended, write.durable) = (Some(now), durable);
            }
        });
    }

    /// It failed: done or not, but over.
    pub fn fails(&mut self, id: u64, now: Moment) {
        self.each(|write| {
            if write.id == id {
                write.ended = Some(now);
            }
        });
    }

    /// A flush that began then succeeded.
    pub fn flushed(&mut self, began: Moment) {
        self.each(|write| {
            write.durable |= write.sure && write.ended.is_some_and(|ended| ended < began);
        });
    }

    /// What was not durable may be undone.
    pub fn power_lost(&mut self) {
        self.each(|write| {
            write.sure &= write.durable;
            write.torn |= write.ended.is_none();
        });
    }

    /// A read of a block that began then found this.
    ///
    /// # Errors
    /// It cannot be there; says why.
    pub fn read(&self, block: u64, stamp: Stamp, began: Moment) -> Result<(), String> {
        let writes = self.blocks.get(&block).map_or(&[][..], Vec::as_slice);
        // The last moment at which this was overwritten for sure before the read began.
        let over = |found: &Write| {
            let ended = found.ended?;
            writes.iter().find(|other| {
                other.sure && other.began > ended && other.ended.is_some_and(|end| end < began)
            })
        };
        let mut why = None;
        // Zeroes are also what a block holds before its first write.
        let initial = Write {
            id: 0,
            stamp: 0,
            began: 0,
            ended: Some(0),
            sure: true,
            durable: true,
            torn: false,
        };
        for found in writes
            .iter()
            .chain([&initial])
            .filter(|write| write.stamp == stamp)
        {
            match over(found) {
                None => return Ok(()),
                Some(newer) => why = Some((*found, *newer)),
            }
        }
        Err(match why {
            Some((old, new)) => {
                format!("block {block} holds {old:?}, which {new:?} has overwritten")
            }
            None => format!("block {block} holds {stamp:#x}, which nobody wrote there"),
        })
    }

    /// The drive put this into a block.
    ///
    /// # Errors
    /// It was written long ago, and is not the newest any more.
    pub fn lands(&self, block: u64, stamp: Stamp, now: Moment) -> Result<(), String> {
        // That many writes put zeroes there tells nothing about which one this is.
        match stamp {
            0 => Ok(()),
            _ => self
                .read(block, stamp, now)
                .map_err(|error| format!("an old write landed: {error}")),
        }
    }
}

/// Fills blocks with what tells a misplaced one.
pub fn fill(bytes: &mut [u8], block_bytes: u64, first: u64, stamp: Stamp) {
    let block_bytes = usize::try_from(block_bytes).unwrap_or(512);
    for (block, lba) in bytes.chunks_mut(block_bytes).zip(first..) {
        for pair in block.chunks_mut(16) {
            pair[..8].copy_from_slice(&stamp.to_le_bytes());
            pair[8..].copy_from_slice(&lba.to_le_bytes());
        }
    }
}

/// What a block was filled with.
///
/// # Errors
/// It is no block of this address, or a mixture.
pub fn stamp_of(block: &[u8], lba: u64) -> Result<Stamp, String> {
    let (head, rest) = block.split_at(16);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    let (stamp, found) = (number(&head[..8]), number(&head[8..]));
    if rest != &block[..rest.len()] {
        return Err(format!("block {lba} is a mixture"));
    }
    match (stamp, found) {
        (0, 0) => Ok(0),
        (1.., _) if found == lba => Ok(stamp),
        _ => Err(format!("block {lba} holds {stamp:#x} of block {found}")),
    }
}
