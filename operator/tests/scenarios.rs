//! The life of objects through the planner, against a model of the API and the nodes.

#![allow(clippy::expect_used)] // the helpers of the tests are test code

mod world;

use roadstead_crds::condition::{DELETING, find, reason};
use roadstead_crds::transport::TransportKind;
use roadstead_operator::plan::{Kind, placement, plan};
use world::{MIB, World};

/// Two nodes; node a has 100 MiB and node b 200 MiB.
fn cluster() -> World {
    let mut world = World::new(&["a", "b", "c"]);
    world.add_target("ta", "a", &[100]);
    world.add_target("tb", "b", &[200]);
    world.settle();
    world
}

fn ok(reason: &str) -> (String, String) {
    ("True".into(), reason.into())
}

fn not(reason: &str) -> (String, String) {
    ("False".into(), reason.into())
}

fn first_two((status, reason, _): (String, String, String)) -> (String, String) {
    (status, reason)
}

fn deleting(world: &World, name: &str) -> (String, String) {
    let status = world.api.namespaces[name].status.clone().expect("a status");
    let condition = find(&status.conditions, DELETING)
        .expect("Deleting")
        .clone();
    (condition.reason, condition.message)
}

#[test]
fn a_volume_is_placed_made_attached_and_removed() {
    let mut w = cluster();
    assert_eq!(first_two(w.target_ready("ta")), ok(reason::SERVING));
    w.add_volume("v", 50);
    w.settle();
    assert_eq!(first_two(w.volume_ready("v")), ok(reason::ONLINE));
    let object = w.api.namespaces["v"].clone();
    let place = placement(&object).expect("placed");
    assert_eq!(
        (place.target, place.node, place.size_bytes),
        ("tb", "b", 50 * MIB)
    );
    assert_eq!(place.uuid, object.metadata.uid.as_deref().expect("a uid"));

    w.attach("v-c", "v", "c");
    w.settle();
    assert_eq!(first_two(w.attachment_ready("v-c")), ok(reason::ALLOWED));
    let host = w.nodes["c"].host_nqn();
    assert!(w.nodes["b"].lets_in(place.uuid, &host));
    let status = w.api.attachments["v-c"].status.clone().expect("a status");
    assert_eq!(status.chosen_transport, Some(TransportKind::Tcp));
    assert_eq!(status.transport, None, "nothing is connected");
    assert_eq!(status.paths.len(), 1);

    // Deleted while attached: it waits, and says for whom.
    w.api.delete(Kind::Namespace, "v", w.now);
    w.settle();
    let (reason, message) = deleting(&w, "v");
    assert_eq!(reason, reason::WAITING_FOR_ATTACHMENTS);
    assert!(message.contains("v-c (node c)"), "{message}");
    assert_eq!(first_two(w.volume_ready("v")), ok(reason::ONLINE));
    assert!(w.nodes["b"].lets_in(place.uuid, &host));

    w.api.delete(Kind::Attachment, "v-c", w.now);
    w.settle();
    assert!(w.api.attachments.is_empty());
    assert!(w.api.namespaces.is_empty());
    assert!(w.nodes["b"].volumes.is_empty());
    assert!(w.events.iter().any(|e| e == reason::PLACED));
}

#[test]
fn the_room_of_a_deleted_volume_comes_back() {
    let mut w = cluster();
    w.add_volume("v", 180);
    w.settle();
    w.add_volume("w", 150);
    w.settle();
    assert_eq!(first_two(w.volume_ready("w")), not(reason::NO_ROOM));
    let (_, _, message) = w.volume_ready("w");
    assert!(
        message.contains("150Mi") && message.contains("100Mi"),
        "{message}"
    );
    w.api.delete(Kind::Namespace, "v", w.now);
    w.settle();
    assert_eq!(first_two(w.volume_ready("w")), ok(reason::ONLINE));
}

#[test]
fn a_device_in_use_holds_its_attachment() {
    let mut w = cluster();
    w.add_volume("v", 50);
    w.attach("v-c", "v", "c");
    w.settle();
    let uuid = w.api.namespaces["v"].metadata.uid.clone().expect("a uid");
    w.nodes
        .get_mut("c")
        .expect("c")
        .devices
        .insert(uuid.clone());
    w.settle();
    let status = w.api.attachments["v-c"].status.clone().expect("a status");
    assert_eq!(status.device.as_deref(), Some("/dev/loop0"));

    w.api.delete(Kind::Attachment, "v-c", w.now);
    w.settle();
    let status = w.api.attachments["v-c"].status.clone().expect("a status");
    let condition = find(&status.conditions, DELETING).expect("Deleting");
    assert_eq!(condition.reason, reason::WAITING_FOR_DETACH);

    // An operator that has just started knows nothing of the device: it must not shut the node out.
    w.pass(3600);
    w.restart_operator();
    let states = plan(&w.snapshot()).states;
    let hosts = &states["b"].subsystems[0].allowed_hosts;
    assert_eq!(*hosts, [w.nodes["c"].host_nqn()]);

    w.nodes.get_mut("c").expect("c").devices.clear();
    w.settle();
    assert!(w.api.attachments.is_empty());
    assert!(!w.nodes["b"].lets_in(&uuid, &w.nodes["c"].host_nqn()));
}

#[test]
fn a_node_that_is_down_is_shut_out() {
    let mut w = cluster();
    w.add_volume("v", 50);
    w.attach("v-c", "v", "c");
    w.settle();
    let uuid = w.api.namespaces["v"].metadata.uid.clone().expect("a uid");
    let node = w.nodes.get_mut("c").expect("c");
    node.devices.insert(uuid.clone());
    node.daemon_up = false;
    w.settle();
    w.api.delete(Kind::Attachment, "v-c", w.now);
    w.settle();
    // Its daemon is away, but the node is up: patience.
    assert_eq!(w.api.attachments.len(), 1);
    w.nodes.get_mut("c").expect("c").ready = false;
    // The target is away as well: nobody can shut the node out.
    w.nodes.get_mut("b").expect("b").daemon_up = false;
    w.settle();
    assert_eq!(w.api.attachments.len(), 1);
    w.nodes.get_mut("b").expect("b").daemon_up = true;
    // Told to shut the node out is not yet done.
    for _ in 0..3 {
        w.turn(usize::MAX);
        assert_eq!(w.api.attachments.len(), 1);
        assert!(w.nodes["b"].lets_in(&uuid, &w.nodes["c"].host_nqn()));
    }
    w.settle();
    assert!(w.api.attachments.is_empty());
    assert!(!w.nodes["b"].lets_in(&uuid, &w.nodes["c"].host_nqn()));
    assert_eq!(w.events.iter().filter(|e| *e == reason::FENCED).count(), 1);
}

#[test]
fn paths_stay_while_the_target_is_away() {
    let mut w = cluster();
    w.add_volume("v", 50);
    w.attach("v-c", "v", "c");
    w.settle();
    let uuid = w.api.namespaces["v"].metadata.uid.clone();
    let devices = &mut w.nodes.get_mut("c").expect("c").devices;
    devices.insert(uuid.expect("a uid"));
    w.settle();
    let paths = |w: &World| {
        let status = w.api.attachments["v-c"].status.clone().expect("a status");
        status.paths
    };
    let before = paths(&w);
    assert_eq!(before[0].address, w.nodes["b"].address);
    w.nodes.get_mut("b").expect("b").daemon_up = false;
    w.settle();
    w.pass(60);
    w.settle();
    assert_eq!(w.attachment_ready("v-c").1, reason::DATAPLANE_UNREACHABLE);
    assert_eq!(paths(&w), before);
}

#[test]
fn patience_with_a_silent_daemon_ends() {
    let mut w = cluster();
    w.add_volume("v", 50);
    w.attach("v-c", "v", "c");
    w.settle();
    w.nodes.get_mut("c").expect("c").daemon_up = false;
    w.settle();
    w.api.delete(Kind::Attachment, "v-c", w.now);
    w.settle();
    assert_eq!(w.api.attachments.len(), 1);
    let wake_at = plan(&w.snapshot()).wake_at.expect("a time");
    assert!(wake_at > w.now);
    w.pass(121);
    w.settle();
    assert!(w.api.attachments.is_empty());
}

#[test]
fn a_volume_on_a_node_that_is_gone_waits() {
    let mut w = cluster();
    w.add_volume("v", 150);
    w.settle();
    w.nodes.get_mut("b").expect("b").daemon_up = false;
    w.settle();
    // A short absence is not worth a word.
    assert_eq!(first_two(w.volume_ready("v")), ok(reason::ONLINE));
    w.pass(11);
    w.settle();
    let (status, reason, _) = w.volume_ready("v");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("Unknown", reason::DATAPLANE_UNREACHABLE)
    );
    assert_eq!(w.target_ready("tb").1, reason::DATAPLANE_UNREACHABLE);
    w.api.delete(Kind::Namespace, "v", w.now);
    w.settle();
    let (reason, message) = deleting(&w, "v");
    assert_eq!(reason, reason::REMOVING);
    assert!(
        message.contains("connection refused") && message.contains("by hand"),
        "{message}"
    );
    w.nodes.get_mut("b").expect("b").daemon_up = true;
    w.settle();
    assert!(w.api.namespaces.is_empty());
}

#[test]
fn a_new_attachment_does_not_revive_a_volume_that_is_being_removed() {
    let mut w = cluster();
    w.add_volume("v", 50);
    w.settle();
    w.nodes.get_mut("b").expect("b").daemon_up = false;
    w.api.delete(Kind::Namespace, "v", w.now);
    w.settle();
    w.attach("late", "v", "c");
    w.settle();
    assert_eq!(
        first_two(w.attachment_ready("late")),
        not(reason::NAMESPACE_DELETING)
    );
    w.nodes.get_mut("b").expect("b").daemon_up = true;
    w.settle();
    assert!(w.api.namespaces.is_empty());
    assert_eq!(
        first_two(w.attachment_ready("late")),
        not(reason::NAMESPACE_NOT_FOUND)
    );
    w.api.delete(Kind::Attachment, "late", w.now);
    w.settle();
    assert!(w.api.attachments.is_empty());
}

#[test]
fn a_target_with_volumes_waits() {
    let mut w = cluster();
    w.add_volume("v", 150);
    w.settle();
    w.api.delete(Kind::Target, "tb", w.now);
    w.settle();
    let status = w.api.targets["tb"].status.clone().expect("a status");
    let condition = find(&status.conditions, DELETING).expect("Deleting");
    assert_eq!(condition.reason, reason::WAITING_FOR_VOLUMES);
    assert!(condition.message.contains('v'));
    // Nothing new goes there, though there is room.
    w.add_volume_with("x", 40, |spec| spec.target = Some("tb".into()));
    w.settle();
    assert_eq!(first_two(w.volume_ready("x")), not(reason::NO_TARGET));
    w.api.delete(Kind::Namespace, "v", w.now);
    w.settle();
    assert!(!w.api.targets.contains_key("tb"));
    assert_eq!(
        first_two(w.volume_ready("x")),
        not(reason::TARGET_NOT_FOUND)
    );
}

#[test]
fn growth_is_granted_within_the_room() {
    let mut w = cluster();
    w.add_volume_with("v", 50, |spec| spec.target = Some("ta".into()));
    w.settle();
    w.api.edit_namespace("v", |spec| spec.size = "80Mi".into());
    w.settle();
    let status = w.api.namespaces["v"].status.clone().expect("a status");
    assert_eq!(
        (status.size_bytes, status.capacity_bytes),
        (80 * MIB, 80 * MIB)
    );
    w.api.edit_namespace("v", |spec| spec.size = "101Mi".into());
    w.settle();
    assert_eq!(first_two(w.volume_ready("v")), ok(reason::NO_ROOM_TO_GROW));
    let status = w.api.namespaces["v"].status.clone().expect("a status");
    assert_eq!(
        (status.size_bytes, status.capacity_bytes),
        (80 * MIB, 80 * MIB)
    );
}

#[test]
fn a_drive_that_goes_and_comes_back() {
    let mut w = cluster();
    w.add_volume("v", 150);
    w.settle();
    let node = w.nodes.get_mut("b").expect("b");
    let size = node.drives.remove("tb/d0").expect("a drive");
    w.settle();
    assert_eq!(
        first_two(w.target_ready("tb")),
        not(reason::NO_DRIVE_ONLINE)
    );
    assert!(
        w.target_ready("tb")
            .2
            .contains("d0: Missing: no such device")
    );
    assert_eq!(first_two(w.volume_ready("v")), not(reason::DRIVE_OFFLINE));
    w.nodes
        .get_mut("b")
        .expect("b")
        .drives
        .insert("tb/d0".into(), size);
    w.settle();
    assert_eq!(first_two(w.volume_ready("v")), ok(reason::ONLINE));
    // Taken out of the Target: the data stays, and comes back with the drive.
    let drives = w.api.targets["tb"].spec.drives.clone();
    w.api.edit_target("tb", |spec| spec.drives.clear());
    w.settle();
    assert_eq!(w.volume_ready("v").0, "False");
    assert!(
        w.volume_ready("v").2.contains("put it back"),
        "{}",
        w.volume_ready("v").2
    );
    assert_eq!(w.nodes["b"].volumes.len(), 1);
    w.api.edit_target("tb", |spec| spec.drives = drives);
    w.settle();
    assert_eq!(first_two(w.volume_ready("v")), ok(reason::ONLINE));
}

#[test]
fn a_target_without_its_node_says_so() {
    let mut w = cluster();
    w.api.create_target("lost", "nowhere", 1, w.now);
    w.settle();
    let (status, reason, message) = w.target_ready("lost");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("Unknown", reason::NODE_NOT_FOUND)
    );
    assert!(message.contains("nowhere"));
}

#[test]
fn every_reporting_node_has_a_host() {
    let w = cluster();
    let names: Vec<_> = w.api.hosts.keys().cloned().collect();
    assert_eq!(names, ["a", "b", "c"]);
    let status = w.api.hosts["a"].status.clone().expect("a status");
    assert_eq!(status.host_nqn, w.nodes["a"].host_nqn());
    assert_eq!(status.transports, ["tcp"]);
}

#[test]
fn a_new_operator_does_not_change_what_nodes_serve_or_objects_say() {
    let mut w = cluster();
    w.add_volume("v", 50);
    w.attach("v-c", "v", "c");
    w.settle();
    let states: Vec<_> = w.nodes.values().map(|n| n.desired.clone()).collect();
    w.restart_operator();
    let plan = plan(&w.snapshot());
    assert_eq!(plan.writes, []);
    assert_eq!(plan.states.into_values().collect::<Vec<_>>(), states);
    w.settle();
    assert_eq!(
        w.nodes
            .values()
            .map(|n| n.desired.clone())
            .collect::<Vec<_>>(),
        states
    );
}
