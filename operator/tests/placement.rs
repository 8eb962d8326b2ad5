//! Where volumes go, and what is said when they go nowhere.

mod world;

use roadstead_crds::NVMeNamespaceSpec;
use roadstead_crds::condition::reason;
use roadstead_operator::plan::placement;
use world::World;

struct Row {
    name: &'static str,
    size_mib: u64,
    spec: fn(&mut NVMeNamespaceSpec),
    /// Target and drive, or the reason.
    expected: Result<(&'static str, &'static str), &'static str>,
}

#[test]
fn table() {
    let rows = [
        Row {
            name: "the most room",
            size_mib: 10,
            spec: |_| {},
            expected: Ok(("tb", "d1")),
        },
        Row {
            name: "by name",
            size_mib: 10,
            spec: |s| s.target = Some("ta".into()),
            expected: Ok(("ta", "d0")),
        },
        Row {
            name: "an allowed node",
            size_mib: 10,
            spec: |s| s.allowed_nodes = Some(vec!["c".into(), "a".into()]),
            expected: Ok(("ta", "d0")),
        },
        Row {
            name: "all of a drive",
            size_mib: 200,
            spec: |_| {},
            expected: Ok(("tb", "d1")),
        },
        Row {
            name: "more than a drive",
            size_mib: 201,
            spec: |_| {},
            expected: Err(reason::NO_ROOM),
        },
        Row {
            name: "no room on the named one",
            size_mib: 101,
            spec: |s| s.target = Some("ta".into()),
            expected: Err(reason::NO_ROOM),
        },
        Row {
            name: "an unknown Target",
            size_mib: 1,
            spec: |s| s.target = Some("tx".into()),
            expected: Err(reason::TARGET_NOT_FOUND),
        },
        Row {
            name: "nodes without a Target",
            size_mib: 1,
            spec: |s| s.allowed_nodes = Some(vec!["c".into()]),
            expected: Err(reason::NO_ALLOWED_NODE),
        },
        Row {
            name: "a Target on a node that is not allowed",
            size_mib: 1,
            spec: |s| {
                s.target = Some("ta".into());
                s.allowed_nodes = Some(vec!["b".into()]);
            },
            expected: Err(reason::NO_ALLOWED_NODE),
        },
        Row {
            name: "a Target whose drive is not there",
            size_mib: 1,
            spec: |s| s.target = Some("td".into()),
            expected: Err(reason::NO_TARGET),
        },
        Row {
            name: "nonsense as size",
            size_mib: 1,
            spec: |s| s.size = "1.5 GB".into(),
            expected: Err(reason::INVALID_SPEC),
        },
        Row {
            name: "no size",
            size_mib: 0,
            spec: |_| {},
            expected: Err(reason::INVALID_SPEC),
        },
        Row {
            name: "rounded up to a whole MiB, one too many",
            size_mib: 1,
            spec: |s| {
                s.size = "104857601".into();
                s.target = Some("ta".into());
            },
            expected: Err(reason::NO_ROOM),
        },
    ];
    for row in rows {
        let mut world = World::new(&["a", "b", "c", "d"]);
        world.add_target("ta", "a", &[100]);
        world.add_target("tb", "b", &[150, 200]);
        world.add_target("td", "d", &[500]);
        world.nodes.get_mut("d").expect("d").drives.clear();
        world.settle();
        world.add_volume_with("v", row.size_mib, row.spec);
        world.settle();
        let object = world.api.namespaces["v"].clone();
        let place = placement(&object).map(|p| (p.target, p.drive));
        let (_, why, message) = world.volume_ready("v");
        match row.expected {
            Ok(expected) => assert_eq!(place, Some(expected), "{}: {message}", row.name),
            Err(expected) => {
                assert_eq!(
                    (place, why.as_str()),
                    (None, expected),
                    "{}: {message}",
                    row.name
                );
                assert!(!message.is_empty(), "{}", row.name);
            }
        }
    }
}

#[test]
fn equal_room_goes_in_name_order_and_then_spreads() {
    let mut world = World::new(&["a", "b", "c"]);
    world.add_target("t1", "a", &[100]);
    world.add_target("t2", "b", &[100]);
    world.add_target("t3", "c", &[100]);
    world.settle();
    for i in 0..6 {
        world.add_volume(&format!("v{i}"), 10);
    }
    world.settle();
    let objects: Vec<_> = world.api.namespaces.values().cloned().collect();
    let targets: Vec<_> = objects
        .iter()
        .filter_map(|o| Some(placement(o)?.target))
        .collect();
    assert_eq!(targets, ["t1", "t2", "t3", "t1", "t2", "t3"]);
}

#[test]
fn a_stranger_on_the_drive_takes_room() {
    let mut world = World::new(&["a"]);
    world.add_target("ta", "a", &[100]);
    world.settle();
    let node = world.nodes.get_mut("a").expect("a");
    node.volumes.insert(
        "11111111-1111-4111-8111-111111111111".into(),
        world::Data {
            drive: "ta/d0".into(),
            size_bytes: 60 * world::MIB,
        },
    );
    world.add_volume("v", 50);
    world.settle();
    assert_eq!(world.volume_ready("v").1, reason::NO_ROOM);
}
