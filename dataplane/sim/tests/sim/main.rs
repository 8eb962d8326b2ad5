//! Both ends of NVMe/TCP against each other, without sockets, threads or a clock: the production client of
//! `roadstead-initiator` with its host's state machine, and the connections and the registry of `roadstead-target`.
//!
//! One seed is one run. The network delays, reorders across connections and cuts at any byte; the drive ends I/O in any
//! order, late, or with an error; the target restarts and loses power; what is served changes, and so do the portals that a
//! host is to use. A run fails when
//!
//! * a request does not end, ends twice, or ends with an error that nothing explains;
//! * a read finds what cannot be there, or the drive holds it at the end, also after a loss of power;
//! * a write lands at the drive although a newer one of the same host is known to be done;
//! * something panics, does not end, or uses more memory than the target's limits say;
//! * anything is left when all connections are closed.
//!
//! `SEED=7 cargo test -p roadstead-sim replay -- --nocapture` shows a run; `SEEDS=100000 FIRST=5000` sets how many there
//! are and where they begin. That the checks see anything is a test as well: see `Broken`. The same can be tried with the
//! production code: with `is_lingering` of `dataplane/target/src/controller.rs` returning false, old writes land late and
//! `runs_hold` says so.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod drive;
mod faults;
mod guest;
mod model;
mod net;
mod node;
mod plan;
mod rng;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use plan::{Broken, Plan};
use rng::Rng;
use world::{Stats, World};

/// Runs of an ordinary test.
const SEEDS: u64 = 3000;
/// Lines shown of a run that failed.
const TRACE_LINES: usize = 60;

/// How a run went, and its trace if it was wanted.
struct Run {
    result: Result<Stats, String>,
    trace: Vec<String>,
    plan: Plan,
}

fn run(seed: u64, broken: Broken, with_trace: bool) -> Run {
    let mut rng = Rng::new(seed);
    let plan = Plan::new(&mut rng, broken);
    let mut world = World::new(plan.clone(), rng, with_trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = result.map(|()| world.stats).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    });
    Run {
        result,
        trace: world.trace.take().unwrap_or_default(),
        plan,
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The run again, with what happened, for a person.
fn explain(seed: u64, broken: Broken) -> String {
    let run = run(seed, broken, true);
    let first = run.trace.len().saturating_sub(TRACE_LINES);
    format!(
        "seed {seed}: {}\n{:?}\n{}\nmore: SEED={seed} cargo test -p roadstead-sim replay -- --nocapture",
        run.result
            .err()
            .unwrap_or("holds when it is run again".into()),
        run.plan,
        run.trace[first..].join("\n"),
    )
}

/// The first failing one of these seeds. All cores take part.
fn first_failure(seeds: std::ops::Range<u64>, broken: Broken) -> (Option<u64>, Vec<Stats>) {
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let work = || {
        let mut all = Vec::new();
        while failed.load(Relaxed) == u64::MAX {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                break;
            }
            match run(seed, broken, false).result {
                Ok(stats) => all.push(stats),
                Err(_) => {
                    failed.fetch_min(seed, Relaxed);
                }
            }
        }
        all
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let all = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    let failed = failed.into_inner();
    ((failed != u64::MAX).then_some(failed), all)
}

#[test]
fn runs_hold() {
    let first = number("FIRST").unwrap_or(0);
    let seeds = first..first + number("SEEDS").unwrap_or(SEEDS);
    let (failed, all) = first_failure(seeds, Broken::No);
    if let Some(seed) = failed {
        panic!("{}", explain(seed, Broken::No));
    }
    let sum = |of: fn(&Stats) -> u64| all.iter().map(of).sum::<u64>();
    let happened = [
        ("requests", sum(|s| s.requests)),
        ("events", sum(|s| s.events)),
        ("connections", sum(|s| s.connections)),
        ("cuts", sum(|s| s.cuts)),
        ("stalls", sum(|s| s.stalls)),
        ("restarts", sum(|s| s.restarts)),
        ("losses of power", sum(|s| s.power_losses)),
        ("tables", sum(|s| s.tables)),
        ("growth", sum(|s| s.grown)),
        ("switches of paths", sum(|s| s.switches)),
        ("changes of paths", sum(|s| s.moves)),
        ("flushes that tell of lost writes", sum(|s| s.caches_lost)),
        ("requests that failed", sum(|s| s.io_errors)),
        ("requests that lost their path", sum(|s| s.path_lost)),
        (
            "writes that landed after their connection",
            sum(|s| s.late_writes),
        ),
    ];
    println!("{} runs: {happened:?}", all.len());
    for (what, count) in happened {
        assert!(count > 0 || all.len() < 1000, "no {what} in any run");
    }
}

#[test]
fn replay() {
    let Some(seed) = number("SEED") else {
        return; // For a person.
    };
    let run = run(seed, Broken::No, true);
    println!("{:?}\n{}", run.plan, run.trace.join("\n"));
    println!("{:?}", run.result);
    assert!(run.result.is_ok());
}

#[test]
fn a_seed_is_a_run() {
    for seed in 0..20 {
        let (one, two) = (run(seed, Broken::No, true), run(seed, Broken::No, true));
        assert_eq!(one.trace, two.trace);
        assert_eq!(one.result, two.result);
    }
}

/// What is broken is found.
fn finds(broken: Broken, text: &str) {
    let (failed, _) = first_failure(0..4000, broken);
    let seed = failed.unwrap_or_else(|| panic!("no run notices {broken:?}"));
    let why = run(seed, broken, false).result.err().unwrap_or_default();
    assert!(why.contains(text), "{broken:?}: {why}");
}

#[test]
fn a_flush_is_seen_that_hides_lost_writes() {
    finds(
        Broken::HidesLoss,
        "a flush succeeds over writes that were lost",
    );
}

#[test]
fn an_old_write_is_seen_that_lands_because_the_target_lets_others_overtake() {
    finds(Broken::Overtakes, "an old write landed");
}

#[test]
fn an_old_write_is_seen_that_lands_because_a_reset_comes_late() {
    finds(Broken::LateResets, "an old write landed");
}

#[test]
fn a_write_is_seen_that_is_done_twice() {
    finds(Broken::WritesTwice, "an old write landed");
}

#[test]
fn a_flush_is_seen_that_does_nothing() {
    finds(Broken::LazyFlush, "cannot be there");
}

#[test]
fn changed_bytes_are_seen() {
    finds(Broken::FlipsBytes, "");
}

#[test]
fn lost_io_is_seen() {
    finds(Broken::LosesIo, "not within");
}
