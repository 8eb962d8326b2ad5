//! Lookups in a volume's map, for one thread.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

use thiserror::Error;

use crate::exclusive::Exclusive;
use crate::grace::Slot;
use crate::volume::{Volume, access};

/// One thread's access to a volume's map. Every I/O is counted in with [`VolumeReader::begin`] before its
/// lookup and out with [`VolumeReader::end`] after the drive has completed it; extents freed meanwhile are
/// not reused before.
///
/// An I/O that must wait for an allocation ends first and begins anew afterwards: the allocation may have
/// to wait until freed extents are out of everyone's reach.
#[derive(Debug)]
pub struct VolumeReader {
    volume: Arc<Volume>,
    slot: Arc<Slot>,
    one_thread: PhantomData<Cell<()>>,
}

/// An I/O that was counted in. If it is lost instead of given to [`VolumeReader::end`], space that is freed
/// later is not reused before the next start; nothing worse happens.
#[derive(Debug)]
#[must_use = "give it to `VolumeReader::end` when the drive has completed the I/O"]
pub struct InFlight {
    parity: u8,
}

impl InFlight {
    /// Gives the token up for a number, to be given to [`VolumeReader::end_by_receipt`] once.
    #[must_use]
    pub fn into_receipt(self) -> u8 {
        self.parity
    }
}

/// Why a lookup was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LookupError {
    /// Bytes past the volume's end.
    #[error("the range ends past the end of the volume")]
    OutOfRange,
    /// The volume was deleted.
    #[error("the volume was deleted")]
    Deleted,
    /// Another I/O has the volume, or these bytes, for itself: end this one, and try again in a moment.
    #[error("another operation has these bytes for itself for a moment")]
    Busy,
}

impl VolumeReader {
    pub(crate) fn new(volume: Arc<Volume>, slot: Arc<Slot>) -> Self {
        Self {
            volume,
            slot,
            one_thread: PhantomData,
        }
    }

    /// The volume.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.volume
    }

    /// Counts an I/O in.
    pub fn begin(&self) -> InFlight {
        let parity = self.volume.pool.grace.parity();
        self.slot.enter(parity);
        InFlight {
            parity: u8::from(parity != 0),
        }
    }

    /// Counts an I/O out. It must be this reader's own.
    pub fn end(&self, io: InFlight) {
        self.slot.leave(usize::from(io.parity));
    }

    /// Counts out, by its receipt, an I/O whose token did not stay with it.
    pub fn end_by_receipt(&self, receipt: u8) {
        self.slot.leave(usize::from(receipt));
    }

    /// Where the bytes lie on the drive: pieces in order, each either in one place or a hole. Takes no
    /// lock and no memory. The places hold until `io` ends.
    pub fn lookup(
        &self,
        _io: &InFlight,
        offset: u64,
        len: u64,
    ) -> Result<Segments<'_>, LookupError> {
        match self.volume.access() {
            access::OPEN => self.unfenced(offset, len),
            access::CLOSED => Err(LookupError::Busy),
            _ => Err(LookupError::Deleted),
        }
    }

    /// The same for the I/O that has the volume for itself.
    pub fn lookup_exclusive(
        &self,
        _io: &InFlight,
        _exclusive: &Exclusive,
        offset: u64,
        len: u64,
    ) -> Result<Segments<'_>, LookupError> {
        if self.volume.is_deleted() {
            return Err(LookupError::Deleted);
        }
        self.unfenced(offset, len)
    }

    fn unfenced(&self, offset: u64, len: u64) -> Result<Segments<'_>, LookupError> {
        if self.volume.fences.block(offset, len) {
            return Err(LookupError::Busy);
        }
        self.segments(offset, len)
    }

    fn segments(&self, offset: u64, len: u64) -> Result<Segments<'_>, LookupError> {
        let end = offset.checked_add(len).ok_or(LookupError::OutOfRange)?;
        if end > self.volume.size_bytes() {
            return Err(LookupError::OutOfRange);
        }
        Ok(Segments {
            volume: &self.volume,
            at: offset,
            end,
        })
    }
}

/// A piece of a range of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the volume, bytes.
    pub offset: u64,
    /// Its length, bytes.
    pub len: u64,
    /// Where it lies on the drive, bytes; none if nothing was ever written there: reads as zeroes.
    pub drive_offset: Option<u64>,
}

/// The pieces of a range, neighbours that touch on the drive joined.
#[derive(Debug, Clone)]
pub struct Segments<'a> {
    volume: &'a Volume,
    at: u64,
    end: u64,
}

impl Segments<'_> {
    /// The piece at `at`, up to the end of its extent.
    fn piece(&self, at: u64) -> Segment {
        let shift = self.volume.extent_shift;
        let inside = at & ((1 << shift) - 1);
        let len = ((1 << shift) - inside).min(self.end - at);
        let extent = u32::try_from(at >> shift).ok();
        let drive_offset = extent
            .and_then(|e| self.volume.map.get(e))
            .map(|p| self.volume.data_offset + (u64::from(p) << shift) + inside);
        Segment {
            offset: at,
            len,
            drive_offset,
        }
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        if self.at >= self.end {
            return None;
        }
        let mut segment = self.piece(self.at);
        self.at += segment.len;
        while self.at < self.end {
            let next = self.piece(self.at);
            if segment.drive_offset.map(|o| o + segment.len) != next.drive_offset {
                break;
            }
            segment.len += next.len;
            self.at += next.len;
        }
        Some(segment)
    }
}
