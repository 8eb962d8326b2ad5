//! Takes a drive: reads its label, opens the pool on it, or makes one.

use std::io;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use crate::blocks::{BLOCK, Blocks};
use crate::error::{Fault, OpenError};
use crate::format::half::Header;
use crate::format::label::{Found, Label, MAX_OWNER_BYTES};
use crate::format::{
    EXTENT_BYTES, Geometry, Half, JOURNAL_BYTES, LABEL_OFFSETS, META_OFFSET, VERSION,
};
use crate::media::Media;
use crate::pool::Pool;
use crate::probe::signature;
use crate::recover::{self, Damage};
use crate::reserve::Reserve;
use crate::shared::PoolShared;
use crate::store::{OldHalf, Position, Store};

/// Wiped at both ends of a medium when a pool is made, bytes.
const WIPE_BYTES: u64 = 1 << 20;

/// Of the header that a format begins with.
const FIRST_GENERATION: u64 = 1;

/// How to take a drive.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Who owns the pool: the Target's UID. At most 128 bytes.
    pub owner: String,
    /// Overwrite what is not ours, another owner's pool included. Never touches a damaged pool of ours.
    pub force: bool,
    /// Bytes an extent of a new pool: a power of two from 64 KiB to 64 MiB.
    pub extent_bytes: u64,
    /// Bytes of one copy of a new pool's journal, 64 KiB to 16 MiB; none: by the drive's size.
    pub journal_bytes: Option<u64>,
}

impl OpenOptions {
    /// The usual: no force, extents of 1 MiB.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            force: false,
            extent_bytes: 1 << 20,
            journal_bytes: None,
        }
    }

    fn check(&self) -> Result<(), OpenError> {
        let bad = |what: &str| {
            Err(OpenError::BadOption {
                what: what.to_owned(),
            })
        };
        if self.owner.is_empty() || self.owner.len() > MAX_OWNER_BYTES {
            return bad("the owner must have 1 to 128 bytes");
        }
        if !self.extent_bytes.is_power_of_two() || !EXTENT_BYTES.contains(&self.extent_bytes) {
            return bad("the extent size must be a power of two from 64 KiB to 64 MiB");
        }
        if self
            .journal_bytes
            .is_some_and(|bytes| !JOURNAL_BYTES.contains(&bytes))
        {
            return bad("the journal must have 64 KiB to 16 MiB");
        }
        Ok(())
    }
}

impl Pool {
    /// Opens the owner's pool on `media`, or makes one if nothing is there, or if `force` allows to
    /// overwrite what is there. Mounts and users of a device are [`crate::probe`]'s business, before.
    pub fn open_or_format(media: Arc<dyn Media>, options: &OpenOptions) -> Result<Self, OpenError> {
        options.check()?;
        let drive = Drive {
            size_bytes: size_of(&*media)?,
            media,
        };
        match drive.label()? {
            Some(label) if label.owner == options.owner => drive.open(label),
            Some(label) if !options.force => Err(OpenError::ForeignLabel {
                path: drive.path(),
                pool: label.pool_uuid,
                owner: label.owner,
            }),
            Some(_) => drive.format(options),
            None if drive.format_was_cut_short() => drive.format(options),
            None => {
                let found =
                    signature::identify(&*drive.media).map_err(|e| drive.io("reading", e))?;
                match found {
                    Some(kind) if !options.force => Err(OpenError::ForeignFilesystem {
                        path: drive.path(),
                        kind: kind.to_string(),
                    }),
                    _ => drive.format(options),
                }
            }
        }
    }

    /// The label on `media`, if a pool is there.
    pub fn read_label(media: Arc<dyn Media>) -> Result<Option<Label>, OpenError> {
        Drive {
            size_bytes: size_of(&*media)?,
            media,
        }
        .label()
    }
}

fn size_of(media: &dyn Media) -> Result<u64, OpenError> {
    media.size_bytes().map_err(|source| OpenError::Io {
        path: media.path().to_owned(),
        doing: "asking for the size",
        source,
    })
}

/// One after the other, each synced before the next: a power cut damages one at most.
pub(crate) fn write_labels(media: &dyn Media, label: &Label) -> io::Result<()> {
    for (copy, offset) in (0..).zip(label.geometry.label_offsets()) {
        media.write_at(offset, label.encode(copy).as_bytes())?;
        media.sync()?;
    }
    Ok(())
}

struct Drive {
    media: Arc<dyn Media>,
    size_bytes: u64,
}

impl Drive {
    fn path(&self) -> String {
        self.media.path().to_owned()
    }

    fn io(&self, doing: &'static str, source: io::Error) -> OpenError {
        OpenError::Io {
            path: self.path(),
            doing,
            source,
        }
    }

    fn corrupt(&self, what: impl Into<String>) -> OpenError {
        OpenError::Corrupt {
            path: self.path(),
            what: what.into(),
        }
    }

    /// The last whole block.
    fn last_block(&self) -> Option<u64> {
        (self.size_bytes - self.size_bytes % BLOCK).checked_sub(BLOCK)
    }

    /// What the three places of a label hold. An unreadable one is damaged.
    fn copies(&self) -> Vec<Found> {
        let mut places = LABEL_OFFSETS.to_vec();
        places.extend(self.last_block());
        let read = |(copy, offset): (u32, u64)| {
            let mut block = Blocks::new(1);
            match self.media.read_at(offset, block.as_bytes_mut()) {
                Ok(()) => Label::decode(block.as_bytes(), copy),
                Err(_) if offset + BLOCK > self.size_bytes => Found::Nothing,
                Err(_) => Found::Damaged,
            }
        };
        (0..).zip(places).map(read).collect()
    }

    /// Whether a format got as far as its first header, and not to its first label. A finished pool has no
    /// header of that generation.
    fn format_was_cut_short(&self) -> bool {
        let mut block = Blocks::new(1);
        self.media
            .read_at(META_OFFSET, block.as_bytes_mut())
            .is_ok()
            && Header::decode(block.as_bytes()).is_some_and(|h| h.generation == FIRST_GENERATION)
    }

    /// The newest good label. None: nothing of ours is there.
    fn label(&self) -> Result<Option<Label>, OpenError> {
        let copies = self.copies();
        let mut newest: Option<Label> = None;
        for (place, found) in copies.iter().enumerate() {
            match found {
                Found::Future(version) => {
                    return Err(OpenError::FutureVersion {
                        path: self.path(),
                        version: *version,
                        known: VERSION,
                    });
                }
                Found::Damaged | Found::Nothing => {}
                // At the end of another medium, or of a part of this one: not about this one.
                Found::Label(label)
                    if place == 2
                        && label.geometry.media_bytes
                            != self.size_bytes - self.size_bytes % BLOCK => {}
                Found::Label(label) => match &newest {
                    Some(other) if other.pool_uuid != label.pool_uuid => {
                        return Err(self.corrupt("the copies of its label are of different pools"));
                    }
                    Some(other) if other.generation >= label.generation => {}
                    _ => newest = Some((**label).clone()),
                },
            }
        }
        match newest {
            None if copies.contains(&Found::Damaged) => {
                Err(self.corrupt("every copy of its label is damaged"))
            }
            None => Ok(None),
            Some(label) => self.check_label(label, &copies).map(Some),
        }
    }

    fn check_label(&self, label: Label, copies: &[Found]) -> Result<Label, OpenError> {
        if label.geometry.media_bytes > self.size_bytes {
            return Err(OpenError::MediaShrunk {
                path: self.path(),
                size_bytes: self.size_bytes,
                label_bytes: label.geometry.media_bytes,
            });
        }
        label
            .geometry
            .check(self.size_bytes)
            .map_err(|what| self.corrupt(format!("by its label, {what}")))?;
        if !matches!(copies.first(), Some(Found::Label(_))) {
            // Something may have been made over the pool, and left the other copies.
            if let Ok(Some(kind)) = signature::identify_known(&*self.media) {
                return Err(self.corrupt(format!("it was overwritten with {kind}")));
            }
        }
        Ok(label)
    }

    fn open(self, label: Label) -> Result<Pool, OpenError> {
        let geometry = label.geometry.grown(self.size_bytes);
        let shared = Arc::new(PoolShared::new(label.pool_uuid, label.drive_uuid, geometry));
        let found = recover::recover(&*self.media, &shared).map_err(|damage| match damage {
            Damage::Unreadable(e) => self.io("reading the journal", e),
            other => self.corrupt(other.to_string()),
        })?;
        let label = self.renew_labels(label, geometry)?;
        let last_seq = found.at.next_seq.saturating_sub(1);
        let mut store = Store::new(Arc::clone(&self.media), Arc::clone(&shared), found.at);
        let failed = |fault: Fault| OpenError::Io {
            path: self.path(),
            doing: fault.doing,
            source: io::Error::other(fault.detail),
        };
        store.checkpoint(&found.state, found.old).map_err(failed)?;
        if found.old == OldHalf::IsNot || found.at.generation == FIRST_GENERATION {
            // Both halves are good again, and none is of the first generation.
            store
                .checkpoint(&found.state, OldHalf::IsComplete)
                .map_err(failed)?;
        }
        shared.set_issued(last_seq);
        shared.synced(shared.sync_ticket());
        let reserve = Reserve::new(Arc::clone(&shared), found.state.mapped());
        Ok(Pool {
            media: self.media,
            shared,
            state: found.state,
            store,
            reserve,
            label,
        })
    }

    /// The label as it should be; written where it is not, or everywhere when the medium has grown.
    fn renew_labels(&self, mut label: Label, geometry: Geometry) -> Result<Label, OpenError> {
        let good = |found: &Found| matches!(found, Found::Label(l) if **l == label);
        if geometry != label.geometry || !self.copies().iter().all(good) {
            label.geometry = geometry;
            label.generation += 1;
            self.write_labels(&label)?;
        }
        Ok(label)
    }

    fn write_labels(&self, label: &Label) -> Result<(), OpenError> {
        write_labels(&*self.media, label).map_err(|e| self.io("writing the label", e))
    }

    fn write(&self, offset: u64, blocks: &Blocks) -> Result<(), OpenError> {
        self.media
            .write_at(offset, blocks.as_bytes())
            .map_err(|e| self.io("writing", e))
    }

    fn sync(&self) -> Result<(), OpenError> {
        self.media.sync().map_err(|e| self.io("syncing", e))
    }

    /// Makes an empty pool. Until its first label is written, the medium is blank.
    fn format(self, options: &OpenOptions) -> Result<Pool, OpenError> {
        let plan = Geometry::plan(self.size_bytes, options.extent_bytes, options.journal_bytes);
        let geometry = plan.map_err(|needed_bytes| OpenError::TooSmall {
            path: self.path(),
            size_bytes: self.size_bytes,
            needed_bytes,
        })?;
        let label = Label {
            pool_uuid: Uuid::new_v4(),
            drive_uuid: Uuid::new_v4(),
            owner: options.owner.clone(),
            generation: 1,
            created_unix_s: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_secs()),
            geometry,
        };
        self.wipe(&geometry)?;
        let at = Position {
            half: Half::First,
            id: Uuid::new_v4(),
            generation: FIRST_GENERATION,
            next_seq: 1,
        };
        let header = Header {
            pool_uuid: label.pool_uuid,
            id: at.id,
            generation: at.generation,
            first_seq: at.next_seq,
            batches: 0,
        };
        self.write(geometry.half_offset(at.half), &header.encode())?;
        self.sync()?;
        self.write_labels(&label)?;
        self.open(label)
    }

    /// Clears the labels of everything known, and what recovery would look at.
    fn wipe(&self, geometry: &Geometry) -> Result<(), OpenError> {
        let whole = geometry.media_bytes;
        let wipe = WIPE_BYTES.min(whole);
        let zero = |offset, len| {
            self.media
                .zero_range(offset, len)
                .map_err(|e| self.io("wiping", e))
        };
        // All of the metadata: a file has room for it from now on, whatever fills its file system.
        zero(0, geometry.data_offset.max(wipe))?;
        zero(whole - wipe, wipe)?;
        self.sync()
    }
}
