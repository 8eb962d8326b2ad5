//! The core of a pool: one thread owns it and calls it; every call is blocking.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use crate::blocks::Blocks;
use crate::error::{Fault, FaultKind, PoolError};
use crate::format::batch;
use crate::format::label::{Found, Label};
use crate::format::record::{MAX_NAME_BYTES, MAX_RUNS, Record, Run};
use crate::media::Media;
use crate::reserve::{GraceToken, Reserve};
use crate::shared::{PoolShared, PoolStats};
use crate::state::{Span, State};
use crate::store::{OldHalf, Store};
use crate::volume::{Volume, VolumeSpec};

/// Cleaned at once when an allocation finds the reserve empty, extents.
const REFILL_EXTENTS: usize = 16;

/// Extents of a volume that a write needs.
#[derive(Debug, Clone)]
pub struct ExtentRequest {
    /// The volume.
    pub volume: Uuid,
    /// Its extents; those that are mapped already are left alone.
    pub extents: Range<u32>,
}

/// What became of an [`ExtentRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// All of its extents are mapped.
    Mapped,
    /// There is room, but freed extents are still within somebody's reach. Nothing was mapped; ask again
    /// after a `release`.
    Wait,
    /// It is not possible.
    Refused(PoolError),
}

/// A pool on one drive.
pub struct Pool {
    media: Arc<dyn Media>,
    shared: Arc<PoolShared>,
    state: State,
    store: Store,
    reserve: Reserve,
}

impl Pool {
    pub(crate) fn new(
        media: Arc<dyn Media>,
        shared: Arc<PoolShared>,
        state: State,
        store: Store,
        reserve: Reserve,
    ) -> Self {
        Self {
            media,
            shared,
            state,
            store,
            reserve,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<PoolShared> {
        &self.shared
    }

    pub(crate) fn reserve(&self) -> &Reserve {
        &self.reserve
    }

    /// Numbers.
    pub fn stats(&self) -> PoolStats {
        self.shared.stats()
    }

    /// A volume.
    pub fn volume(&self, uuid: Uuid) -> Option<Arc<Volume>> {
        self.state.volume(uuid).cloned()
    }

    /// All volumes.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        self.state.volumes().cloned().collect()
    }

    fn known(&self, uuid: Uuid) -> Result<Arc<Volume>, PoolError> {
        self.volume(uuid).ok_or(PoolError::VolumeUnknown { uuid })
    }

    fn check_health(&self) -> Result<(), PoolError> {
        self.shared
            .fault()
            .map_or(Ok(()), |fault| Err(fault.clone().into()))
    }

    fn failed(&self, fault: Fault) -> PoolError {
        self.shared.set_fault(fault).into()
    }

    /// Makes a volume. Durable when it returns.
    pub fn create_volume(&mut self, spec: &VolumeSpec) -> Result<Arc<Volume>, PoolError> {
        self.check_health()?;
        self.check_spec(spec)?;
        self.check_room(self.state.extents_for(spec.size_bytes))?;
        self.commit(&[Record::Create(spec.clone())])?;
        self.sync()?;
        self.known(spec.uuid)
    }

    fn check_spec(&self, spec: &VolumeSpec) -> Result<(), PoolError> {
        let bad = |what: String| Err(PoolError::BadVolume { what });
        if self.state.volume(spec.uuid).is_some() {
            return Err(PoolError::VolumeExists { uuid: spec.uuid });
        }
        let max = self.shared.geometry.max_volumes;
        if self.state.volumes().count() as u64 >= u64::from(max) {
            return Err(PoolError::TooManyVolumes { max });
        }
        if spec.name.is_empty() || spec.name.len() > MAX_NAME_BYTES {
            return bad(format!("its name must have 1 to {MAX_NAME_BYTES} bytes"));
        }
        if self.media.block_bytes() > spec.block_size.bytes() {
            let least = self.media.block_bytes();
            return bad(format!(
                "the drive's own blocks have {least} bytes, choose that block size"
            ));
        }
        check_size(spec.size_bytes, spec.block_size.bytes())
    }

    fn check_room(&self, extents: u64) -> Result<(), PoolError> {
        let bytes = self.shared.geometry.extent_bytes;
        if extents <= self.state.unreserved() {
            return Ok(());
        }
        Err(PoolError::NoRoom {
            asked_bytes: extents.saturating_mul(bytes),
            free_bytes: self.state.unreserved() * bytes,
        })
    }

    /// Gives a volume a larger size, or leaves it alone if it has that size. Durable when it returns.
    pub fn grow_volume(&mut self, uuid: Uuid, size_bytes: u64) -> Result<(), PoolError> {
        self.check_health()?;
        let volume = self.known(uuid)?;
        let old_bytes = volume.size_bytes();
        if size_bytes < old_bytes {
            return Err(PoolError::ShrinkRefused {
                size_bytes: old_bytes,
                asked_bytes: size_bytes,
            });
        }
        check_size(size_bytes, volume.block_size().bytes())?;
        if size_bytes == old_bytes {
            return Ok(());
        }
        self.check_room(self.state.extents_for(size_bytes) - self.state.extents_for(old_bytes))?;
        self.commit(&[Record::Grow { uuid, size_bytes }])?;
        self.sync()
    }

    /// Deletes a volume and its data. Durable when it returns; its space is reused once the token, if there
    /// is one, was released.
    pub fn delete_volume(&mut self, uuid: Uuid) -> Result<Option<GraceToken>, PoolError> {
        self.check_health()?;
        self.known(uuid)?;
        let freed = self.commit(&[Record::Delete { uuid }])?;
        let token = self.limbo(freed);
        self.sync()?;
        Ok(token)
    }

    /// Makes extents of a volume holes: they read as zeroes from now on, durably so after the next Flush.
    /// What they held is reused once the token was released and the change is durable.
    pub fn deallocate(
        &mut self,
        uuid: Uuid,
        extents: Range<u32>,
    ) -> Result<Option<GraceToken>, PoolError> {
        self.check_health()?;
        let volume = self.known(uuid)?;
        check_range(&volume, &extents)?;
        let mut is_mapped = false;
        volume
            .map
            .for_each_run(extents.start, extents.end, |_| is_mapped = true);
        if !is_mapped {
            return Ok(None);
        }
        let (first, count) = (extents.start, extents.end - extents.start);
        let freed = self.commit(&[Record::Unmap { uuid, first, count }])?;
        Ok(self.limbo(freed))
    }

    fn limbo(&mut self, freed: Vec<Span>) -> Option<GraceToken> {
        let seq = self.shared.sync_ticket().0;
        (!freed.is_empty()).then(|| self.reserve.push_limbo(freed, seq))
    }

    /// Every I/O that was in flight when the changes up to `token` returned has ended.
    pub fn release(&mut self, token: GraceToken) {
        self.reserve.release(token);
    }

    /// Gives the extents places, all requests in as few journal batches as possible. When it returns, the
    /// journal is written and the extents are published; durable after the next Flush.
    pub fn allocate(&mut self, requests: &[ExtentRequest]) -> Result<Vec<Outcome>, PoolError> {
        self.check_health()?;
        let mut planned = BTreeSet::new();
        let mut records = Vec::new();
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            outcomes.push(self.plan(request, &mut planned, &mut records)?);
        }
        self.commit(&records)?;
        Ok(outcomes)
    }

    /// Takes clean extents for what `request` lacks and nobody has `planned` yet.
    fn plan(
        &mut self,
        request: &ExtentRequest,
        planned: &mut BTreeSet<(Uuid, u32)>,
        records: &mut Vec<Record>,
    ) -> Result<Outcome, PoolError> {
        let uuid = request.volume;
        let volume = match self
            .known(uuid)
            .and_then(|v| check_range(&v, &request.extents).map(|()| v))
        {
            Ok(volume) => volume,
            Err(error) => return Ok(Outcome::Refused(error)),
        };
        let lacking =
            |extent: &u32| volume.map.get(*extent).is_none() && !planned.contains(&(uuid, *extent));
        let missing: Vec<u32> = request.extents.clone().filter(lacking).collect();
        while self.reserve.clean_count() < missing.len() {
            let lacking = missing.len() - self.reserve.clean_count();
            match self.refill(REFILL_EXTENTS.max(lacking)) {
                Ok(0) => return Ok(Outcome::Wait),
                Ok(_) => {}
                Err(full @ PoolError::MediumFull { .. }) => return Ok(Outcome::Refused(full)),
                Err(error) => return Err(error),
            }
        }
        let mut runs: Vec<Run> = Vec::new();
        for extent in missing {
            let Some(physical) = self.reserve.pop_clean() else {
                break;
            };
            planned.insert((uuid, extent));
            match runs.last_mut() {
                Some(run) if run.joins(extent, physical) => run.count += 1,
                _ => runs.push(Run {
                    first: extent,
                    physical,
                    count: 1,
                }),
            }
        }
        records.extend(runs.chunks(MAX_RUNS).map(|runs| Record::Map {
            uuid,
            runs: runs.to_vec(),
        }));
        Ok(Outcome::Mapped)
    }

    /// Zeroes up to `max` free extents, syncs, and puts them into the clean reserve; gives how many. None
    /// are free: 0. The file system under a file is full: [`PoolError::MediumFull`], and nothing has changed.
    pub fn refill(&mut self, max: usize) -> Result<usize, PoolError> {
        self.check_health()?;
        self.reclaim()?;
        let spans = self.reserve.take_free(max);
        if spans.is_empty() {
            return Ok(0);
        }
        if let Err(error) = self.zero(&spans) {
            self.reserve.put_back(&spans);
            return Err(error);
        }
        self.sync()?;
        self.reserve.push_clean(&spans);
        Ok(spans
            .iter()
            .map(|span| crate::blocks::index(span.count.into()))
            .sum())
    }

    fn zero(&self, spans: &[Span]) -> Result<(), PoolError> {
        let geometry = &self.shared.geometry;
        for span in spans {
            let len = u64::from(span.count) * geometry.extent_bytes;
            match self
                .media
                .zero_range(geometry.extent_offset(span.first), len)
            {
                Ok(()) => {}
                // Nothing is wrong with the drive, and there may be room again later.
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                    return Err(PoolError::MediumFull {
                        path: self.media.path().to_owned(),
                    });
                }
                Err(error) => return Err(self.failed(Fault::io("zeroing free extents", &error))),
            }
        }
        Ok(())
    }

    /// Makes what is released and durable free.
    pub(crate) fn reclaim(&mut self) -> Result<(), PoolError> {
        if self.reserve.waits_for_sync() {
            self.sync()?;
        }
        let (geometry, bytes) = (self.shared.geometry, self.shared.geometry.extent_bytes);
        for span in self.reserve.reclaim() {
            let discarded = self.media.discard(
                geometry.extent_offset(span.first),
                u64::from(span.count) * bytes,
            );
            discarded.map_err(|e| self.failed(Fault::io("discarding free extents", &e)))?;
        }
        Ok(())
    }

    /// Makes everything acknowledged so far durable.
    pub fn sync(&mut self) -> Result<(), PoolError> {
        self.check_health()?;
        self.store.sync().map_err(|fault| self.failed(fault))
    }

    /// Reads the label: finds out about a drive that has gone while nothing was written to it.
    pub fn check_drive(&mut self) -> Result<(), PoolError> {
        self.check_health()?;
        let mut block = Blocks::new(1);
        let offset = self.shared.geometry.label_offsets()[0];
        let read = self.media.read_at(offset, block.as_bytes_mut());
        read.map_err(|e| self.failed(Fault::io("reading the label", &e)))?;
        match Label::decode(block.as_bytes(), 0) {
            Found::Label(label) if label.pool_uuid == self.shared.pool_uuid => Ok(()),
            _ => Err(self.failed(Fault {
                kind: FaultKind::Inconsistent,
                doing: "reading the label",
                detail: "it is not this pool's any more: something else has written to the drive"
                    .to_owned(),
            })),
        }
    }

    /// Writes `records` to the journal, batch by batch, and carries each batch out once it is written.
    fn commit(&mut self, records: &[Record]) -> Result<Vec<Span>, PoolError> {
        let mut freed = Vec::new();
        let mut payload = Vec::new();
        let mut rest = records;
        while !rest.is_empty() {
            let fit = batch::pack(rest, &mut payload);
            if !self.store.has_room(&payload) {
                self.store
                    .checkpoint(&self.state, OldHalf::IsComplete)
                    .map_err(|fault| self.failed(fault))?;
            }
            let seq = self
                .store
                .append(&payload)
                .map_err(|fault| self.failed(fault))?;
            self.shared.set_issued(seq);
            let (now, later) = rest.split_at(fit.max(1));
            for record in now {
                let spans = self.state.apply(record).map_err(|e| {
                    let detail = e.to_string();
                    self.failed(Fault {
                        kind: FaultKind::Inconsistent,
                        doing: "changing the pool",
                        detail,
                    })
                })?;
                freed.extend(spans);
            }
            rest = later;
        }
        Ok(freed)
    }
}

fn check_size(size_bytes: u64, block_bytes: u32) -> Result<(), PoolError> {
    if size_bytes == 0 || !size_bytes.is_multiple_of(block_bytes.into()) {
        let what =
            format!("its size of {size_bytes} bytes must be a multiple of {block_bytes} and not 0");
        return Err(PoolError::BadVolume { what });
    }
    Ok(())
}

fn check_range(volume: &Volume, extents: &Range<u32>) -> Result<(), PoolError> {
    if extents.start > extents.end || extents.end > volume.extent_count() {
        let count = extents.end.saturating_sub(extents.start);
        let extents_there = volume.extent_count();
        return Err(PoolError::OutOfRange {
            first: extents.start,
            count,
            extents: extents_there,
        });
    }
    Ok(())
}
