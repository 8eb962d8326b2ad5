//! Every combination of what two ends can do.

use roadstead_crds::transport::{Need, NetworkTransport, TransportChoice, Workload};
use roadstead_operator::policy::{Link, Method, RoceVersion};

use crate::{Case, address, everything, rdma_port};

type Break = fn(&mut Case);

/// Each way in which RoCE can be missing, and the sentence.
const BREAKS: [(&str, Break); 12] = [
    ("node-b has no RDMA device", |c| c.host.ports.clear()),
    ("node-a has no RDMA device", |c| {
        c.target.ports.clear();
        c.target.portals.truncate(1);
    }),
    ("the dataplane of node-b does not offer RDMA", |c| {
        c.host.rdma = false
    }),
    ("mlx5_0 of node-b: the link is down", |c| {
        c.host.ports[0].link = Link::Down
    }),
    ("mlx5_0 of node-b: no GID", |c| {
        c.host.ports[0].problem = Some("no GID".into())
    }),
    ("node-a has an RDMA device, but no RDMA portal", |c| {
        c.target.portals.truncate(1)
    }),
    ("mlx5_0 of node-a: the link is down", |c| {
        c.target.portals.truncate(1);
        c.target.ports[0].link = Link::Down;
    }),
    (
        "portal 10.0.0.1:4420 of node-a does not listen: address in use",
        |c| {
            c.target.portals[1].listening = false;
            c.target.portals[1].problem = "address in use".into();
        },
    ),
    ("the link of portal 10.0.0.1:4420 of node-a is down", |c| {
        c.target.portals[1].link = Link::Down;
    }),
    (
        "no GID of node-b has a type that portal 10.0.0.1:4420 of node-a has",
        |c| {
            c.target.portals[1].versions = vec![RoceVersion::V1];
        },
    ),
    (
        "the RDMA MTU between node-b and node-a is 512, less than 1024",
        |c| {
            c.host.ports[0].mtu_bytes = 512;
        },
    ),
    (
        "both ends have RoCE v1 only, and node-b is not in the subnet of 10.0.0.1",
        |c| {
            c.host.ports = vec![rdma_port(RoceVersion::V1, 2)];
            c.host.ports[0].gids[0].address = [10, 0, 1, 2].into();
            c.target.portals[1].versions = vec![RoceVersion::V1];
        },
    ),
];

#[test]
fn each_reason_against_roce() {
    for (says, break_it) in BREAKS {
        let mut case = everything().needs(&[Need::MinimiseCpuLoad]);
        break_it(&mut case);
        assert_eq!(case.outcome(), "tcp", "{says}");
        let whole = format!("RoCE rejected: {says}");
        assert!(case.why().contains(&whole), "{says}: {}", case.why());
        let strict = case.asks(TransportChoice::Roce, None);
        assert!(strict.outcome().starts_with("pending"), "{says}");
        assert!(strict.why().contains(&whole), "{says}: {}", strict.why());
    }
}

#[test]
fn every_pair_of_reasons_is_pending_or_tcp_and_says_one() {
    for (one, first) in BREAKS {
        for (other, second) in BREAKS {
            let mut case = everything().workload(Workload::LowLatency);
            second(&mut case);
            // Some write to what the other removed.
            if case.host.ports.is_empty()
                || case.target.portals.len() < 2
                || case.target.ports.is_empty()
            {
                continue;
            }
            first(&mut case);
            assert_eq!(case.outcome(), "tcp", "{one} and {other}");
            assert!(case.why().contains("RoCE rejected: "), "{}", case.why());
        }
    }
}

#[test]
fn every_combination_of_transports() {
    for bits in 0..16_u8 {
        let on = |bit: u8| bits >> bit & 1 == 1;
        let mut case = everything().workload(Workload::HighPerformance);
        case.host.tcp = on(0);
        case.host.rdma = on(1);
        case.target.portals.retain(|p| match p.key.transport {
            NetworkTransport::Tcp => on(2),
            NetworkTransport::Roce => on(3),
        });
        let (tcp, roce) = (on(0) && on(2), on(1) && on(3));
        let outcome = case.outcome();
        match (roce, tcp) {
            (true, true) => assert_eq!(outcome, "roce, tcp"),
            (true, false) => assert_eq!(outcome, "roce"),
            (false, true) => assert_eq!(outcome, "tcp"),
            (false, false) => assert!(outcome.starts_with("pending: "), "{outcome}"),
        }
    }
}

#[test]
fn roce_v1_within_a_subnet_and_v2_before_it() {
    let mut v1 = everything().workload(Workload::LowLatency);
    v1.host.ports = vec![rdma_port(RoceVersion::V1, 2)];
    v1.target.portals[1].versions = vec![RoceVersion::V1, RoceVersion::V2];
    assert_eq!(v1.outcome(), "roce, tcp");
    assert!(v1.reasons().contains("(RoCE v1)"), "{}", v1.reasons());
    let mut both = v1.clone();
    both.host.ports.push(rdma_port(RoceVersion::V2, 3));
    assert!(both.reasons().contains("(RoCE v2)"), "{}", both.reasons());
    let mut unknown = v1;
    unknown.host.ports[0].gids[0].prefix_len = 0;
    assert_eq!(unknown.outcome(), "tcp");
    let mut sixes = everything().workload(Workload::LowLatency);
    sixes.host.ports[0].gids[0].address = [0xfd00, 0, 0, 0, 0, 0, 0, 2].into();
    assert_eq!(sixes.outcome(), "tcp", "another address family");
}

#[test]
fn the_way_to_make_the_device() {
    let method = |case: &Case| case.decide().outcome.map(|choice| choice.method);
    let mut case = everything().workload(Workload::LowLatency);
    assert_eq!(method(&case), Ok(Method::Kernel));
    case.host.kernel_rdma = false;
    assert_eq!(method(&case), Ok(Method::Fuse));
    assert_eq!(case.outcome(), "roce, tcp");
    case.host.methods = vec![Method::Kernel];
    assert_eq!(case.outcome(), "tcp");
    assert!(case.why().contains("can use RoCE"), "{}", case.why());
    case.host.methods.clear();
    assert!(
        case.why()
            .contains("node-b has no way to make a block device"),
        "{}",
        case.why()
    );
    let mut spare = everything();
    spare.host.kernel_rdma = false;
    assert_eq!(
        spare.outcome(),
        "tcp",
        "the kernel makes the device and cannot have the spare path"
    );
    assert!(
        spare.reasons().contains("has no nvme_rdma"),
        "{}",
        spare.reasons()
    );
}

#[test]
fn several_portals_of_one_transport_share_the_load() {
    let mut case = everything();
    let mut second = case.target.portals[0].clone();
    second.key.address = address(9);
    case.target.portals.push(second);
    assert_eq!(case.outcome(), "tcp, tcp, roce");
    let choice = case.decide().outcome.expect("a choice");
    let preferences: Vec<u32> = choice.paths.iter().map(|p| p.preference).collect();
    assert_eq!(preferences, [0, 0, 1]);
}
