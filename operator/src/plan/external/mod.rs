//! Foreign appliances: what the nodes see of them, and what follows for Targets, volumes and attachments.
//!
//! Nothing is made, changed or deleted there, so a volume is *bound* to a namespace instead of placed on a drive: its names
//! (NQN, identifier, UUID, NGUID) are recorded once, when it is first seen, and from then on they are what is meant.

mod target;
mod view;
mod volume;

use std::collections::{BTreeMap, BTreeSet};

use roadstead_api::v1::{External, HostKeys, Portal, Transport};
use roadstead_crds::{NVMeNamespace, Target};

use super::index::Index;
use super::placement::{VolumeKey, bound, is_protected};
use crate::snapshot::{Link, Snapshot};

pub(super) use target::status;
pub(super) use view::{View, ends};
pub(super) use volume::decide;

/// So many nodes look at an appliance, beside those that use it: enough to see whether it is there, few enough to be no load.
const LOOKERS_MAX: usize = 8;

/// The names of the namespaces that volumes are bound to, with those volumes.
pub(super) type Claims<'a> = BTreeMap<VolumeKey<'a>, &'a str>;

/// What is bound now.
pub(super) fn claims(snapshot: &Snapshot) -> Claims<'_> {
    let all = snapshot.namespaces.iter();
    all.filter_map(|(name, namespace)| Some((bound(namespace)?.key(), name.as_str())))
        .collect()
}

/// What the nodes see of every appliance.
pub(super) fn views(snapshot: &Snapshot) -> BTreeMap<&str, View<'_>> {
    let targets = snapshot.targets.iter();
    targets
        .filter(|(_, target)| target.spec.external.is_some())
        .map(|(name, _)| (name.as_str(), View::of(snapshot, name)))
        .collect()
}

/// The volume is a namespace of an appliance, or shall be one.
pub(super) fn is_external(namespace: &NVMeNamespace) -> bool {
    namespace.spec.external.is_some()
}

/// The appliances that a node is told of.
pub(super) fn of_node(index: &Index<'_>, node: &str) -> Vec<External> {
    let targets = index.snapshot.targets.iter();
    targets
        .filter(|(_, target)| is_protected(target.metadata.finalizers.as_ref()))
        .filter(|(name, target)| {
            target.spec.external.is_some()
                && (index.lookers.contains(node) || is_used_by(index, name, node))
        })
        .filter_map(|(name, target)| message(index.snapshot, name, target))
        .collect()
}

/// Nodes that look at every appliance: the first that are connected, else the first of all.
pub(super) fn lookers(snapshot: &Snapshot) -> BTreeSet<&str> {
    let mut all: Vec<_> = snapshot.dataplanes.iter().collect();
    all.sort_by_key(|(name, dataplane)| (dataplane.link != Link::Up, *name));
    let first = all.into_iter().take(LOOKERS_MAX);
    first.map(|(name, _)| name.as_str()).collect()
}

fn is_used_by(index: &Index<'_>, target: &str, node: &str) -> bool {
    let here = index.attachments_on.get(node).map(Vec::as_slice);
    here.unwrap_or_default().iter().any(|attachment| {
        let volume = index.snapshot.namespaces.get(&attachment.spec.namespace);
        volume.is_some_and(|v| is_external(v) && v.spec.target.as_deref() == Some(target))
    })
}

/// The appliance as a node is told of it; `None` while it is not known whom the nodes are there.
pub(super) fn message(snapshot: &Snapshot, name: &str, target: &Target) -> Option<External> {
    let source = target.spec.external.as_ref()?;
    let portals = |all: Vec<roadstead_crds::Portal>| all.into_iter().map(portal).collect();
    let mut message = External {
        name: name.into(),
        discovery: portals(source.services()),
        nqn: source.nqn.clone().unwrap_or_default(),
        portals: portals(source.given_portals()),
        ..External::default()
    };
    if let Some(secret) = &source.secret_ref {
        let credentials = snapshot.credentials.get(&secret.name)?;
        let host = credentials.host.as_ref().ok()?;
        message.host_nqn.clone_from(&host.nqn);
        message.host_id.clone_from(&host.id);
        message.keys = host.keys.as_ref().map(|keys| HostKeys {
            host: keys.host.text().into(),
            controller: keys.controller.as_ref().map_or("", |key| key.text()).into(),
        });
    }
    Some(message)
}

fn portal(portal: roadstead_crds::Portal) -> Portal {
    let transport = match portal.transport.as_str() {
        "rdma" => Transport::Rdma,
        _ => Transport::Tcp,
    };
    Portal {
        transport: transport.into(),
        address: portal.address,
        port: portal.port.into(),
        ..Portal::default()
    }
}
