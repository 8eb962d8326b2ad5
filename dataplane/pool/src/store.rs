//! Writes the log: journal batches, and a checkpoint into the other half when a journal is full.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::blocks::{BLOCK, Blocks};
use crate::error::{Fault, FaultKind};
use crate::format::batch::{self, Log, Stamp};
use crate::format::half::{Header, Seal};
use crate::format::record::Record;
use crate::format::{Geometry, Half};
use crate::media::Media;
use crate::shared::PoolShared;
use crate::state::State;

/// Where the log stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Position {
    pub(crate) half: Half,
    pub(crate) id: Uuid,
    pub(crate) generation: u64,
    pub(crate) next_seq: u64,
}

pub(crate) struct Store {
    media: Arc<dyn Media>,
    shared: Arc<PoolShared>,
    at: Position,
    /// Bytes of the journal in use.
    used: u64,
}

/// What sealing the old half would say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldHalf {
    /// It and its journal make the same state.
    IsComplete,
    /// They do not: the state was put together from both halves.
    IsNot,
}

impl Store {
    pub(crate) fn new(media: Arc<dyn Media>, shared: Arc<PoolShared>, at: Position) -> Self {
        Self {
            media,
            shared,
            at,
            used: 0,
        }
    }

    fn geometry(&self) -> &Geometry {
        &self.shared.geometry
    }

    /// Whether the journal has room for a batch with this payload.
    pub(crate) fn has_room(&self, payload: &[u8]) -> bool {
        let bytes = batch::blocks_for(payload) as u64 * BLOCK;
        self.used + bytes <= self.geometry().journal_bytes
    }

    /// Writes both copies of a batch; durable at the next sync. The caller checked that there is room.
    pub(crate) fn append(&mut self, payload: &[u8]) -> Result<u64, Fault> {
        let seq = self.at.next_seq;
        let stamp = Stamp {
            id: self.at.id,
            log: Log::Journal,
            seq,
            durable_seq: self.shared.durable_seq(),
        };
        let blocks = batch::encode(&stamp, payload);
        for offset in self.geometry().journal_offsets(self.at.half) {
            self.write("writing the journal", offset + self.used, &blocks)?;
        }
        self.used += blocks.as_bytes().len() as u64;
        self.at.next_seq = seq.saturating_add(1);
        Ok(seq)
    }

    /// Writes `state` into the other half and goes on there. When it returns, everything in `state` is
    /// durable. A power cut on the way leaves the old half in charge.
    pub(crate) fn checkpoint(&mut self, state: &State, old: OldHalf) -> Result<(), Fault> {
        let half = self.at.half.other();
        let id = Uuid::new_v4();
        let batches = self.write_batches(half, id, state)?;
        let header = Header {
            pool_uuid: self.shared.pool_uuid,
            id,
            generation: self.at.generation.saturating_add(1),
            first_seq: self.at.next_seq,
            batches,
        };
        self.write(
            "writing a checkpoint",
            self.geometry().half_offset(half),
            &header.encode(),
        )?;
        self.sync()?;
        // Durable with the next sync, whoever makes it: it matters only should the new checkpoint rot later.
        if old == OldHalf::IsComplete {
            let seal = Seal {
                pool_uuid: self.shared.pool_uuid,
                id: self.at.id,
                successor: id,
                final_seq: self.at.next_seq.saturating_sub(1),
            };
            self.write(
                "sealing a checkpoint",
                self.geometry().seal_offset(self.at.half),
                &seal.encode(),
            )?;
        }
        self.at = Position {
            half,
            id,
            generation: header.generation,
            next_seq: self.at.next_seq,
        };
        self.used = 0;
        Ok(())
    }

    fn write_batches(&self, half: Half, id: Uuid, state: &State) -> Result<u64, Fault> {
        let mut out = CheckpointOut {
            store: self,
            half,
            id,
            seq: 0,
            used: 0,
        };
        let mut pending: Vec<Record> = Vec::new();
        let mut payload = Vec::new();
        state.for_each_record(|record| {
            pending.push(record);
            let fit = batch::pack(&pending, &mut payload);
            if fit < pending.len() {
                out.write(&payload)?;
                pending.drain(..fit);
            }
            Ok(())
        })?;
        if !pending.is_empty() {
            batch::pack(&pending, &mut payload);
            out.write(&payload)?;
        }
        Ok(out.seq)
    }

    fn write(&self, doing: &'static str, offset: u64, blocks: &Blocks) -> Result<(), Fault> {
        self.media
            .write_at(offset, blocks.as_bytes())
            .map_err(|e| Fault::io(doing, &e))
    }

    /// Syncs the medium; what was issued before is durable then.
    pub(crate) fn sync(&self) -> Result<(), Fault> {
        let ticket = self.shared.sync_ticket();
        self.media
            .sync()
            .map_err(|e: io::Error| Fault::io("syncing the drive", &e))?;
        self.shared.synced(ticket);
        Ok(())
    }
}

struct CheckpointOut<'a> {
    store: &'a Store,
    half: Half,
    id: Uuid,
    seq: u64,
    used: u64,
}

impl CheckpointOut<'_> {
    fn write(&mut self, payload: &[u8]) -> Result<(), Fault> {
        let stamp = Stamp {
            id: self.id,
            log: Log::Checkpoint,
            seq: self.seq,
            durable_seq: 0,
        };
        let blocks = batch::encode(&stamp, payload);
        let geometry = self.store.geometry();
        let end = self.used + blocks.as_bytes().len() as u64;
        if end > geometry.checkpoint_bytes {
            return Err(Fault {
                kind: FaultKind::Inconsistent,
                doing: "writing a checkpoint",
                detail: format!(
                    "it does not fit the {} bytes made for it",
                    geometry.checkpoint_bytes
                ),
            });
        }
        self.store.write(
            "writing a checkpoint",
            geometry.checkpoint_offset(self.half) + self.used,
            &blocks,
        )?;
        self.used = end;
        self.seq += 1;
        Ok(())
    }
}
