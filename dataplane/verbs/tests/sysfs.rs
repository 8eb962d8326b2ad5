//! Devices as the kernel's files describe them, on made-up trees.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]

use std::net::IpAddr;
use std::path::Path;

use roadstead_verbs::{GidType, LinkLayer, PortState, VerbsError, devices_in};

fn file(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, format!("{text}\n")).unwrap();
}

fn gid(root: &Path, port: &str, index: usize, raw: &str, kind: &str, netdev: &str) {
    file(root, &format!("{port}/gids/{index}"), raw);
    file(root, &format!("{port}/gid_attrs/types/{index}"), kind);
    file(root, &format!("{port}/gid_attrs/ndevs/{index}"), netdev);
}

/// A RoCE card with an address of each kind, as a ConnectX shows itself.
fn ethernet(root: &Path) {
    file(root, "mlx5_0/node_guid", "b859:9f03:00d1:2a30");
    let port = "mlx5_0/ports/1";
    file(root, &format!("{port}/state"), "4: ACTIVE");
    file(root, &format!("{port}/link_layer"), "Ethernet");
    file(root, &format!("{port}/rate"), "100 Gb/sec (4X EDR)");
    let (local, mapped) = (
        "fe80:0000:0000:0000:ba59:9fff:fed1:2a30",
        "0000:0000:0000:0000:0000:ffff:0a01:0203",
    );
    gid(root, port, 0, local, "IB/RoCE v1", "ens1f0");
    gid(root, port, 1, local, "RoCE v2", "ens1f0");
    gid(root, port, 2, mapped, "IB/RoCE v1", "ens1f0");
    gid(root, port, 3, mapped, "RoCE v2", "ens1f0");
    gid(root, port, 10, mapped, "RoCE v2", "ens1f0.7");
    file(
        root,
        &format!("{port}/gids/4"),
        "0000:0000:0000:0000:0000:0000:0000:0000",
    );
}

#[test]
fn a_roce_card_is_described() {
    let root = tempfile::tempdir().unwrap();
    ethernet(root.path());
    let devices = devices_in(root.path()).unwrap();
    let [device] = devices.as_slice() else {
        panic!("{devices:?}");
    };
    assert_eq!(device.name, "mlx5_0");
    assert_eq!(device.node_guid, "b859:9f03:00d1:2a30");
    let [port] = device.ports.as_slice() else {
        panic!("{device:?}");
    };
    assert_eq!((port.number, port.state), (1, PortState::Active));
    assert!(port.is_active());
    assert_eq!(port.link_layer, LinkLayer::Ethernet);
    assert_eq!(port.gbit_per_second, 100);
    assert_eq!(port.netdevs, ["ens1f0", "ens1f0.7"]);
    let indices: Vec<_> = port.gids.iter().map(|gid| gid.index).collect();
    assert_eq!(indices, [0, 1, 2, 3, 10], "unused entries are none");
    let ips: Vec<_> = port.gids.iter().map(|gid| gid.ip()).collect();
    let (v4, v6): (IpAddr, IpAddr) = (
        "10.1.2.3".parse().unwrap(),
        "fe80::ba59:9fff:fed1:2a30".parse().unwrap(),
    );
    assert_eq!(ips, [None, Some(v6), None, Some(v4), Some(v4)]);
    assert_eq!(port.addresses(), [v4, v6]);
    assert_eq!(port.gids[0].kind, GidType::InfiniBandOrRoceV1);
    assert_eq!(port.gids[0].raw[..2], [0xfe, 0x80]);
}

#[test]
fn states_layers_and_rates_are_understood() {
    let table = [
        (
            "1: DOWN",
            PortState::Down,
            "InfiniBand",
            LinkLayer::InfiniBand,
            "2.5 Gb/sec (1X SDR)",
            2,
        ),
        (
            "2: INIT",
            PortState::Init,
            "Ethernet",
            LinkLayer::Ethernet,
            "400 Gb/sec (4X NDR)",
            400,
        ),
        (
            "3: ARMED",
            PortState::Armed,
            "Ethernet",
            LinkLayer::Ethernet,
            "25 Gb/sec (1X EDR)",
            25,
        ),
        (
            "5: ACTIVE_DEFER",
            PortState::ActiveDefer,
            "Unknown",
            LinkLayer::Unknown,
            "",
            0,
        ),
        (
            "9: LATER",
            PortState::Unknown,
            "Later",
            LinkLayer::Unknown,
            "fast",
            0,
        ),
        (
            "nonsense",
            PortState::Unknown,
            "",
            LinkLayer::Unknown,
            "-3 Gb/sec",
            0,
        ),
    ];
    for (state_text, state, layer_text, layer, rate_text, rate) in table {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        file(root, "d/node_guid", "1:2:3:4");
        file(root, "d/ports/1/state", state_text);
        file(root, "d/ports/1/link_layer", layer_text);
        file(root, "d/ports/1/rate", rate_text);
        file(root, "d/ports/1/gids/0", "no address");
        let port = devices_in(root).unwrap().remove(0).ports.remove(0);
        assert_eq!(port.state, state, "{state_text}");
        assert_eq!(port.link_layer, layer, "{layer_text}");
        assert_eq!(port.gbit_per_second, rate, "{rate_text}");
        assert!(port.gids.is_empty());
        assert_eq!(port.is_active(), state_text.starts_with('5'));
    }
}

#[test]
fn several_devices_and_ports_come_in_order() {
    let root = tempfile::tempdir().unwrap();
    for device in ["rxe_b", "rxe_a"] {
        file(root.path(), &format!("{device}/node_guid"), "1:2:3:4");
        for port in ["10", "2", "1", "not-a-port"] {
            file(
                root.path(),
                &format!("{device}/ports/{port}/state"),
                "4: ACTIVE",
            );
        }
    }
    let devices = devices_in(root.path()).unwrap();
    let names: Vec<_> = devices.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(names, ["rxe_a", "rxe_b"]);
    let ports: Vec<_> = devices[0].ports.iter().map(|port| port.number).collect();
    assert_eq!(ports, [1, 2, 10]);
}

#[test]
fn no_rdma_is_no_device_and_what_cannot_be_read_is_said() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(devices_in(&root.path().join("missing")).unwrap(), []);
    assert_eq!(devices_in(root.path()).unwrap(), []);
    // What goes while it is looked at: a name without its files.
    std::fs::create_dir(root.path().join("gone")).unwrap();
    assert_eq!(devices_in(root.path()).unwrap(), []);
    std::fs::create_dir_all(root.path().join("odd/node_guid")).unwrap();
    let error = devices_in(root.path()).unwrap_err();
    assert!(matches!(error, VerbsError::Sysfs { .. }));
    assert!(error.to_string().contains("odd/node_guid"), "{error}");
}
