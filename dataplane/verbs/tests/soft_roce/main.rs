//! Both ends of connections in one process, over a real device: run in a virtual machine with soft-RoCE by the scenario
//! `verbs`, which says at which address by `ROADSTEAD_RDMA_ADDRESS`. Without it there is nothing to try.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]

mod connecting;
mod device;
mod ends;
mod lab;
mod transfers;
