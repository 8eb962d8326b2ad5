//! Where everything lies.

use crate::blocks::BLOCK;

/// Offset of the first half, bytes.
pub(crate) const META_OFFSET: u64 = 64 << 10;
/// Offsets of the label's first two copies, bytes.
pub(crate) const LABEL_OFFSETS: [u64; 2] = [0, 32 << 10];
/// Smallest and largest extent, bytes.
pub(crate) const EXTENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(64 << 20);
/// Smallest and largest journal, bytes.
pub(crate) const JOURNAL_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(16 << 20);
/// The journal that a drive of a size gets: the size over this, within 256 KiB and 16 MiB.
const MEDIA_PER_JOURNAL: u64 = 4096;
/// How many times its extents a pool's metadata has room for, so that files can grow: this for small ones,
const GROWTH_OF_SMALL: u64 = 16;
/// up to so many extents, and
const SMALL_EXTENTS: u64 = 128 << 10;
/// this for the others.
const GROWTH: u64 = 2;
/// Volumes of a pool: as many as extents at its making, within these.
const LEAST_VOLUMES: u64 = 64;
const MAX_VOLUMES: u64 = 16_384;
/// Checkpoint room an extent (one run each, at worst) and a volume (longest name, both records), bytes.
const CHECKPOINT_BYTES_PER_EXTENT: u64 = 12;
const CHECKPOINT_BYTES_PER_VOLUME: u64 = 400;

/// Sizes and places of a pool's parts; what the label says, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size of the medium at format or at the last growth, whole blocks, bytes.
    pub media_bytes: u64,
    /// Bytes an extent, a power of two.
    pub extent_bytes: u64,
    /// Offset of the first extent, bytes.
    pub data_offset: u64,
    /// Room for a checkpoint, bytes.
    pub checkpoint_bytes: u64,
    /// Room for one copy of a journal, bytes.
    pub journal_bytes: u64,
    /// Extents there are.
    pub extent_count: u32,
    /// Extents that the metadata has room for.
    pub max_extents: u32,
    /// Volumes that the metadata has room for.
    pub max_volumes: u32,
}

impl Geometry {
    /// The layout for a new pool. Err: the least size in bytes that a medium needs.
    pub fn plan(
        media_bytes: u64,
        extent_bytes: u64,
        journal_bytes: Option<u64>,
    ) -> Result<Self, u64> {
        let media_bytes = media_bytes - media_bytes % BLOCK;
        let extents = (media_bytes / extent_bytes).max(1);
        let volumes = extents.clamp(LEAST_VOLUMES, MAX_VOLUMES);
        let small = extents.saturating_mul(GROWTH_OF_SMALL).min(SMALL_EXTENTS);
        let extents = extents.saturating_mul(GROWTH).max(small);
        let max_extents = u32::try_from(extents).unwrap_or(u32::MAX).min(u32::MAX - 1);
        let checkpoint = u64::from(max_extents)
            .saturating_mul(CHECKPOINT_BYTES_PER_EXTENT)
            .saturating_add(volumes * CHECKPOINT_BYTES_PER_VOLUME);
        // A batch may stay empty by almost one record (4 KiB of 16).
        let checkpoint_bytes = (checkpoint / 2 * 3 + 4 * BLOCK).next_multiple_of(BLOCK);
        let journal_bytes =
            journal_bytes.unwrap_or((media_bytes / MEDIA_PER_JOURNAL).clamp(256 << 10, 16 << 20));
        let mut geometry = Self {
            media_bytes,
            extent_bytes,
            data_offset: 0,
            checkpoint_bytes,
            journal_bytes: journal_bytes.next_multiple_of(BLOCK),
            extent_count: 0,
            max_extents,
            max_volumes: u32::try_from(volumes).unwrap_or(u32::MAX),
        };
        geometry.data_offset = geometry.metadata_end().next_multiple_of(extent_bytes);
        let least = geometry.data_offset + extent_bytes + BLOCK;
        if media_bytes < least {
            return Err(least);
        }
        Ok(geometry.grown(media_bytes))
    }

    /// The same pool on a medium of `media_bytes`, as far as its metadata has room.
    pub fn grown(mut self, media_bytes: u64) -> Self {
        self.media_bytes = media_bytes - media_bytes % BLOCK;
        let room = self.media_bytes.saturating_sub(self.data_offset + BLOCK) / self.extent_bytes;
        self.extent_count = u32::try_from(room)
            .unwrap_or(u32::MAX)
            .min(self.max_extents);
        self
    }

    /// What is wrong with sizes that were read from a medium of `media_bytes`, if anything is.
    pub fn check(&self, media_bytes: u64) -> Result<(), &'static str> {
        let meta = self.checked_metadata_end().ok_or("sizes overflow")?;
        let end = u64::from(self.extent_count)
            .checked_mul(self.extent_bytes)
            .and_then(|data| data.checked_add(self.data_offset)?.checked_add(BLOCK))
            .ok_or("sizes overflow")?;
        let blocks = [self.media_bytes, self.checkpoint_bytes, self.journal_bytes];
        if !self.extent_bytes.is_power_of_two() || !EXTENT_BYTES.contains(&self.extent_bytes) {
            Err("the extent size is not possible")
        } else if blocks.iter().any(|bytes| bytes % BLOCK != 0)
            || !JOURNAL_BYTES.contains(&self.journal_bytes)
        {
            Err("the sizes of the metadata are not possible")
        } else if meta > self.data_offset || !self.data_offset.is_multiple_of(self.extent_bytes) {
            Err("the extents begin inside the metadata")
        } else if self.extent_count == 0
            || self.extent_count > self.max_extents
            || self.max_extents == u32::MAX
        {
            Err("the number of extents is not possible")
        } else if end > self.media_bytes || self.media_bytes > media_bytes {
            Err("the extents end past the end of the medium")
        } else {
            Ok(())
        }
    }

    fn checked_metadata_end(&self) -> Option<u64> {
        let journals = self.journal_bytes.checked_mul(2)?;
        let half = self
            .checkpoint_bytes
            .checked_add(journals)?
            .checked_add(2 * BLOCK)?;
        half.checked_mul(2)?.checked_add(META_OFFSET)
    }

    /// Bytes of a half.
    fn half_bytes(&self) -> u64 {
        self.checkpoint_bytes + 2 * self.journal_bytes + 2 * BLOCK
    }

    fn metadata_end(&self) -> u64 {
        META_OFFSET + 2 * self.half_bytes()
    }

    /// Where a half begins: its header.
    pub fn half_offset(&self, half: Half) -> u64 {
        match half {
            Half::First => META_OFFSET,
            Half::Second => META_OFFSET + self.half_bytes(),
        }
    }

    /// Where a half's checkpoint begins.
    pub fn checkpoint_offset(&self, half: Half) -> u64 {
        self.half_offset(half) + BLOCK
    }

    /// Where the two copies of a half's journal begin.
    pub fn journal_offsets(&self, half: Half) -> [u64; 2] {
        let first = self.checkpoint_offset(half) + self.checkpoint_bytes;
        [first, first + self.journal_bytes]
    }

    /// Where a half's seal is.
    pub fn seal_offset(&self, half: Half) -> u64 {
        self.half_offset(half) + self.half_bytes() - BLOCK
    }

    /// Where the label's copies are.
    pub fn label_offsets(&self) -> [u64; 3] {
        [LABEL_OFFSETS[0], LABEL_OFFSETS[1], self.media_bytes - BLOCK]
    }

    /// Bytes of a checkpoint that the notes of all volumes may take. The rest of it is planned for volumes and extents
    /// with batches that are almost a quarter empty; whole records leave them less empty than a fifth.
    pub fn notes_bytes(&self) -> u64 {
        self.checkpoint_bytes / 12
    }

    /// Where an extent is.
    pub fn extent_offset(&self, extent: u32) -> u64 {
        self.data_offset + u64::from(extent) * self.extent_bytes
    }
}

/// One of the two halves of the metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The one that a new pool begins with.
    First,
    /// The other.
    Second,
}

impl Half {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}
