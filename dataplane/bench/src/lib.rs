//! `roadstead bench`: load on a namespace of any NVMe/TCP or NVMe/RDMA target, with latencies and verification.
//!
//! Each thread has a reactor and a connection of its own and shares nothing; the results are added up.
//!
//! # Guarantees
//! With `--verify`, a block that reads as anything but what was last written to it is an error of the run.
//!
//! # Left out
//! Rates (load that does not wait for answers) and several namespaces at once.

mod histogram;
mod keys;
mod options;
mod pattern;
mod report;
mod worker;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Context;

pub use crate::keys::KeyFiles;
pub use crate::options::{Options, Pattern, Policy};
use crate::report::Report;

/// The time of a load is up before its end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends all loads of this process as if their time were up: what was measured counts, what was written is verified.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Runs the load and prints what came out, as JSON if so asked.
///
/// # Errors
/// Options that make no sense, a target that cannot be reached, requests that failed, data that was wrong.
pub fn run(mut options: Options, as_json: bool) -> anyhow::Result<()> {
    options.check()?;
    options.resolve()?;
    let options = &options;
    let started = Instant::now();
    let threads: Vec<_> = (0..options.threads)
        .map(|number| {
            let options = options.clone();
            std::thread::Builder::new()
                .name(format!("bench{number}"))
                .spawn(move || worker::run(&options, number))
        })
        .collect::<Result<_, _>>()
        .context("start threads")?;
    let mut report = Report::new(options);
    for thread in threads {
        match thread.join() {
            Ok(result) => report.add(&result?),
            Err(_) => anyhow::bail!("a thread has failed"),
        }
    }
    report.finish(started.elapsed());
    report.print(as_json)?;
    report.verdict()
}
