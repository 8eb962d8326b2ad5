//! Reads the log back: the newest half that is whole, its journal, and, when the newest checkpoint has
//! rotted, its predecessor and both journals.
//!
//! A journal ends at the first batch that is not there in either copy. That is the trace of a power cut,
//! unless a later batch says that the missing one was durable: then it is damage, and an error.

use std::io;
use std::sync::Arc;

use thiserror::Error;
use uuid::Uuid;

use crate::blocks::{BLOCK, BLOCK_BYTES, Blocks, index};
use crate::format::Half;
use crate::format::batch::{self, Log};
use crate::format::half::{Header, Seal};
use crate::format::record::{Malformed, Record};
use crate::media::Media;
use crate::shared::PoolShared;
use crate::state::{Contradiction, State};
use crate::store::{OldHalf, Position};

/// Read at once when looking for traces behind the end of a journal, bytes.
const SCAN_BYTES: u64 = 1 << 20;
/// Largest batch, bytes.
const MAX_BATCH_BYTES: u64 = batch::MAX_BLOCKS as u64 * BLOCK;

/// Why the log cannot be read back.
#[derive(Debug, Error)]
pub(crate) enum Damage {
    #[error("neither half has a good header")]
    NoHeader,
    #[error("no checkpoint is whole")]
    NoCheckpoint,
    #[error("the newest checkpoint is damaged and its predecessor cannot replace it")]
    NoReplacement,
    #[error("batch {seq} of the journal was durable and is damaged")]
    JournalHole { seq: u64 },
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    #[error("the journal cannot be read: {0}")]
    Unreadable(io::Error),
}

/// A state, and where its log stands.
pub(crate) struct Recovered {
    pub(crate) state: State,
    pub(crate) at: Position,
    pub(crate) old: OldHalf,
}

struct Reader<'a> {
    media: &'a dyn Media,
    shared: &'a Arc<PoolShared>,
}

/// Reads the state back. Writes nothing; the caller must write a checkpoint before any journal batch.
pub(crate) fn recover(media: &dyn Media, shared: &Arc<PoolShared>) -> Result<Recovered, Damage> {
    let reader = Reader { media, shared };
    let mut headers: Vec<(Half, Header)> = [Half::First, Half::Second]
        .into_iter()
        .filter_map(|half| Some((half, reader.header(half)?)))
        .collect();
    headers.sort_by_key(|(_, header)| std::cmp::Reverse(header.generation));
    let generation = headers.first().ok_or(Damage::NoHeader)?.1.generation;
    for (half, header) in headers {
        let Some(state) = reader.checkpoint(half, &header)? else {
            continue;
        };
        let mut recovered = reader.journals(half, &header, state)?;
        recovered.at.generation = generation;
        return Ok(recovered);
    }
    Err(Damage::NoCheckpoint)
}

impl Reader<'_> {
    fn block(&self, offset: u64) -> Option<Blocks> {
        let mut block = Blocks::new(1);
        self.media
            .read_at(offset, block.as_bytes_mut())
            .ok()
            .map(|()| block)
    }

    fn header(&self, half: Half) -> Option<Header> {
        let block = self.block(self.shared.geometry.half_offset(half))?;
        Header::decode(block.as_bytes()).filter(|header| header.pool_uuid == self.shared.pool_uuid)
    }

    fn seal(&self, half: Half, id: Uuid) -> Option<Seal> {
        let block = self.block(self.shared.geometry.seal_offset(half))?;
        Seal::decode(block.as_bytes(), id)
    }

    /// The state in a checkpoint; none if it is not whole.
    fn checkpoint(&self, half: Half, header: &Header) -> Result<Option<State>, Damage> {
        let geometry = &self.shared.geometry;
        let start = geometry.checkpoint_offset(half);
        let mut state = State::new(Arc::clone(self.shared));
        let mut used = 0;
        for seq in 0..header.batches {
            let len = MAX_BATCH_BYTES.min(geometry.checkpoint_bytes - used);
            let mut bytes = Blocks::for_bytes(index(len));
            if len == 0
                || self
                    .media
                    .read_at(start + used, bytes.as_bytes_mut())
                    .is_err()
            {
                return Ok(None);
            }
            let Some(found) = batch::decode(bytes.as_bytes(), header.id, Log::Checkpoint) else {
                return Ok(None);
            };
            if found.seq != seq {
                return Ok(None);
            }
            apply(&mut state, &found.records()?)?;
            used += found.blocks as u64 * BLOCK;
        }
        Ok(Some(state))
    }

    /// Brings the checkpoint of `half` up to date.
    fn journals(&self, half: Half, header: &Header, mut state: State) -> Result<Recovered, Damage> {
        let seal = self.seal(half, header.id);
        let mut next_seq = self.replay(
            half,
            header.id,
            header.first_seq,
            seal.map(|s| s.final_seq),
            &mut state,
        )?;
        let mut old = OldHalf::IsComplete;
        if let Some(seal) = seal {
            next_seq = self.replay(half.other(), seal.successor, next_seq, None, &mut state)?;
            old = OldHalf::IsNot;
        } else if self.has_journal_from(half.other(), next_seq) {
            // The other half went on from here, so its checkpoint was whole once, and this one sealed.
            return Err(Damage::NoReplacement);
        }
        let at = Position {
            half,
            id: header.id,
            generation: header.generation,
            next_seq,
        };
        Ok(Recovered { state, at, old })
    }

    /// Whether a journal begins with a batch that nothing before `seq` explains, of whatever checkpoint.
    fn has_journal_from(&self, half: Half, seq: u64) -> bool {
        let len = MAX_BATCH_BYTES.min(self.shared.geometry.journal_bytes);
        let mut bytes = Blocks::for_bytes(index(len));
        self.shared
            .geometry
            .journal_offsets(half)
            .into_iter()
            .any(|start| {
                // Unreadable blocks read as zeroes here: they cannot testify.
                let _ = self.read_what_can_be(start, &mut bytes);
                batch::seq_of_any(bytes.as_bytes(), Log::Journal).is_some_and(|found| found >= seq)
            })
    }

    /// Applies a journal from `first_seq` up to its end, or to `last_seq`, which must be there. Gives the
    /// sequence number after it.
    fn replay(
        &self,
        half: Half,
        id: Uuid,
        first_seq: u64,
        last_seq: Option<u64>,
        state: &mut State,
    ) -> Result<u64, Damage> {
        let mut seq = first_seq;
        let mut used = 0;
        while last_seq.is_none_or(|last| seq <= last) {
            let Some((records, blocks)) = self.batch(half, used, id, seq)? else {
                break;
            };
            apply(state, &records)?;
            used += blocks * BLOCK;
            seq = seq.saturating_add(1);
        }
        match last_seq {
            Some(last) if seq != last.saturating_add(1) => Err(Damage::JournalHole { seq }),
            Some(_) => Ok(seq),
            None => self.check_end(half, used, id, seq).map(|()| seq),
        }
    }

    /// The batch `seq` at `used`, from whichever copy is good.
    fn batch(
        &self,
        half: Half,
        used: u64,
        id: Uuid,
        seq: u64,
    ) -> Result<Option<(Vec<Record>, u64)>, Damage> {
        let geometry = &self.shared.geometry;
        let len = MAX_BATCH_BYTES.min(geometry.journal_bytes.saturating_sub(used));
        let mut bytes = Blocks::for_bytes(index(len));
        let mut unreadable = Vec::new();
        for start in geometry.journal_offsets(half) {
            let read = self.read_what_can_be(start + used, &mut bytes);
            unreadable.extend(read.err());
            if let Some(found) =
                batch::decode(bytes.as_bytes(), id, Log::Journal).filter(|b| b.seq == seq)
            {
                return Ok(Some((found.records()?, found.blocks as u64)));
            }
        }
        // One copy that can be read and is not there is enough: a durable batch has two good ones.
        match unreadable.pop() {
            Some(error) if !unreadable.is_empty() => Err(Damage::Unreadable(error)),
            _ => Ok(None),
        }
    }

    /// Reads block by block when reading at once fails: a bad block behind a batch is not the batch's.
    fn read_what_can_be(&self, offset: u64, bytes: &mut Blocks) -> io::Result<()> {
        if bytes.count() == 0 || self.media.read_at(offset, bytes.as_bytes_mut()).is_ok() {
            return Ok(());
        }
        let mut result = Ok(());
        for (n, block) in bytes.as_bytes_mut().chunks_mut(BLOCK_BYTES).enumerate() {
            if let Err(error) = self.media.read_at(offset + n as u64 * BLOCK, block) {
                block.fill(0);
                result = Err(error);
            }
        }
        result
    }

    /// The journal ends before `seq`: is there a later batch that knew `seq` to be durable?
    fn check_end(&self, half: Half, used: u64, id: Uuid, seq: u64) -> Result<(), Damage> {
        let geometry = &self.shared.geometry;
        for start in geometry.journal_offsets(half) {
            let mut at = used;
            while at < geometry.journal_bytes {
                // Chunks overlap by a batch, so that none is cut.
                let len = (SCAN_BYTES + MAX_BATCH_BYTES).min(geometry.journal_bytes - at);
                let mut bytes = Blocks::for_bytes(index(len));
                // Unreadable blocks read as zeroes here: they cannot testify.
                let _ = self.read_what_can_be(start + at, &mut bytes);
                let mut rest = bytes.as_bytes();
                while !rest.is_empty() {
                    let witness = batch::decode(rest, id, Log::Journal);
                    if witness.is_some_and(|b| b.seq > seq && b.durable_seq >= seq) {
                        return Err(Damage::JournalHole { seq });
                    }
                    rest = rest.get(BLOCK_BYTES..).unwrap_or_default();
                }
                at += SCAN_BYTES;
            }
        }
        Ok(())
    }
}

fn apply(state: &mut State, records: &[Record]) -> Result<(), Contradiction> {
    for record in records {
        state.apply(record)?;
    }
    Ok(())
}
