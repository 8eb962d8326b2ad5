//! The two ends of a decision, from what nodes report and what is recorded of them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use roadstead_api::v1::{self, LinkState, NodeReport};
use roadstead_crds::transport::NetworkTransport;
use roadstead_crds::{NVMeHostStatus, RdmaDeviceStatus};

use super::host::described;
use crate::policy::{
    Gid, Host, Link, Measured, Method, PathKey, Portal, RdmaPort, RoceVersion, TargetNode,
};
use crate::snapshot::Snapshot;

/// What is known of a node as an initiator: what it reports, or what it reported last.
fn known(snapshot: &Snapshot, node: &str) -> Option<NVMeHostStatus> {
    let reported = snapshot.live_report(node).and_then(|r| r.host.as_ref());
    reported
        .map(|host| described(snapshot, node, host))
        .or_else(|| snapshot.hosts.get(node)?.status.clone())
}

/// The node as an initiator; `None` before it ever reported.
pub(super) fn host(snapshot: &Snapshot, node: &str) -> Option<Host> {
    let status = known(snapshot, node)?;
    let offers = |word: &str| status.transports.iter().any(|t| t == word);
    let modules = &status.kernel_modules;
    Some(Host {
        node: node.into(),
        tcp: offers("tcp"),
        rdma: offers("rdma"),
        local: status.local_attach,
        kernel_rdma: modules.iter().any(|m| m.name == "nvme_rdma"),
        ports: status.rdma_devices.iter().map(rdma_port).collect(),
        methods: status
            .attach_methods
            .iter()
            .filter_map(|word| Method::parse(word))
            .collect(),
    })
}

/// The node with the volume, from its report.
pub(super) fn target(snapshot: &Snapshot, node: &str, report: &NodeReport) -> TargetNode {
    let status = known(snapshot, node).unwrap_or_default();
    TargetNode {
        node: node.into(),
        ports: status.rdma_devices.iter().map(rdma_port).collect(),
        portals: report.portals.iter().filter_map(portal).collect(),
    }
}

/// What the node's attachments say of the paths that they use.
pub(super) fn measured(report: Option<&NodeReport>) -> BTreeMap<PathKey, Measured> {
    let mut all: BTreeMap<PathKey, Measured> = BTreeMap::new();
    let paths = report
        .into_iter()
        .flat_map(|r| &r.attachments)
        .flat_map(|a| &a.paths);
    for path in paths {
        let Some(key) = path.portal.as_ref().and_then(path_key) else {
            continue;
        };
        let entry = all.entry(key).or_default();
        let trip = (path.round_trip_us > 0).then_some(path.round_trip_us);
        let trips = [entry.round_trip_us, trip].into_iter().flatten();
        entry.round_trip_us = trips.min();
        entry.loss_ppm = entry
            .loss_ppm
            .max(path.loss_measured.then_some(path.loss_ppm));
        let failed_at = i64::try_from(path.failed_at_s).ok().filter(|s| *s > 0);
        let failed_at = failed_at.and_then(|s| Timestamp::from_second(s).ok());
        entry.failed_at = entry.failed_at.max(failed_at);
    }
    all
}

/// A portal of the control API as a path; `None` for one without the network.
pub(super) fn path_key(portal: &v1::Portal) -> Option<PathKey> {
    Some(PathKey {
        transport: match portal.transport() {
            v1::Transport::Tcp => NetworkTransport::Tcp,
            v1::Transport::Rdma => NetworkTransport::Roce,
            v1::Transport::Local | v1::Transport::Unspecified => return None,
        },
        address: portal.address.parse().ok()?,
        port: u16::try_from(portal.port).ok()?,
    })
}

fn portal(report: &v1::PortalReport) -> Option<Portal> {
    Some(Portal {
        key: path_key(report.portal.as_ref()?)?,
        listening: report.listening,
        problem: report.message.clone(),
        link: match report.link() {
            LinkState::Up => Link::Up,
            LinkState::Down => Link::Down,
            LinkState::Unspecified => Link::Unknown,
        },
        versions: report.roce_versions().filter_map(version).collect(),
        mtu_bytes: report.mtu_bytes,
    })
}

fn version(version: v1::RoceVersion) -> Option<RoceVersion> {
    match version {
        v1::RoceVersion::V1 => Some(RoceVersion::V1),
        v1::RoceVersion::V2 => Some(RoceVersion::V2),
        v1::RoceVersion::Unspecified => None,
    }
}

fn rdma_port(device: &RdmaDeviceStatus) -> RdmaPort {
    RdmaPort {
        device: device.name.clone(),
        link: match device.link.as_str() {
            "Up" => Link::Up,
            "Down" => Link::Down,
            _ => Link::Unknown,
        },
        mtu_bytes: device.mtu_bytes,
        gids: device
            .gids
            .iter()
            .filter_map(|gid| {
                Some(Gid {
                    version: match gid.type_.as_str() {
                        "v1" => RoceVersion::V1,
                        "v2" => RoceVersion::V2,
                        _ => return None,
                    },
                    address: gid.address.parse::<IpAddr>().ok()?,
                    prefix_len: u8::try_from(gid.prefix_len).unwrap_or_default(),
                })
            })
            .collect(),
        problem: (!device.message.is_empty()).then(|| device.message.clone()),
    }
}
