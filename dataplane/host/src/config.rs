//! What a host is told once.

use std::time::Duration;

use roadstead_nvme::nqn::Nqn;
use uuid::Uuid;

/// This node as a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Host NQN.
    pub nqn: Nqn,
    /// Host identifier, the same on every connection of this node.
    pub id: Uuid,
}

/// Which namespace of the subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one with this UUID.
    Uuid(Uuid),
    /// The one with this identifier.
    Nsid(u32),
    /// The active one with the lowest identifier.
    First,
}

/// Bounds and times. [`Default`] suits a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// I/O queues asked for, each a connection; the target may give fewer.
    pub io_queues: u16,
    /// Commands in flight on each; at most [`crate::QUEUE_DEPTH_MAX`], the target may give fewer.
    pub queue_depth: u16,
    /// Requests accepted and not done.
    pub requests_max: u32,
    /// How long requests wait without a working path until they fail.
    pub ctrl_loss: Duration,
    /// Keep-alive time-out: a target that does not answer for this long is lost.
    pub keep_alive: Duration,
    /// From the beginning of a connection until it is usable.
    pub connect: Duration,
    /// Commands are in flight on a queue and none completes: the connection is lost.
    pub io_stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            io_queues: 1,
            queue_depth: 128,
            requests_max: 1024,
            ctrl_loss: Duration::from_secs(600),
            keep_alive: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            io_stall: Duration::from_secs(30),
        }
    }
}

/// What a host connects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Who connects.
    pub identity: Identity,
    /// The subsystem.
    pub subsystem_nqn: Nqn,
    /// The namespace in it.
    pub namespace: Wanted,
    /// How many paths there are, best first; the rim knows their addresses.
    pub paths: usize,
    /// Bounds and times.
    pub limits: Limits,
}
