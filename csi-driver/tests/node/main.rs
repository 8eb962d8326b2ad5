//! The node service with real file systems on loop devices. Needs root; says so and passes without.

// A failed helper of a test is a failed test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod format;
mod life;
mod loops;
mod refusals;

/// Sizes of volumes, in bytes.
const MIB: u64 = 1 << 20;
