//! What hosts do to each other: reservations, and the end of a controller by another.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use uuid::Uuid;

use super::Registry;
use crate::controller::{Ended, Identity, Kind};
use crate::reservation::{Effects, HostId, Malformed, Reservations};
use crate::table::Namespaces;
use crate::work::Drain;

impl Registry {
    /// Gives a namespace the reservations that were kept with its volume. Call this before [`Self::apply`] with a table
    /// that serves it; while it is served already, this does nothing.
    ///
    /// # Errors
    /// The bytes cannot be read; the namespace begins without reservations.
    pub fn restore_reservations(&self, namespace: Uuid, bytes: &[u8]) -> Result<(), Malformed> {
        let mut state = self.lock();
        if let Entry::Vacant(place) = state.reservations.entry(namespace) {
            place.insert(Arc::new(Reservations::restored(bytes)?));
        }
        Ok(())
    }

    /// The reservations of namespaces, by identifier.
    pub(crate) fn reservations(&self, namespaces: &Namespaces) -> Vec<(u32, Arc<Reservations>)> {
        let mut state = self.lock();
        let all = namespaces.iter();
        all.map(|(nsid, namespace)| (*nsid, state.reservations_of(namespace.uuid)))
            .collect()
    }

    /// The reservations of a namespace.
    pub(crate) fn reservations_of(&self, namespace: Uuid) -> Arc<Reservations> {
        self.lock().reservations_of(namespace)
    }

    /// Tells hosts what a change of a namespace's reservations means to them.
    pub(crate) fn tell(&self, namespace: Uuid, effects: &Effects) {
        if effects.notices.is_empty() {
            return;
        }
        for controller in self.lock().controllers.values() {
            let host = controller.identity().host_id;
            for (_, notice) in effects.notices.iter().filter(|(to, _)| *to == host) {
                controller.reservation_changed(namespace, *notice);
            }
        }
    }

    /// Ends another controller of this controller's host, as the host asks for. Returns the wait for its I/O in flight,
    /// which is over when there is no such controller any more: nothing of it changes anything after that.
    pub(crate) fn reset_other(
        &self,
        asks: &Identity,
        cntlid: u16,
        instance: u8,
        instance_random: u64,
    ) -> Drain {
        let state = self.lock();
        let mut drain = Drain::default();
        for controller in state.controllers.values().chain(&state.lingering) {
            let other = controller.identity();
            let is_meant = other.cntlid == cntlid
                && other.instance == instance
                && other.instance_random == instance_random
                && other.kind == Kind::Io
                && other.subsystem == asks.subsystem
                && other.host == asks.host
                && other.host_id == asks.host_id;
            if is_meant {
                controller.end(Ended::CrossControllerReset);
                controller.lock().drain(&mut drain);
            }
        }
        drain
    }

    /// A wait for all I/O in flight of these hosts, but not of `except`.
    pub(crate) fn drain(&self, hosts: &BTreeSet<HostId>, except: HostId) -> Drain {
        let state = self.lock();
        let mut drain = Drain::default();
        for controller in state.controllers.values().chain(&state.lingering) {
            let host = controller.identity().host_id;
            if host != except && hosts.contains(&host) {
                controller.lock().drain(&mut drain);
            }
        }
        drain
    }
}
