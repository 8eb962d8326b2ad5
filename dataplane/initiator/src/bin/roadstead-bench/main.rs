//! `roadstead-bench`: load on a namespace of any NVMe/TCP target, with latencies and verification.
//!
//! Each thread has a reactor and a connection of its own and shares nothing; the results are added up.

mod histogram;
mod options;
mod pattern;
mod report;
mod worker;

use std::time::Instant;

use anyhow::Context;
use clap::Parser;

use crate::options::Options;
use crate::report::Report;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .init();
    options.check()?;
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
    let mut report = Report::new(&options);
    for thread in threads {
        match thread.join() {
            Ok(result) => report.add(&result?),
            Err(_) => anyhow::bail!("a thread has failed"),
        }
    }
    report.finish(started.elapsed());
    report.print(options.json)?;
    report.verdict()
}
