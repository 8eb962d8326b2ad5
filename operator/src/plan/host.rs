//! Decisions about NVMeHosts: one for each node that ever reported.

use std::collections::BTreeSet;

use roadstead_api::v1::{GidEntry, HostReport, LinkState, ModuleState, RdmaDevice, RoceVersion};
use roadstead_crds::condition::{self, READY, Status, reason};
use roadstead_crds::{
    GidStatus, KernelModuleStatus, NVMeHost, NVMeHostStatus, NetdevStatus, RdmaDeviceStatus,
    UnusedDrive,
};

use super::reach::{Reach, reach};
use super::target::transport_word;
use super::version;
use super::write::{Change, Kind, ObjectVersion, Write};
use crate::snapshot::Snapshot;

/// The object of a node that reported and has none.
pub(super) fn create(snapshot: &Snapshot, node: &str) -> Option<Write> {
    snapshot.live_report(node)?.host.as_ref()?;
    Some(Write {
        object: ObjectVersion {
            kind: Kind::Host,
            name: node.into(),
            uid: String::new(),
            resource_version: String::new(),
        },
        change: Change::CreateHost {
            node_uid: snapshot.nodes.get(node).map(|n| n.uid.clone()),
        },
        notes: Vec::new(),
    })
}

/// The write that a host needs, if any.
pub(super) fn decide(snapshot: &Snapshot, node: &str, host: &NVMeHost) -> Option<Write> {
    if host.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let old = host.status.clone().unwrap_or_default();
    let (mut new, verdict) = match reach(snapshot, node) {
        Reach::Unsettled => return None,
        Reach::Away { reason, message } => (old.clone(), (Status::Unknown, reason, message)),
        Reach::Up(report) => {
            let host = report.host.as_ref()?;
            let verdict = (
                Status::True,
                reason::CONNECTED,
                "its daemon is connected".into(),
            );
            (described(snapshot, node, host), verdict)
        }
    };
    let (status, reason, message) = verdict;
    let now = snapshot.time();
    new.conditions = vec![condition::next(
        &old.conditions,
        READY,
        status,
        reason,
        message,
        host.metadata.generation,
        &now,
    )];
    let conditions = (old.conditions.clone(), new.conditions.clone());
    let object = version(Kind::Host, &host.metadata);
    (host.status.as_ref() != Some(&new))
        .then(|| Write::status(object, Change::HostStatus(new), conditions))
}

/// What a node reports of itself, in the words of the API.
pub(super) fn described(snapshot: &Snapshot, node: &str, host: &HostReport) -> NVMeHostStatus {
    let address = snapshot.nodes.get(node).and_then(|n| n.internal_ip.clone());
    NVMeHostStatus {
        conditions: Vec::new(),
        host_nqn: host.host_nqn.clone(),
        host_id: host.host_id.clone(),
        address: address.unwrap_or_default(),
        transports: host
            .transports()
            .filter_map(transport_word)
            .map(Into::into)
            .collect(),
        attach_methods: host.attach_methods.clone(),
        local_attach: host.local_attach,
        rdma: rdma_line(&host.rdma_devices),
        rdma_devices: host.rdma_devices.iter().map(rdma_device).collect(),
        netdevs: host
            .netdevs
            .iter()
            .map(|n| NetdevStatus {
                name: n.name.clone(),
                link: link_word(n.link()).into(),
                speed_gbps: n.speed_gbps,
                mtu_bytes: n.mtu_bytes,
                addresses: n.addresses.clone(),
            })
            .collect(),
        kernel_modules: host
            .kernel_modules
            .iter()
            .filter_map(|m| {
                Some(KernelModuleStatus {
                    name: m.name.clone(),
                    state: module_word(m.state())?.into(),
                })
            })
            .collect(),
        unused_drives: host
            .unused_drives
            .iter()
            .map(|d| UnusedDrive {
                path: d.path.clone(),
                serial: d.serial.clone(),
                model: d.model.clone(),
                size_bytes: d.size_bytes,
            })
            .collect(),
        version: host.version.clone(),
        kernel: host.kernel.clone(),
    }
}

/// The state of a link as the API has it.
pub(super) fn link_word(link: LinkState) -> &'static str {
    match link {
        LinkState::Up => "Up",
        LinkState::Down => "Down",
        LinkState::Unspecified => "Unknown",
    }
}

fn module_word(state: ModuleState) -> Option<&'static str> {
    match state {
        ModuleState::Builtin => Some("Builtin"),
        ModuleState::Loaded => Some("Loaded"),
        ModuleState::Loadable => Some("Loadable"),
        ModuleState::Unspecified => None,
    }
}

/// A GID type as the API has it.
pub(super) fn version_word(version: RoceVersion) -> Option<&'static str> {
    match version {
        RoceVersion::V1 => Some("v1"),
        RoceVersion::V2 => Some("v2"),
        RoceVersion::Unspecified => None,
    }
}

fn rdma_device(device: &RdmaDevice) -> RdmaDeviceStatus {
    let gid = |gid: &GidEntry| {
        Some(GidStatus {
            type_: version_word(gid.r#type())?.into(),
            address: gid.address.clone(),
            prefix_len: gid.prefix_len,
        })
    };
    RdmaDeviceStatus {
        name: device.name.clone(),
        port: device.port,
        link: link_word(device.link()).into(),
        speed_gbps: device.speed_gbps,
        mtu_bytes: device.mtu_bytes,
        netdev: device.netdev.clone(),
        driver: device.driver.clone(),
        gids: device.gids.iter().filter_map(gid).collect(),
        message: device.message.clone(),
    }
}

/// The devices in a line, for `kubectl get`: `mlx5_0 Up 100G v2`.
fn rdma_line(devices: &[RdmaDevice]) -> String {
    let one = |device: &RdmaDevice| {
        let mut words = vec![device.name.clone(), link_word(device.link()).into()];
        if device.speed_gbps > 0 {
            words.push(format!("{}G", device.speed_gbps));
        }
        let versions: BTreeSet<&str> = device
            .gids
            .iter()
            .filter_map(|gid| version_word(gid.r#type()))
            .collect();
        words.extend(versions.into_iter().map(Into::into));
        words.join(" ")
    };
    let all: Vec<String> = devices.iter().map(one).collect();
    all.join(", ")
}
