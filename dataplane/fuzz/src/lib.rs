//! What every fuzz target does with its input: a plain function for each, called by libFuzzer (`fuzz/`) and by an ordinary
//! test (`tests/seeds.rs`). A function returns for every input, or has found something.

#![allow(
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a check that does not hold panics; numbers come from noise and may be cut"
)]

mod connection;
mod format;
mod host;
mod input;
mod wire;
#[allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "the daemon's own file, of which only the parser is used"
)]
#[path = "../../daemon/src/config/yaml.rs"]
mod yaml;

pub use connection::target_connection;
pub use format::{config_yaml, pool_format};
pub use host::host_connection;
pub use input::Input;
pub use wire::{nvme_commands, nvme_names, pdu_reader};

/// A target: its name, as of its folder of seeds, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("nvme_commands", nvme_commands),
    ("nvme_names", nvme_names),
    ("pdu_reader", pdu_reader),
    ("target_connection", target_connection),
    ("host_connection", host_connection),
    ("pool_format", pool_format),
    ("config_yaml", config_yaml),
];
