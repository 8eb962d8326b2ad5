//! A volume for one I/O alone, for a moment.

use std::sync::{Arc, PoisonError, Weak};

use crate::grace::Slot;
use crate::volume::{Volume, access};

/// One I/O's claim to have a volume for itself: lookups of others are refused as busy. Once [`Exclusive::poll`] says so,
/// everything that was looked up before has ended. Dropping it lets the others in again.
///
/// Its holder must not be counted in while it polls: it would wait for itself.
#[derive(Debug)]
#[must_use = "dropping it lets others in"]
pub struct Exclusive {
    volume: Arc<Volume>,
    /// Readers that had I/O in flight since the claim was made, each time they were looked at.
    busy: Vec<Arc<Slot>>,
}

impl Volume {
    /// Claims the volume for one I/O; none when another has it.
    pub fn try_exclusive(self: &Arc<Self>) -> Option<Exclusive> {
        if !self.change_access(access::OPEN, access::CLOSED) {
            return None;
        }
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Some(Exclusive {
            volume: Arc::clone(self),
            busy: slots.iter().filter_map(Weak::upgrade).collect(),
        })
    }
}

impl Exclusive {
    /// Whether all I/O has ended that was looked up before the claim. Ask again until it has.
    pub fn poll(&mut self) -> bool {
        self.busy.retain(|slot| !slot.is_all_idle());
        self.busy.is_empty()
    }
}

impl Drop for Exclusive {
    fn drop(&mut self) {
        // One that was deleted meanwhile stays deleted.
        self.volume.change_access(access::CLOSED, access::OPEN);
    }
}
