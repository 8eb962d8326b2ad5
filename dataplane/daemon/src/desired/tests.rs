//! What is refused, and in which words.

use super::*;

fn volume(uuid: &str) -> v1::Volume {
    v1::Volume {
        uuid: uuid.to_owned(),
        name: "data".to_owned(),
        drive: "d".to_owned(),
        size_bytes: 1 << 20,
        block_size: 4096,
        absent: false,
    }
}

const A: &str = "9d1c1a3e-55a4-4f9b-8d9e-3b0a4f0a7c11";

fn messages(state: &v1::NodeState) -> Vec<String> {
    parse(state)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_volume_that_must_go_needs_neither_size_nor_block_size() {
    let gone = v1::Volume {
        absent: true,
        size_bytes: 0,
        block_size: 0,
        ..volume(A)
    };
    let state = v1::NodeState {
        volumes: vec![gone],
        ..Default::default()
    };
    assert!(parse(&state).unwrap().volumes[0].absent);
}

#[test]
fn everything_wrong_is_named_at_once() {
    let state = v1::NodeState {
        drives: vec![v1::Drive {
            name: "d".into(),
            ..Default::default()
        }],
        volumes: vec![
            volume("x"),
            volume(A),
            volume(A),
            v1::Volume {
                block_size: 1024,
                ..volume("9d1c1a3e-55a4-4f9b-8d9e-3b0a4f0a7c12")
            },
        ],
        subsystems: vec![v1::Subsystem {
            nqn: "example".into(),
            ..Default::default()
        }],
        portals: vec![v1::Portal {
            transport: 1,
            address: "localhost".into(),
            port: 4420,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(
        messages(&state),
        [
            "drives[0].source: is missing".to_owned(),
            "volumes[0].uuid: 'x' is not a UUID".to_owned(),
            format!("volumes[2].uuid: another volume has the UUID {A} too"),
            "volumes[3].block_size: 1024 is not possible; write 512 or 4096".to_owned(),
            "subsystems[0].nqn: 'example' is not an NQN; write e.g. \
             nqn.2026-11.io.roadstead:example, at most 223 bytes"
                .to_owned(),
            "portals[0].address: 'localhost' is not an IP address; \
             0.0.0.0 and :: listen on all"
                .to_owned(),
        ]
    );
}

#[test]
fn a_volume_has_one_export() {
    let namespace = |nsid| v1::Namespace {
        nsid,
        volume_uuid: A.into(),
        ana_group: 0,
    };
    let state = v1::NodeState {
        subsystems: vec![v1::Subsystem {
            nqn: "nqn.2026-11.io.roadstead:a".into(),
            namespaces: vec![namespace(1), namespace(2)],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(
        messages(&state),
        [format!(
            "subsystems[0].namespaces[1].volume_uuid: volume {A} is exported twice"
        )]
    );
}

#[test]
fn portals_have_rules() {
    use roadstead_nvme::{AnaState, Portal};
    let portal = |port, state: v1::AnaState| v1::Portal {
        transport: 1,
        address: "10.0.0.1".into(),
        port,
        ana_state: state.into(),
        ..Default::default()
    };
    let lost = v1::Portal {
        ana_groups: vec![v1::AnaGroup {
            group: 3,
            state: v1::AnaState::Inaccessible.into(),
        }],
        ..portal(4421, v1::AnaState::NonOptimized)
    };
    let state = v1::NodeState {
        portals: vec![portal(4420, v1::AnaState::Optimized), lost.clone()],
        discovery: vec![portal(8009, v1::AnaState::Unspecified)],
        referrals: vec![portal(8010, v1::AnaState::Unspecified)],
        ..Default::default()
    };
    let desired = parse(&state).unwrap();
    let ports = desired.portals.iter().map(|spec| spec.address.port());
    assert_eq!(ports.collect::<Vec<_>>(), [4420, 4421, 8009]);
    let at = |port: u16| Portal::tcp(([10, 0, 0, 1], port).into());
    let states = AnaStates {
        others: AnaState::NonOptimized,
        groups: [(3, AnaState::Inaccessible)].into(),
    };
    assert_eq!(
        desired.rules,
        PortalRules {
            ana: [(at(4421), states)].into(),
            discovery_only: [at(8009)].into(),
            referrals: [at(8010)].into(),
        }
    );
    let bad = v1::NodeState {
        portals: vec![v1::Portal {
            ana_groups: vec![lost.ana_groups[0], lost.ana_groups[0]],
            ..lost.clone()
        }],
        discovery: vec![portal(4421, v1::AnaState::Unspecified)],
        referrals: vec![v1::Portal {
            address: "x".into(),
            ..lost.clone()
        }],
        subsystems: vec![v1::Subsystem {
            nqn: "nqn.2026-11.io.roadstead:a".into(),
            namespaces: vec![v1::Namespace {
                nsid: 1,
                volume_uuid: A.into(),
                ana_group: 129,
            }],
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(
        messages(&bad),
        [
            "subsystems[0].namespaces[0].ana_group: 129 is not an ANA group from 1 to 128",
            "portals[0].ana_groups: group 3 is there twice",
            "discovery[0].address: 10.0.0.1:4421 is given twice",
            "referrals[0].address: 'x' is not an IP address; 0.0.0.0 and :: listen on all",
        ]
    );
}

#[test]
fn nqns() {
    for good in [
        "nqn.2026-11.io.roadstead:example",
        "nqn.2014-08.org.nvmexpress:uuid:1",
    ] {
        assert!(nqn(good).is_ok(), "{good}");
    }
    let long = format!("nqn.2026-11.io.roadstead:{}", "x".repeat(223));
    for bad in [
        "",
        "nqn.",
        "nqn.2026-11.",
        "iqn.2026-11.io:x",
        "nqn.2026-11.a b",
        &long,
    ] {
        assert!(nqn(bad).is_err(), "{bad}");
    }
}

#[test]
fn attachments_have_paths_to_other_nodes() {
    let path = |transport: v1::Transport, address: &str| v1::Portal {
        transport: transport.into(),
        address: address.into(),
        port: 4420,
        ..Default::default()
    };
    let paths = |id: &str, paths: &[v1::Portal]| v1::AttachmentPaths {
        id: id.into(),
        paths: paths.to_vec(),
    };
    let tcp = path(v1::Transport::Tcp, "192.0.2.1");
    let rdma = path(v1::Transport::Rdma, "192.0.2.1");
    let local = path(v1::Transport::Local, "");
    let state = v1::NodeState {
        attachments: vec![
            paths("a", &[rdma.clone(), tcp.clone()]),
            paths("b", &[local]),
            paths("c", &[]),
        ],
        ..Default::default()
    };
    let wanted = parse(&state).unwrap().attachments;
    let shown: Vec<String> = wanted["a"].iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["rdma:192.0.2.1:4420", "192.0.2.1:4420"]);
    assert_eq!(wanted.len(), 1, "nothing is said of the others");
    let wrong = v1::NodeState {
        attachments: vec![
            paths("a", &[tcp.clone(), path(v1::Transport::Rdma, "::")]),
            paths("b", &vec![tcp; PATHS_MAX + 1]),
            paths("a", &[rdma]),
        ],
        ..Default::default()
    };
    assert_eq!(
        messages(&wrong),
        [
            "attachments[0].paths[1].address: :: is no address of an RDMA device; \
             name one for each device",
            "attachments[1].paths: 17 are more than 16",
            "attachments[2].id: another has the id 'a' too",
        ]
    );
}

#[test]
fn appliances_have_rules() {
    let portal = |address: &str| v1::Portal {
        transport: 1,
        address: address.into(),
        port: 4420,
        ..Default::default()
    };
    let nqn = "nqn.2014-08.com.example:array";
    let good = v1::External {
        name: "x".into(),
        nqn: nqn.into(),
        portals: vec![portal("192.0.2.1")],
        host_nqn: "nqn.2014-08.com.example:host".into(),
        host_id: A.into(),
        ..Default::default()
    };
    let discovery = v1::External {
        name: "y".into(),
        discovery: vec![portal("192.0.2.1")],
        ..Default::default()
    };
    let state = |externals: &[v1::External]| v1::NodeState {
        externals: externals.to_vec(),
        ..Default::default()
    };
    let parsed = parse(&state(&[good.clone(), discovery.clone()])).unwrap();
    assert_eq!(parsed.externals.len(), 2);
    assert_eq!(parsed.externals[0].host.as_ref().unwrap().id.to_string(), A);
    assert_eq!(parsed.externals[1].host, None);
    type Change = fn(&mut v1::External);
    let table: &[(Change, &str)] = &[
        (|e| e.name.clear(), "externals[0].name"),
        (|e| e.nqn.clear(), "externals[0].portals: discovery alone"),
        (
            |e| e.discovery = e.portals.clone(),
            "externals[0].portals: discovery alone",
        ),
        (
            |e| e.portals[0].address = "array".into(),
            "externals[0].portals: address: 'array'",
        ),
        (
            |e| e.host_id = "x".into(),
            "externals[0].host_id: cannot be used",
        ),
        (
            |e| e.host_nqn = "secret".into(),
            "externals[0].host_nqn: cannot be used",
        ),
        (
            |e| {
                e.keys = Some(v1::HostKeys {
                    host: "DHHC-1:00:secret:".into(),
                    controller: String::new(),
                });
            },
            "externals[0].keys: host: ",
        ),
    ];
    for (change, wanted) in table {
        let mut bad = good.clone();
        change(&mut bad);
        let said = messages(&state(&[bad])).join("; ");
        assert!(said.contains(wanted) && !said.contains("secret"), "{said}");
    }
    let twice = messages(&state(&[good.clone(), good]));
    assert_eq!(twice.len(), 1, "{twice:?}");
}
