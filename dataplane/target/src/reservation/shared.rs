//! The state as all controllers share it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roadstead_nvme::Status;

use super::bytes::Malformed;
use super::state::{Access, Effects, HostId, State};

/// The reservations of one namespace. Reservation commands take its lock; I/O looks at a counter that changes with
/// every change, and takes the lock once behind each.
#[derive(Debug, Default)]
pub struct Reservations {
    /// 0 as long as nothing ever happened. Written with the lock held.
    epoch: AtomicU64,
    state: Mutex<State>,
}

/// A change that was made.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) effects: Effects,
    /// What is kept with the volume must be replaced before the host hears of the change.
    pub(crate) must_save: bool,
}

impl Reservations {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what was kept with the volume.
    pub(crate) fn restored(bytes: &[u8]) -> Result<Self, Malformed> {
        let state = State::from_bytes(bytes)?;
        let epoch = AtomicU64::new(u64::from(!bytes.is_empty()));
        Ok(Self {
            epoch,
            state: Mutex::new(state),
        })
    }

    /// What is to be kept with the volume now; empty for nothing.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lock().to_bytes()
    }

    /// Changes with every change.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// What a host may do, and the epoch for which that is so.
    pub(crate) fn access(&self, host: HostId) -> (u64, Access) {
        let state = self.lock();
        (self.epoch(), state.access(host))
    }

    /// A look at the state.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state, or leaves it alone and gives the status that says why. I/O that starts afterwards goes by the
    /// new one.
    pub(crate) fn change(
        &self,
        change: impl FnOnce(&mut State) -> Result<Effects, Status>,
    ) -> Result<Changed, Status> {
        let mut state = self.lock();
        let before = state.to_bytes();
        let effects = change(&mut state)?;
        self.epoch.fetch_add(1, Ordering::SeqCst);
        Ok(Changed {
            effects,
            must_save: state.to_bytes() != before,
        })
    }
}
