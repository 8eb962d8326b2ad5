//! Extents of volumes: giving them out, taking them back, and cleaning free ones in between.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;

use uuid::Uuid;

use crate::error::{Fault, PoolError};
use crate::format::record::{MAX_RUNS, Record, Run};
use crate::pool::Pool;
use crate::reserve::GraceToken;
use crate::state::Span;
use crate::volume::Volume;

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

impl Pool {
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

    pub(crate) fn limbo(&mut self, freed: Vec<Span>) -> Option<GraceToken> {
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
