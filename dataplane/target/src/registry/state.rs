//! What the registry knows, under its lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use roadstead_nvme::fabrics::CNTLID_MAX;
use roadstead_nvme::{Nqn, Portal};
use uuid::Uuid;

use super::Refusal;
use crate::controller::{Controller, Identity};
use crate::limits;
use crate::reservation::Reservations;
use crate::table::Table;
use crate::work::Totals;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) table: Table,
    /// Counts changes of the table, for the discovery log.
    pub(super) generation: u64,
    pub(super) controllers: BTreeMap<u16, Arc<Controller>>,
    /// Removed, but I/O of them may be in flight.
    pub(super) lingering: Vec<Arc<Controller>>,
    last_cntlid: u16,
    last_instance: u8,
    /// Paths that were lost and are not back, with the time; at most [`limits::LOST_PATHS_MAX`].
    lost: BTreeMap<LostPath, u64>,
    /// What controllers did that are gone, by subsystem.
    pub(super) totals: BTreeMap<Nqn, Totals>,
    /// Refusals that were reported or will be.
    pub(super) known_refusals: BTreeSet<Refusal>,
    pub(super) new_refusals: Vec<Refusal>,
    /// Of the namespaces that are served or about to be, by their names.
    pub(super) reservations: BTreeMap<Uuid, Arc<Reservations>>,
}

/// A path that a host has lost.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LostPath {
    subsystem: Nqn,
    host: Nqn,
    host_id: [u8; 16],
    local: Portal,
}

impl LostPath {
    pub(super) fn new(identity: &Identity) -> Self {
        Self {
            subsystem: identity.subsystem.clone(),
            host: identity.host.clone(),
            host_id: identity.host_id,
            local: identity.local,
        }
    }
}

impl State {
    /// Whether I/O of an ended controller of this host is in flight.
    pub(super) fn is_lingering(&self, subsystem: &Nqn, host: &Nqn, host_id: [u8; 16]) -> bool {
        let all = self.controllers.values().chain(&self.lingering);
        let mut own = all.filter(|controller| {
            let identity = controller.identity();
            identity.host_id == host_id
                && identity.host == *host
                && identity.subsystem == *subsystem
        });
        own.any(|controller| controller.lock().is_lingering())
    }

    pub(super) fn reservations_of(&mut self, namespace: Uuid) -> Arc<Reservations> {
        Arc::clone(self.reservations.entry(namespace).or_default())
    }

    /// Notes a refusal; true when it is news.
    pub(super) fn refuse(&mut self, refusal: Refusal) -> bool {
        if self.known_refusals.contains(&refusal) {
            return false;
        }
        if self.known_refusals.len() >= limits::REFUSALS_MAX {
            self.known_refusals.clear();
            self.new_refusals.clear();
        }
        self.known_refusals.insert(refusal.clone());
        self.new_refusals.push(refusal);
        true
    }

    /// A host has lost its path.
    pub(super) fn lose(&mut self, path: LostPath, now_ms: u64) {
        if self.lost.len() >= limits::LOST_PATHS_MAX {
            self.lost
                .retain(|_, at_ms| now_ms.saturating_sub(*at_ms) < limits::LOST_PATH_MS);
        }
        if self.lost.len() < limits::LOST_PATHS_MAX {
            self.lost.insert(path, now_ms);
        }
    }

    /// Until when the path of a new controller rests: one that its host has lost lately and that is back may be lost
    /// again, and whoever has another one had better stay there for a while.
    pub(super) fn rest_until_ms(&mut self, new: &Identity, now_ms: u64) -> Option<u64> {
        let path = LostPath::new(new);
        // One that was lost may not be known to be: its time-out is not over.
        let silent = self.controllers.values().find_map(|controller| {
            let seen_ms = controller.lock().last_seen_ms;
            let is_silent = now_ms.saturating_sub(seen_ms) >= limits::SILENT_MS;
            (is_silent && LostPath::new(controller.identity()) == path).then_some(seen_ms)
        });
        let lost_ms = self.lost.remove(&path).or(silent)?;
        let mut others = self.controllers.values();
        let has_other = others.any(|controller| {
            let other = controller.identity();
            other.subsystem == new.subsystem
                && other.host == new.host
                && other.host_id == new.host_id
                && other.local != new.local
                && controller.lock().is_ready()
        });
        let is_lately = now_ms.saturating_sub(lost_ms) < limits::LOST_PATH_MS;
        (has_other && is_lately).then(|| now_ms.saturating_add(limits::PATH_REST_MS))
    }

    /// The next instance of a controller: none that lived lately has it and the same identifier.
    pub(super) fn next_instance(&mut self) -> u8 {
        self.last_instance = self.last_instance.checked_add(1).unwrap_or(1);
        self.last_instance
    }

    /// The next identifier that is not in use. Identifiers are not reused soon.
    pub(super) fn free_cntlid(&mut self) -> Option<u16> {
        for _ in 0..CNTLID_MAX {
            self.last_cntlid = if self.last_cntlid >= CNTLID_MAX {
                1
            } else {
                self.last_cntlid + 1
            };
            if !self.controllers.contains_key(&self.last_cntlid) {
                return Some(self.last_cntlid);
            }
        }
        None
    }
}
