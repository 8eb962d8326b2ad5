//! What the records say: the volumes and which extents they hold. The same code replays the log and
//! carries out changes while running.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use thiserror::Error;
use uuid::Uuid;

use crate::bitmap::Bitmap;
use crate::format::record::{MAX_NAME_BYTES, MAX_NOTE_BYTES, MAX_RUNS, Record, Run};
use crate::shared::PoolShared;
use crate::volume::{Volume, VolumeSpec, extents_for};

/// A record does not fit the state before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record contradicts the ones before it: {0}")]
pub(crate) struct Contradiction(pub(crate) &'static str);

/// Extents of the drive that lie side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) first: u32,
    pub(crate) count: u32,
}

pub(crate) struct State {
    shared: Arc<PoolShared>,
    volumes: BTreeMap<Uuid, Arc<Volume>>,
    mapped: Bitmap,
}

impl State {
    pub(crate) fn new(shared: Arc<PoolShared>) -> Self {
        shared.reserved_extents.store(0, SeqCst);
        shared.mapped_extents.store(0, SeqCst);
        shared.volumes.store(0, SeqCst);
        let mapped = Bitmap::new(shared.extent_count());
        Self {
            shared,
            volumes: BTreeMap::new(),
            mapped,
        }
    }

    pub(crate) fn volume(&self, uuid: Uuid) -> Option<&Arc<Volume>> {
        self.volumes.get(&uuid)
    }

    pub(crate) fn volumes(&self) -> impl Iterator<Item = &Arc<Volume>> {
        self.volumes.values()
    }

    /// The extents that volumes hold.
    pub(crate) fn mapped(&self) -> &Bitmap {
        &self.mapped
    }

    /// The drive has so many extents from now on.
    pub(crate) fn grow_drive(&mut self, extents: u32) {
        self.mapped.grow(extents);
        self.shared.set_extent_count(extents);
    }

    pub(crate) fn extents_for(&self, bytes: u64) -> u64 {
        u64::from(extents_for(
            bytes,
            self.shared.geometry.extent_bytes.trailing_zeros(),
        ))
    }

    /// Extents that no volume has a claim on, mapped or not.
    pub(crate) fn unreserved(&self) -> u64 {
        u64::from(self.shared.extent_count())
            .saturating_sub(self.shared.reserved_extents.load(SeqCst))
    }

    /// Carries one record out; gives the extents that it freed. After an error the state is not to be used.
    pub(crate) fn apply(&mut self, record: &Record) -> Result<Vec<Span>, Contradiction> {
        match record {
            Record::Create(spec) => self.create(spec).map(|()| Vec::new()),
            Record::Grow { uuid, size_bytes } => self.grow(*uuid, *size_bytes).map(|()| Vec::new()),
            Record::Delete { uuid } => self.delete(*uuid),
            Record::Map { uuid, runs } => self.map(*uuid, runs).map(|()| Vec::new()),
            Record::Unmap { uuid, first, count } => self.unmap(*uuid, *first, *count),
            Record::Note { uuid, bytes } => self.note(*uuid, bytes).map(|()| Vec::new()),
        }
    }

    fn known(&self, uuid: Uuid) -> Result<Arc<Volume>, Contradiction> {
        self.volumes
            .get(&uuid)
            .cloned()
            .ok_or(Contradiction("no such volume"))
    }

    fn reserve(&mut self, extents: u64) -> Result<(), Contradiction> {
        if extents > self.unreserved() {
            return Err(Contradiction("the volumes are larger than the drive"));
        }
        self.shared.reserved_extents.fetch_add(extents, SeqCst);
        Ok(())
    }

    fn create(&mut self, spec: &VolumeSpec) -> Result<(), Contradiction> {
        let shape = spec.size_bytes > 0
            && spec
                .size_bytes
                .is_multiple_of(spec.block_size.bytes().into());
        if !shape || spec.name.is_empty() || spec.name.len() > MAX_NAME_BYTES {
            return Err(Contradiction("a volume of impossible size or name"));
        }
        if self.volumes.contains_key(&spec.uuid)
            || self.volumes.len() as u64 >= self.shared.geometry.max_volumes.into()
        {
            return Err(Contradiction("a volume twice, or one too many"));
        }
        self.reserve(self.extents_for(spec.size_bytes))?;
        self.volumes.insert(
            spec.uuid,
            Arc::new(Volume::new(spec, Arc::clone(&self.shared))),
        );
        self.shared.volumes.fetch_add(1, SeqCst);
        Ok(())
    }

    fn grow(&mut self, uuid: Uuid, size_bytes: u64) -> Result<(), Contradiction> {
        let volume = self.known(uuid)?;
        let shape = size_bytes.is_multiple_of(volume.block_size().bytes().into());
        if size_bytes < volume.size_bytes() || !shape {
            return Err(Contradiction("a volume grows to an impossible size"));
        }
        self.reserve(self.extents_for(size_bytes) - self.extents_for(volume.size_bytes()))?;
        volume.set_size(size_bytes);
        Ok(())
    }

    fn delete(&mut self, uuid: Uuid) -> Result<Vec<Span>, Contradiction> {
        let volume = self.known(uuid)?;
        volume.set_deleted();
        let freed = self.free(&volume, 0, volume.extent_count())?;
        self.volumes.remove(&uuid);
        self.shared
            .reserved_extents
            .fetch_sub(volume.extent_count().into(), SeqCst);
        self.shared.volumes.fetch_sub(1, SeqCst);
        Ok(freed)
    }

    fn map(&mut self, uuid: Uuid, runs: &[Run]) -> Result<(), Contradiction> {
        let volume = self.known(uuid)?;
        if runs.is_empty() || runs.len() > MAX_RUNS {
            return Err(Contradiction("an impossible number of runs"));
        }
        for run in runs {
            let end = run
                .first
                .checked_add(run.count)
                .ok_or(Contradiction("a run overflows"))?;
            let physical_end = run
                .physical
                .checked_add(run.count)
                .ok_or(Contradiction("a run overflows"))?;
            if run.count == 0
                || end > volume.extent_count()
                || physical_end > self.shared.extent_count()
            {
                return Err(Contradiction("a run is outside the volume or the drive"));
            }
            for i in 0..run.count {
                if !self.mapped.insert(run.physical + i) {
                    return Err(Contradiction("an extent of the drive is mapped twice"));
                }
                if volume
                    .map
                    .set(run.first + i, Some(run.physical + i))
                    .is_some()
                {
                    return Err(Contradiction("an extent of a volume is mapped twice"));
                }
            }
            volume.mapped.fetch_add(run.count, SeqCst);
            self.shared.mapped_extents.fetch_add(run.count, SeqCst);
        }
        Ok(())
    }

    fn unmap(&mut self, uuid: Uuid, first: u32, count: u32) -> Result<Vec<Span>, Contradiction> {
        let volume = self.known(uuid)?;
        match first.checked_add(count) {
            Some(end) if end <= volume.extent_count() => self.free(&volume, first, end),
            _ => Err(Contradiction("extents outside the volume are freed")),
        }
    }

    fn note(&mut self, uuid: Uuid, bytes: &[u8]) -> Result<(), Contradiction> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(Contradiction("a note is too long"));
        }
        self.known(uuid)?.set_note(bytes);
        Ok(())
    }

    /// Bytes that the notes of all volumes but this one take in a checkpoint.
    pub(crate) fn notes_bytes_without(&self, uuid: Uuid) -> u64 {
        let others = self.volumes.values().filter(|volume| volume.uuid() != uuid);
        let lengths = others.map(|volume| volume.note().len());
        lengths.filter(|len| *len > 0).map(note_bytes).sum()
    }

    /// Makes the extents `from..to` holes.
    fn free(&mut self, volume: &Volume, from: u32, to: u32) -> Result<Vec<Span>, Contradiction> {
        let mut freed = Vec::new();
        volume.map.for_each_run(from, to, |run| {
            freed.push((
                run.first,
                Span {
                    first: run.physical,
                    count: run.count,
                },
            ))
        });
        for (first, span) in &freed {
            for i in 0..span.count {
                volume.map.set(first + i, None);
                if !self.mapped.remove(span.first + i) {
                    return Err(Contradiction("a mapped extent was not marked as such"));
                }
            }
            volume.mapped.fetch_sub(span.count, SeqCst);
            self.shared.mapped_extents.fetch_sub(span.count, SeqCst);
        }
        Ok(freed.into_iter().map(|(_, span)| span).collect())
    }

    /// The records that make this state from nothing, in portions that fit memory.
    pub(crate) fn for_each_record<E>(
        &self,
        mut f: impl FnMut(Record) -> Result<(), E>,
    ) -> Result<(), E> {
        for volume in self.volumes.values() {
            f(Record::Create(volume.spec()))?;
            let (uuid, bytes) = (volume.uuid(), volume.note());
            if !bytes.is_empty() {
                f(Record::Note { uuid, bytes })?;
            }
            let mut runs = Vec::new();
            let mut result = Ok(());
            volume.map.for_each_run(0, volume.extent_count(), |run| {
                runs.push(run);
                if runs.len() == MAX_RUNS && result.is_ok() {
                    result = f(Record::Map {
                        uuid,
                        runs: std::mem::take(&mut runs),
                    });
                }
            });
            result?;
            if !runs.is_empty() {
                f(Record::Map { uuid, runs })?;
            }
        }
        Ok(())
    }
}

/// Bytes that a note of this length takes in a checkpoint.
pub(crate) fn note_bytes(len: usize) -> u64 {
    const RECORD_HEAD_BYTES: u64 = 20;
    RECORD_HEAD_BYTES + u64::try_from(len).unwrap_or(u64::MAX)
}
