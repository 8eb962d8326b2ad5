//! Foreign appliances through the planner: what the nodes see becomes Targets, volumes and attachments, and nothing is
//! ever made or deleted.

#![allow(clippy::expect_used)] // the helpers of the tests are test code

mod world;

use roadstead_api::v1::{
    ExternalNamespace as Shown, ExternalPortal, ExternalSubsystem, HostKeys, Portal, PortalReach,
    Transport,
};
use roadstead_crds::condition::{DELETING, find, reason};
use roadstead_crds::transport::{TransportKind, Workload};
use roadstead_crds::{
    ExternalAddress, ExternalNamespace, ExternalSource, NVMeNamespaceStatus, SecretRef, TargetSpec,
};
use roadstead_nvme::dhchap::{Keys, Secret};
use roadstead_operator::plan::{Kind, plan};
use roadstead_operator::snapshot::{Credentials, HostIdentity};
use world::{MIB, World};

const NQN: &str = "nqn.2014-08.com.example:array";
const UUID: &str = "6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f31";
const NGUID: &str = "6f1c2b4e8a554f0e9a570d6e2d6f4f32";
const KEY: &str = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

fn portal(transport: Transport, last: u8, reach: PortalReach) -> ExternalPortal {
    ExternalPortal {
        portal: Some(Portal {
            transport: transport.into(),
            address: format!("192.0.2.{last}"),
            port: 4420,
            ..Portal::default()
        }),
        reach: reach.into(),
        message: match reach {
            PortalReach::Failed => "connection refused".into(),
            _ => String::new(),
        },
    }
}

fn shown(nsid: u32, uuid: &str, nguid: &str) -> Shown {
    Shown {
        nsid,
        uuid: uuid.into(),
        nguid: nguid.into(),
        size_bytes: 64 * MIB,
        block_size: 512,
        message: String::new(),
    }
}

/// A subsystem with two TCP portals and three namespaces: with a UUID, with an NGUID, and with neither.
fn subsystem() -> ExternalSubsystem {
    ExternalSubsystem {
        nqn: NQN.into(),
        portals: [1, 2]
            .map(|last| portal(Transport::Tcp, last, PortalReach::Reached))
            .into(),
        namespaces: vec![shown(1, UUID, NGUID), shown(2, "", NGUID), shown(3, "", "")],
        is_cut_off: false,
    }
}

fn spec(secret: Option<&str>) -> TargetSpec {
    let address = |last: u8| ExternalAddress {
        address: format!("192.0.2.{last}"),
        port: None,
        transport: "tcp".into(),
    };
    TargetSpec {
        external: Some(ExternalSource {
            nqn: Some(NQN.into()),
            portals: vec![address(1), address(2)],
            discovery: Vec::new(),
            secret_ref: secret.map(|name| SecretRef { name: name.into() }),
        }),
        ..TargetSpec::default()
    }
}

/// Three nodes that see the appliance as Target x.
fn cluster() -> World {
    let mut w = World::new(&["a", "b", "c"]);
    w.api.create_target_with("x", spec(None), w.now);
    show(&mut w, &[subsystem()]);
    w
}

/// What every node sees from now on.
fn show(w: &mut World, subsystems: &[ExternalSubsystem]) {
    for node in w.nodes.values_mut() {
        node.appliance = subsystems.to_vec();
    }
    w.settle();
}

fn bind(w: &mut World, name: &str, external: ExternalNamespace) {
    w.add_volume_with(name, 1, |spec| {
        spec.size = String::new();
        spec.target = Some("x".into());
        spec.external = Some(external);
    });
    w.settle();
}

fn by_uuid() -> ExternalNamespace {
    ExternalNamespace {
        uuid: Some(UUID.to_uppercase()),
        ..ExternalNamespace::default()
    }
}

fn by_nguid() -> ExternalNamespace {
    ExternalNamespace {
        nguid: Some(NGUID.into()),
        ..ExternalNamespace::default()
    }
}

fn by_nsid(nsid: u32) -> ExternalNamespace {
    ExternalNamespace {
        nsid: Some(nsid),
        ..ExternalNamespace::default()
    }
}

fn status(w: &World, name: &str) -> NVMeNamespaceStatus {
    w.api.namespaces[name].status.clone().expect("a status")
}

fn two((status, reason, _): (String, String, String)) -> (String, String) {
    (status, reason)
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn what_the_nodes_see_is_in_the_targets_status() {
    let mut w = cluster();
    let (ready, reason, message) = w.target_ready("x");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("True", reason::REACHABLE)
    );
    assert_eq!(message, "1 subsystem with 3 namespaces at 2 portals");
    let target = w.api.targets["x"].status.clone().expect("a status");
    assert_eq!((target.portals.len(), target.subsystems.len()), (2, 1));
    assert_eq!(target.subsystems[0].namespaces[0].uuid, UUID);
    assert_eq!(w.nodes["a"].desired.externals.len(), 1);
    assert!(w.nodes["a"].desired.portals.is_empty(), "nothing is served");

    // A portal goes: it is reached all the same. Node b sees nothing: it is named.
    let mut half = subsystem();
    half.portals[1] = portal(Transport::Tcp, 2, PortalReach::Failed);
    show(&mut w, &[half.clone()]);
    let (ready, reason, message) = w.target_ready("x");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("True", reason::PORTALS_DEGRADED)
    );
    assert!(
        message.contains("192.0.2.2:4420: connection refused"),
        "{message}"
    );
    show(&mut w, &[subsystem()]);
    let mut none = half.clone();
    none.portals[0] = portal(Transport::Tcp, 1, PortalReach::Failed);
    none.namespaces.clear();
    w.nodes.get_mut("b").expect("b").appliance = vec![none.clone()];
    w.settle();
    let (_, reason, message) = w.target_ready("x");
    assert_eq!(reason, reason::PORTALS_DEGRADED);
    assert!(message.contains("not reached by b"), "{message}");

    show(&mut w, &[none]);
    assert_eq!(two(w.target_ready("x")), is("False", reason::UNREACHABLE));
    show(&mut w, &[]);
    assert_eq!(two(w.target_ready("x")), is("False", reason::NO_SUBSYSTEM));
}

#[test]
fn a_namespace_is_bound_once_by_any_of_its_names_and_the_names_are_recorded() {
    let mut w = cluster();
    bind(&mut w, "u", by_uuid());
    bind(&mut w, "n", by_nsid(3));
    // Number 2 shares its NGUID with number 1: a name that is there twice names nothing.
    bind(&mut w, "g", by_nguid());
    assert_eq!(two(w.volume_ready("g")), is("False", reason::INVALID_SPEC));
    for name in ["u", "n"] {
        assert_eq!(two(w.volume_ready(name)), is("True", reason::ONLINE));
    }
    let u = status(&w, "u");
    assert_eq!(
        (u.nqn.as_deref(), u.nsid, u.uuid.as_deref()),
        (Some(NQN), Some(1), Some(UUID))
    );
    assert_eq!(
        (u.capacity_bytes, u.size.as_str(), u.block_size),
        (64 * MIB, "64Mi", 512)
    );
    assert_eq!((u.node, u.drive), (None, None));
    let n = status(&w, "n");
    assert_eq!((n.nsid, n.uuid, n.nguid), (Some(3), None, None));
    let target = w.api.targets["x"].status.clone().expect("a status");
    let bound = target.subsystems[0]
        .namespaces
        .iter()
        .map(|n| n.bound.as_str());
    assert_eq!(bound.collect::<Vec<_>>(), ["u", "", "n"]);

    bind(&mut w, "again", by_nsid(1));
    let (ready, reason, message) = w.volume_ready("again");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("False", reason::ALREADY_BOUND)
    );
    assert!(message.contains("NVMeNamespace u is"), "{message}");
    bind(&mut w, "none", by_nsid(9));
    assert_eq!(
        two(w.volume_ready("none")),
        is("False", reason::NOT_ON_APPLIANCE)
    );
    // No node was told to make anything.
    assert!(w.nodes.values().all(|node| node.desired.volumes.is_empty()));
    assert!(
        w.nodes
            .values()
            .all(|node| node.desired.subsystems.is_empty())
    );
}

#[test]
fn what_is_bound_is_followed_by_its_recorded_names() {
    let mut w = cluster();
    bind(&mut w, "u", by_nsid(1));
    bind(&mut w, "n", by_nsid(3));
    // The identifiers change places, and number 3 has a name now.
    let mut moved = subsystem();
    moved.namespaces = vec![
        shown(1, "6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4fff", ""),
        shown(3, "6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4ffe", ""),
        Shown {
            size_bytes: 128 * MIB,
            ..shown(7, UUID, NGUID)
        },
    ];
    show(&mut w, &[moved.clone()]);
    assert_eq!(two(w.volume_ready("u")), is("True", reason::ONLINE));
    let u = status(&w, "u");
    assert_eq!((u.capacity_bytes, u.size_bytes), (128 * MIB, 128 * MIB));
    assert_eq!(
        (u.nsid, u.uuid.as_deref()),
        (Some(1), Some(UUID)),
        "as recorded"
    );
    let (ready, reason, message) = w.volume_ready("n");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("False", reason::NOT_ON_APPLIANCE)
    );
    assert!(message.contains("it is another one"), "{message}");
    moved.namespaces.pop();
    show(&mut w, &[moved]);
    assert_eq!(
        two(w.volume_ready("u")),
        is("False", reason::NOT_ON_APPLIANCE)
    );
    show(&mut w, &[subsystem()]);
    let mut dark = subsystem();
    dark.namespaces.clear();
    dark.portals = vec![portal(Transport::Tcp, 1, PortalReach::Failed)];
    show(&mut w, &[dark]);
    let (ready, reason, message) = w.volume_ready("u");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("Unknown", reason::UNREACHABLE)
    );
    assert!(message.contains("connection refused"), "{message}");
}

#[test]
fn a_foreign_namespace_is_attached_over_the_appliances_portals_by_policy() {
    let mut w = cluster();
    w.nodes.get_mut("c").expect("c").add_rdma();
    let mut both = subsystem();
    both.portals
        .push(portal(Transport::Rdma, 3, PortalReach::Reached));
    show(&mut w, &[both]);
    w.add_volume_with("v", 1, |spec| {
        spec.size = String::new();
        spec.target = Some("x".into());
        spec.external = Some(by_uuid());
        spec.workload = Workload::LowLatency;
    });
    w.attach("v-b", "v", "b");
    w.attach("v-c", "v", "c");
    w.settle();
    for (name, chosen, ports) in [
        ("v-b", TransportKind::Tcp, 2),
        ("v-c", TransportKind::Roce, 3),
    ] {
        assert_eq!(
            two(w.attachment_ready(name)),
            is("True", reason::ALLOWED),
            "{name}"
        );
        let s = w.api.attachments[name].status.clone().expect("a status");
        assert_eq!(
            (s.chosen_transport, s.paths.len()),
            (Some(chosen), ports),
            "{s:?}"
        );
    }
    let told = &w.nodes["c"].desired.attachments;
    assert_eq!((told.len(), told[0].paths.len()), (1, 3));

    // The device is recognised by the namespace's UUID.
    w.nodes.get_mut("c").expect("c").devices.insert(UUID.into());
    w.settle();
    w.api.delete(Kind::Attachment, "v-c", w.now);
    w.settle();
    let s = w.api.attachments["v-c"].status.clone().expect("a status");
    let condition = find(&s.conditions, DELETING).expect("Deleting");
    assert_eq!(condition.reason, reason::WAITING_FOR_DETACH);
    w.nodes.get_mut("c").expect("c").devices.clear();
    w.settle();
    assert!(!w.api.attachments.contains_key("v-c"));
}

#[test]
fn a_node_that_is_down_is_not_taken_for_shut_out() {
    let mut w = cluster();
    bind(&mut w, "v", by_uuid());
    w.attach("v-b", "v", "b");
    w.settle();
    let node = w.nodes.get_mut("b").expect("b");
    (node.ready, node.daemon_up) = (false, false);
    w.api.delete(Kind::Attachment, "v-b", w.now);
    w.pass(3600);
    w.settle();
    let s = w.api.attachments["v-b"].status.clone().expect("a status");
    let condition = find(&s.conditions, DELETING).expect("Deleting");
    assert_eq!(condition.reason, reason::WAITING_FOR_NODE);
    assert!(
        condition.message.contains("out-of-service"),
        "{}",
        condition.message
    );
    w.nodes.get_mut("b").expect("b").out_of_service = true;
    w.settle();
    assert!(w.api.attachments.is_empty());
}

#[test]
fn deletion_waits_for_attachments_and_leaves_the_data() {
    let mut w = cluster();
    bind(&mut w, "v", by_uuid());
    w.attach("v-b", "v", "b");
    w.settle();
    w.api.delete(Kind::Target, "x", w.now);
    w.api.delete(Kind::Namespace, "v", w.now);
    w.settle();
    let deleting = |w: &World| {
        let condition = find(&status(w, "v").conditions, DELETING).cloned();
        condition.expect("Deleting").reason
    };
    assert_eq!(deleting(&w), reason::WAITING_FOR_ATTACHMENTS);
    let target = w.api.targets["x"].status.clone().expect("a status");
    let condition = find(&target.conditions, DELETING).expect("Deleting");
    assert_eq!(condition.reason, reason::WAITING_FOR_VOLUMES);
    w.api.delete(Kind::Attachment, "v-b", w.now);
    w.settle();
    assert!(w.api.namespaces.is_empty() && w.api.targets.is_empty());
    assert!(w.events.iter().any(|e| e == reason::LEFT_IN_PLACE));
}

#[test]
fn no_volume_is_made_on_an_appliance() {
    let mut w = cluster();
    w.add_volume_with("named", 50, |spec| spec.target = Some("x".into()));
    w.add_volume("any", 50);
    w.settle();
    let (ready, reason, message) = w.volume_ready("named");
    assert_eq!(
        (ready.as_str(), reason.as_str()),
        ("False", reason::INVALID_SPEC)
    );
    assert!(message.contains("foreign appliance"), "{message}");
    assert_eq!(two(w.volume_ready("any")), is("False", reason::NO_TARGET));
    // Nor is a drive a place for what shall be on an appliance.
    w.add_target("ta", "a", &[100]);
    w.settle();
    assert_eq!(two(w.volume_ready("any")), is("True", reason::ONLINE));
    w.add_volume_with("odd", 1, |spec| {
        spec.size = String::new();
        spec.target = Some("ta".into());
        spec.external = Some(by_uuid());
    });
    w.settle();
    let (_, reason, message) = w.volume_ready("odd");
    assert_eq!(reason, reason::INVALID_SPEC);
    assert!(message.contains("Target ta is no appliance"), "{message}");
}

#[test]
fn whom_the_nodes_are_comes_from_a_secret_and_stays_out_of_the_objects() {
    let mut w = cluster();
    w.api.create_target_with("y", spec(Some("s")), w.now);
    w.settle();
    assert_eq!(
        two(w.target_ready("y")),
        is("False", reason::SECRET_NOT_FOUND)
    );
    assert_eq!(
        w.nodes["a"].desired.externals.len(),
        1,
        "nobody knows whom to be"
    );
    let mut credentials = |host| {
        let new = Credentials { host };
        w.credentials.insert("s".into(), new.into());
        w.settle();
        (w.target_ready("y"), w.nodes["a"].desired.externals.clone())
    };
    let (ready, told) = credentials(Err("it has no hostId".into()));
    assert_eq!(ready.1, reason::INVALID_SECRET);
    assert!(ready.2.contains("Secret s: it has no hostId") && told.len() == 1);
    let nqn = "nqn.2014-08.com.example:secret";
    let (ready, told) = credentials(Ok(HostIdentity {
        nqn: nqn.into(),
        id: UUID.into(),
        keys: Some(Keys {
            host: Secret::parse(KEY).expect("a key"),
            controller: None,
        }),
    }));
    assert_eq!(two(ready), is("True", reason::REACHABLE));
    let keys = HostKeys {
        host: KEY.into(),
        controller: String::new(),
    };
    assert_eq!(told[1].keys, Some(keys));
    assert_eq!(
        (told[1].name.as_str(), told[1].host_nqn.as_str()),
        ("y", nqn)
    );
    let objects = format!("{:?}", plan(&w.snapshot()).writes) + &format!("{:?}", w.api.targets);
    assert!(!objects.contains(nqn) && !objects.contains("DHHC"));
    assert!(!format!("{:?}", w.snapshot()).contains("DHHC"));
}

#[test]
fn a_few_nodes_look_and_those_that_use_it() {
    let names: Vec<String> = (0..20).map(|n| format!("n{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut w = World::new(&names);
    w.api.create_target_with("x", spec(None), w.now);
    show(&mut w, &[subsystem()]);
    let lookers = |w: &World| {
        let nodes = w
            .nodes
            .iter()
            .filter(|(_, n)| !n.desired.externals.is_empty());
        nodes.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(lookers(&w), names[..8]);
    w.nodes.get_mut("n00").expect("n00").daemon_up = false;
    bind(&mut w, "v", by_uuid());
    w.attach("at", "v", "n19");
    w.settle();
    assert_eq!(two(w.attachment_ready("at")), is("True", reason::ALLOWED));
    assert!(lookers(&w).ends_with(&["n08".into(), "n19".into()]));
}
