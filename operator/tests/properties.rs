//! What must hold whatever happens in whatever order, with the operator killed between any two writes and planning
//! from outdated snapshots.

#![allow(clippy::expect_used)] // the helpers of the test are test code

mod world;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use roadstead_crds::NVMeNamespace;
use roadstead_operator::plan::{Kind, is_removing, placement, plan};
use world::{MIB, World};

const NODES: [&str; 3] = ["a", "b", "c"];
const DRIVES: [(&str, &str, &[u64]); 2] = [("ta", "a", &[60, 40]), ("tb", "b", &[80])];

#[derive(Clone, Debug)]
enum Op {
    AddVolume(u8, u64),
    Grow(u8, u64),
    DeleteVolume(u8),
    Attach(u8, usize),
    Detach(u8, usize),
    /// The node makes a device, if it is let in.
    Use(u8, usize),
    Release(usize),
    DeleteTarget(bool),
    Daemon(usize, bool),
    NodeReady(usize, bool),
    Unplug(bool),
    Plug,
    Kill,
    Turn(usize),
    StaleTurn(usize),
    Work,
    Pass(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let volume = 0_u8..5;
    let node = 0_usize..3;
    prop_oneof![
        3 => (volume.clone(), 1_u64..50).prop_map(|(v, s)| Op::AddVolume(v, s)),
        1 => (volume.clone(), 1_u64..50).prop_map(|(v, s)| Op::Grow(v, s)),
        2 => volume.clone().prop_map(Op::DeleteVolume),
        3 => (volume.clone(), node.clone()).prop_map(|(v, n)| Op::Attach(v, n)),
        2 => (volume.clone(), node.clone()).prop_map(|(v, n)| Op::Detach(v, n)),
        3 => (volume, node.clone()).prop_map(|(v, n)| Op::Use(v, n)),
        1 => node.clone().prop_map(Op::Release),
        1 => any::<bool>().prop_map(Op::DeleteTarget),
        2 => (node.clone(), any::<bool>()).prop_map(|(n, up)| Op::Daemon(n, up)),
        1 => (node, any::<bool>()).prop_map(|(n, up)| Op::NodeReady(n, up)),
        1 => any::<bool>().prop_map(Op::Unplug),
        1 => Just(Op::Plug),
        1 => Just(Op::Kill),
        8 => (0_usize..6).prop_map(Op::Turn),
        6 => Just(Op::Work),
        1 => (1_i64..200).prop_map(Op::Pass),
    ]
}

/// Like [`op`], with a deposed operator that still writes.
fn op_with_rival() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => op(),
        1 => (0_usize..5).prop_map(Op::StaleTurn),
    ]
}

fn volume(v: u8) -> String {
    format!("v{v}")
}

fn attachment(v: u8, n: usize) -> String {
    format!("v{v}-{}", NODES[n])
}

fn uuid_of(w: &World, v: u8) -> Option<String> {
    w.api.namespaces.get(&volume(v))?.metadata.uid.clone()
}

/// A pod starts on the node: its device is made if the target lets the node in.
fn use_volume(w: &mut World, v: u8, n: usize) {
    let Some(uuid) = uuid_of(w, v) else { return };
    let host = w.nodes[NODES[n]].host_nqn();
    let let_in = w.nodes.values().any(|node| node.lets_in(&uuid, &host));
    // The CSI driver starts only on a live attachment.
    let attached = w
        .api
        .attachments
        .get(&attachment(v, n))
        .is_some_and(|a| a.metadata.deletion_timestamp.is_none());
    let node = w.nodes.get_mut(NODES[n]).expect("a node");
    if let_in && attached && node.daemon_up {
        node.devices.insert(uuid);
    }
}

fn unplug(w: &mut World, first: bool) {
    let drive = if first { "ta/d0" } else { "tb/d0" };
    for node in w.nodes.values_mut() {
        node.drives.remove(drive);
    }
}

fn plug(w: &mut World) {
    for (target, node, sizes) in DRIVES {
        for (i, size) in sizes.iter().enumerate() {
            let node = w.nodes.get_mut(node).expect("a node");
            node.drives.insert(format!("{target}/d{i}"), size * MIB);
        }
    }
}

fn perform(w: &mut World, op: &Op) {
    let now = w.now;
    match *op {
        Op::AddVolume(v, size) => w.add_volume(&volume(v), size),
        Op::Grow(v, more) => {
            let size = w
                .api
                .namespaces
                .get(&volume(v))
                .map(|n| n.spec.size.clone());
            let old: u64 = size
                .and_then(|s| s.trim_end_matches("Mi").parse().ok())
                .unwrap_or_default();
            w.api
                .edit_namespace(&volume(v), |spec| spec.size = format!("{}Mi", old + more));
        }
        Op::DeleteVolume(v) => w.api.delete(Kind::Namespace, &volume(v), now),
        Op::Attach(v, n) => w.attach(&attachment(v, n), &volume(v), NODES[n]),
        Op::Detach(v, n) => w.api.delete(Kind::Attachment, &attachment(v, n), now),
        Op::Use(v, n) => use_volume(w, v, n),
        Op::Release(n) => w.nodes.get_mut(NODES[n]).expect("a node").devices.clear(),
        Op::DeleteTarget(first) => w
            .api
            .delete(Kind::Target, if first { "ta" } else { "tb" }, now),
        Op::Daemon(n, up) => w.nodes.get_mut(NODES[n]).expect("a node").daemon_up = up,
        Op::NodeReady(n, up) => w.nodes.get_mut(NODES[n]).expect("a node").ready = up,
        Op::Unplug(first) => unplug(w, first),
        Op::Plug => plug(w),
        Op::Kill => w.restart_operator(),
        Op::Turn(writes) => {
            w.turn(writes);
        }
        Op::StaleTurn(age) => {
            w.stale_turn(age);
        }
        Op::Work => {
            w.work();
        }
        Op::Pass(seconds) => w.pass(seconds),
    }
}

/// Everything that was ever true and must stay so.
#[derive(Default)]
struct Memory {
    places: BTreeMap<String, (String, String, String)>,
}

fn check(w: &World, memory: &mut Memory, before: &Before) {
    // A placed volume does not move.
    for object in w.api.namespaces.values() {
        let uid = object.metadata.uid.clone().expect("a uid");
        let place = placement(object).map(|p| (p.target.into(), p.drive.into(), p.node.into()));
        match (memory.places.get(&uid), place) {
            (Some(old), now) => assert_eq!(Some(old), now.as_ref(), "a volume moved"),
            (None, Some(now)) => {
                memory.places.insert(uid, now);
            }
            (None, None) => {}
        }
    }
    // Data goes only when its object was deleted, the decision recorded, and no node had a device for it.
    for (uuid, node) in &before.data {
        if !w.nodes[node].volumes.contains_key(uuid) {
            let object = before.objects.get(uuid);
            assert!(object.is_none_or(is_removing), "data of a live volume went");
            for user in w.nodes.values().filter(|n| n.daemon_up && n.ready) {
                let attached = before
                    .attachments
                    .iter()
                    .any(|(_, u, n)| u == uuid && *n == user.name);
                assert!(
                    !attached || !user.devices.contains(uuid),
                    "data went while in use"
                );
            }
        }
    }
    // An attachment goes only when its node has no device any more, or is shut out.
    for (name, uuid, user) in &before.attachments {
        if !w.api.attachments.contains_key(name) && w.nodes[user].devices.contains(uuid) {
            let host = w.nodes[user].host_nqn();
            let open = w.nodes.values().any(|n| n.lets_in(uuid, &host));
            assert!(!open, "{name} went while in use and let in");
        }
    }
    // An object goes only when its data is gone.
    let now: BTreeSet<&String> = w
        .api
        .namespaces
        .values()
        .filter_map(|n| n.metadata.uid.as_ref())
        .collect();
    for uuid in before.objects.keys().filter(|uuid| !now.contains(uuid)) {
        for node in w.nodes.values() {
            assert!(
                !node.volumes.contains_key(uuid),
                "an object went before its data"
            );
        }
    }
}

fn no_overcommit(w: &World) {
    let mut granted: BTreeMap<String, u64> = BTreeMap::new();
    for object in w.api.namespaces.values() {
        if let Some(place) = placement(object) {
            *granted
                .entry(format!("{}/{}", place.target, place.drive))
                .or_default() += place.size_bytes;
        }
    }
    for (target, _, sizes) in DRIVES {
        for (i, size) in sizes.iter().enumerate() {
            let granted = granted
                .get(&format!("{target}/d{i}"))
                .copied()
                .unwrap_or_default();
            assert!(
                granted <= size * MIB,
                "more was granted on {target}/d{i} than it has"
            );
        }
    }
}

/// What the check of a step needs of the world before it.
struct Before {
    data: Vec<(String, String)>,
    objects: BTreeMap<String, NVMeNamespace>,
    /// Name, volume UUID and node of every attachment.
    attachments: Vec<(String, String, String)>,
}

fn remember(w: &World) -> Before {
    let objects: BTreeMap<String, NVMeNamespace> = w
        .api
        .namespaces
        .values()
        .map(|o| (o.metadata.uid.clone().expect("a uid"), o.as_ref().clone()))
        .collect();
    let data = w.nodes.iter();
    Before {
        data: data
            .flat_map(|(name, node)| {
                node.volumes
                    .keys()
                    .map(move |uuid| (uuid.clone(), name.clone()))
            })
            .collect(),
        attachments: w
            .api
            .attachments
            .iter()
            .filter_map(|(name, a)| {
                let volume = w.api.namespaces.get(&a.spec.namespace)?;
                Some((
                    name.clone(),
                    volume.metadata.uid.clone()?,
                    a.spec.node.clone(),
                ))
            })
            .collect(),
        objects,
    }
}

fn small_world() -> World {
    let mut w = World::new(&NODES);
    for (target, node, sizes) in DRIVES {
        w.add_target(target, node, sizes);
    }
    w
}

/// Performs `ops`, checking every step, and lets everything come right in the end.
fn run(ops: &[Op], rival: bool) {
    let mut w = small_world();
    let mut memory = Memory::default();
    for op in ops {
        let before = remember(&w);
        perform(&mut w, op);
        check(&w, &mut memory, &before);
        if !rival {
            no_overcommit(&w);
        }
        let snapshot = w.snapshot();
        assert_eq!(plan(&snapshot), plan(&snapshot));
    }
    // Everything works again, and pods stop where their attachments go.
    plug(&mut w);
    for node in w.nodes.values_mut() {
        node.daemon_up = true;
        node.ready = true;
        node.devices.clear();
    }
    w.pass(1);
    w.connect();
    loop {
        let before = remember(&w);
        let done = w.turn(usize::MAX);
        check(&w, &mut memory, &before);
        let before = remember(&w);
        let worked = w.work();
        check(&w, &mut memory, &before);
        if done == 0 && !worked {
            break;
        }
    }
    for attachment in w.api.attachments.values() {
        assert!(attachment.metadata.deletion_timestamp.is_none());
    }
    for (name, object) in &w.api.namespaces {
        let held = w
            .api
            .attachments
            .values()
            .any(|a| a.spec.namespace == *name);
        let deleted = object.metadata.deletion_timestamp.is_some();
        // A rival may have placed it on a Target that was just going: its data waits for a person.
        let lost =
            rival && placement(object).is_some_and(|p| !w.api.targets.contains_key(p.target));
        assert!(!deleted || held || lost, "{name} stays");
        // Two operators at once may grant the same room twice; the node refuses the second one.
        if let Some(place) = placement(object).filter(|_| !rival) {
            assert_eq!(w.volume_ready(name).0, "True", "{name}");
            assert!(w.nodes[place.node].volumes.contains_key(place.uuid));
        }
    }
    // A settled cluster stays as it is under a new operator.
    w.restart_operator();
    assert_eq!(plan(&w.snapshot()).writes, []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_and_all_comes_right(ops in prop::collection::vec(op(), 1..80)) {
        run(&ops, false);
    }

    #[test]
    fn a_deposed_operator_does_no_harm(ops in prop::collection::vec(op_with_rival(), 1..80)) {
        run(&ops, true);
    }
}
