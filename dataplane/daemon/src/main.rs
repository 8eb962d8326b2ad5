//! `roadsteadd`: the dataplane of one node, target and initiator, in a cluster or stand-alone.

mod config;
mod desired;
mod identity;
mod settings;
mod store;

use std::process::ExitCode;

use clap::Parser;

/// What a wrong command line or configuration file ends with.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = settings::Arguments::parse();
    let (check, _log_format) = (arguments.check, arguments.log_format);
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
    println!("{settings:?}");
    ExitCode::SUCCESS
}
