//! What two ends can do together.

use std::net::IpAddr;

use roadstead_crds::transport::{NetworkTransport, TransportKind};

use super::order::PathKey;

/// State of a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// It works.
    Up,
    /// It does not.
    Down,
    /// Nobody said: taken as working, and a connection will tell.
    #[default]
    Unknown,
}

/// Version of RoCE, which is the type of a GID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RoceVersion {
    /// Ethernet frames: one subnet only.
    V1,
    /// UDP: can be routed.
    V2,
}

/// An entry of a GID table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gid {
    /// Its type.
    pub version: RoceVersion,
    /// The IP address in it.
    pub address: IpAddr,
    /// Length of the address' prefix; 0 when not known.
    pub prefix_len: u8,
}

/// A port of an RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RdmaPort {
    /// Name of the device.
    pub device: String,
    /// Its link.
    pub link: Link,
    /// Active MTU; 0 when not known.
    pub mtu_bytes: u32,
    /// GID table.
    pub gids: Vec<Gid>,
    /// Why it cannot be used.
    pub problem: Option<String>,
}

/// A way to make a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// The kernel's own NVMe-oF host.
    Kernel,
    /// Our initiator and ublk.
    Ublk,
    /// Our initiator and nbd.
    Nbd,
    /// Our initiator, FUSE and a loop device.
    Fuse,
}

impl Method {
    /// The word of the control API.
    pub fn word(self) -> &'static str {
        match self {
            Method::Kernel => "kernel",
            Method::Ublk => "ublk",
            Method::Nbd => "nbd",
            Method::Fuse => "fuse",
        }
    }

    /// The method with this word.
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Method::Kernel, Method::Ublk, Method::Nbd, Method::Fuse];
        all.into_iter().find(|method| method.word() == word)
    }
}

/// The pod's node, as an initiator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub node: String,
    /// Its dataplane offers NVMe/TCP.
    pub tcp: bool,
    /// Its dataplane offers NVMe over RDMA.
    pub rdma: bool,
    /// Its dataplane offers volumes of its own without the network.
    pub local: bool,
    /// Its kernel has `nvme_rdma`, or can load it.
    pub kernel_rdma: bool,
    /// RDMA ports.
    pub ports: Vec<RdmaPort>,
    /// Ways to make a block device, the best first.
    pub methods: Vec<Method>,
}

/// A portal of the volume's node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    /// Where it is.
    pub key: PathKey,
    /// It accepts connections.
    pub listening: bool,
    /// Why it does not.
    pub problem: String,
    /// Its link.
    pub link: Link,
    /// GID types by which it can be reached.
    pub versions: Vec<RoceVersion>,
    /// MTU; 0 when not known.
    pub mtu_bytes: u32,
}

/// The volume's node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetNode {
    /// Its name.
    pub node: String,
    /// RDMA ports.
    pub ports: Vec<RdmaPort>,
    /// Portals.
    pub portals: Vec<Portal>,
}

impl Host {
    /// The method can carry the transport.
    pub(super) fn carries(&self, method: Method, transport: TransportKind) -> bool {
        match (method, transport) {
            (Method::Kernel, TransportKind::Local) => false,
            (Method::Kernel, TransportKind::Roce) => self.kernel_rdma,
            _ => true,
        }
    }

    /// The best method for the transport.
    pub(super) fn method(&self, transport: TransportKind) -> Result<Method, String> {
        let mut methods = self.methods.iter().copied();
        methods
            .find(|method| self.carries(*method, transport))
            .ok_or_else(|| match self.methods.is_empty() {
                true => format!("{} has no way to make a block device", self.node),
                false => format!(
                    "no way of {} to make a block device can use {}",
                    self.node,
                    transport.title()
                ),
            })
    }
}

/// Whether a pod on the volume's own node can have it without the network; how.
pub(super) fn local(host: &Host) -> Result<String, String> {
    if !host.local {
        return Err(format!("the dataplane of {} does not offer it", host.node));
    }
    Ok(format!(
        "the volume is on {} itself: no network between",
        host.node
    ))
}

/// Whether the host reaches the portal by TCP; how.
pub(super) fn tcp(
    host: &Host,
    target: &TargetNode,
    portal: Option<&Portal>,
) -> Result<String, String> {
    if !host.tcp {
        return Err(format!(
            "the dataplane of {} does not offer NVMe/TCP",
            host.node
        ));
    }
    let portal = portal.ok_or_else(|| format!("{} has no NVMe/TCP portal", target.node))?;
    serves(target, portal)?;
    Ok(format!("{} of {}", portal.key, target.node))
}

/// The portal accepts connections.
pub(super) fn serves(target: &TargetNode, portal: &Portal) -> Result<(), String> {
    let at = format!("portal {} of {}", portal.key, target.node);
    match (portal.listening, portal.link) {
        (false, _) if portal.problem.is_empty() => Err(format!("{at} does not listen")),
        (false, _) => Err(format!("{at} does not listen: {}", portal.problem)),
        (true, Link::Down) => Err(format!("the link of {at} is down")),
        (true, Link::Up | Link::Unknown) => Ok(()),
    }
}

impl TargetNode {
    /// The portals of a transport.
    pub(super) fn portals_of(&self, transport: NetworkTransport) -> Vec<&Portal> {
        let portals = self.portals.iter();
        portals.filter(|p| p.key.transport == transport).collect()
    }
}
