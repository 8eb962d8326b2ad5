//! The status of a Target that is an appliance.

use roadstead_api::v1::{ExternalNamespace, PortalReach};
use roadstead_crds::condition::{self, READY, Status, find, reason};
use roadstead_crds::quantity::for_people;
use roadstead_crds::{
    ExternalNamespaceStatus, ExternalPortalStatus, ExternalSource, ExternalSubsystemStatus,
    PortalStatus, Target, TargetStatus,
};

use super::view::{Subsystem, View};
use super::{Claims, claims};
use crate::plan::choice::wire_word;
use crate::plan::index::Index;
use crate::plan::placement::VolumeKey;
use crate::plan::reach::list_names;
use crate::policy::PathKey;
use crate::snapshot::Snapshot;

/// So many namespaces of a subsystem are in the status: an object of the API must not become too large.
const SHOWN_MAX: usize = 64;

/// So many subsystems are.
const SUBSYSTEMS_SHOWN_MAX: usize = 64;

/// What a condition says.
type Verdict = (Status, &'static str, String);

/// The next status of the Target `name`.
pub(in crate::plan) fn status(
    index: &Index<'_>,
    name: &str,
    target: &Target,
    source: &ExternalSource,
    old: &TargetStatus,
) -> TargetStatus {
    let snapshot = index.snapshot;
    let unknown = View::default();
    let view = index.views.get(name).unwrap_or(&unknown);
    let generation = target.metadata.generation;
    let unseen = TargetStatus {
        conditions: find(&old.conditions, READY).cloned().into_iter().collect(),
        ..old.clone()
    };
    let verdict = match secret(snapshot, source) {
        Err(verdict) => verdict,
        Ok(()) if view.is_seen => verdict(view),
        Ok(()) if snapshot.dataplanes.is_empty() => {
            let message = "no Roadstead node pod runs, so nobody can look at it".into();
            (Status::Unknown, reason::NO_DATAPLANE, message)
        }
        // What was seen last stays.
        Ok(()) if !unseen.conditions.is_empty() && old.observed_generation == generation => {
            return unseen;
        }
        Ok(()) => {
            let message = "the nodes have not looked at it yet".into();
            (Status::False, reason::APPLYING, message)
        }
    };
    let (status, reason, message) = verdict;
    let ready = condition::next(
        &old.conditions,
        READY,
        status,
        reason,
        message,
        generation,
        &snapshot.time(),
    );
    let claims = claims(snapshot);
    let shown = view.subsystems.iter().take(SUBSYSTEMS_SHOWN_MAX);
    TargetStatus {
        observed_generation: generation,
        conditions: vec![ready],
        portals: view.subsystems.values().flat_map(reached).collect(),
        subsystems: shown
            .map(|(nqn, subsystem)| describe(&claims, nqn, subsystem))
            .collect(),
        ..TargetStatus::default()
    }
}

/// Whom the nodes are to the appliance can be told.
fn secret(snapshot: &Snapshot, source: &ExternalSource) -> Result<(), Verdict> {
    let Some(secret) = &source.secret_ref else {
        return Ok(());
    };
    let name = &secret.name;
    let Some(credentials) = snapshot.credentials.get(name) else {
        let message = format!(
            "Roadstead's namespace has no Secret {name} of type {}",
            crate::snapshot::CREDENTIALS_TYPE
        );
        return Err((Status::False, reason::SECRET_NOT_FOUND, message));
    };
    match &credentials.host {
        Ok(_) => Ok(()),
        Err(why) => Err((
            Status::False,
            reason::INVALID_SECRET,
            format!("Secret {name}: {why}"),
        )),
    }
}

fn verdict(view: &View<'_>) -> Verdict {
    let failures = view.failures.iter();
    let failures = failures.map(|(node, why)| format!("node {node}: {why}"));
    let mut trouble: Vec<String> = failures.collect();
    let mut is_reached = false;
    let (mut portals, mut namespaces) = (0, 0);
    for (nqn, subsystem) in &view.subsystems {
        is_reached |= subsystem.namespaces.is_some();
        portals += subsystem.portals.len();
        namespaces += subsystem.namespaces.map_or(0, <[_]>::len);
        trouble.extend(subsystem.trouble().map(|why| format!("{nqn}: {why}")));
        let blind = subsystem.blind.iter().copied();
        if subsystem.namespaces.is_some() && !subsystem.blind.is_empty() {
            trouble.push(format!("{nqn}: not reached by {}", list_names(blind)));
        }
    }
    let trouble = list_names(trouble.iter().map(String::as_str));
    if view.subsystems.is_empty() && trouble.is_empty() {
        let message = "its discovery services tell of no subsystem that the nodes may use: let their host NQNs in, \
                       which kubectl get nvmehosts -o wide shows";
        return (Status::False, reason::NO_SUBSYSTEM, message.into());
    }
    if !is_reached {
        return (Status::False, reason::UNREACHABLE, trouble);
    }
    if !trouble.is_empty() {
        return (Status::True, reason::PORTALS_DEGRADED, trouble);
    }
    let message = format!(
        "{} with {} at {}",
        count(view.subsystems.len(), "subsystem"),
        count(namespaces, "namespace"),
        count(portals, "portal")
    );
    (Status::True, reason::REACHABLE, message)
}

fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        _ => format!("{n} {what}s"),
    }
}

fn reached(subsystem: &Subsystem<'_>) -> Vec<PortalStatus> {
    let portals = subsystem.portals.iter();
    let reached = portals.filter(|(_, p)| p.reach() == PortalReach::Reached);
    reached
        .map(|(key, _)| PortalStatus {
            transport: wire_word(key.transport).into(),
            address: key.address.to_string(),
            port: key.port,
            ..PortalStatus::default()
        })
        .collect()
}

fn describe(claims: &Claims<'_>, nqn: &str, subsystem: &Subsystem<'_>) -> ExternalSubsystemStatus {
    let portal =
        |(key, portal): (&PathKey, &&roadstead_api::v1::ExternalPortal)| ExternalPortalStatus {
            transport: wire_word(key.transport).into(),
            address: key.address.to_string(),
            port: key.port,
            state: match portal.reach() {
                PortalReach::Reached => "Reached",
                PortalReach::Failed => "Failed",
                PortalReach::Unspecified => "Unknown",
            }
            .into(),
            message: portal.message.clone(),
        };
    let namespaces = subsystem.namespaces.unwrap_or_default();
    let shown = namespaces.iter().take(SHOWN_MAX);
    ExternalSubsystemStatus {
        nqn: nqn.into(),
        portals: subsystem.portals.iter().map(portal).collect(),
        namespace_count: u32::try_from(namespaces.len()).unwrap_or(u32::MAX),
        namespaces: shown.map(|n| namespace(claims, nqn, n)).collect(),
    }
}

fn namespace(claims: &Claims<'_>, nqn: &str, found: &ExternalNamespace) -> ExternalNamespaceStatus {
    let bound = claims.get(&VolumeKey::of(nqn, &found.uuid, &found.nguid, found.nsid));
    ExternalNamespaceStatus {
        nsid: found.nsid,
        uuid: found.uuid.clone(),
        nguid: found.nguid.clone(),
        size_bytes: found.size_bytes,
        size: for_people(found.size_bytes),
        block_size: found.block_size,
        bound: bound.map(|name| (*name).into()).unwrap_or_default(),
        message: found.message.clone(),
    }
}
