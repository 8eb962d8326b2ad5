//! The network interfaces of this node, and what portals and RDMA devices have of them.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use roadstead_api::v1;

/// What the headers of RoCE take of an Ethernet frame at most: GRH 40, UDP 8, BTH 12, XRC 4, AtomicETH 28 and ICRC 4.
const ROCE_HEADER_BYTES: u32 = 96;
/// The MTUs of an RDMA port.
const RDMA_MTUS_BYTES: [u32; 5] = [4096, 2048, 1024, 512, 256];

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    pub(crate) netdev: String,
    pub(crate) ip: IpAddr,
    pub(crate) prefix_len: u8,
}

/// The addresses of this node, without those that are good on one link or this node alone. None where the kernel does
/// not say: the log says why.
pub(crate) fn addresses() -> Vec<Address> {
    let found = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "addresses of network interfaces cannot be read");
        Vec::new()
    });
    let address = |interface: if_addrs::Interface| Address {
        prefix_len: match &interface.addr {
            if_addrs::IfAddr::V4(v4) => v4.prefixlen,
            if_addrs::IfAddr::V6(v6) => v6.prefixlen,
        },
        ip: interface.ip(),
        netdev: interface.name,
    };
    let useful = |one: &Address| one.netdev != "lo" && !one.ip.is_loopback() && is_routable(one.ip);
    let mut all: Vec<Address> = found.into_iter().map(address).filter(useful).collect();
    all.sort();
    all
}

/// Whether an address means the same on every link.
pub(crate) fn is_routable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => true,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}

/// The interfaces with these addresses, which are in order. `sys` is `/sys`.
pub(crate) fn netdevs(sys: &Path, addresses: &[Address]) -> Vec<v1::Netdev> {
    let mut all: Vec<v1::Netdev> = Vec::new();
    for one in addresses {
        let text = format!("{}/{}", one.ip, one.prefix_len);
        match all.last_mut().filter(|last| last.name == one.netdev) {
            Some(last) => last.addresses.push(text),
            None => all.push(v1::Netdev {
                addresses: vec![text],
                ..netdev(sys, &one.netdev)
            }),
        }
    }
    all
}

fn netdev(sys: &Path, name: &str) -> v1::Netdev {
    let read = |file: &str| {
        let text = fs::read_to_string(sys.join("class/net").join(name).join(file));
        text.unwrap_or_default().trim().to_owned()
    };
    let link = match (read("operstate").as_str(), read("carrier").as_str()) {
        ("up", _) | ("unknown", "1") => v1::LinkState::Up,
        ("down" | "lowerlayerdown" | "notpresent", _) => v1::LinkState::Down,
        _ => v1::LinkState::Unspecified,
    };
    // Mbit/s; -1, or nothing, where it is not known.
    let speed: u32 = read("speed").parse().unwrap_or_default();
    v1::Netdev {
        name: name.to_owned(),
        link: link.into(),
        speed_gbps: speed / 1000,
        mtu_bytes: read("mtu").parse().unwrap_or_default(),
        addresses: Vec::new(),
    }
}

/// The MTU that an RDMA port has on an interface with frames of that size, as the kernel derives it; 0: not known.
pub(crate) fn rdma_mtu_bytes(frame_bytes: u32) -> u32 {
    let room = frame_bytes.saturating_sub(ROCE_HEADER_BYTES);
    let fits = RDMA_MTUS_BYTES.into_iter().find(|mtu| *mtu <= room);
    fits.unwrap_or_default()
}

/// Says of a portal what it has of the node: the interface, or the RDMA device, with its address.
pub(crate) fn place(
    report: &mut v1::PortalReport,
    netdevs: &[v1::Netdev],
    devices: &[v1::RdmaDevice],
) {
    let Some(portal) = &report.portal else {
        return;
    };
    for netdev in netdevs {
        let prefix_of = |text: &String| {
            let (address, prefix) = text.split_once('/')?;
            (address == portal.address).then(|| prefix.parse().unwrap_or_default())
        };
        if let Some(prefix_len) = netdev.addresses.iter().find_map(prefix_of) {
            report.netdev.clone_from(&netdev.name);
            report.prefix_len = prefix_len;
            report.link = netdev.link;
            report.speed_gbps = netdev.speed_gbps;
            report.mtu_bytes = netdev.mtu_bytes;
        }
    }
    if portal.transport() != v1::Transport::Rdma {
        return;
    }
    let mut versions = Vec::new();
    for device in devices {
        for gid in device.gids.iter().filter(|g| g.address == portal.address) {
            versions.push(gid.r#type);
            report.rdma_device.clone_from(&device.name);
            report.link = device.link;
            report.speed_gbps = device.speed_gbps;
            report.mtu_bytes = device.mtu_bytes;
        }
    }
    versions.sort_unstable();
    versions.dedup();
    report.roce_versions = versions;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(netdev: &str, text: &str) -> Address {
        let (ip, prefix) = text.split_once('/').unwrap();
        Address {
            netdev: netdev.into(),
            ip: ip.parse().unwrap(),
            prefix_len: prefix.parse().unwrap(),
        }
    }

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join("class/net").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        root
    }

    #[test]
    fn interfaces_are_told_with_their_addresses() {
        let root = tree(&[
            ("eth0/operstate", "up"),
            ("eth0/speed", "25000"),
            ("eth0/mtu", "9000"),
            ("eth1/operstate", "lowerlayerdown"),
            ("eth1/speed", "-1"),
            ("tun0/operstate", "unknown"),
            ("tun0/carrier", "1"),
        ]);
        let addresses = [
            address("eth0", "10.0.0.7/24"),
            address("eth0", "2001:db8::7/64"),
            address("eth1", "10.0.1.7/16"),
            address("gone0", "10.0.2.7/8"),
            address("tun0", "10.0.3.7/32"),
        ];
        let told = netdevs(root.path(), &addresses);
        let told: Vec<_> = told
            .iter()
            .map(|n| (n.name.as_str(), n.link(), n.speed_gbps, n.mtu_bytes))
            .collect();
        let (up, down) = (v1::LinkState::Up, v1::LinkState::Down);
        assert_eq!(
            told,
            [
                ("eth0", up, 25, 9000),
                ("eth1", down, 0, 0),
                ("gone0", v1::LinkState::Unspecified, 0, 0),
                ("tun0", up, 0, 0),
            ]
        );
        let first = &netdevs(root.path(), &addresses)[0];
        assert_eq!(first.addresses, ["10.0.0.7/24", "2001:db8::7/64"]);
    }

    #[test]
    fn what_is_good_on_one_link_alone_is_not_told() {
        for (text, routable) in [
            ("10.0.0.1", true),
            ("2001:db8::1", true),
            ("fe80::1", false),
            ("febf::1", false),
        ] {
            assert_eq!(is_routable(text.parse().unwrap()), routable, "{text}");
        }
        assert!(addresses().iter().all(|one| is_routable(one.ip)));
    }

    #[test]
    fn mtus_are_those_of_the_kernel() {
        for (frame, rdma) in [
            (0, 0),
            (300, 0),
            (352, 256),
            (1500, 1024),
            (2300, 2048),
            (4191, 2048),
            (4192, 4096),
            (9000, 4096),
        ] {
            assert_eq!(rdma_mtu_bytes(frame), rdma, "{frame}");
        }
    }

    #[test]
    fn portals_are_told_with_where_they_are() {
        let netdevs = [v1::Netdev {
            name: "eth1".into(),
            link: v1::LinkState::Up.into(),
            speed_gbps: 100,
            mtu_bytes: 4500,
            addresses: vec!["10.7.0.1/24".into()],
        }];
        let gid = |r#type: v1::RoceVersion| v1::GidEntry {
            r#type: r#type.into(),
            address: "10.7.0.1".into(),
            prefix_len: 24,
        };
        let devices = [v1::RdmaDevice {
            name: "mlx5_0".into(),
            link: v1::LinkState::Down.into(),
            speed_gbps: 50,
            mtu_bytes: 4096,
            gids: vec![gid(v1::RoceVersion::V2), gid(v1::RoceVersion::V1)],
            ..v1::RdmaDevice::default()
        }];
        let told = |transport: v1::Transport, address: &str| {
            let mut report = v1::PortalReport {
                portal: Some(v1::Portal {
                    transport: transport.into(),
                    address: address.into(),
                    ..v1::Portal::default()
                }),
                ..v1::PortalReport::default()
            };
            place(&mut report, &netdevs, &devices);
            report
        };
        let tcp = told(v1::Transport::Tcp, "10.7.0.1");
        assert_eq!((tcp.netdev.as_str(), tcp.prefix_len), ("eth1", 24));
        assert_eq!((tcp.speed_gbps, tcp.mtu_bytes), (100, 4500));
        assert_eq!(
            (tcp.link(), tcp.rdma_device.as_str()),
            (v1::LinkState::Up, "")
        );
        let rdma = told(v1::Transport::Rdma, "10.7.0.1");
        assert_eq!((rdma.netdev.as_str(), rdma.prefix_len), ("eth1", 24));
        assert_eq!((rdma.speed_gbps, rdma.mtu_bytes), (50, 4096));
        assert_eq!(rdma.rdma_device, "mlx5_0");
        assert_eq!(rdma.link(), v1::LinkState::Down);
        let versions: Vec<_> = rdma.roce_versions().collect();
        assert_eq!(versions, [v1::RoceVersion::V1, v1::RoceVersion::V2]);
        let elsewhere = told(v1::Transport::Rdma, "10.7.0.2");
        assert_eq!(
            (elsewhere.netdev.as_str(), elsewhere.rdma_device.as_str()),
            ("", "")
        );
    }
}
