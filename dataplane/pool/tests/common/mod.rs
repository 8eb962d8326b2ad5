//! A pool on a simulated drive beside a slow, obvious model of it: for every sector of every volume the
//! values that it may hold. Knows what was acknowledged, what was flushed, and what a power cut may undo.

use std::collections::BTreeMap;
use std::sync::Arc;

use roadstead_pool::media::sim::{Random, SimMedia};
use roadstead_pool::{
    BlockSize, Blocks, ExtentRequest, GraceToken, Media, OpenOptions, Outcome, Pool, PoolError,
    Volume, VolumeSpec,
};
use uuid::Uuid;

pub const EXTENT: u64 = 64 << 10;
pub const SECTOR: u64 = 512;
pub const OWNER: &str = "target-1";

/// Extents of 64 KiB and the smallest journal: 16 batches, so that halves are switched often.
pub fn options() -> OpenOptions {
    OpenOptions {
        extent_bytes: EXTENT,
        journal_bytes: Some(64 << 10),
        ..OpenOptions::new(OWNER)
    }
}

/// What a sector may hold: the last is what it holds now, the others are what a power cut may bring back.
type Sectors = BTreeMap<u64, Vec<u64>>;

#[derive(Clone, Default)]
pub struct ModelVolume {
    /// The first is durable, the last is now.
    pub sizes: Vec<u64>,
    pub sectors: Sectors,
    /// What is kept with it: the first is durable, the last is now. Empty for nothing.
    pub notes: Vec<Vec<u8>>,
    /// A deletion was asked for and not acknowledged: it may be there or not.
    pub may_be_gone: bool,
    /// A creation was asked for and not acknowledged.
    pub may_not_be: bool,
}

pub struct Rig {
    pub sim: Arc<SimMedia>,
    pub pool: Pool,
    pub model: BTreeMap<Uuid, ModelVolume>,
    tokens: Vec<GraceToken>,
    next_value: u64,
    next_volume: u128,
}

/// The power failed during an operation.
#[derive(Debug)]
pub struct PowerCut;

impl Rig {
    pub fn new(size_bytes: u64) -> Self {
        // Not zeroes: what an extent shows must have been cleaned by the pool.
        let sim = Arc::new(SimMedia::with_content(vec![0xee; size_bytes as usize]));
        let force = OpenOptions {
            force: true,
            ..options()
        };
        let pool = Pool::open_or_format(Arc::clone(&sim) as Arc<dyn Media>, &force).unwrap();
        Self {
            sim,
            pool,
            model: BTreeMap::new(),
            tokens: Vec::new(),
            next_value: 1,
            next_volume: 0,
        }
    }

    fn survived<T>(&self, result: Result<T, PoolError>) -> Result<T, PowerCut> {
        match result {
            Ok(value) => Ok(value),
            Err(_) if self.sim.is_off() => Err(PowerCut),
            Err(error) => panic!("refused: {error}"),
        }
    }

    /// The volume that `pick` chooses.
    pub fn pick(&self, pick: u32) -> Option<Uuid> {
        let n = self.model.len();
        self.model.keys().nth(pick as usize % n.max(1)).copied()
    }

    pub fn free_extents(&self) -> u64 {
        self.pool.stats().free_bytes / EXTENT
    }

    pub fn create(&mut self, extents: u64, short_by: u64) -> Result<(), PowerCut> {
        let size_bytes = extents * EXTENT - short_by * SECTOR;
        self.next_volume += 1;
        let uuid = Uuid::from_u128(self.next_volume);
        let spec = VolumeSpec {
            uuid,
            name: format!("volume-{uuid}"),
            size_bytes,
            block_size: BlockSize::B512,
            created_unix_s: 7,
        };
        let free = self.free_extents();
        let result = self.pool.create_volume(&spec);
        if extents > free {
            assert!(
                matches!(result, Err(PoolError::NoRoom { .. })),
                "{result:?}"
            );
            return Ok(());
        }
        let model = ModelVolume {
            sizes: vec![size_bytes],
            notes: vec![Vec::new()],
            may_not_be: result.is_err(),
            ..Default::default()
        };
        self.model.insert(uuid, model);
        self.survived(result).map(drop)
    }

    /// The drive itself gets larger by so many extents.
    pub fn grow_drive(&mut self, extents: u64) -> Result<(), PowerCut> {
        let before = self.pool.stats().capacity_bytes;
        let size = self.sim.size_bytes().unwrap() + extents * EXTENT;
        let result = self.pool.grow_drive(size);
        self.survived(result)?;
        assert_eq!(self.pool.stats().capacity_bytes, before + extents * EXTENT);
        Ok(())
    }

    pub fn grow(&mut self, uuid: Uuid, by_sectors: u64) -> Result<(), PowerCut> {
        let old = *self.model[&uuid].sizes.last().unwrap();
        let size_bytes = old + by_sectors * SECTOR;
        if (size_bytes.div_ceil(EXTENT) - old.div_ceil(EXTENT)) > self.free_extents() {
            let refused = self.pool.grow_volume(uuid, size_bytes);
            assert!(
                matches!(refused, Err(PoolError::NoRoom { .. })),
                "{refused:?}"
            );
            return Ok(());
        }
        let result = self.pool.grow_volume(uuid, size_bytes);
        let sizes = &mut self.model.get_mut(&uuid).unwrap().sizes;
        sizes.push(size_bytes);
        if result.is_ok() {
            *sizes = vec![size_bytes];
        }
        self.survived(result)
    }

    pub fn note(&mut self, uuid: Uuid, len: usize) -> Result<(), PowerCut> {
        self.next_value += 1;
        let mut bytes = self.next_value.to_le_bytes().repeat(len.div_ceil(8));
        bytes.truncate(len);
        let result = self.pool.set_note(uuid, bytes.clone());
        if matches!(result, Err(PoolError::NoRoomForNote)) {
            return Ok(());
        }
        let notes = &mut self.model.get_mut(&uuid).unwrap().notes;
        notes.push(bytes);
        if result.is_ok() {
            notes.drain(..notes.len() - 1);
        }
        self.survived(result)
    }

    pub fn delete(&mut self, uuid: Uuid) -> Result<(), PowerCut> {
        let result = self.pool.delete_volume(uuid);
        if result.is_ok() {
            self.model.remove(&uuid);
        } else {
            self.model.get_mut(&uuid).unwrap().may_be_gone = true;
        }
        let token = self.survived(result)?;
        self.tokens.extend(token);
        Ok(())
    }

    pub fn release(&mut self) {
        for token in self.tokens.drain(..) {
            self.pool.release(token);
        }
    }

    pub fn refill(&mut self, max: usize) -> Result<(), PowerCut> {
        let result = self.pool.refill(max);
        self.survived(result).map(drop)
    }

    /// Makes the extents mapped, waiting for freed ones if need be.
    fn allocate(&mut self, volume: &Volume, offset: u64, len: u64) -> Result<(), PowerCut> {
        let request = ExtentRequest {
            volume: volume.uuid(),
            extents: volume.extents_of(offset, len),
        };
        let first = self.pool.allocate(std::slice::from_ref(&request));
        match &self.survived(first)?[..] {
            [Outcome::Mapped] => return Ok(()),
            [Outcome::Wait] => {}
            other => panic!("{other:?}"),
        }
        self.release();
        let second = self.pool.allocate(&[request]);
        assert_eq!(
            self.survived(second)?,
            [Outcome::Mapped],
            "there is room for every volume"
        );
        Ok(())
    }

    /// Writes sectors as a reactor does. Each gets a value that no other write has.
    pub fn write(&mut self, uuid: Uuid, sector: u64, count: u64) -> Result<(), PowerCut> {
        let volume = self.pool.volume(uuid).unwrap();
        let sectors = volume.size_bytes() / SECTOR;
        let first = sector % sectors;
        let count = count.min(sectors - first);
        let (offset, len) = (first * SECTOR, count * SECTOR);
        self.allocate(&volume, offset, len)?;
        let reader = volume.reader();
        let io = reader.begin();
        for piece in reader.lookup(&io, offset, len).unwrap() {
            let place = piece.drive_offset.expect("just allocated");
            let mut data = Vec::new();
            for n in piece.offset / SECTOR..(piece.offset + piece.len) / SECTOR {
                self.next_value += 1;
                data.extend(self.next_value.to_le_bytes().repeat(64));
                let model = self.model.get_mut(&uuid).unwrap();
                model
                    .sectors
                    .entry(n)
                    .or_insert_with(|| vec![0])
                    .push(self.next_value);
            }
            let written = self.sim.write_at(place, &data);
            if written.is_err() {
                assert!(self.sim.is_off());
                return Err(PowerCut);
            }
        }
        reader.end(io);
        Ok(())
    }

    pub fn deallocate(&mut self, uuid: Uuid, first: u32, count: u32) -> Result<(), PowerCut> {
        let volume = self.pool.volume(uuid).unwrap();
        let first = first % volume.extent_count();
        let last = (first + count).min(volume.extent_count());
        let result = self.pool.deallocate(uuid, first..last);
        let range = u64::from(first) * EXTENT / SECTOR..u64::from(last) * EXTENT / SECTOR;
        for (_, values) in self.model.get_mut(&uuid).unwrap().sectors.range_mut(range) {
            match result {
                Ok(_) => values.push(0),
                Err(_) => values.insert(0, 0),
            }
        }
        let token = self.survived(result)?;
        self.tokens.extend(token);
        Ok(())
    }

    /// A Flush as a reactor does it.
    pub fn flush(&mut self) -> Result<(), PowerCut> {
        let ticket = self.pool.volumes().first().map(|v| v.sync_ticket());
        if self.sim.sync().is_err() {
            assert!(self.sim.is_off());
            return Err(PowerCut);
        }
        if let (Some(ticket), Some(volume)) = (ticket, self.pool.volumes().first()) {
            volume.synced(ticket);
        }
        for volume in self.model.values_mut() {
            for values in volume.sectors.values_mut() {
                values.drain(..values.len() - 1);
            }
        }
        Ok(())
    }

    /// Everything that volumes show is what was written last.
    pub fn check_now(&self) {
        for (uuid, model) in &self.model {
            let volume = self
                .pool
                .volume(*uuid)
                .expect("an acknowledged volume is there");
            assert_eq!(volume.size_bytes(), *model.sizes.last().unwrap());
            assert_eq!(&volume.note(), model.notes.last().unwrap());
            for (n, value) in read_all(&*self.sim, &volume).into_iter().enumerate() {
                let expected = model
                    .sectors
                    .get(&(n as u64))
                    .map_or(0, |v| *v.last().unwrap());
                assert_eq!(value, expected, "sector {n} of {uuid}");
            }
        }
        self.check_numbers();
    }

    /// Space is what the volumes say.
    pub fn check_numbers(&self) {
        let stats = self.pool.stats();
        let volumes = self.pool.volumes();
        let reserved: u64 = volumes
            .iter()
            .map(|v| v.size_bytes().div_ceil(EXTENT) * EXTENT)
            .sum();
        let mapped: u64 = volumes.iter().map(|v| v.allocated_bytes()).sum();
        assert_eq!(stats.free_bytes, stats.capacity_bytes - reserved);
        assert_eq!(stats.allocated_bytes, mapped);
        assert_eq!(stats.volumes as usize, volumes.len());
        assert!(stats.fault.is_none());
        let mut seen = std::collections::BTreeSet::new();
        for volume in &volumes {
            let reader = volume.reader();
            let io = reader.begin();
            for piece in reader.lookup(&io, 0, volume.size_bytes()).unwrap() {
                for n in 0..piece.drive_offset.map_or(0, |_| piece.len.div_ceil(EXTENT)) {
                    let extent = piece.drive_offset.unwrap() / EXTENT + n;
                    assert!(seen.insert(extent), "extent {extent} is mapped twice");
                }
            }
            reader.end(io);
        }
        assert_eq!(seen.len() as u64 * EXTENT, mapped);
    }

    /// Ends without a word, and starts again from what the drive shows.
    pub fn restart(&mut self) {
        let content = self.sim.content();
        self.start_from(content);
    }

    /// The power fails now; starts again from what survived, which must be allowed.
    pub fn power_cut(&mut self, random: &mut Random) {
        let content = self.sim.after_power_cut(random);
        self.start_from(content);
    }

    fn start_from(&mut self, content: Vec<u8>) {
        self.tokens.clear();
        self.sim = Arc::new(SimMedia::with_content(content));
        self.pool =
            Pool::open_or_format(Arc::clone(&self.sim) as Arc<dyn Media>, &options()).unwrap();
        for volume in self.pool.volumes() {
            assert!(
                self.model.contains_key(&volume.uuid()),
                "a deleted volume is back"
            );
        }
        let pool = &self.pool;
        self.model.retain(|uuid, model| {
            let is_there = pool.volume(*uuid).is_some();
            assert!(
                is_there || model.may_be_gone || model.may_not_be,
                "volume {uuid} is lost"
            );
            is_there
        });
        for (uuid, model) in &mut self.model {
            let volume = self.pool.volume(*uuid).unwrap();
            assert!(model.sizes.contains(&volume.size_bytes()));
            let note = volume.note();
            assert!(model.notes.contains(&note));
            *model = survivors(&self.sim, &volume, model);
        }
        self.check_numbers();
    }
}

/// Checks that every sector holds what it may, and takes that for the truth from now on.
fn survivors(sim: &SimMedia, volume: &Arc<Volume>, model: &ModelVolume) -> ModelVolume {
    let mut sectors = Sectors::new();
    for (n, value) in read_all(sim, volume).into_iter().enumerate() {
        let n = n as u64;
        let allowed = model.sectors.get(&n).map_or(&[0][..], Vec::as_slice);
        assert!(
            allowed.contains(&value),
            "sector {n} holds {value}, allowed are {allowed:?}"
        );
        sectors.insert(n, vec![value]);
    }
    ModelVolume {
        sizes: vec![volume.size_bytes()],
        sectors,
        notes: vec![volume.note()],
        ..Default::default()
    }
}

/// The value of each sector of a volume; every sector must hold one value from end to end.
pub fn read_all(media: &dyn Media, volume: &Arc<Volume>) -> Vec<u64> {
    let mut values = Vec::new();
    let reader = volume.reader();
    let io = reader.begin();
    for piece in reader.lookup(&io, 0, volume.size_bytes()).unwrap() {
        let mut blocks = Blocks::for_bytes(piece.len as usize);
        let buffer = &mut blocks.as_bytes_mut()[..piece.len as usize];
        if let Some(place) = piece.drive_offset {
            media.read_at(place, buffer).unwrap();
        }
        for sector in buffer.chunks(SECTOR as usize) {
            let (words, _) = sector.as_chunks::<8>();
            assert!(words.iter().all(|w| w == &words[0]), "a torn sector");
            values.push(u64::from_le_bytes(words[0]));
        }
    }
    reader.end(io);
    values
}
