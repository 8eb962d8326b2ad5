//! What RoCE takes on both ends.

use std::net::IpAddr;

use roadstead_crds::PolicyLimits;

use super::capability::{Gid, Host, Link, Portal, RdmaPort, RoceVersion, TargetNode, serves};

/// Whether the host reaches the portal by RoCE; how.
pub(super) fn roce(
    host: &Host,
    target: &TargetNode,
    portal: Option<&Portal>,
    limits: &PolicyLimits,
) -> Result<String, String> {
    if host.ports.is_empty() {
        return Err(no_device(&host.node));
    }
    if target.ports.is_empty() && portal.is_none() {
        return Err(no_device(&target.node));
    }
    if !host.rdma {
        return Err(format!(
            "the dataplane of {} does not offer RDMA",
            host.node
        ));
    }
    let usable: Vec<&RdmaPort> = host.ports.iter().filter(|p| problem(p).is_none()).collect();
    if usable.is_empty() {
        return Err(problems(&host.node, &host.ports));
    }
    let Some(portal) = portal else {
        return Err(match target.ports.iter().all(|p| problem(p).is_some()) {
            true => problems(&target.node, &target.ports),
            false => format!("{} has an RDMA device, but no RDMA portal", target.node),
        });
    };
    serves(target, portal)?;
    connect(host, target, portal, &usable, limits)
}

fn no_device(node: &str) -> String {
    format!("{node} has no RDMA device")
}

/// Why a port cannot be used.
fn problem(port: &RdmaPort) -> Option<String> {
    match (&port.problem, port.link) {
        (Some(problem), _) => Some(problem.clone()),
        (None, Link::Down) => Some("the link is down".into()),
        (None, Link::Up | Link::Unknown) => None,
    }
}

fn problems(node: &str, ports: &[RdmaPort]) -> String {
    let all: Vec<String> = ports
        .iter()
        .filter_map(|p| Some(format!("{} of {node}: {}", p.device, problem(p)?)))
        .collect();
    all.join("; ")
}

/// A usable port of the host that has a GID for the portal: RoCE v2 before v1.
fn connect(
    host: &Host,
    target: &TargetNode,
    portal: &Portal,
    usable: &[&RdmaPort],
    limits: &PolicyLimits,
) -> Result<String, String> {
    let to = portal.key.address;
    let gids = || {
        usable
            .iter()
            .flat_map(|port| port.gids.iter().map(move |gid| (*port, gid)))
            .filter(|(_, gid)| gid.address.is_ipv4() == to.is_ipv4())
            .filter(|(_, gid)| portal.versions.contains(&gid.version))
    };
    let v2 = gids().filter(|(_, gid)| gid.version == RoceVersion::V2);
    let v1 = gids().filter(|(_, gid)| gid.version == RoceVersion::V1 && same_subnet(gid, to));
    let reaching: Vec<(&RdmaPort, &Gid)> = v2.chain(v1).collect();
    if reaching.is_empty() {
        return Err(if gids().next().is_some() {
            let node = &host.node;
            format!("both ends have RoCE v1 only, and {node} is not in the subnet of {to}")
        } else {
            let (node, other) = (&host.node, &target.node);
            format!(
                "no GID of {node} has a type that portal {} of {other} has",
                portal.key
            )
        });
    }
    let mtu = |port: &RdmaPort| match (port.mtu_bytes, portal.mtu_bytes) {
        (0, known) | (known, 0) => known,
        (a, b) => a.min(b),
    };
    let wide = |port: &RdmaPort| mtu(port) == 0 || mtu(port) >= limits.roce_mtu_bytes_min;
    let Some((port, gid)) = reaching.iter().find(|(port, _)| wide(port)) else {
        let least = limits.roce_mtu_bytes_min;
        let widest = reaching.iter().map(|(port, _)| mtu(port)).max();
        let widest = widest.unwrap_or_default();
        return Err(format!(
            "the RDMA MTU between {} and {} is {widest}, less than {least}",
            host.node, target.node
        ));
    };
    let version = match gid.version {
        RoceVersion::V1 => "v1",
        RoceVersion::V2 => "v2",
    };
    Ok(format!(
        "{} of {} reaches {} of {} (RoCE {version})",
        port.device, host.node, portal.key, target.node
    ))
}

fn same_subnet(gid: &Gid, other: IpAddr) -> bool {
    let bits = u32::from(gid.prefix_len);
    match (gid.address, other) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let shift = 32_u32.saturating_sub(bits);
            bits > 0 && u64::from(a.to_bits()) >> shift == u64::from(b.to_bits()) >> shift
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let shift = 128_u32.saturating_sub(bits);
            bits > 0
                && a.to_bits().checked_shr(shift).unwrap_or(0)
                    == b.to_bits().checked_shr(shift).unwrap_or(0)
        }
        _ => false,
    }
}
