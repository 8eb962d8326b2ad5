//! `roadsteadd`: the dataplane of one node, target and initiator, in a cluster or stand-alone.
//!
//! Threads: the reactors (`serve`), one for each drive (pool), the reconciler, and this one, which runs the
//! control API, health and metrics.

mod capability;
mod config;
mod control;
mod daemon;
mod desired;
mod external;
mod hold;
mod http;
mod identity;
mod keeper;
mod mdns;
mod meter;
mod metrics;
mod netdev;
mod reconcile;
mod report;
mod serve;
mod settings;
mod status;
mod store;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use rustix::fs::Mode;
use tracing_subscriber::EnvFilter;

use settings::LogFormat;

/// What a wrong command line or configuration file ends with.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let mut arguments = settings::Arguments::parse();
    let (check, log_format) = (arguments.check, arguments.log_format);
    let hold = hold::wanted(arguments.hold);
    let (holder, hold_at) = (arguments.holder.take(), arguments.hold_at.take());
    let settings = match arguments.settle() {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if check {
        println!("the configuration is good");
        return ExitCode::SUCCESS;
    }
    log_to_stderr(log_format);
    // Sockets, state and drives' files are the owner's alone, from the first moment on.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let result = match hold_at {
        Some(path) => hold::run_at(&path),
        None if hold => hold::run(holder),
        None => daemon::run(settings).map(|()| ExitCode::SUCCESS),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `RUST_LOG` says how much; `info` if it does not.
fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
