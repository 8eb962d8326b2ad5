//! The state as it is kept with the volume.
//!
//! ```text
//! version[1] = 1  type[1], 0 for none  holder's index[2]  generation[4]  { host[16] key[8] }..
//! ```
//! Little-endian. A state that is not to survive a loss of power is kept as no bytes at all.

use roadstead_nvme::reservation::ReservationType;

use super::state::{Held, HostId, State};
use crate::limits;

const VERSION: u8 = 1;

/// Bytes that are no state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the reservations kept with the volume cannot be read: written by a newer version, or a defect"
)]
pub struct Malformed;

impl State {
    /// What is to be kept.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.persist {
            return bytes;
        }
        let kind = self.held.map_or(0, |held| held.kind.code());
        let holder = self.held.map(|held| held.holder);
        let index = self
            .registrants
            .keys()
            .position(|host| Some(*host) == holder);
        let index = index
            .and_then(|index| u16::try_from(index).ok())
            .unwrap_or(0);
        bytes.extend([VERSION, kind]);
        bytes.extend(index.to_le_bytes());
        bytes.extend(self.generation.to_le_bytes());
        for (host, key) in &self.registrants {
            bytes.extend(host);
            bytes.extend(key.to_le_bytes());
        }
        bytes
    }

    /// From what was kept.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        Self::decode(bytes).ok_or(Malformed)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&[version, kind, i, j, a, b, c, d], mut rest) = bytes.split_first_chunk()?;
        if version != VERSION {
            return None;
        }
        let mut state = Self {
            generation: u32::from_le_bytes([a, b, c, d]),
            persist: true,
            ..Self::default()
        };
        while !rest.is_empty() {
            let (host, behind): (&HostId, _) = rest.split_first_chunk()?;
            let (key, behind): (&[u8; 8], _) = behind.split_first_chunk()?;
            state.registrants.insert(*host, u64::from_le_bytes(*key));
            rest = behind;
        }
        if state.registrants.len() > limits::REGISTRANTS_MAX {
            return None;
        }
        if kind != 0 {
            let index = usize::from(u16::from_le_bytes([i, j]));
            let kind = ReservationType::parse(kind)?;
            // A type that all hold outlives the one who took it.
            let holder = *state.registrants.keys().nth(index)?;
            state.held = Some(Held { kind, holder });
        }
        Some(state)
    }
}
