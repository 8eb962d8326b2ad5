//! Records: the changes that make a pool's state.
//!
//! Each is a type (2 bytes), the length of the rest (2 bytes), and the rest:
//! ```text
//! 1 create  uuid[16] size[8] created[8] block_size[4] name[..]
//! 2 grow    uuid[16] size[8]
//! 3 delete  uuid[16]
//! 4 map     uuid[16] { first[4] physical[4] count[4] }..
//! 5 unmap   uuid[16] first[4] count[4]
//! 6 note    uuid[16] bytes[..]
//! ```

use thiserror::Error;
use uuid::Uuid;

use crate::volume::{BlockSize, VolumeSpec};

/// Most runs of one map record.
pub const MAX_RUNS: usize = 256;
/// Longest name of a volume, bytes.
pub const MAX_NAME_BYTES: usize = 255;
/// Longest note, bytes.
pub const MAX_NOTE_BYTES: usize = 2048;

/// Extents of a volume that lie side by side on the drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First extent of the volume.
    pub first: u32,
    /// The drive's extent behind it.
    pub physical: u32,
    /// How many, not 0.
    pub count: u32,
}

impl Run {
    /// Whether one more extent goes on where this run ends.
    pub(crate) fn joins(&self, extent: u32, physical: u32) -> bool {
        self.first.checked_add(self.count) == Some(extent)
            && self.physical.checked_add(self.count) == Some(physical)
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A volume is made.
    Create(VolumeSpec),
    /// A volume has a new, larger size.
    Grow {
        /// The volume.
        uuid: Uuid,
        /// Its size from now on, bytes.
        size_bytes: u64,
    },
    /// A volume is no more; its extents are free.
    Delete {
        /// The volume.
        uuid: Uuid,
    },
    /// Extents of a volume get a place.
    Map {
        /// The volume.
        uuid: Uuid,
        /// At most [`MAX_RUNS`].
        runs: Vec<Run>,
    },
    /// Extents of a volume become holes; those that were mapped are free.
    Unmap {
        /// The volume.
        uuid: Uuid,
        /// The first.
        first: u32,
        /// How many.
        count: u32,
    },
    /// A volume has another note.
    Note {
        /// The volume.
        uuid: Uuid,
        /// At most [`MAX_NOTE_BYTES`]; none for no note.
        bytes: Vec<u8>,
    },
}

/// Bytes that a checksum covers are no record: written by something else, or a defect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a record of type {kind} is malformed")]
pub struct Malformed {
    kind: u16,
}

impl Record {
    /// Appends its bytes.
    pub fn encode(&self, to: &mut Vec<u8>) {
        let start = to.len();
        let (kind, uuid) = match self {
            Self::Create(spec) => (1u16, spec.uuid),
            Self::Grow { uuid, .. } => (2, *uuid),
            Self::Delete { uuid } => (3, *uuid),
            Self::Map { uuid, .. } => (4, *uuid),
            Self::Unmap { uuid, .. } => (5, *uuid),
            Self::Note { uuid, .. } => (6, *uuid),
        };
        to.extend(kind.to_le_bytes());
        to.extend([0; 2]);
        to.extend(uuid.into_bytes());
        match self {
            Self::Create(spec) => {
                to.extend(spec.size_bytes.to_le_bytes());
                to.extend(spec.created_unix_s.to_le_bytes());
                to.extend(spec.block_size.bytes().to_le_bytes());
                to.extend(spec.name.as_bytes());
            }
            Self::Grow { size_bytes, .. } => to.extend(size_bytes.to_le_bytes()),
            Self::Delete { .. } => {}
            Self::Map { runs, .. } => {
                for value in runs.iter().flat_map(|r| [r.first, r.physical, r.count]) {
                    to.extend(value.to_le_bytes());
                }
            }
            Self::Unmap { first, count, .. } => {
                to.extend(first.to_le_bytes());
                to.extend(count.to_le_bytes());
            }
            Self::Note { bytes, .. } => to.extend(bytes),
        }
        let len = u16::try_from(to.len() - start - 4).unwrap_or(u16::MAX);
        if let Some(place) = to.get_mut(start + 2..start + 4) {
            place.copy_from_slice(&len.to_le_bytes());
        }
    }

    /// Cuts the first record off `bytes`.
    pub fn decode(bytes: &mut &[u8]) -> Result<Self, Malformed> {
        let kind = take(bytes)
            .map(u16::from_le_bytes)
            .ok_or(Malformed { kind: 0 })?;
        Self::decode_body(kind, bytes).ok_or(Malformed { kind })
    }

    fn decode_body(kind: u16, bytes: &mut &[u8]) -> Option<Self> {
        let len = usize::from(u16::from_le_bytes(take(bytes)?));
        let (mut body, rest) = bytes.split_at_checked(len)?;
        *bytes = rest;
        let uuid = Uuid::from_bytes(take(&mut body)?);
        let record = match kind {
            1 => {
                let size_bytes = u64::from_le_bytes(take(&mut body)?);
                let created_unix_s = u64::from_le_bytes(take(&mut body)?);
                let block_size = BlockSize::try_from(u32::from_le_bytes(take(&mut body)?)).ok()?;
                let name = std::str::from_utf8(std::mem::take(&mut body))
                    .ok()?
                    .to_owned();
                Self::Create(VolumeSpec {
                    uuid,
                    name,
                    size_bytes,
                    block_size,
                    created_unix_s,
                })
            }
            2 => Self::Grow {
                uuid,
                size_bytes: u64::from_le_bytes(take(&mut body)?),
            },
            3 => Self::Delete { uuid },
            4 => Self::Map {
                uuid,
                runs: runs(&mut body)?,
            },
            5 => {
                let first = u32::from_le_bytes(take(&mut body)?);
                Self::Unmap {
                    uuid,
                    first,
                    count: u32::from_le_bytes(take(&mut body)?),
                }
            }
            6 => Self::Note {
                uuid,
                bytes: std::mem::take(&mut body).to_vec(),
            },
            _ => return None,
        };
        body.is_empty().then_some(record)
    }
}

fn runs(body: &mut &[u8]) -> Option<Vec<Run>> {
    let mut runs = Vec::with_capacity(body.len() / 12);
    while !body.is_empty() {
        let first = u32::from_le_bytes(take(body)?);
        let physical = u32::from_le_bytes(take(body)?);
        runs.push(Run {
            first,
            physical,
            count: u32::from_le_bytes(take(body)?),
        });
    }
    Some(runs)
}

/// Cuts `N` bytes off.
fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*head)
}
