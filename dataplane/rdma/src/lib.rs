//! NVMe/RDMA as bytes: what the NVM Express RDMA Transport Specification 1.0 adds to commands and completions, for both
//! ends.
//!
//! * [`private`]: what both ends tell each other when a connection is made.
//! * [`DataPointer`]: where the data of a command is: in its capsule, or in memory of the host that a key opens.
//!
//! A command capsule is a submission queue entry with in-capsule data behind it, a response capsule a completion queue
//! entry: both are sent as they are.
//!
//! Guaranteed: no input panics; every field that the specification fixes is checked. Assumed: the caller checks what
//! needs its own state. Left out: lists of descriptors (a command has one), metadata.

mod pointer;
pub mod private;

pub use pointer::{DataPointer, LENGTH_MAX, Remote};
