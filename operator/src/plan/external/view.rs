//! What the nodes see of an appliance, joined.

use std::collections::BTreeMap;

use roadstead_api::v1::{ExternalNamespace, ExternalPortal, ExternalReport, PortalReach};

use crate::plan::ends::path_key;
use crate::plan::index::Index;
use crate::plan::placement::{Bound, VolumeKey};
use crate::policy::{Link, PathKey, Portal, RoceVersion, TargetNode};
use crate::snapshot::Snapshot;

/// An appliance as all nodes together see it.
#[derive(Debug, Default)]
pub(in crate::plan) struct View<'a> {
    /// A node that is connected has looked.
    pub(super) is_seen: bool,
    /// Why nodes could not even look: node and reason.
    pub(super) failures: Vec<(&'a str, &'a str)>,
    /// Its subsystems by NQN.
    pub(super) subsystems: BTreeMap<&'a str, Subsystem<'a>>,
}

/// A subsystem as all nodes together see it.
#[derive(Debug, Default)]
pub(super) struct Subsystem<'a> {
    /// Its portals: the best that a node says of each.
    pub(super) portals: BTreeMap<PathKey, &'a ExternalPortal>,
    /// What the first node, by name, that reaches it sees.
    pub(super) namespaces: Option<&'a [ExternalNamespace]>,
    /// It has more.
    pub(super) is_cut_off: bool,
    /// Nodes that reach none of its portals.
    pub(super) blind: Vec<&'a str>,
}

impl<'a> View<'a> {
    /// What the connected nodes say of the appliance `target`.
    pub(super) fn of(snapshot: &'a Snapshot, target: &str) -> Self {
        let mut view = View::default();
        for node in snapshot.dataplanes.keys() {
            let Some(report) = report(snapshot, node, target) else {
                continue;
            };
            view.is_seen = true;
            if !report.message.is_empty() {
                view.failures.push((node, &report.message));
            }
            for seen in &report.subsystems {
                let subsystem = view.subsystems.entry(&seen.nqn).or_default();
                let is_open = seen.portals.iter().any(is_reached);
                if !is_open {
                    subsystem.blind.push(node);
                } else if subsystem.namespaces.is_none() {
                    subsystem.namespaces = Some(&seen.namespaces);
                    subsystem.is_cut_off = seen.is_cut_off;
                }
                for portal in &seen.portals {
                    let Some(key) = portal.portal.as_ref().and_then(path_key) else {
                        continue;
                    };
                    let best = subsystem.portals.entry(key).or_insert(portal);
                    if is_reached(portal) {
                        *best = portal;
                    }
                }
            }
        }
        view
    }
}

impl<'a> Subsystem<'a> {
    /// The namespace that a volume is bound to: the one with its names, wherever it is listed.
    pub(super) fn find(&self, bound: &Bound<'_>) -> Option<&'a ExternalNamespace> {
        let mut all = self.namespaces?.iter();
        match bound.key() {
            VolumeKey::Uuid(uuid) => all.find(|n| n.uuid == uuid),
            VolumeKey::Nguid(_, nguid) => all.find(|n| n.nguid == nguid),
            VolumeKey::Nsid(_, nsid) => all.find(|n| n.nsid == nsid),
        }
    }

    /// The first thing that is wrong with its portals.
    pub(super) fn trouble(&self) -> Option<String> {
        self.portals.iter().find_map(|(key, portal)| {
            let failed = portal.reach() == PortalReach::Failed;
            failed.then(|| format!("{key}: {}", portal.message))
        })
    }
}

/// A node's word on an appliance, once it has looked.
fn report<'a>(snapshot: &'a Snapshot, node: &str, target: &str) -> Option<&'a ExternalReport> {
    let externals = &snapshot.live_report(node)?.externals;
    externals.iter().find(|e| e.name == target && e.looked)
}

fn is_reached(portal: &ExternalPortal) -> bool {
    portal.reach() == PortalReach::Reached
}

/// The appliance as the other end for a pod on `node`: as that node sees it, or as others do while it has not looked.
pub(in crate::plan) fn ends(
    index: &Index<'_>,
    bound: &Bound<'_>,
    node: &str,
) -> Option<TargetNode> {
    let own = report(index.snapshot, node, bound.target).and_then(|report| {
        let mut subsystems = report.subsystems.iter();
        subsystems.find(|s| s.nqn == bound.nqn)
    });
    let portals: Vec<Portal> = match own {
        Some(subsystem) => subsystem.portals.iter().filter_map(end).collect(),
        None => {
            let view = index.views.get(bound.target)?;
            let subsystem = view.subsystems.get(bound.nqn)?;
            subsystem
                .portals
                .values()
                .copied()
                .filter_map(end)
                .collect()
        }
    };
    Some(TargetNode {
        node: format!("appliance {}", bound.target),
        ports: Vec::new(),
        portals,
    })
}

/// What an appliance's RDMA portals can do is not told: both versions may be tried.
fn end(portal: &ExternalPortal) -> Option<Portal> {
    Some(Portal {
        key: path_key(portal.portal.as_ref()?)?,
        listening: portal.reach() != PortalReach::Failed,
        problem: portal.message.clone(),
        link: Link::Unknown,
        versions: vec![RoceVersion::V1, RoceVersion::V2],
        mtu_bytes: 0,
    })
}
