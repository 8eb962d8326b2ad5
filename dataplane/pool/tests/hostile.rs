//! Media whose checksums are right and whose contents are not: an error, or a pool whose books agree.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub,
    dead_code,
    reason = "test"
)]

mod common;

use std::sync::Arc;

use common::{EXTENT, Rig, options};
use proptest::prelude::*;
use roadstead_pool::format::batch::{self, Log, Stamp};
use roadstead_pool::format::half::Header;
use roadstead_pool::format::label::Label;
use roadstead_pool::format::record::{Record, Run};
use roadstead_pool::format::{Geometry, Half};
use roadstead_pool::media::sim::SimMedia;
use roadstead_pool::{BlockSize, Media, OpenError, Pool, VolumeSpec};
use uuid::Uuid;

const DRIVE: u64 = 4 << 20;

fn base() -> (Vec<u8>, Label) {
    let mut rig = Rig::new(DRIVE);
    rig.create(10, 0).unwrap();
    rig.write(rig.pick(0).unwrap(), 0, 300).unwrap();
    rig.restart();
    let label = Pool::read_label(Arc::clone(&rig.sim) as Arc<dyn Media>)
        .unwrap()
        .unwrap();
    (rig.sim.content(), label)
}

fn open(content: Vec<u8>) -> Result<Pool, OpenError> {
    Pool::open_or_format(Arc::new(SimMedia::with_content(content)), &options())
}

/// The books agree: no extent twice, no more promised than there is.
fn check(content: Vec<u8>) {
    let sim = Arc::new(SimMedia::with_content(content));
    let Ok(pool) = Pool::open_or_format(Arc::clone(&sim) as Arc<dyn Media>, &options()) else {
        return;
    };
    let stats = pool.stats();
    let reserved: u64 = pool
        .volumes()
        .iter()
        .map(|v| v.size_bytes().div_ceil(EXTENT) * EXTENT)
        .sum();
    assert_eq!(stats.free_bytes + reserved, stats.capacity_bytes);
    let mut seen = std::collections::BTreeSet::new();
    for volume in pool.volumes() {
        let reader = volume.reader();
        let io = reader.begin();
        for piece in reader.lookup(&io, 0, volume.size_bytes()).unwrap() {
            for n in 0..piece.drive_offset.map_or(0, |_| piece.len.div_ceil(EXTENT)) {
                let place = piece.drive_offset.unwrap() + n * EXTENT;
                assert!(place + EXTENT <= DRIVE && seen.insert(place));
            }
        }
        reader.end(io);
    }
    assert_eq!(seen.len() as u64 * EXTENT, stats.allocated_bytes);
}

fn small() -> impl Strategy<Value = u32> {
    prop_oneof![6 => 0u32..60, 1 => any::<u32>(), 1 => Just(u32::MAX)]
}

fn record() -> impl Strategy<Value = Record> {
    let uuid = (0u128..4).prop_map(Uuid::from_u128);
    let size = prop_oneof![
        (0u64..64).prop_map(|n| n * EXTENT),
        any::<u64>(),
        Just(u64::MAX - 511)
    ];
    let run = (
        small(),
        small(),
        prop_oneof![4 => 0u32..4, 1 => any::<u32>()],
    )
        .prop_map(|(first, physical, count)| Run {
            first,
            physical,
            count,
        });
    prop_oneof![
        (uuid.clone(), size.clone(), "\\PC{0,9}").prop_map(|(uuid, size_bytes, name)| {
            let block_size = BlockSize::B512;
            Record::Create(VolumeSpec {
                uuid,
                name,
                size_bytes,
                block_size,
                created_unix_s: 0,
            })
        }),
        (uuid.clone(), size).prop_map(|(uuid, size_bytes)| Record::Grow { uuid, size_bytes }),
        uuid.clone().prop_map(|uuid| Record::Delete { uuid }),
        (uuid.clone(), proptest::collection::vec(run, 0..6))
            .prop_map(|(uuid, runs)| Record::Map { uuid, runs }),
        (uuid, small(), small()).prop_map(|(uuid, first, count)| Record::Unmap {
            uuid,
            first,
            count
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..Default::default() })]

    #[test]
    fn records_that_make_no_sense_are_refused(records in proptest::collection::vec(record(), 1..12)) {
        let (mut content, label) = base();
        let g = label.geometry;
        let newest = [Half::First, Half::Second]
            .into_iter()
            .filter_map(|half| Some((half, Header::decode(&content[g.half_offset(half) as usize..])?)))
            .max_by_key(|(_, header)| header.generation);
        let (half, header) = newest.unwrap();
        let mut payload = Vec::new();
        batch::pack(&records, &mut payload);
        let stamp = Stamp { id: header.id, log: Log::Journal, seq: header.first_seq, durable_seq: 0 };
        let blocks = batch::encode(&stamp, &payload);
        for start in g.journal_offsets(half) {
            let start = start as usize;
            content[start..start + blocks.as_bytes().len()].copy_from_slice(blocks.as_bytes());
        }
        check(content);
    }

    #[test]
    fn labels_that_make_no_sense_are_refused(
        field in 0usize..8,
        value in prop_oneof![any::<u64>(), (0u32..64).prop_map(|n| 1u64 << n), 0u64..70_000, Just(u64::MAX)],
        add in any::<bool>(),
    ) {
        let (mut content, mut label) = base();
        let g = &mut label.geometry;
        let original = *g;
        let change64 = |old: &mut u64| *old = if add { old.wrapping_add(value) } else { value };
        let change32 = |old: &mut u32| *old = if add { old.wrapping_add(value as u32) } else { value as u32 };
        match field {
            0 => change64(&mut g.media_bytes),
            1 => change64(&mut g.extent_bytes),
            2 => change64(&mut g.data_offset),
            3 => change64(&mut g.checkpoint_bytes),
            4 => change64(&mut g.journal_bytes),
            5 => change32(&mut g.extent_count),
            6 => change32(&mut g.max_extents),
            _ => change32(&mut g.max_volumes),
        }
        for (copy, offset) in (0..).zip(original.label_offsets()) {
            let offset = offset as usize;
            content[offset..offset + 4096].copy_from_slice(label.encode(copy).as_bytes());
        }
        if let Ok(pool) = open(content) {
            prop_assert!(pool.stats().capacity_bytes <= DRIVE);
        }
    }
}

#[test]
fn a_geometry_that_was_never_planned_is_named() {
    let g = Geometry::plan(DRIVE, EXTENT, Some(64 << 10)).unwrap();
    let broken = [
        Geometry {
            extent_bytes: 3 * EXTENT,
            ..g
        },
        Geometry {
            extent_bytes: 1 << 40,
            ..g
        },
        Geometry {
            extent_count: 0,
            ..g
        },
        Geometry {
            extent_count: g.max_extents + 1,
            ..g
        },
        Geometry {
            extent_count: g.extent_count + 2,
            ..g
        },
        Geometry {
            data_offset: 0,
            ..g
        },
        Geometry {
            journal_bytes: 1 << 50,
            ..g
        },
        Geometry {
            checkpoint_bytes: u64::MAX - 4095,
            ..g
        },
        Geometry {
            media_bytes: DRIVE + 4096,
            ..g
        },
    ];
    assert_eq!(g.check(DRIVE), Ok(()));
    for geometry in broken {
        assert!(geometry.check(DRIVE).is_err(), "{geometry:?}");
    }
}
