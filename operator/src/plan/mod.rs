//! The plan: what every node should be and what every object should say, from what is known now.
//!
//! [`plan`] is a pure function. Its promises, tested as properties:
//! - The same snapshot gives the same plan.
//! - What a node is told follows from what is recorded in the API (see [`state`]), so an operator that dies at any
//!   moment and another that starts from the API alone go on with the same states.
//! - A placed volume never moves, and never shrinks.
//! - No more is granted on a drive than its capacity.
//! - A volume's data goes only after its object was deleted, nothing attached it, and that was recorded.
//!
//! Each object gets at most one write; it holds only for the version that the plan was made from. Whatever
//! remains to be done shows again in the next snapshot.

mod access;
mod attachment;
mod choice;
mod ends;
mod external;
mod host;
mod index;
mod namespace;
mod network;
mod paths;
mod placement;
mod policy;
mod reach;
mod room;
mod state;
mod target;
mod write;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use roadstead_api::v1::NodeState;
use roadstead_crds::{Condition, FINALIZER};

pub use access::DETACH_GRACE;
pub use placement::{Placement, is_removing, placement};
pub use reach::LINK_GRACE;
pub use write::{Change, Kind, Note, ObjectVersion, Write};

use crate::snapshot::{Link, Snapshot};

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The state of every node that has a dataplane.
    pub states: BTreeMap<String, NodeState>,
    /// Writes to the API, at most one for each object.
    pub writes: Vec<Write>,
    /// When time alone changes the plan.
    pub wake_at: Option<Timestamp>,
}

/// What follows from `snapshot`.
pub fn plan(snapshot: &Snapshot) -> Plan {
    let index = index::Index::new(snapshot);
    let states = state::node_states(&index);
    let writes = writes(&index, &states);
    Plan {
        writes,
        wake_at: wake_at(snapshot),
        states,
    }
}

fn writes(index: &index::Index<'_>, states: &BTreeMap<String, NodeState>) -> Vec<Write> {
    let snapshot = index.snapshot;
    let applied = index::Applied::new(snapshot, states);
    let mut rooms = room::Rooms::count(index);
    let mut writes = Vec::new();
    // The oldest volume chooses first.
    let mut volumes: Vec<_> = snapshot.namespaces.iter().collect();
    volumes.sort_by(|(an, a), (bn, b)| {
        let (a, b) = (
            &a.metadata.creation_timestamp,
            &b.metadata.creation_timestamp,
        );
        a.cmp(b).then(an.cmp(bn))
    });
    let mut claims = external::claims(snapshot);
    for (name, namespace) in volumes {
        if external::is_external(namespace) {
            writes.extend(external::decide(index, &mut claims, name, namespace));
            continue;
        }
        writes.extend(namespace::decide(
            index, &applied, &mut rooms, name, namespace,
        ));
    }
    for (name, target) in &snapshot.targets {
        writes.extend(target::decide(index, &rooms, name, target));
    }
    for attachment in snapshot.attachments.values() {
        writes.extend(attachment::decide(index, &applied, attachment));
    }
    for policy in snapshot.policies.values() {
        writes.extend(policy::decide(snapshot, policy));
    }
    for (node, host) in &snapshot.hosts {
        writes.extend(host::decide(snapshot, node, host));
    }
    let without_host = snapshot
        .dataplanes
        .keys()
        .filter(|node| !snapshot.hosts.contains_key(*node));
    for node in without_host {
        writes.extend(host::create(snapshot, node));
    }
    writes
}

/// The next moment at which a grace period ends.
fn wake_at(snapshot: &Snapshot) -> Option<Timestamp> {
    let links = snapshot.dataplanes.values().filter_map(|d| match &d.link {
        Link::Lost { since, .. } => since.saturating_add(LINK_GRACE).ok(),
        Link::Connecting | Link::Up => None,
    });
    let detaches = snapshot.attachments.values().filter_map(|a| {
        let deleted_at = a.metadata.deletion_timestamp.as_ref()?;
        let link = snapshot.dataplanes.get(&a.spec.node).map(|d| &d.link);
        match link {
            Some(Link::Up) => None,
            Some(Link::Lost { since, .. }) => Some(access::silence_ends(deleted_at.0, *since)),
            Some(Link::Connecting) | None => Some(access::silence_ends(deleted_at.0, deleted_at.0)),
        }
    });
    links.chain(detaches).filter(|at| *at > snapshot.now).min()
}

/// The version of an object that a write is for.
fn version(kind: Kind, meta: &ObjectMeta) -> ObjectVersion {
    ObjectVersion {
        kind,
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        resource_version: meta.resource_version.clone().unwrap_or_default(),
    }
}

/// Adds our finalizer: the first write to every object, before anything of it exists anywhere.
fn protect(object: ObjectVersion, meta: &ObjectMeta) -> Write {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.into());
    Write {
        object,
        change: Change::Finalizers(finalizers),
        notes: Vec::new(),
    }
}

/// Removes our finalizer: the last write to every object, when nothing of it exists any more.
fn release(object: ObjectVersion, meta: &ObjectMeta) -> Write {
    let mut finalizers = meta.finalizers.clone().unwrap_or_default();
    finalizers.retain(|f| f != FINALIZER);
    Write {
        object,
        change: Change::Finalizers(finalizers),
        notes: Vec::new(),
    }
}

impl Write {
    fn status(
        object: ObjectVersion,
        change: Change,
        (old, new): (Vec<Condition>, Vec<Condition>),
    ) -> Self {
        Write {
            object,
            change,
            notes: write::transitions(&old, &new),
        }
    }
}

/// Keeps a usage figure that moved little, so that I/O does not become a stream of writes to the API: a change
/// shows when it is 1/64 of the whole, and 16 MiB, or reaches zero.
fn settle(old: Option<u64>, new: u64, whole: u64) -> u64 {
    const STEP_BYTES_MIN: u64 = 16 << 20;
    match old {
        Some(old) if new != 0 && old.abs_diff(new) < (whole / 64).max(STEP_BYTES_MIN) => old,
        _ => new,
    }
}
