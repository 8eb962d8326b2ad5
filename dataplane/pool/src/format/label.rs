//! The label: whose pool this is, and where its parts lie.

use uuid::Uuid;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{Geometry, SECTOR_BYTES, VERSION, crc_holds, sector_block};
use crate::blocks::Blocks;

/// The first eight bytes of every label.
pub const MAGIC: [u8; 8] = *b"RDSTPOOL";
/// Longest owner, bytes.
pub const MAX_OWNER_BYTES: usize = 128;

/// A pool's label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The pool.
    pub pool_uuid: Uuid,
    /// The drive.
    pub drive_uuid: Uuid,
    /// Who owns it: the Target's UID.
    pub owner: String,
    /// Counts up with every change of the label.
    pub generation: u64,
    /// Seconds since 1970.
    pub created_unix_s: u64,
    /// Where the parts lie. Not checked against the medium yet.
    pub geometry: Geometry,
}

/// What the place of a label holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing of ours.
    Nothing,
    /// Our magic, but damaged.
    Damaged,
    /// A later version's.
    Future(u32),
    /// A good one.
    Label(Box<Label>),
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    version: U32,
    copy: U32,
    pool: [u8; 16],
    drive: [u8; 16],
    generation: U64,
    created_unix_s: U64,
    media_bytes: U64,
    extent_bytes: U64,
    data_offset: U64,
    checkpoint_bytes: U64,
    journal_bytes: U64,
    extent_count: U32,
    max_extents: U32,
    max_volumes: U32,
    owner_len: U32,
    owner: [u8; MAX_OWNER_BYTES],
    reserved: [u8; 260],
    crc: U32,
}

const _: () = assert!(size_of::<Wire>() == SECTOR_BYTES);

impl Label {
    /// The bytes of copy `copy`.
    pub fn encode(&self, copy: u32) -> Blocks {
        let mut owner = [0; MAX_OWNER_BYTES];
        let owner_len = self.owner.len().min(MAX_OWNER_BYTES);
        for (to, from) in owner.iter_mut().zip(self.owner.bytes()) {
            *to = from;
        }
        let g = &self.geometry;
        let wire = Wire {
            magic: MAGIC,
            version: VERSION.into(),
            copy: copy.into(),
            pool: self.pool_uuid.into_bytes(),
            drive: self.drive_uuid.into_bytes(),
            generation: self.generation.into(),
            created_unix_s: self.created_unix_s.into(),
            media_bytes: g.media_bytes.into(),
            extent_bytes: g.extent_bytes.into(),
            data_offset: g.data_offset.into(),
            checkpoint_bytes: g.checkpoint_bytes.into(),
            journal_bytes: g.journal_bytes.into(),
            extent_count: g.extent_count.into(),
            max_extents: g.max_extents.into(),
            max_volumes: g.max_volumes.into(),
            owner_len: u32::try_from(owner_len).unwrap_or(0).into(),
            owner,
            reserved: [0; 260],
            crc: 0.into(),
        };
        sector_block(wire.as_bytes())
    }

    /// What `block` holds, read from the place of copy `copy`.
    pub fn decode(block: &[u8], copy: u32) -> Found {
        let Ok((wire, _)) = Wire::read_from_prefix(block) else {
            return Found::Nothing;
        };
        if wire.magic != MAGIC {
            return Found::Nothing;
        }
        if !crc_holds(block) {
            return Found::Damaged;
        }
        if wire.version.get() > VERSION {
            return Found::Future(wire.version.get());
        }
        let owner = wire
            .owner
            .get(..crate::blocks::index(wire.owner_len.get().into()));
        let Some(owner) = owner.and_then(|bytes| std::str::from_utf8(bytes).ok()) else {
            return Found::Damaged;
        };
        if wire.copy.get() != copy || wire.version.get() == 0 {
            return Found::Damaged;
        }
        Found::Label(Box::new(Self {
            pool_uuid: Uuid::from_bytes(wire.pool),
            drive_uuid: Uuid::from_bytes(wire.drive),
            owner: owner.to_owned(),
            generation: wire.generation.get(),
            created_unix_s: wire.created_unix_s.get(),
            geometry: Geometry {
                media_bytes: wire.media_bytes.get(),
                extent_bytes: wire.extent_bytes.get(),
                data_offset: wire.data_offset.get(),
                checkpoint_bytes: wire.checkpoint_bytes.get(),
                journal_bytes: wire.journal_bytes.get(),
                extent_count: wire.extent_count.get(),
                max_extents: wire.max_extents.get(),
                max_volumes: wire.max_volumes.get(),
            },
        }))
    }
}
