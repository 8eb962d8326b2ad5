//! The transport of attachments through the planner: what is recorded, what the nodes are told, and what moves.

#![allow(clippy::expect_used)] // the helpers of the tests are test code

mod world;

use roadstead_api::v1::{AnaState, PathState, Transport};
use roadstead_crds::condition::{PREFERRED, find, reason};
use roadstead_crds::transport::{Need, NetworkTransport, TransportChoice, TransportKind, Workload};
use roadstead_crds::{NVMeAttachmentStatus, NVMeNamespaceSpec, TransportPolicySpec};
use world::World;

/// Node b has the volume; with `rdma` all nodes have an RDMA device.
fn cluster(rdma: bool, f: impl FnOnce(&mut NVMeNamespaceSpec)) -> World {
    let mut w = World::new(&["a", "b", "c"]);
    if rdma {
        w.nodes.values_mut().for_each(|node| node.add_rdma());
    }
    w.add_target("tb", "b", &[200]);
    w.settle();
    w.add_volume_with("v", 50, f);
    w.settle();
    w
}

fn status(w: &World) -> NVMeAttachmentStatus {
    w.api.attachments["at"].status.clone().expect("a status")
}

fn transports(status: &NVMeAttachmentStatus) -> Vec<&str> {
    status.paths.iter().map(|p| p.transport.as_str()).collect()
}

/// Node c makes the device with these paths.
fn connect(w: &mut World, paths: &[(Transport, PathState, AnaState)]) {
    let uuid = w.api.namespaces["v"].metadata.uid.clone().expect("a uid");
    let node = w.nodes.get_mut("c").expect("c");
    node.devices.insert(uuid);
    node.paths = paths.to_vec();
    w.settle();
}

const TCP: (Transport, PathState, AnaState) =
    (Transport::Tcp, PathState::Live, AnaState::NonOptimized);
const RDMA: (Transport, PathState, AnaState) =
    (Transport::Rdma, PathState::Live, AnaState::Optimized);

#[test]
fn without_rdma_it_is_tcp_and_says_why() {
    let mut w = cluster(false, |v| v.workload = Workload::LowLatency);
    w.attach("at", "v", "c");
    w.settle();
    let s = status(&w);
    assert_eq!(s.chosen_transport, Some(TransportKind::Tcp));
    assert_eq!(s.policy.as_deref(), Some("default"));
    let why = s.reason.clone().expect("a reason");
    assert!(why.contains("RoCE rejected: c has no RDMA device"), "{why}");
    assert_eq!(transports(&s), ["tcp"]);
    let accepted: Vec<bool> = s.candidates.iter().map(|c| c.accepted).collect();
    assert_eq!(accepted, [true, false]);
    assert_eq!(s.transport, None, "nothing is connected yet");
    let chosen = w.events.iter().filter(|e| *e == reason::TRANSPORT_CHOSEN);
    assert_eq!(chosen.count(), 1);
    // The node is told the same.
    let told = &w.nodes["c"].desired.attachments;
    assert_eq!(
        (told.len(), told[0].id.as_str(), told[0].paths.len()),
        (1, "v", 1)
    );
}

#[test]
fn roce_by_name_waits_and_is_taken_when_it_comes() {
    let mut w = cluster(false, |v| v.transport = TransportChoice::Roce);
    w.attach("at", "v", "c");
    w.settle();
    let (ready, reason, message) = w.attachment_ready("at");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("False", reason::NO_TRANSPORT)
    );
    assert!(
        message.contains("RoCE rejected: c has no RDMA device"),
        "{message}"
    );
    let s = status(&w);
    assert_eq!((s.chosen_transport, s.paths.len()), (None, 0));
    w.nodes.values_mut().for_each(|node| node.add_rdma());
    w.settle();
    assert_eq!(w.attachment_ready("at").1, reason::ALLOWED);
    assert_eq!(transports(&status(&w)), ["rdma"]);
}

#[test]
fn with_rdma_the_workload_decides_and_the_target_is_told() {
    let mut w = cluster(true, |v| v.workload = Workload::LowLatency);
    let portals = |w: &World| w.nodes["b"].desired.portals.clone();
    assert_eq!(portals(&w).len(), 2);
    let status_portals = w.api.targets["tb"]
        .status
        .clone()
        .expect("a status")
        .portals;
    assert_eq!(status_portals.len(), 2, "found by themselves");
    w.attach("at", "v", "c");
    w.settle();
    let s = status(&w);
    assert_eq!(s.chosen_transport, Some(TransportKind::Roce));
    assert_eq!(transports(&s), ["rdma", "tcp"]);
    assert_eq!(
        s.paths.iter().map(|p| p.preference).collect::<Vec<_>>(),
        [0, 1]
    );
    // The volume is in the group for which the TCP portal is the second choice.
    let group = w.nodes["b"].desired.subsystems[0].namespaces[0].ana_group;
    let second = |t: Transport| {
        let portals = portals(&w);
        let portal = portals.iter().find(|p| p.transport() == t).cloned();
        portal
            .expect("a portal")
            .ana_groups
            .iter()
            .any(|g| g.group == group)
    };
    assert!(second(Transport::Tcp) && !second(Transport::Rdma));

    connect(&mut w, &[RDMA, TCP]);
    assert_eq!(status(&w).transport.as_deref(), Some("roce"));
}

#[test]
fn a_failover_shows_in_the_status_and_in_events() {
    let mut w = cluster(true, |v| v.workload = Workload::LowLatency);
    w.attach("at", "v", "c");
    w.settle();
    let preferred = |w: &World| {
        let conditions = status(w).conditions;
        find(&conditions, PREFERRED).map(|c| (c.status.clone(), c.reason.clone()))
    };
    assert_eq!(preferred(&w), None, "no device yet");
    connect(&mut w, &[RDMA, TCP]);
    assert_eq!(
        preferred(&w),
        Some(("True".into(), reason::AS_CHOSEN.into()))
    );
    let broken = (
        Transport::Rdma,
        PathState::Connecting,
        AnaState::Unspecified,
    );
    connect(&mut w, &[broken, TCP]);
    assert_eq!(
        preferred(&w),
        Some(("False".into(), reason::FAILED_OVER.into()))
    );
    let s = status(&w);
    assert_eq!(s.transport.as_deref(), Some("tcp"));
    assert_eq!(
        s.chosen_transport,
        Some(TransportKind::Roce),
        "it moves back by itself"
    );
    connect(&mut w, &[broken]);
    assert_eq!(
        preferred(&w),
        Some(("False".into(), reason::NO_LIVE_PATH.into()))
    );
    assert_eq!(status(&w).transport, None);
    connect(&mut w, &[RDMA, TCP]);
    assert_eq!(status(&w).transport.as_deref(), Some("roce"));
    let events: Vec<&str> = w
        .events
        .iter()
        .map(String::as_str)
        .filter(|e| [reason::AS_CHOSEN, reason::FAILED_OVER, reason::NO_LIVE_PATH].contains(e))
        .collect();
    assert_eq!(
        events,
        [reason::FAILED_OVER, reason::NO_LIVE_PATH, reason::AS_CHOSEN]
    );
}

/// A policy that prefers RoCE for every workload.
fn roce_first() -> TransportPolicySpec {
    let mut spec = TransportPolicySpec::default();
    for row in &mut spec.workloads {
        row.prefer = NetworkTransport::Roce;
    }
    spec
}

#[test]
fn a_changed_policy_moves_what_has_both_paths() {
    let mut w = cluster(true, |_| {});
    w.attach("at", "v", "c");
    w.settle();
    let tcp_first = (Transport::Tcp, PathState::Live, AnaState::Optimized);
    let rdma_second = (Transport::Rdma, PathState::Live, AnaState::NonOptimized);
    connect(&mut w, &[tcp_first, rdma_second]);
    assert_eq!(transports(&status(&w)), ["tcp", "rdma"]);
    w.api.create_policy("default", roce_first(), w.now);
    w.settle();
    let s = status(&w);
    assert_eq!(s.chosen_transport, Some(TransportKind::Roce));
    assert_eq!(transports(&s), ["rdma", "tcp"]);
    assert_eq!(s.superseded, None);
    assert!(w.events.iter().any(|e| e == reason::TRANSPORT_MOVED));
    let told = &w.nodes["c"].desired.attachments[0].paths;
    assert_eq!(told[0].transport(), Transport::Rdma);
}

#[test]
fn a_new_capability_is_for_new_attachments() {
    let mut w = cluster(false, |v| v.needs = vec![Need::MinimiseCpuLoad]);
    w.attach("at", "v", "c");
    w.settle();
    connect(
        &mut w,
        &[(Transport::Tcp, PathState::Live, AnaState::Optimized)],
    );
    w.nodes.values_mut().for_each(|node| node.add_rdma());
    w.settle();
    let s = status(&w);
    assert_eq!(s.chosen_transport, Some(TransportKind::Tcp));
    assert_eq!(transports(&s), ["tcp"]);
    let says = s.superseded.expect("it says so");
    assert!(says.contains("a new attachment would get RoCE"), "{says}");
    assert!(says.contains("stays with TCP"), "{says}");
    let events = w
        .events
        .iter()
        .filter(|e| *e == reason::TRANSPORT_SUPERSEDED);
    assert_eq!(events.count(), 1);
    assert_eq!(w.attachment_ready("at").1, reason::ALLOWED);
}

#[test]
fn a_policy_that_does_not_exist_is_not_replaced_by_another() {
    let mut w = cluster(false, |v| v.transport_policy = Some("mine".into()));
    w.attach("at", "v", "c");
    w.settle();
    let (ready, why, message) = w.attachment_ready("at");
    assert_eq!(
        (ready.as_str(), why.as_str()),
        ("False", reason::POLICY_NOT_FOUND)
    );
    assert!(message.contains("no TransportPolicy mine"), "{message}");
    w.api
        .create_policy("mine", TransportPolicySpec::default(), w.now);
    w.settle();
    assert_eq!(w.attachment_ready("at").1, reason::ALLOWED);
    assert_eq!(status(&w).policy.as_deref(), Some("mine"));
    let policy = w.api.policies["mine"].status.clone().expect("a status");
    assert!(
        policy.conditions[0]
            .message
            .contains("RoCE for high-performance, low-latency")
    );
}

#[test]
fn on_its_own_node_without_the_network_where_the_daemon_offers_it() {
    let mut w = cluster(true, |_| {});
    w.attach("at", "v", "b");
    w.settle();
    let s = status(&w);
    assert_eq!(s.chosen_transport, Some(TransportKind::Tcp));
    assert_eq!(
        s.candidates
            .iter()
            .filter(|c| c.transport == TransportKind::Local)
            .count(),
        1
    );
    let why = s.reason.expect("a reason");
    assert!(
        why.contains("local rejected: the dataplane of b does not offer it"),
        "{why}"
    );

    let mut w = cluster(true, |_| {});
    w.nodes.get_mut("b").expect("b").local_attach = true;
    w.attach("at", "v", "b");
    w.settle();
    let s = status(&w);
    assert_eq!(s.chosen_transport, Some(TransportKind::Local));
    assert_eq!(transports(&s), ["local"]);
    assert_eq!(w.attachment_ready("at").1, reason::ALLOWED);
}

#[test]
fn a_silent_node_is_not_said_to_use_anything() {
    let mut w = cluster(false, |_| {});
    w.attach("at", "v", "c");
    w.settle();
    connect(
        &mut w,
        &[(Transport::Tcp, PathState::Live, AnaState::Optimized)],
    );
    assert_eq!(status(&w).transport.as_deref(), Some("tcp"));
    w.nodes.get_mut("c").expect("c").daemon_up = false;
    w.settle();
    w.pass(20);
    w.settle();
    let s = status(&w);
    assert_eq!(s.transport, None);
    assert_eq!(s.paths[0].state, "Unknown");
    assert_eq!(s.chosen_transport, Some(TransportKind::Tcp));
}
