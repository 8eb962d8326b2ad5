//! Random work against a model, with power cuts at any moment.
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

use common::{EXTENT, PowerCut, Rig, options};
use proptest::prelude::*;
use roadstead_pool::media::sim::{Random, SimMedia};
use roadstead_pool::{ExtentRequest, Media, OpenOptions, Outcome, Pool};

const DRIVE: u64 = 4 << 20;

#[derive(Debug, Clone)]
enum Op {
    Create {
        extents: u64,
        short_by: u64,
    },
    GrowDrive {
        extents: u64,
    },
    Grow {
        pick: u32,
        by_sectors: u64,
    },
    Delete {
        pick: u32,
    },
    Note {
        pick: u32,
        len: usize,
    },
    Write {
        pick: u32,
        sector: u64,
        count: u64,
    },
    Deallocate {
        pick: u32,
        first: u32,
        count: u32,
    },
    Flush,
    Release,
    Refill {
        max: usize,
    },
    Restart,
    PowerCutNow,
    /// The power fails after so many more operations of the drive.
    PowerCutSoon {
        after: u64,
    },
}

/// More on demand: `PROPTEST_CASES=5000`.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(64)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => (1u64..20, 0u64..128).prop_map(|(extents, short_by)| Op::Create { extents, short_by }),
        1 => (any::<u32>(), 1u64..300).prop_map(|(pick, by_sectors)| Op::Grow { pick, by_sectors }),
        1 => (1u64..4).prop_map(|extents| Op::GrowDrive { extents }),
        1 => any::<u32>().prop_map(|pick| Op::Delete { pick }),
        2 => (any::<u32>(), 0usize..2048).prop_map(|(pick, len)| Op::Note { pick, len }),
        12 => (any::<u32>(), any::<u64>(), 1u64..200)
            .prop_map(|(pick, sector, count)| Op::Write { pick, sector, count }),
        4 => (any::<u32>(), any::<u32>(), 1u32..6)
            .prop_map(|(pick, first, count)| Op::Deallocate { pick, first: first >> 1, count }),
        4 => Just(Op::Flush),
        3 => Just(Op::Release),
        1 => (1usize..30).prop_map(|max| Op::Refill { max }),
        1 => Just(Op::Restart),
        1 => Just(Op::PowerCutNow),
        1 => (1u64..60).prop_map(|after| Op::PowerCutSoon { after }),
    ]
}

fn run(rig: &mut Rig, op: &Op, random: &mut Random) -> Result<(), PowerCut> {
    match *op {
        Op::Create { extents, short_by } => rig.create(extents, short_by),
        Op::GrowDrive { extents } => rig.grow_drive(extents),
        Op::Grow { pick, by_sectors } => rig.pick(pick).map_or(Ok(()), |v| rig.grow(v, by_sectors)),
        Op::Delete { pick } => rig.pick(pick).map_or(Ok(()), |v| rig.delete(v)),
        Op::Note { pick, len } => rig.pick(pick).map_or(Ok(()), |v| rig.note(v, len)),
        Op::Write {
            pick,
            sector,
            count,
        } => rig
            .pick(pick)
            .map_or(Ok(()), |v| rig.write(v, sector, count)),
        Op::Deallocate { pick, first, count } => rig
            .pick(pick)
            .map_or(Ok(()), |v| rig.deallocate(v, first, count)),
        Op::Flush => rig.flush(),
        Op::Release => {
            rig.release();
            Ok(())
        }
        Op::Refill { max } => rig.refill(max),
        Op::Restart => {
            rig.restart();
            Ok(())
        }
        Op::PowerCutNow => {
            rig.power_cut(random);
            Ok(())
        }
        Op::PowerCutSoon { after } => {
            rig.sim.cut_power_at(rig.sim.operations() + after);
            Ok(())
        }
    }
}

/// All space can be had: what the volumes do not use is free, and every extent of it can be mapped.
fn fill_up(rig: &mut Rig) {
    rig.release();
    let free = rig.free_extents();
    if free > 0 {
        rig.create(free, 0).unwrap();
    }
    for volume in rig.pool.volumes() {
        let request = ExtentRequest {
            volume: volume.uuid(),
            extents: 0..volume.extent_count(),
        };
        assert_eq!(rig.pool.allocate(&[request]).unwrap(), [Outcome::Mapped]);
    }
    assert_eq!(
        rig.pool.stats().allocated_bytes,
        rig.pool.stats().capacity_bytes
    );
    rig.check_now();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..Default::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_foreign_is_seen(
        seed in any::<u64>(),
        ops in proptest::collection::vec(op(), 1..150),
    ) {
        let mut random = Random::new(seed);
        let mut rig = Rig::new(DRIVE);
        rig.create(20, 1).unwrap();
        for op in &ops {
            if matches!(run(&mut rig, op, &mut random), Err(PowerCut)) {
                rig.power_cut(&mut random);
            }
        }
        rig.sim.cut_power_at(u64::MAX);
        rig.check_now();
        rig.power_cut(&mut random);
        fill_up(&mut rig);
    }
}

#[test]
fn a_format_cut_short_anywhere_is_made_again() {
    let used = |sim: &Arc<SimMedia>, options: &OpenOptions| {
        Pool::open_or_format(Arc::clone(sim) as Arc<dyn Media>, options)
    };
    let sim = Arc::new(SimMedia::new(DRIVE));
    used(&sim, &options()).unwrap();
    let operations = sim.operations();
    for at in 1..=operations {
        for seed in 0..8 {
            let sim = Arc::new(SimMedia::new(DRIVE));
            sim.cut_power_at(at);
            assert!(used(&sim, &options()).is_err());
            let left = sim.after_power_cut(&mut Random::new(seed * 1000 + at));
            let sim = Arc::new(SimMedia::with_content(left));
            let pool =
                used(&sim, &options()).unwrap_or_else(|e| panic!("cut at {at}, seed {seed}: {e}"));
            assert!(pool.volumes().is_empty());
        }
    }
}

/// The journal takes 16 batches: the creation, 15 writes of new extents; the next one switches the halves.
#[test]
fn a_switch_of_halves_cut_short_anywhere_loses_nothing() {
    for flushed in [0, 14] {
        for after in 1..=8 {
            for seed in 0..8 {
                let mut rig = Rig::new(DRIVE);
                rig.create(24, 0).unwrap();
                rig.refill(30).unwrap();
                let uuid = rig.pick(0).unwrap();
                for extent in 0..15 {
                    rig.write(uuid, extent * 128, 1).unwrap();
                    if extent == flushed {
                        rig.flush().unwrap();
                    }
                }
                rig.sim.cut_power_at(rig.sim.operations() + after);
                let cut = (15..24).any(|extent| rig.write(uuid, extent * 128, 1).is_err());
                assert!(cut);
                rig.power_cut(&mut Random::new(seed * 1000 + after));
            }
        }
    }
}

#[test]
fn growth_of_the_medium_cut_short_anywhere_keeps_the_pool() {
    let mut rig = Rig::new(DRIVE);
    rig.create(10, 0).unwrap();
    let uuid = rig.pick(0).unwrap();
    rig.write(uuid, 0, 100).unwrap();
    rig.flush().unwrap();
    let mut larger = rig.sim.content();
    larger.resize(larger.len() + 10 * EXTENT as usize, 0xee);
    let open =
        |sim: &Arc<SimMedia>| Pool::open_or_format(Arc::clone(sim) as Arc<dyn Media>, &options());
    let sim = Arc::new(SimMedia::with_content(larger.clone()));
    let capacity = open(&sim).unwrap().stats().capacity_bytes;
    assert_eq!(capacity, rig.pool.stats().capacity_bytes + 10 * EXTENT);
    for at in 1..=sim.operations() {
        for seed in 0..8 {
            let sim = Arc::new(SimMedia::with_content(larger.clone()));
            sim.cut_power_at(at);
            assert!(open(&sim).is_err());
            let left = sim.after_power_cut(&mut Random::new(seed * 1000 + at));
            let sim = Arc::new(SimMedia::with_content(left));
            let pool = open(&sim).unwrap_or_else(|e| panic!("cut at {at}, seed {seed}: {e}"));
            assert_eq!(pool.stats().capacity_bytes, capacity);
            let volume = pool.volume(uuid).unwrap();
            let now = common::read_all(&*sim, &volume);
            assert_eq!(
                now,
                common::read_all(&*rig.sim, &rig.pool.volume(uuid).unwrap())
            );
        }
    }
}
