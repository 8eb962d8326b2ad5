//! Every row of the table, every workload, and what a volume may ask for.

use roadstead_crds::transport::{Fallback, Need, TransportChoice, Workload};

use crate::{everything, tcp_only};

/// The table of the documentation.
const TABLE: [(Need, bool, bool); 7] = [
    (Need::StandardDriverAndNic, true, false),
    (Need::DirectConnect, true, true),
    (Need::LatencyAsLocalSsd, false, true),
    (Need::MinimiseCpuLoad, false, true),
    (Need::ReplacesIscsi, true, false),
    (Need::ReplacesInfiniband, false, true),
    (Need::AlternativeToFc, true, true),
];

#[test]
fn each_row_where_both_ends_can_do_everything() {
    assert_eq!(TABLE.len(), Need::ALL.len());
    for (need, tcp, roce) in TABLE {
        let case = everything().needs(&[need]);
        let expected = match (tcp, roce) {
            (true, true) => "tcp, roce",
            (true, false) => "tcp",
            (false, true) => "roce, tcp",
            (false, false) => unreachable!("nothing fits {need}"),
        };
        assert_eq!(case.outcome(), expected, "{need}");
        let why = case.why();
        assert!(
            why.contains(&format!("it fits '{}'", need.title())),
            "{why}"
        );
        // A path that does not fit says so, whether it stands by or is rejected.
        let says = case
            .reasons()
            .contains(&format!("does not fit '{}'", need.title()));
        assert_eq!(says, !(tcp && roce), "{need}: {}", case.reasons());
    }
}

#[test]
fn each_row_where_there_is_no_rdma() {
    for (need, tcp, _) in TABLE {
        let case = tcp_only().needs(&[need]);
        assert_eq!(case.outcome(), "tcp", "{need}");
        let why = case.why();
        if tcp {
            assert!(why.starts_with("TCP: it fits"), "{need}: {why}");
        } else {
            // Never silently.
            assert!(why.contains("taken as the fallback"), "{need}: {why}");
            assert!(
                why.contains("RoCE rejected: node-b has no RDMA device"),
                "{need}: {why}"
            );
        }
        let strict = case.asks(TransportChoice::Auto, Some(Fallback::None));
        assert_eq!(strict.outcome().starts_with("pending"), !tcp, "{need}");
    }
}

#[test]
fn each_workload() {
    for (workload, order) in [
        (Workload::General, "tcp, roce"),
        (Workload::Capacity, "tcp, roce"),
        (Workload::HighPerformance, "roce, tcp"),
        (Workload::LowLatency, "roce, tcp"),
    ] {
        let case = everything().workload(workload);
        assert_eq!(case.outcome(), order);
        let prefers = format!("policy default prefers it for workload {workload}");
        assert!(case.why().contains(&prefers), "{}", case.why());
        let poor = tcp_only().workload(workload);
        assert_eq!(poor.outcome(), "tcp");
        let explained = poor
            .why()
            .contains("RoCE rejected: node-b has no RDMA device");
        assert_eq!(explained, order.starts_with("roce"), "{}", poor.why());
    }
    let mut unlisted = everything().workload(Workload::LowLatency);
    unlisted.policy.workloads.clear();
    assert_eq!(unlisted.outcome(), "tcp, roce");
}

#[test]
fn what_is_asked_for_by_name() {
    use Fallback::{None as Nothing, Tcp as ToTcp};
    use TransportChoice::{Auto, Roce, Tcp};
    let pending = "pending: no transport from node-b to node-a fits: ";
    for (choice, fallback, rich, poor) in [
        (Auto, None, "tcp, roce", "tcp"),
        (Auto, Some(Nothing), "tcp, roce", "tcp"),
        (Tcp, None, "tcp", "tcp"),
        (Roce, None, "roce", pending),
        (Roce, Some(Nothing), "roce", pending),
        (Roce, Some(ToTcp), "roce, tcp", "tcp"),
    ] {
        assert_eq!(
            everything().asks(choice, fallback).outcome(),
            rich,
            "{choice} {fallback:?}"
        );
        let got = tcp_only().asks(choice, fallback).outcome();
        match poor.starts_with("pending") {
            true => assert!(got.starts_with(poor), "{choice} {fallback:?}: {got}"),
            false => assert_eq!(got, poor, "{choice} {fallback:?}"),
        }
    }
    let why = tcp_only().asks(Roce, Some(ToTcp)).why();
    assert!(why.contains("the volume asks for transport roce"), "{why}");
    assert!(
        why.contains("RoCE rejected: node-b has no RDMA device"),
        "{why}"
    );
    let why = tcp_only().asks(Roce, None).why();
    assert!(
        why.contains("RoCE rejected: node-b has no RDMA device"),
        "{why}"
    );
}

#[test]
fn needs_that_contradict_each_other() {
    let both = [Need::StandardDriverAndNic, Need::LatencyAsLocalSsd];
    let case = everything().needs(&both);
    assert_eq!(case.outcome(), "tcp");
    assert!(
        case.why()
            .contains("does not fit 'latency as a local NVMe SSD'"),
        "{}",
        case.why()
    );
    assert!(
        case.why()
            .contains("does not fit 'standard driver and NIC'"),
        "{}",
        case.why()
    );
    let strict = case.asks(TransportChoice::Auto, Some(Fallback::None));
    assert!(
        strict.outcome().starts_with("pending"),
        "{}",
        strict.outcome()
    );
}

#[test]
fn the_table_is_data() {
    let mut case = everything().needs(&[Need::ReplacesIscsi]);
    for row in &mut case.policy.rows {
        (row.tcp, row.roce) = (false, true);
    }
    assert_eq!(case.outcome(), "roce, tcp");
    case.policy.rows.clear();
    assert_eq!(
        case.why(),
        "policy default has no row for replaces-iscsi, which the volume needs"
    );
}

#[test]
fn at_home_without_the_network() {
    let case = everything().at_home();
    assert_eq!(case.outcome(), "local");
    assert!(case.why().contains("no network between"), "{}", case.why());
    assert!(
        case.reasons().contains("TCP rejected: not needed"),
        "{}",
        case.reasons()
    );
    let choice = case.decide().outcome.expect("a choice");
    assert_eq!(choice.method.word(), "fuse", "the kernel has no such path");

    let mut old = everything().at_home();
    old.host.local = false;
    assert_eq!(old.outcome(), "tcp, roce");
    let says = "local rejected: the dataplane of node-a does not offer it";
    assert!(old.why().contains(says), "{}", old.why());

    let mut forbidden = everything().at_home();
    forbidden.policy.local = false;
    assert!(
        forbidden.why().contains("policy default has local: false"),
        "{}",
        forbidden.why()
    );

    let mut row = everything().at_home().needs(&[Need::DirectConnect]);
    row.policy.rows[1].local = false;
    assert!(
        row.why().contains("local rejected: policy default says"),
        "{}",
        row.why()
    );

    let named = everything().at_home().asks(TransportChoice::Tcp, None);
    assert_eq!(named.outcome(), "tcp");
    assert!(
        named
            .reasons()
            .contains("local rejected: the volume asks for transport tcp")
    );
}
