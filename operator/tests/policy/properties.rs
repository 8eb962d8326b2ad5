//! Properties over random worlds.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use roadstead_crds::transport::{
    Fallback, Need, NetworkTransport, TransportChoice, TransportKind, Workload,
};
use roadstead_operator::policy::*;

use crate::{Case, address, everything, now, portal, rdma_port};

fn rdma_ports(last: u8) -> impl Strategy<Value = Vec<RdmaPort>> {
    let version = select(vec![RoceVersion::V1, RoceVersion::V2]);
    let link = select(vec![Link::Up, Link::Down, Link::Unknown]);
    let mtu = select(vec![0_u32, 512, 1024, 4096]);
    let port = (version, link, mtu, any::<bool>()).prop_map(move |(version, link, mtu, near)| {
        let mut port = rdma_port(version, last);
        port.link = link;
        port.mtu_bytes = mtu;
        if !near {
            port.gids[0].address = [10, 0, 7, last].into();
        }
        port
    });
    vec(port, 0..3)
}

fn portals() -> impl Strategy<Value = Vec<Portal>> {
    let transport = select(NetworkTransport::ALL.to_vec());
    let versions = subsequence(vec![RoceVersion::V1, RoceVersion::V2], 0..=2);
    let one = (transport, versions, any::<bool>(), 1..4_u8);
    let one = one.prop_map(|(transport, versions, listening, last)| {
        let mut portal = portal(transport);
        portal.versions = versions;
        portal.listening = listening;
        portal.key.address = address(last);
        portal
    });
    vec(one, 0..4).prop_map(|mut all| {
        all.sort_by_key(|p| p.key);
        all.dedup_by_key(|p| p.key);
        all
    })
}

fn needs() -> impl Strategy<Value = Needs> {
    (
        select(TransportChoice::ALL.to_vec()),
        proptest::option::of(select(Fallback::ALL.to_vec())),
        select(Workload::ALL.to_vec()),
        btree_set(select(Need::ALL.to_vec()), 0..4),
    )
        .prop_map(|(transport, fallback, workload, rows)| Needs {
            transport,
            fallback,
            workload,
            rows,
        })
}

fn cases() -> impl Strategy<Value = Case> {
    let methods = subsequence(
        vec![Method::Kernel, Method::Ublk, Method::Nbd, Method::Fuse],
        0..=4,
    );
    let flags = any::<[bool; 6]>();
    (
        needs(),
        flags,
        methods,
        rdma_ports(2),
        rdma_ports(1),
        portals(),
    )
        .prop_map(
            |(needs, flags, methods, host_ports, target_ports, portals)| {
                let mut case = everything();
                let [tcp, rdma, local, kernel_rdma, home, policy_local] = flags;
                case.needs = needs;
                case.policy.local = policy_local;
                case.host.tcp = tcp;
                case.host.rdma = rdma;
                case.host.local = local;
                case.host.kernel_rdma = kernel_rdma;
                case.host.methods = methods;
                case.host.ports = host_ports;
                case.target.ports = target_ports;
                case.target.portals = portals;
                if home { case.at_home() } else { case }
            },
        )
}

/// How good a decision is: smaller is better.
fn badness(case: &Case) -> (bool, bool, u8) {
    let prefers_roce = matches!(
        case.needs.workload,
        Workload::HighPerformance | Workload::LowLatency
    );
    match case.decide().outcome {
        Err(_) => (true, true, 9),
        Ok(choice) => {
            let rank = match choice.transport {
                TransportKind::Local => 0,
                TransportKind::Roce => u8::from(!prefers_roce) + 1,
                TransportKind::Tcp => u8::from(prefers_roce) + 1,
            };
            (false, choice.last_resort, rank)
        }
    }
}

/// Ways to be able to do more.
const GAINS: [fn(&mut Case); 8] = [
    |c| c.host.tcp = true,
    |c| c.host.rdma = true,
    |c| c.host.local = true,
    |c| c.host.kernel_rdma = true,
    |c| c.host.methods.push(Method::Fuse),
    |c| c.host.ports.push(rdma_port(RoceVersion::V2, 2)),
    |c| c.target.portals.push(portal(NetworkTransport::Roce)),
    |c| {
        for port in &mut c.host.ports {
            port.mtu_bytes = 4096;
            port.link = Link::Up;
        }
    },
];

proptest! {
    #[test]
    fn more_capability_never_makes_it_worse(case in cases(), gain in select(GAINS.to_vec())) {
        let mut more = case.clone();
        gain(&mut more);
        prop_assert!(badness(&more) <= badness(&case), "{:?}\n{:?}", case.decide(), more.decide());
    }

    #[test]
    fn the_same_input_gives_the_same_output(case in cases()) {
        prop_assert_eq!(case.decide(), case.clone().decide());
    }

    #[test]
    fn nothing_excluded_is_chosen_and_everything_has_a_reason(case in cases()) {
        let decision = case.decide();
        for candidate in &decision.candidates {
            let title = candidate.transport.title();
            let word = if candidate.accepted { "accepted: " } else { "rejected: " };
            prop_assert!(candidate.reason.starts_with(&format!("{title} {word}")), "{}", candidate.reason);
            prop_assert!(candidate.reason.len() < 600);
        }
        let accepted = decision.candidates.iter().filter(|c| c.accepted);
        let Ok(choice) = &decision.outcome else {
            prop_assert_eq!(accepted.count(), 0);
            return Ok(());
        };
        // The paths are the accepted portals, in this order.
        let portals: Vec<PathKey> = accepted.filter_map(|c| c.portal).collect();
        prop_assert_eq!(&portals, &choice.paths.iter().map(|p| p.key).collect::<Vec<_>>());
        prop_assert!(choice.paths.is_sorted_by_key(|p| p.preference));
        let uses = |t: NetworkTransport| choice.paths.iter().any(|p| p.key.transport == t);
        let strict = case.needs.fallback() == Fallback::None;
        match case.needs.transport {
            TransportChoice::Tcp => prop_assert!(!uses(NetworkTransport::Roce)),
            TransportChoice::Roce if strict => prop_assert!(!uses(NetworkTransport::Tcp)),
            TransportChoice::Auto | TransportChoice::Roce => {}
        }
        if case.needs.transport != TransportChoice::Auto || !case.policy.local {
            prop_assert!(choice.transport != TransportKind::Local);
        }
        for need in &case.needs.rows {
            let row = case.policy.rows.iter().find(|r| r.need == *need).expect("a row");
            prop_assert!(row.roce || !uses(NetworkTransport::Roce), "{need}");
            prop_assert!(row.tcp || !strict || !uses(NetworkTransport::Tcp), "{need}");
        }
        prop_assert!(choice.last_resort == choice.reason.contains("taken as the fallback"));
    }

    #[test]
    fn time_alone_lets_a_broken_path_come_back(case in cases(), seconds in 0..1000_i64) {
        let mut broken = case.clone();
        for portal in &case.target.portals {
            let failed_at = now().checked_sub(k8s_openapi::jiff::SignedDuration::from_secs(seconds)).ok();
            broken.measured.insert(portal.key, Measured { failed_at, ..Measured::default() });
        }
        // All broke at once: the order among them is what it was.
        let paths = |case: &Case| case.decide().outcome.map(|c| (c.transport, c.paths)).ok();
        prop_assert_eq!(paths(&broken), paths(&case));
    }
}
