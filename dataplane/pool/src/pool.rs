//! The core of a pool: one thread owns it and calls it; every call is blocking.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::blocks::Blocks;
use crate::error::{Fault, FaultKind, PoolError};
use crate::format::batch;
use crate::format::label::{Found, Label};
use crate::format::record::{MAX_NAME_BYTES, MAX_NOTE_BYTES, Record};
use crate::media::Media;
use crate::open::write_labels;
use crate::reserve::{GraceToken, Reserve};
use crate::shared::{PoolShared, PoolStats};
use crate::state::{Span, State, note_bytes};
use crate::store::{OldHalf, Store};
use crate::volume::{Volume, VolumeSpec};

/// A pool on one drive.
pub struct Pool {
    pub(crate) media: Arc<dyn Media>,
    pub(crate) shared: Arc<PoolShared>,
    pub(crate) state: State,
    pub(crate) store: Store,
    pub(crate) reserve: Reserve,
    pub(crate) label: Label,
}

impl Pool {
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

    pub(crate) fn known(&self, uuid: Uuid) -> Result<Arc<Volume>, PoolError> {
        self.volume(uuid).ok_or(PoolError::VolumeUnknown { uuid })
    }

    pub(crate) fn check_health(&self) -> Result<(), PoolError> {
        self.shared
            .fault()
            .map_or(Ok(()), |fault| Err(fault.clone().into()))
    }

    pub(crate) fn failed(&self, fault: Fault) -> PoolError {
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

    /// Replaces what the layer above keeps with a volume. Durable when it returns.
    pub fn set_note(&mut self, uuid: Uuid, bytes: Vec<u8>) -> Result<(), PoolError> {
        self.check_health()?;
        let volume = self.known(uuid)?;
        let others = self.state.notes_bytes_without(uuid);
        let fits = others + note_bytes(bytes.len()) <= self.shared.geometry.notes_bytes();
        if bytes.len() > MAX_NOTE_BYTES || !(fits || bytes.is_empty()) {
            return Err(PoolError::NoRoomForNote);
        }
        if volume.note() != bytes {
            self.commit(&[Record::Note { uuid, bytes }])?;
        }
        // Also what an earlier call wrote that could not be synced.
        self.sync()
    }

    /// Uses what the medium has grown by, after making it at least `size_bytes` large where it can be made
    /// larger. Durable when it returns. The metadata has room for a limited growth only; the rest is left.
    pub fn grow_drive(&mut self, size_bytes: u64) -> Result<(), PoolError> {
        self.check_health()?;
        let grown = self
            .media
            .grow(size_bytes)
            .and_then(|()| self.media.size_bytes());
        let size_bytes = match grown {
            Ok(size_bytes) => size_bytes,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                return Err(PoolError::MediumFull {
                    path: self.media.path().to_owned(),
                });
            }
            Err(error) => return Err(self.failed(Fault::io("growing the drive", &error))),
        };
        let geometry = self.label.geometry.grown(size_bytes);
        if geometry.media_bytes <= self.label.geometry.media_bytes {
            return Ok(());
        }
        let label = Label {
            geometry,
            generation: self.label.generation + 1,
            ..self.label.clone()
        };
        let written = write_labels(&*self.media, &label);
        written.map_err(|e| self.failed(Fault::io("writing the label", &e)))?;
        self.label = label;
        self.reserve.grow_drive(geometry.extent_count);
        self.state.grow_drive(geometry.extent_count);
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
    pub(crate) fn commit(&mut self, records: &[Record]) -> Result<Vec<Span>, PoolError> {
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
