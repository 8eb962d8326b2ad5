//! Damage to the metadata: repaired from another copy, or an error; never another state.
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

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{EXTENT, Rig, options, read_all};
use proptest::prelude::*;
use roadstead_pool::format::Half;
use roadstead_pool::media::sim::{Random, SimMedia};
use roadstead_pool::{ExtentRequest, Fault, FaultKind, Media, OpenError, Outcome, Pool, PoolError};
use uuid::Uuid;

const DRIVE: u64 = 4 << 20;
const BLOCK: usize = 4096;

type Contents = BTreeMap<Uuid, Vec<u64>>;

fn contents(media: &dyn Media, pool: &Pool) -> Contents {
    pool.volumes()
        .iter()
        .map(|v| (v.uuid(), read_all(media, v)))
        .collect()
}

/// A pool with `batches` batches in its journal, flushed, and where its extents begin.
fn worked_on(batches: u64) -> (Vec<u8>, Contents, usize) {
    let mut rig = Rig::new(DRIVE);
    for n in 0..3 {
        rig.create(8, n).unwrap();
    }
    for n in 0..batches.saturating_sub(3) {
        let uuid = rig.pick(n as u32).unwrap();
        if n % 5 == 4 {
            rig.deallocate(uuid, 0, 2).unwrap();
        } else {
            rig.write(uuid, (n / 3 + n / 15) % 8 * 128, 3).unwrap();
        }
    }
    rig.flush().unwrap();
    rig.check_now();
    let label = Pool::read_label(Arc::clone(&rig.sim) as Arc<dyn Media>)
        .unwrap()
        .unwrap();
    (
        rig.sim.content(),
        contents(&*rig.sim, &rig.pool),
        label.geometry.data_offset as usize,
    )
}

fn open(sim: &Arc<SimMedia>) -> Result<Pool, OpenError> {
    Pool::open_or_format(Arc::clone(sim) as Arc<dyn Media>, &options())
}

fn metadata_blocks(content: &[u8], data_offset: usize) -> Vec<usize> {
    (0..data_offset)
        .step_by(BLOCK)
        .chain([content.len() - BLOCK])
        .collect()
}

/// Opens a drive with damage, and once more after that: everything must be there both times.
fn must_recover(sim: SimMedia, expected: &Contents, what: &str) {
    let sim = Arc::new(sim);
    let pool = open(&sim).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(contents(&*sim, &pool), *expected, "{what}");
    drop(pool);
    let again = Arc::new(SimMedia::with_content(sim.content()));
    let pool = open(&again).unwrap();
    assert_eq!(
        contents(&*again, &pool),
        *expected,
        "{what}, at the second start"
    );
}

#[test]
fn any_one_block_may_rot() {
    // An almost empty journal, one in use, one just before and some after the halves were switched.
    for batches in [3, 16, 17, 30] {
        let (content, expected, data_offset) = worked_on(batches);
        for block in metadata_blocks(&content, data_offset) {
            for kind in 0..3 {
                let mut damaged = content.clone();
                let bytes = &mut damaged[block..block + BLOCK];
                match kind {
                    0 => bytes.fill(0),
                    1 => bytes[BLOCK / 2..].iter_mut().for_each(|b| *b ^= 0x5a),
                    _ => bytes[17] ^= 1,
                }
                must_recover(
                    SimMedia::with_content(damaged),
                    &expected,
                    &format!("{batches} batches, block {block}, {kind}"),
                );
            }
        }
    }
}

/// Repair is itself cut short by power cuts, anywhere, and goes on at the next start.
#[test]
fn a_repair_may_be_cut_short() {
    let (content, expected, _) = worked_on(19);
    let label = Pool::read_label(Arc::new(SimMedia::with_content(content.clone())))
        .unwrap()
        .unwrap();
    for half in [Half::First, Half::Second] {
        for place in [
            label.geometry.half_offset(half),
            label.geometry.checkpoint_offset(half),
        ] {
            let mut damaged = content.clone();
            damaged[place as usize + 20] ^= 1;
            let whole = Arc::new(SimMedia::with_content(damaged.clone()));
            open(&whole).unwrap();
            for at in 1..=whole.operations() {
                for seed in 0..6 {
                    let sim = Arc::new(SimMedia::with_content(damaged.clone()));
                    sim.cut_power_at(at);
                    assert!(open(&sim).is_err());
                    let left = sim.after_power_cut(&mut Random::new(seed * 1000 + at));
                    must_recover(
                        SimMedia::with_content(left),
                        &expected,
                        &format!("{half:?} cut at {at}, {seed}"),
                    );
                }
            }
        }
    }
}

#[test]
fn any_one_block_may_become_unreadable() {
    for batches in [9, 17] {
        let (content, expected, data_offset) = worked_on(batches);
        for block in metadata_blocks(&content, data_offset) {
            let sim = SimMedia::with_content(content.clone());
            sim.make_unreadable(block as u64..(block + BLOCK) as u64);
            let sim = Arc::new(sim);
            let pool =
                open(&sim).unwrap_or_else(|e| panic!("{batches} batches, block {block}: {e}"));
            assert_eq!(
                contents(&*sim, &pool),
                expected,
                "{batches} batches, block {block}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..Default::default() })]

    /// Any damage at all to the metadata: an error, or everything is there; except when both copies of the
    /// last batches of the journal are gone, which is what a power cut before the last sync looks like.
    #[test]
    fn more_damage_is_an_error_or_does_not_matter(
        batches in 3u64..40,
        damage in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..12),
    ) {
        let (mut content, expected, data_offset) = worked_on(batches);
        let label = Pool::read_label(Arc::new(SimMedia::with_content(content.clone()))).unwrap().unwrap();
        let blocks = metadata_blocks(&content, data_offset);
        let second_copies: Vec<_> = [Half::First, Half::Second]
            .map(|half| label.geometry.journal_offsets(half)[1] as usize)
            .to_vec();
        for (place, bits) in damage {
            let block = blocks[place as usize % blocks.len()];
            let in_second_copy = second_copies.iter().any(|start| (*start..*start + label.geometry.journal_bytes as usize).contains(&block));
            if !in_second_copy {
                content[block + usize::from(bits)] ^= bits | 1;
            }
        }
        let sim = Arc::new(SimMedia::with_content(content));
        if let Ok(pool) = open(&sim) {
            prop_assert_eq!(contents(&*sim, &pool), expected);
        }
    }

    /// Random bytes where the metadata was never make the program stop, loop or take memory without bound.
    #[test]
    fn random_metadata_is_an_error(seed in any::<u64>(), keep_labels in any::<bool>()) {
        let (mut content, _, data_offset) = worked_on(5);
        let mut random = Random::new(seed);
        let from = if keep_labels { 64 << 10 } else { 0 };
        for byte in &mut content[from..data_offset] {
            *byte = random.next_u64() as u8;
        }
        prop_assert!(open(&Arc::new(SimMedia::with_content(content))).is_err());
    }
}

#[test]
fn a_durable_batch_that_rotted_in_both_copies_is_an_error_when_a_later_one_tells() {
    let (mut content, _, _) = worked_on(9);
    let sim = Arc::new(SimMedia::with_content(content.clone()));
    let label = Pool::read_label(sim).unwrap().unwrap();
    for half in [Half::First, Half::Second] {
        for start in label.geometry.journal_offsets(half) {
            content[start as usize + 100] ^= 1;
        }
    }
    let refused = open(&Arc::new(SimMedia::with_content(content)))
        .err()
        .unwrap();
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
}

#[test]
fn a_damaged_pool_of_ours_is_never_formatted() {
    let (content, _, data_offset) = worked_on(9);
    let force = roadstead_pool::OpenOptions {
        force: true,
        ..options()
    };
    let refuses = |content: Vec<u8>| {
        let sim = Arc::new(SimMedia::with_content(content.clone()));
        let refused = Pool::open_or_format(Arc::clone(&sim) as Arc<dyn Media>, &force)
            .err()
            .unwrap();
        assert_eq!(refused.reason(), "Corrupt", "{refused}");
        assert!(sim.content() == content, "something was written");
    };
    let mut without_metadata = content.clone();
    without_metadata[64 << 10..data_offset].fill(0);
    refuses(without_metadata);
    let mut bad_labels = content.clone();
    for offset in [0, 32 << 10, content.len() - BLOCK] {
        bad_labels[offset + 100..offset + 200].fill(0xaa);
    }
    refuses(bad_labels);
    let mut overwritten = content;
    overwritten[..BLOCK].fill(0);
    overwritten[..4].copy_from_slice(b"XFSB");
    refuses(overwritten);
}

#[test]
fn a_later_version_and_a_shrunk_medium_are_refused() {
    let (content, _, _) = worked_on(4);
    let mut future = content.clone();
    for offset in [0, 32 << 10, content.len() - BLOCK] {
        future[offset + 8] = 2;
        let crc = crc32c::crc32c(&future[offset..offset + 508]);
        future[offset + 508..offset + 512].copy_from_slice(&crc.to_le_bytes());
    }
    let refused = open(&Arc::new(SimMedia::with_content(future)))
        .err()
        .unwrap();
    assert!(
        matches!(
            refused,
            OpenError::FutureVersion {
                version: 2,
                known: 1,
                ..
            }
        ),
        "{refused}"
    );
    let shrunk = content[..content.len() - EXTENT as usize].to_vec();
    let refused = open(&Arc::new(SimMedia::with_content(shrunk)))
        .err()
        .unwrap();
    assert_eq!(refused.reason(), "MediaShrunk");
}

#[test]
fn after_a_failed_sync_nothing_more_is_changed_and_reads_go_on() {
    let mut rig = Rig::new(DRIVE);
    rig.create(8, 0).unwrap();
    let uuid = rig.pick(0).unwrap();
    rig.write(uuid, 0, 10).unwrap();
    rig.sim.fail_syncs(true);
    assert!(matches!(
        rig.pool.sync(),
        Err(PoolError::Faulted(Fault {
            kind: FaultKind::Io,
            ..
        }))
    ));
    rig.sim.fail_syncs(false);
    let writes = rig.sim.operations();
    assert!(matches!(
        rig.pool.delete_volume(uuid),
        Err(PoolError::Faulted(_))
    ));
    assert!(
        matches!(rig.pool.sync(), Err(PoolError::Faulted(_))),
        "a later sync proves nothing"
    );
    assert_eq!(rig.sim.operations(), writes);
    let volume = rig.pool.volume(uuid).unwrap();
    assert!(volume.fault().is_some());
    assert_eq!(read_all(&*rig.sim, &volume)[9], 11);
}

#[test]
fn a_full_file_system_refuses_new_extents_and_nothing_else() {
    let mut rig = Rig::new(DRIVE);
    rig.create(40, 0).unwrap();
    let uuid = rig.pick(0).unwrap();
    rig.write(uuid, 0, 10).unwrap();
    rig.sim.make_full(true);
    let request = |extents| {
        [ExtentRequest {
            volume: uuid,
            extents,
        }]
    };
    let refused = rig.pool.allocate(&request(0..40)).unwrap();
    assert!(
        matches!(
            &refused[..],
            [Outcome::Refused(PoolError::MediumFull { .. })]
        ),
        "{refused:?}"
    );
    rig.write(uuid, 3, 4).unwrap();
    rig.flush().unwrap();
    rig.create(1, 0).unwrap();
    rig.sim.make_full(false);
    assert_eq!(
        rig.pool.allocate(&request(0..40)).unwrap(),
        [Outcome::Mapped]
    );
    rig.check_now();
}

#[test]
fn a_map_is_durable_after_the_flush_that_began_after_it_was_published() {
    let mut rig = Rig::new(DRIVE);
    rig.create(8, 0).unwrap();
    let volume = rig.pool.volumes().remove(0);
    assert!(volume.map_is_durable());
    rig.write(volume.uuid(), 0, 1).unwrap();
    let early = volume.sync_ticket();
    rig.write(volume.uuid(), 128, 1).unwrap();
    assert!(!volume.map_is_durable());
    volume.synced(early);
    assert!(
        !volume.map_is_durable(),
        "a sync that began before covers nothing later"
    );
    rig.flush().unwrap();
    assert!(volume.map_is_durable());
}
