//! The snapshot with the cross references that decisions need, so that a plan's cost grows with the number of
//! objects and not with its square.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use roadstead_api::v1::{AttachmentReport, External, NodeState, VolumeReport};
use roadstead_crds::{NVMeAttachment, NVMeNamespace};

use super::external::{self, View};
use super::placement::{Placement, VolumeKey, bound, placement};
use crate::snapshot::Snapshot;

/// Cross references into a snapshot.
pub(super) struct Index<'a> {
    pub(super) snapshot: &'a Snapshot,
    /// Placed volumes by node, in name order.
    pub(super) placed_on: BTreeMap<&'a str, Vec<(&'a str, &'a NVMeNamespace, Placement<'a>)>>,
    /// UUIDs of all placed volumes.
    pub(super) known_uuids: HashSet<&'a str>,
    /// Names of the volumes that live on a Target, or are bound to namespaces of it.
    pub(super) volumes_of_target: BTreeMap<&'a str, Vec<&'a str>>,
    /// Attachments of a volume, in name order.
    pub(super) attachments_of: BTreeMap<&'a str, Vec<(&'a str, &'a NVMeAttachment)>>,
    /// Attachments of a node, in name order.
    pub(super) attachments_on: BTreeMap<&'a str, Vec<&'a NVMeAttachment>>,
    /// What the nodes see of the Targets that are appliances.
    pub(super) views: BTreeMap<&'a str, View<'a>>,
    /// Nodes that look at every appliance.
    pub(super) lookers: BTreeSet<&'a str>,
    volume_reports: HashMap<(&'a str, &'a str), &'a VolumeReport>,
    attachment_reports: HashMap<(&'a str, VolumeKey<'a>), &'a AttachmentReport>,
}

impl<'a> Index<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let mut index = Index {
            snapshot,
            placed_on: BTreeMap::new(),
            known_uuids: HashSet::new(),
            volumes_of_target: BTreeMap::new(),
            attachments_of: BTreeMap::new(),
            attachments_on: BTreeMap::new(),
            views: external::views(snapshot),
            lookers: external::lookers(snapshot),
            volume_reports: HashMap::new(),
            attachment_reports: HashMap::new(),
        };
        for (name, namespace) in &snapshot.namespaces {
            if let Some(place) = placement(namespace) {
                let on_node = index.placed_on.entry(place.node).or_default();
                on_node.push((name, namespace, place));
                index.known_uuids.insert(place.uuid);
                let of_target = index.volumes_of_target.entry(place.target).or_default();
                of_target.push(name);
            } else if let Some(bound) = bound(namespace) {
                let of_target = index.volumes_of_target.entry(bound.target).or_default();
                of_target.push(name);
            }
        }
        for (name, attachment) in &snapshot.attachments {
            let of_volume = index
                .attachments_of
                .entry(attachment.spec.namespace.as_str())
                .or_default();
            of_volume.push((name, attachment));
            let on_node = index
                .attachments_on
                .entry(attachment.spec.node.as_str())
                .or_default();
            on_node.push(attachment);
        }
        for (node, dataplane) in &snapshot.dataplanes {
            let Some(report) = dataplane.live_report() else {
                continue;
            };
            for volume in &report.volumes {
                index.volume_reports.insert((node, &volume.uuid), volume);
            }
            for attachment in &report.attachments {
                let key = VolumeKey::of(
                    &attachment.subsystem_nqn,
                    &attachment.volume_uuid,
                    &attachment.nguid,
                    attachment.nsid,
                );
                index.attachment_reports.insert((node, key), attachment);
            }
        }
        index
    }

    /// What a connected node says of a volume on its drives.
    pub(super) fn volume_report(&self, node: &'a str, uuid: &'a str) -> Option<&'a VolumeReport> {
        self.volume_reports.get(&(node, uuid)).copied()
    }

    /// What a connected node says of a volume that it uses.
    pub(super) fn attachment_report(
        &self,
        node: &'a str,
        volume: VolumeKey<'a>,
    ) -> Option<&'a AttachmentReport> {
        self.attachment_reports.get(&(node, volume)).copied()
    }
}

/// What connected nodes have worked on to the end.
pub(super) struct Applied<'a> {
    /// Allowed hosts by node and subsystem NQN.
    hosts: HashMap<(&'a str, &'a str), &'a [String]>,
    /// Tombstones by node and volume UUID.
    tombstones: HashSet<(&'a str, &'a str)>,
    /// Appliances by node and name.
    externals: HashMap<(&'a str, &'a str), &'a External>,
    /// Nodes of which the applied state is known.
    nodes: HashSet<&'a str>,
}

impl<'a> Applied<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, desired: &'a BTreeMap<String, NodeState>) -> Self {
        let mut applied = Applied {
            hosts: HashMap::new(),
            tombstones: HashSet::new(),
            externals: HashMap::new(),
            nodes: HashSet::new(),
        };
        for (node, dataplane) in &snapshot.dataplanes {
            let state = desired.get(node).and_then(|d| dataplane.applied(d));
            let Some(state) = state else { continue };
            applied.nodes.insert(node);
            for subsystem in &state.subsystems {
                let key = (node.as_str(), subsystem.nqn.as_str());
                applied.hosts.insert(key, &subsystem.allowed_hosts);
            }
            for external in &state.externals {
                applied.externals.insert((node, &external.name), external);
            }
            for volume in state.volumes.iter().filter(|v| v.absent) {
                applied.tombstones.insert((node, &volume.uuid));
            }
        }
        applied
    }

    /// The node lets the host into the subsystem: `None` if nobody can tell now.
    pub(super) fn lets_in(&self, node: &'a str, nqn: &'a str, host_nqn: &str) -> Option<bool> {
        if !self.nodes.contains(node) {
            return None;
        }
        let hosts = self.hosts.get(&(node, nqn));
        Some(hosts.is_some_and(|hosts| hosts.iter().any(|h| h == host_nqn)))
    }

    /// What the node was told of an appliance, and has taken in.
    pub(super) fn external(&self, node: &'a str, name: &'a str) -> Option<&'a External> {
        self.externals.get(&(node, name)).copied()
    }

    /// The node has worked on a state with the volume's tombstone.
    pub(super) fn has_tombstone(&self, node: &'a str, uuid: &'a str) -> bool {
        self.tombstones.contains(&(node, uuid))
    }
}
