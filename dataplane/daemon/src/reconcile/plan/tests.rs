//! Tables for the rules, and a random walk that every sequence of states must end well.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::desired::Hosts;

fn uuid(n: u8) -> Uuid {
    Uuid::from_u128(u128::from(n) + 1)
}

fn drive(name: &str) -> DriveSpec {
    let source = Source::Memory {
        size_bytes: 1 << 30,
    };
    DriveSpec {
        name: name.into(),
        owner: "o".into(),
        source,
        force: false,
    }
}

fn volume(n: u8, drive: &str) -> VolumeSpec {
    VolumeSpec {
        uuid: uuid(n),
        name: format!("v{n}"),
        drive: drive.into(),
        size_bytes: 1 << 20,
        block_size: 4096,
        absent: false,
    }
}

fn subsystem(n: u8) -> SubsystemSpec {
    SubsystemSpec {
        nqn: format!("nqn.2026-11.io.roadstead:{n}"),
        serial: "s".into(),
        namespaces: BTreeMap::from([(1, uuid(n))]),
        ana_groups: BTreeMap::new(),
        hosts: Hosts::Any,
    }
}

/// `subsystem(n)` as hosts see it, with its volume on this drive.
fn export(n: u8, drive: &str) -> Export {
    let spec = subsystem(n);
    let shown = Shown {
        drive: drive.into(),
        uuid: uuid(n),
    };
    Export {
        nqn: spec.nqn,
        serial: spec.serial,
        hosts: spec.hosts,
        namespaces: BTreeMap::from([(1, shown)]),
        ana_groups: spec.ana_groups,
    }
}

fn portal(port: u16) -> Portal {
    Portal::tcp(([127, 0, 0, 1], port).into())
}

/// One drive, one volume, one subsystem, one portal.
fn wanted() -> Desired {
    Desired {
        attachments: BTreeMap::new(),
        externals: Vec::new(),
        revision: "1".into(),
        drives: vec![drive("d")],
        volumes: vec![volume(0, "d")],
        subsystems: vec![subsystem(0)],
        portals: vec![portal(4420)],
        rules: PortalRules::default(),
    }
}

/// What the rim would do, on paper.
fn act(observed: &mut Observed, action: &Action) {
    match action.clone() {
        Action::Unlisten(portal) => drop(observed.portals.remove(&portal)),
        Action::Listen(portal) => drop(observed.portals.insert(portal)),
        Action::SetRules(rules) => observed.rules = rules,
        Action::Unexport(nqn) => drop(observed.subsystems.remove(&nqn)),
        Action::Export(spec) => drop(observed.subsystems.insert(spec.nqn.clone(), spec)),
        Action::CloseDrive(name) => {
            let open = observed.drives.remove(&name).expect("it is open");
            for uuid in open.volumes.keys() {
                assert!(
                    !is_shown(observed, &name, uuid),
                    "a drive is closed under a connection"
                );
            }
        }
        Action::OpenDrive(spec) => {
            let open = OpenDrive {
                spec: spec.clone(),
                volumes: BTreeMap::new(),
                gone: false,
            };
            assert!(observed.drives.insert(spec.name, open).is_none());
        }
        Action::GrowDrive { drive, size_bytes } => {
            let open = observed.drives.get_mut(&drive).expect("it is open");
            let Source::File {
                size_bytes: now, ..
            } = &mut open.spec.source
            else {
                panic!("only files grow");
            };
            assert!(*now < size_bytes);
            *now = size_bytes;
        }
        Action::DeleteVolume { drive, uuid } => {
            assert!(
                !is_shown(observed, &drive, &uuid),
                "a volume is deleted under a connection"
            );
            let open = observed.drives.get_mut(&drive).expect("it is open");
            open.volumes.remove(&uuid).expect("it exists");
        }
        Action::CreateVolume(spec) => {
            let open = observed.drives.get_mut(&spec.drive).expect("it is open");
            let now = VolumeNow {
                name: spec.name,
                size_bytes: spec.size_bytes,
                block_size: spec.block_size,
            };
            assert!(open.volumes.insert(spec.uuid, now).is_none());
        }
        Action::GrowVolume {
            drive,
            uuid,
            size_bytes,
        } => {
            let open = observed.drives.get_mut(&drive).expect("it is open");
            let now = open.volumes.get_mut(&uuid).expect("it exists");
            assert!(now.size_bytes < size_bytes);
            now.size_bytes = size_bytes;
        }
    }
}

fn is_shown(observed: &Observed, drive: &str, uuid: &Uuid) -> bool {
    let mut shown = observed
        .subsystems
        .values()
        .flat_map(|export| export.namespaces.values());
    shown.any(|shown| shown.drive == drive && shown.uuid == *uuid)
}

/// Acts until nothing is planned any more.
fn settle(observed: &mut Observed, desired: &Desired) {
    for _ in 0..1000 {
        let Some(action) = plan(observed, desired).into_iter().next() else {
            return;
        };
        act(observed, &action);
    }
    panic!("it never ends");
}

fn settled(desired: &Desired) -> Observed {
    let mut observed = Observed::default();
    settle(&mut observed, desired);
    observed
}

#[test]
fn from_nothing_to_serving() {
    let observed = settled(&wanted());
    assert_eq!(observed.drives["d"].volumes.len(), 1);
    assert_eq!(observed.subsystems[&subsystem(0).nqn], export(0, "d"));
    assert!(observed.portals.contains(&portal(4420)));
    assert_eq!(plan(&observed, &wanted()), []);
}

#[test]
fn nothing_is_lost_by_being_missing() {
    let mut observed = settled(&wanted());
    let without = Desired {
        volumes: vec![],
        subsystems: vec![],
        ..wanted()
    };
    settle(&mut observed, &without);
    assert!(observed.drives["d"].volumes.contains_key(&uuid(0)));
    assert!(observed.subsystems.is_empty());
}

#[test]
fn a_volume_is_deleted_after_its_subsystem_is_gone() {
    let observed = settled(&wanted());
    let mut without = Desired {
        subsystems: vec![],
        ..wanted()
    };
    without.volumes[0].absent = true;
    assert_eq!(
        plan(&observed, &without),
        [Action::Unexport(subsystem(0).nqn)]
    );
    let mut after = observed.clone();
    settle(&mut after, &without);
    assert!(after.drives["d"].volumes.is_empty());
}

#[test]
fn a_volume_that_is_still_wanted_by_a_subsystem_is_kept() {
    let observed = settled(&wanted());
    let mut both = wanted();
    both.volumes[0].absent = true;
    assert_eq!(plan(&observed, &both), []);
    let refused = refusal(&observed, &both, &both.volumes[0]).unwrap();
    assert_eq!(refused.reason(), "InUse");
}

#[test]
fn refusals() {
    let observed = settled(&wanted());
    let cases = [
        (
            VolumeSpec {
                size_bytes: 1 << 19,
                ..volume(0, "d")
            },
            "ShrinkRefused",
        ),
        (
            VolumeSpec {
                block_size: 512,
                ..volume(0, "d")
            },
            "BlockSizeRefused",
        ),
        (
            VolumeSpec {
                drive: "e".into(),
                ..volume(0, "d")
            },
            "OnOtherDrive",
        ),
    ];
    for (spec, reason) in cases {
        let mut desired = wanted();
        desired.drives.push(drive("e"));
        desired.volumes = vec![spec.clone()];
        assert_eq!(
            refusal(&observed, &desired, &spec).unwrap().reason(),
            reason
        );
        let mut after = observed.clone();
        settle(&mut after, &desired);
        assert_eq!(
            after.drives["d"], observed.drives["d"],
            "{reason}: nothing changes"
        );
        assert_eq!(
            after.subsystems, observed.subsystems,
            "{reason}: it is served as it is"
        );
    }
}

#[test]
fn a_volume_grows_without_an_interruption() {
    let observed = settled(&wanted());
    let mut larger = wanted();
    larger.volumes[0].size_bytes = 1 << 21;
    let grow = Action::GrowVolume {
        drive: "d".into(),
        uuid: uuid(0),
        size_bytes: 1 << 21,
    };
    assert_eq!(plan(&observed, &larger), [grow]);
}

#[test]
fn a_drive_that_is_gone_is_looked_for_while_its_volumes_stay_exported() {
    let mut observed = settled(&wanted());
    observed.drives.get_mut("d").unwrap().gone = true;
    let mut larger = wanted();
    larger.volumes[0].size_bytes = 1 << 21;
    assert_eq!(plan(&observed, &larger), [Action::OpenDrive(drive("d"))]);
    let without = Desired {
        drives: vec![],
        ..wanted()
    };
    assert_eq!(
        plan(&observed, &without),
        [Action::Unexport(subsystem(0).nqn)],
        "nobody wants it any more"
    );
}

#[test]
fn of_two_copies_the_one_on_the_named_drive_is_served() {
    let mut observed = settled(&wanted());
    let copy = observed.drives["d"].volumes.clone();
    let mut both = wanted();
    both.drives.push(drive("a"));
    settle(&mut observed, &both);
    observed.drives.get_mut("a").unwrap().volumes = copy;
    assert_eq!(plan(&observed, &both), [], "the other one is left alone");
    both.drives.remove(0);
    settle(&mut observed, &both);
    assert_eq!(observed.subsystems[&subsystem(0).nqn], export(0, "a"));
    assert!(!observed.drives.contains_key("d"));
}

#[test]
fn a_change_of_force_or_of_sizes_does_not_cut_connections() {
    let file = |size_bytes| Source::File {
        path: "/f".into(),
        size_bytes,
    };
    let mut desired = wanted();
    desired.drives[0].source = file(1 << 30);
    let observed = settled(&desired);
    desired.drives[0].force = true;
    assert_eq!(plan(&observed, &desired), []);
    desired.drives[0].source = file(1 << 29);
    assert_eq!(plan(&observed, &desired), [], "files never shrink");
    desired.drives[0].source = file(1 << 31);
    let grow = Action::GrowDrive {
        drive: "d".into(),
        size_bytes: 1 << 31,
    };
    assert_eq!(plan(&observed, &desired), [grow]);

    let observed = settled(&wanted());
    let mut larger = wanted();
    larger.drives[0].source = Source::Memory {
        size_bytes: 1 << 31,
    };
    assert_eq!(plan(&observed, &larger), [], "memory would be lost");
}

#[test]
fn a_subsystem_keeps_the_namespaces_whose_drives_are_there() {
    let mut desired = wanted();
    desired.drives.push(drive("e"));
    desired.volumes.push(volume(1, "e"));
    desired.subsystems[0].namespaces.insert(2, uuid(1));
    let observed = settled(&desired);
    desired.drives.pop();
    assert_eq!(plan(&observed, &desired), [Action::Export(export(0, "d"))]);
}

fn any_desired() -> impl Strategy<Value = Desired> {
    let one = (0..6u8, 0..3u8, 1..4u64, any::<bool>(), any::<bool>());
    let volumes = prop::collection::vec(one, 0..6);
    let drives = prop::collection::btree_set(0..3u8, 0..4);
    let subsystems = prop::collection::btree_map(0..4u8, (0..6u8, 0..6u8), 0..4);
    let portals = prop::collection::btree_set(4420..4423u16, 0..3);
    (drives, volumes, subsystems, portals).prop_map(|(drives, volumes, subsystems, portals)| {
        let mut seen = BTreeSet::new();
        let mut exported = BTreeSet::new();
        Desired {
            attachments: BTreeMap::new(),
            externals: Vec::new(),
            revision: String::new(),
            drives: drives.iter().map(|n| drive(&format!("d{n}"))).collect(),
            volumes: volumes
                .into_iter()
                .filter(|(n, ..)| seen.insert(*n))
                .map(|(n, home, size, absent, small)| VolumeSpec {
                    size_bytes: size << 20,
                    block_size: if small { 512 } else { 4096 },
                    absent,
                    ..volume(n, &format!("d{home}"))
                })
                .collect(),
            subsystems: subsystems
                .into_iter()
                .map(|(n, (a, b))| SubsystemSpec {
                    namespaces: [(1, uuid(a)), (2, uuid(b))]
                        .into_iter()
                        .filter(|(_, uuid)| exported.insert(*uuid))
                        .collect(),
                    ..subsystem(n)
                })
                .collect(),
            portals: portals.into_iter().map(portal).collect(),
            rules: PortalRules::default(),
        }
    })
}

proptest! {
    /// From anywhere to anywhere: it ends, what was reached is what was asked for, volumes go only when
    /// asked for, and any planned step (not just the first) may be taken.
    #[test]
    fn every_sequence_of_states_ends_well(
        states in prop::collection::vec(any_desired(), 1..5),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 400),
    ) {
        let mut observed = Observed::default();
        let mut picks = picks.iter();
        // What the drives hold, open or not: the model's `OpenDrive` begins empty, so it is put back.
        let mut kept: BTreeMap<String, BTreeMap<Uuid, VolumeNow>> = BTreeMap::new();
        for desired in &states {
            let before = kept.clone();
            loop {
                let actions = plan(&observed, desired);
                if actions.is_empty() {
                    break;
                }
                let action = picks.next().map_or(&actions[0], |pick| pick.get(&actions));
                act(&mut observed, action);
                if let Action::OpenDrive(spec) = action {
                    let volumes = kept.get(&spec.name).cloned().unwrap_or_default();
                    observed.drives.get_mut(&spec.name).unwrap().volumes = volumes;
                }
                for (name, open) in &observed.drives {
                    kept.insert(name.clone(), open.volumes.clone());
                }
            }
            let open: BTreeSet<&str> = observed.drives.keys().map(String::as_str).collect();
            let asked: BTreeSet<&str> = desired.drives.iter().map(|d| d.name.as_str()).collect();
            prop_assert_eq!(open, asked);
            for (name, volumes) in &before {
                for uuid in volumes.keys().filter(|uuid| !kept[name].contains_key(uuid)) {
                    let asked = |v: &VolumeSpec| v.uuid == *uuid && v.absent && v.drive == *name;
                    prop_assert!(desired.volumes.iter().any(asked), "{} was deleted unasked", uuid);
                }
            }
            for volume in desired.volumes.iter().filter(|v| observed.drives.contains_key(&v.drive)) {
                if refusal(&observed, desired, volume).is_none() {
                    let now = observed.drives[&volume.drive].volumes.get(&volume.uuid);
                    let size = now.map(|now| now.size_bytes);
                    prop_assert_eq!(size, (!volume.absent).then_some(volume.size_bytes));
                }
            }
        }
    }
}
