//! The part of a node's state that is about the network: portals, the order of paths, and which portal is the good one
//! for which volume.

use std::collections::BTreeSet;
use std::net::IpAddr;

use roadstead_api::NVME_TCP_PORT;
use roadstead_api::v1::{AnaGroup, AnaState, AttachmentPaths, Portal, Transport};
use roadstead_crds::transport::TransportKind;
use roadstead_crds::{NVMeAttachment, PathStatus};

use super::index::Index;
use super::placement::is_protected;

/// ANA group of volumes whose I/O goes over TCP. A node without RDMA has all volumes in the first group, as ever.
const GROUP_TCP: u32 = 1;

/// ANA group of volumes whose I/O goes over RoCE.
const GROUP_ROCE: u32 = 2;

/// Where the node serves. NVMe/TCP: at its InternalIP, or its pod's address while there is no node object. RDMA: at each
/// address in the GID tables that it reported.
pub(super) fn portals(index: &Index<'_>, node: &str) -> Vec<Portal> {
    let info = index.snapshot.nodes.get(node);
    let of_node = info.and_then(|info| info.internal_ip.as_ref());
    let of_pod = index.snapshot.dataplanes.get(node).map(|d| &d.address);
    let rdma = rdma_addresses(index, node);
    let tcp = of_node.or(of_pod).into_iter().map(|address| Portal {
        ana_groups: second_choice(GROUP_ROCE, !rdma.is_empty()),
        ..portal(Transport::Tcp, address.clone())
    });
    let rdma = rdma.iter().map(|address| Portal {
        ana_groups: second_choice(GROUP_TCP, true),
        ..portal(Transport::Rdma, address.to_string())
    });
    tcp.chain(rdma).collect()
}

fn portal(transport: Transport, address: String) -> Portal {
    Portal {
        transport: transport.into(),
        address,
        port: u32::from(NVME_TCP_PORT),
        ..Portal::default()
    }
}

/// Hosts should use another portal for the volumes of this group.
fn second_choice(group: u32, there_is_another: bool) -> Vec<AnaGroup> {
    let group = AnaGroup {
        group,
        state: AnaState::NonOptimized.into(),
    };
    there_is_another.then_some(group).into_iter().collect()
}

/// Addresses of a node's RDMA ports that its dataplane can use, as recorded.
fn rdma_addresses(index: &Index<'_>, node: &str) -> BTreeSet<IpAddr> {
    let status = index
        .snapshot
        .hosts
        .get(node)
        .and_then(|h| h.status.as_ref());
    let devices = status.into_iter().flat_map(|s| &s.rdma_devices);
    devices
        .filter(|device| device.message.is_empty())
        .flat_map(|device| &device.gids)
        .filter_map(|gid| gid.address.parse().ok())
        .collect()
}

/// The ANA group of a volume, by what was chosen for those who use it.
pub(super) fn ana_group(index: &Index<'_>, volume: &str, node: &str) -> u32 {
    if rdma_addresses(index, node).is_empty() {
        return 0;
    }
    let all = index.attachments_of.get(volume).map(Vec::as_slice);
    let mut all = all.unwrap_or_default().iter();
    match all.any(|(_, a)| chosen(a) == Some(TransportKind::Roce)) {
        true => GROUP_ROCE,
        false => GROUP_TCP,
    }
}

fn chosen(attachment: &NVMeAttachment) -> Option<TransportKind> {
    attachment.status.as_ref()?.chosen_transport
}

/// The paths that a node's attachments should have, as recorded.
pub(super) fn attachments(index: &Index<'_>, node: &str) -> Vec<AttachmentPaths> {
    let here = index.attachments_on.get(node).map(Vec::as_slice);
    here.unwrap_or_default()
        .iter()
        .filter(|a| is_protected(a.metadata.finalizers.as_ref()) && chosen(a).is_some())
        .map(|a| AttachmentPaths {
            id: a.spec.namespace.clone(),
            paths: a
                .status
                .iter()
                .flat_map(|s| &s.paths)
                .filter_map(path)
                .collect(),
        })
        .collect()
}

fn path(path: &PathStatus) -> Option<Portal> {
    let transport = match path.transport.as_str() {
        "local" => Transport::Local,
        "tcp" => Transport::Tcp,
        "rdma" => Transport::Rdma,
        _ => return None,
    };
    Some(Portal {
        transport: transport.into(),
        address: path.address.clone(),
        port: path.port.into(),
        preference: path.preference,
        ..Portal::default()
    })
}
