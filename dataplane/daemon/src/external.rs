//! Looking at foreign appliances, as the state says: which of their portals let this node in, and which namespaces they show.
//!
//! Each has a thread of its own, so one that does not answer keeps nobody waiting. What was seen is kept until it is seen
//! anew. Nothing is changed at an appliance, and no connection stays.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roadstead_api::v1;
use roadstead_attach::HostIdentity;
use roadstead_initiator::{Identity, Listed, Nqn, Reach, Seen, discover, look, nguid_text};
use roadstead_nvme::Portal;

use crate::desired::{self, ExternalSource, ExternalSpec};

/// Between two looks at an appliance of which everything was reached.
const INTERVAL: Duration = Duration::from_secs(30);
/// Between two looks at one of which something was not.
const INTERVAL_TROUBLED: Duration = Duration::from_secs(10);
/// What a discovery service, or a portal, has for all that it is asked.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Subsystems of an appliance that are looked at.
const SUBSYSTEMS_MAX: usize = 64;

/// The appliances of the state, and what is known of them.
pub(crate) struct Looker {
    own: Identity,
    table: Mutex<Table>,
    /// The table has changed.
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    /// Of the last thread that was started.
    number: u64,
    watched: BTreeMap<String, Watched>,
}

struct Watched {
    spec: ExternalSpec,
    /// The thread that looks: one with another number ends.
    number: u64,
    report: v1::ExternalReport,
}

impl Looker {
    /// Without appliances; `own` is whom this node is where the state says nothing else.
    pub(crate) fn new(own: Identity) -> Arc<Self> {
        Arc::new(Self {
            own,
            table: Mutex::new(Table::default()),
            changed: Condvar::new(),
        })
    }

    /// A panic elsewhere cannot leave the table half changed: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at these appliances from now on; those that are new or have changed at once.
    pub(crate) fn follow(self: &Arc<Self>, specs: &[ExternalSpec]) {
        let mut table = self.lock();
        table
            .watched
            .retain(|name, _| specs.iter().any(|spec| spec.name == *name));
        for spec in specs {
            let watched = table.watched.get(&spec.name);
            if watched.is_some_and(|watched| watched.spec == *spec) {
                continue;
            }
            table.number += 1;
            let number = table.number;
            let report = v1::ExternalReport {
                name: spec.name.clone(),
                ..v1::ExternalReport::default()
            };
            let watched = Watched {
                spec: spec.clone(),
                number,
                report,
            };
            table.watched.insert(spec.name.clone(), watched);
            let (looker, spec) = (Arc::clone(self), spec.clone());
            let thread = std::thread::Builder::new().name("external".into());
            if let Err(error) = thread.spawn(move || looker.run(number, &spec)) {
                tracing::error!(%error, "there is no thread to look at an appliance");
            }
        }
        self.changed.notify_all();
    }

    /// What was seen of every appliance.
    pub(crate) fn reports(&self) -> Vec<v1::ExternalReport> {
        let table = self.lock();
        table.watched.values().map(|w| w.report.clone()).collect()
    }

    /// Whom this node is to the appliance, if that is not itself; `None` for an appliance that the state does not have.
    pub(crate) fn host(&self, name: &str) -> Option<Option<HostIdentity>> {
        let table = self.lock();
        Some(table.watched.get(name)?.spec.host.clone())
    }

    fn run(&self, number: u64, spec: &ExternalSpec) {
        let identity = match &spec.host {
            None => self.own.clone(),
            Some(host) => match Nqn::new(&host.nqn) {
                Ok(nqn) => Identity {
                    nqn,
                    id: host.id,
                    keys: host.keys.clone(),
                },
                // It was checked when the state came.
                Err(_) => return,
            },
        };
        let mut known = BTreeMap::new();
        loop {
            let report = look_at(spec, &identity, &mut known);
            let troubled = is_troubled(&report);
            let mut table = self.lock();
            let current = |table: &mut Table| -> bool {
                let watched = table.watched.get(&spec.name);
                watched.is_some_and(|watched| watched.number == number)
            };
            if !current(&mut table) {
                return;
            }
            if let Some(watched) = table.watched.get_mut(&spec.name) {
                if watched.report != report {
                    tracing::info!(
                        appliance = spec.name,
                        subsystems = report.subsystems.len(),
                        troubled,
                        message = report.message,
                        "an appliance was looked at"
                    );
                }
                watched.report = report;
            }
            let pause = match troubled {
                true => INTERVAL_TROUBLED,
                false => INTERVAL,
            };
            let waited = self
                .changed
                .wait_timeout_while(table, pause, |table| current(table));
            let (mut table, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if !current(&mut table) {
                return;
            }
        }
    }
}

fn is_troubled(report: &v1::ExternalReport) -> bool {
    let failed = |portal: &v1::ExternalPortal| portal.reach() != v1::PortalReach::Reached;
    !report.message.is_empty()
        || report.subsystems.is_empty()
        || report
            .subsystems
            .iter()
            .any(|s| s.portals.iter().any(failed))
}

/// One look. `known` are the portals that discovery told of last: while no service answers, they count.
fn look_at(
    spec: &ExternalSpec,
    identity: &Identity,
    known: &mut BTreeMap<String, Vec<Portal>>,
) -> v1::ExternalReport {
    let mut message = String::new();
    match &spec.source {
        ExternalSource::Subsystem { nqn, portals } => {
            known.insert(nqn.clone(), portals.clone());
        }
        ExternalSource::Discovery { services, nqn } => {
            match discover(services, identity, TIMEOUT) {
                Ok(found) => {
                    known.clear();
                    for found in found {
                        let name = found.nqn.to_string();
                        let wanted = nqn.as_ref().is_none_or(|nqn| *nqn == name);
                        if wanted && (known.len() < SUBSYSTEMS_MAX || known.contains_key(&name)) {
                            known.entry(name).or_default().push(found.portal);
                        }
                    }
                }
                Err(error) => message = format!("discovery: {error}"),
            }
        }
    }
    let subsystems = known.iter().filter_map(|(name, portals)| {
        let nqn = Nqn::new(name).ok()?;
        Some(subsystem(name, look(&nqn, portals, identity, TIMEOUT)))
    });
    v1::ExternalReport {
        name: spec.name.clone(),
        looked: true,
        subsystems: subsystems.collect(),
        message,
    }
}

fn subsystem(nqn: &str, seen: Seen) -> v1::ExternalSubsystem {
    let portals = seen.portals.into_iter().map(|(portal, reach)| {
        let (reach, message) = match reach {
            Reach::Reached => (v1::PortalReach::Reached, String::new()),
            Reach::Failed(why) => (v1::PortalReach::Failed, why),
        };
        v1::ExternalPortal {
            portal: Some(desired::portal_message(portal)),
            reach: reach.into(),
            message,
        }
    });
    v1::ExternalSubsystem {
        nqn: nqn.into(),
        portals: portals.collect(),
        namespaces: seen.namespaces.iter().map(namespace).collect(),
        is_cut_off: seen.is_cut_off,
    }
}

fn namespace(listed: &Listed) -> v1::ExternalNamespace {
    let message = match listed.size {
        Some((1.., _)) => "",
        Some((0, _)) => "it has no blocks",
        None => "its format has metadata, or blocks of an odd size",
    };
    let (size_bytes, block_size) = listed.size.unwrap_or_default();
    v1::ExternalNamespace {
        nsid: listed.nsid,
        uuid: listed
            .names
            .uuid
            .map(|uuid| uuid.to_string())
            .unwrap_or_default(),
        nguid: listed
            .names
            .nguid
            .map(|nguid| nguid_text(&nguid))
            .unwrap_or_default(),
        size_bytes,
        block_size,
        message: message.into(),
    }
}
