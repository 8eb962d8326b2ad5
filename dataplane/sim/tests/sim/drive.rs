//! A drive with a volatile cache.

use std::collections::BTreeMap;

use roadstead_target::{IoOp, IoRequest, IoResult};

use crate::model::{Stamp, stamp_of};
use crate::plan::Broken;
use crate::rng::Rng;

/// Contents of the one volume.
pub struct Drive {
    block_bytes: usize,
    cache: Vec<u8>,
    stable: Vec<u8>,
    /// What each block held since the last flush and may be found to hold after a loss of power.
    unflushed: BTreeMap<usize, Vec<Vec<u8>>>,
    /// What was put where since this was last taken.
    pub landed: Vec<(u64, Stamp)>,
    pub broken: Broken,
}

impl Drive {
    pub fn new(block_bytes: u32, blocks: u64, broken: Broken) -> Self {
        let block_bytes = usize::try_from(block_bytes).unwrap_or(512);
        let length = block_bytes * usize::try_from(blocks).unwrap_or(0);
        Self {
            block_bytes,
            cache: vec![0; length],
            stable: vec![0; length],
            unflushed: BTreeMap::new(),
            landed: Vec::new(),
            broken,
        }
    }

    pub fn block(&self, lba: u64) -> &[u8] {
        let start = usize::try_from(lba).unwrap_or(0) * self.block_bytes;
        &self.cache[start..start + self.block_bytes]
    }

    /// Does a part of a request: blocks from `from` to before `to` of it.
    pub fn perform(
        &mut self,
        request: &IoRequest,
        buffer: &mut [u8],
        from: usize,
        to: usize,
    ) -> IoResult {
        let first = usize::try_from(request.offset).unwrap_or(usize::MAX) / self.block_bytes;
        for index in from..to {
            let place = (first + index) * self.block_bytes..(first + index + 1) * self.block_bytes;
            let part = index * self.block_bytes..(index + 1) * self.block_bytes;
            match &request.op {
                IoOp::Read => buffer[part].copy_from_slice(&self.cache[place]),
                IoOp::Write => self.put(first + index, &buffer[part], request.fua),
                IoOp::WriteZeroes { .. } => {
                    let zeroes = vec![0; self.block_bytes];
                    self.put(first + index, &zeroes, request.fua);
                }
                IoOp::Flush | IoOp::Deallocate { .. } => {}
                other => panic!("no host here asks for {other:?}"),
            }
        }
        if request.op == IoOp::Flush && self.broken != Broken::LazyFlush {
            self.stable.copy_from_slice(&self.cache);
            self.unflushed.clear();
        }
        Ok(())
    }

    /// Blocks of a request.
    pub fn count(&self, request: &IoRequest) -> usize {
        usize::try_from(request.length).unwrap_or(usize::MAX) / self.block_bytes
    }

    fn put(&mut self, block: usize, bytes: &[u8], fua: bool) {
        let place = block * self.block_bytes..(block + 1) * self.block_bytes;
        self.cache[place.clone()].copy_from_slice(bytes);
        if fua {
            self.stable[place].copy_from_slice(bytes);
            self.unflushed.remove(&block);
        } else {
            self.unflushed
                .entry(block)
                .or_default()
                .push(bytes.to_vec());
        }
        let lba = u64::try_from(block).unwrap_or(u64::MAX);
        match stamp_of(bytes, lba) {
            Ok(stamp) => self.landed.push((lba, stamp)),
            Err(error) => panic!("the target writes what no host wrote: {error}"),
        }
    }

    /// Of each block, some version since the last flush survives.
    pub fn lose_power(&mut self, rng: &mut Rng) {
        for (block, versions) in std::mem::take(&mut self.unflushed) {
            let place = block * self.block_bytes..(block + 1) * self.block_bytes;
            if let Some(version) = versions.get(rng.index(versions.len() + 1)) {
                self.stable[place].copy_from_slice(version);
            }
        }
        self.cache.copy_from_slice(&self.stable);
    }
}
