//! What is served and who is connected: shared by all connections of a target.

mod effects;
mod state;

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadstead_nvme::{Nqn, Portal};
use uuid::Uuid;

use crate::ana::View;
use crate::controller::{Controller, Ended, Identity, Kind};
use crate::discovery;
use crate::limits::ControllerLimits;
use crate::table::{Subsystem, Table};
use crate::work::Totals;
use state::{LostPath, State};

/// The table and the controllers. Cheap to share; its lock is taken by [`Registry::apply`], connects, discovery and
/// the end of a controller, never for I/O.
#[derive(Debug, Default)]
pub struct Registry {
    state: Mutex<State>,
    limits: ControllerLimits,
    /// There may be refusals to report.
    refused: AtomicBool,
}

/// A controller, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerInfo {
    /// Its identifier.
    pub cntlid: u16,
    /// Its subsystem; the discovery service's name for discovery controllers.
    pub subsystem: Nqn,
    /// Its host.
    pub host: Nqn,
    /// I/O queues connected.
    pub io_queues: usize,
}

/// A host that wanted to connect and may not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// What it wanted to connect to.
    pub subsystem: Nqn,
    /// The host.
    pub host: Nqn,
}

/// Why a controller was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoController {
    UnknownSubsystem,
    /// Its portal is for discovery only.
    DiscoveryOnly,
    HostNotAllowed,
    Busy,
}

impl Registry {
    /// A registry that serves nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with other limits than the default.
    #[must_use]
    pub fn with_limits(limits: ControllerLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// What controllers offer.
    #[must_use]
    pub fn limits(&self) -> ControllerLimits {
        self.limits
    }

    /// Hosts that were refused since the last call because their subsystem does not allow them. Each pair of host and
    /// subsystem is reported once, until the host is allowed, or [`crate::limits::REFUSALS_MAX`] pairs made this forget all.
    /// Cheap when there is none.
    pub fn take_refusals(&self) -> Vec<Refusal> {
        if !self.refused.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        std::mem::take(&mut self.lock().new_refusals)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves this table from now on. Controllers whose portal or subsystem is gone or whose host is not allowed any more
    /// end; the others' hosts are told about changed namespaces. Connections notice at their next `receive` or `tick`:
    /// call `tick` for all of them to make it quick.
    pub fn apply(&self, table: Table) {
        let mut state = self.lock();
        if state.table == table {
            return;
        }
        for controller in state.controllers.values() {
            let identity = controller.identity();
            if is_offered(&state.table, identity) && !is_offered(&table, identity) {
                controller.end(Ended::PortalGone);
                continue;
            }
            if identity.kind == Kind::Discovery {
                let entries = |table| discovery::entries(table, &identity.host, identity.local);
                if entries(&state.table) != entries(&table) {
                    controller.discovery_changed();
                }
                continue;
            }
            match table.subsystems().get(&identity.subsystem) {
                None => controller.end(Ended::SubsystemGone),
                Some(subsystem) if !subsystem.access.allows(&identity.host) => {
                    controller.end(Ended::HostNotAllowed)
                }
                Some(subsystem) => {
                    let view = view(&table, subsystem, identity.local);
                    controller.serve(&subsystem.serial, view);
                }
            }
        }
        if !discovery::is_same(&state.table, &table) {
            state.generation += 1;
        }
        let subsystems = table.subsystems();
        state.totals.retain(|nqn, _| subsystems.contains_key(nqn));
        state.known_refusals.retain(|refusal| {
            let subsystem = subsystems.get(&refusal.subsystem);
            subsystem.is_some_and(|subsystem| !subsystem.access.allows(&refusal.host))
        });
        let all = table.subsystems().values();
        let served: BTreeSet<Uuid> = all
            .flat_map(|subsystem| subsystem.namespaces.values())
            .map(|namespace| namespace.uuid)
            .collect();
        state.reservations.retain(|uuid, _| served.contains(uuid));
        state.table = table;
    }

    /// Ends all controllers of a subsystem, as a host asked for.
    pub(crate) fn reset(&self, subsystem: &Nqn) {
        let state = self.lock();
        for controller in state.controllers.values() {
            if controller.identity().subsystem == *subsystem {
                controller.end(Ended::SubsystemReset);
            }
        }
    }

    /// The identifiers of a subsystem's controllers from `first` on.
    pub(crate) fn cntlids(&self, subsystem: &Nqn, first: u16) -> Vec<u16> {
        let state = self.lock();
        let from_first = state.controllers.range(first..);
        let own = from_first.filter(|(_, controller)| {
            controller.identity().subsystem == *subsystem && controller.lock().ended.is_none()
        });
        own.map(|(cntlid, _)| *cntlid).collect()
    }

    /// What the controllers of a subsystem did, those that are gone included.
    pub(crate) fn totals(&self, subsystem: &Nqn) -> Totals {
        let state = self.lock();
        let gone = state.totals.get(subsystem).copied().unwrap_or_default();
        let own = state
            .controllers
            .values()
            .filter(|controller| controller.identity().subsystem == *subsystem);
        own.fold(gone, |sum, controller| sum.plus(controller.lock().totals()))
    }

    /// The controllers that live, in the order of their identifiers.
    #[must_use]
    pub fn controllers(&self) -> Vec<ControllerInfo> {
        let state = self.lock();
        let info = |controller: &Arc<Controller>| {
            let identity = controller.identity();
            let inner = controller.lock();
            inner.ended.is_none().then(|| ControllerInfo {
                cntlid: identity.cntlid,
                subsystem: identity.subsystem.clone(),
                host: identity.host.clone(),
                io_queues: inner.io_queues.len(),
            })
        };
        state.controllers.values().filter_map(info).collect()
    }

    /// A new controller for a host.
    pub(crate) fn admit(
        &self,
        subsystem: Nqn,
        host: Nqn,
        host_id: [u8; 16],
        local: Portal,
        kato_ms: u32,
        now_ms: u64,
    ) -> Result<Arc<Controller>, NoController> {
        let mut state = self.lock();
        let (kind, serial, view) = if subsystem.is_discovery() {
            (Kind::Discovery, "discovery".to_owned(), View::default())
        } else {
            let portal = state.table.portal_of(local);
            let rules = state.table.rules();
            if portal.is_some_and(|portal| rules.discovery_only.contains(&portal)) {
                return Err(NoController::DiscoveryOnly);
            }
            let served = state
                .table
                .subsystems()
                .get(&subsystem)
                .ok_or(NoController::UnknownSubsystem)?;
            if !served.access.allows(&host) {
                if state.refuse(Refusal { subsystem, host }) {
                    self.refused.store(true, Ordering::Relaxed);
                }
                return Err(NoController::HostNotAllowed);
            }
            (
                Kind::Io,
                served.serial.clone(),
                view(&state.table, served, local),
            )
        };
        if state.is_lingering(&subsystem, &host, host_id) {
            return Err(NoController::Busy);
        }
        let cntlid = state.free_cntlid().ok_or(NoController::Busy)?;
        let identity = Identity {
            cntlid,
            kind,
            subsystem,
            host,
            host_id,
            local,
            instance: state.next_instance(),
            instance_random: random(),
        };
        let rest_until_ms = state.rest_until_ms(&identity, now_ms);
        let controller = Arc::new(Controller::new(
            identity,
            serial,
            view,
            self.limits,
            kato_ms,
            now_ms,
            rest_until_ms,
        ));
        state.controllers.insert(cntlid, Arc::clone(&controller));
        Ok(controller)
    }

    /// Whether I/O of an ended controller of this controller's host is in flight.
    pub(crate) fn must_wait(&self, controller: &Controller) -> bool {
        let identity = controller.identity();
        self.lock()
            .is_lingering(&identity.subsystem, &identity.host, identity.host_id)
    }

    /// The controller with this identifier.
    pub(crate) fn find(&self, cntlid: u16) -> Option<Arc<Controller>> {
        self.lock().controllers.get(&cntlid).cloned()
    }

    /// The admin queue's connection is gone.
    pub(crate) fn remove(&self, controller: &Arc<Controller>) {
        controller.end(Ended::AdminQueueClosed);
        let mut state = self.lock();
        let cntlid = controller.identity().cntlid;
        if state
            .controllers
            .get(&cntlid)
            .is_some_and(|found| Arc::ptr_eq(found, controller))
        {
            state.controllers.remove(&cntlid);
        }
        state
            .lingering
            .retain(|controller| controller.lock().may_linger());
        let (totals, may_linger, lost_ms) = {
            let inner = controller.lock();
            let lost_ms = inner.was_lost().then_some(inner.last_seen_ms);
            (inner.totals(), inner.may_linger(), lost_ms)
        };
        if let Some(lost_ms) = lost_ms {
            state.lose(LostPath::new(controller.identity()), lost_ms);
        }
        let subsystem = &controller.identity().subsystem;
        if state.table.subsystems().contains_key(subsystem) {
            let sum = state.totals.entry(subsystem.clone()).or_default();
            *sum = sum.plus(totals);
        }
        if may_linger {
            state.lingering.push(Arc::clone(controller));
        }
    }

    /// The whole discovery log as this controller's host sees it.
    pub(crate) fn discovery_log(&self, controller: &Controller, parameter: u8) -> Vec<u8> {
        let state = self.lock();
        let identity = controller.identity();
        discovery::log(
            &state.table,
            &identity.host,
            identity.local,
            parameter,
            state.generation,
            self.limits.queue_entries_16(),
        )
    }
}

/// A number that cannot be guessed.
fn random() -> u64 {
    // The keys of each are random.
    RandomState::new().build_hasher().finish()
}

/// Whether what a controller's host reached is a portal for its kind.
fn is_offered(table: &Table, identity: &Identity) -> bool {
    let portal = table.portal_of(identity.local);
    let for_all = |portal| !table.rules().discovery_only.contains(&portal);
    portal.is_some_and(|portal| identity.kind == Kind::Discovery || for_all(portal))
}

/// What a controller of a subsystem shows to a host that reached `local`.
fn view(table: &Table, subsystem: &Subsystem, local: Portal) -> View {
    View {
        namespaces: Arc::clone(&subsystem.namespaces),
        ana: table.ana(local),
    }
}
