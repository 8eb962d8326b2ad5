//! What a host is told once.

use std::time::Duration;

use roadstead_nvme::dhchap::Keys;
use roadstead_nvme::nqn::Nqn;
use uuid::Uuid;

/// The controller is told a keep-alive time-out of so many times ours: it gives up after us.
const KATO_FACTOR: u32 = 3;

/// This node as a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Host NQN.
    pub nqn: Nqn,
    /// Host identifier, the same on every connection of this node.
    pub id: Uuid,
    /// By what it authenticates itself where that is demanded.
    pub keys: Option<Keys>,
}

impl Identity {
    /// A host with this name and without keys, with an identifier that follows from the name: the UUID in it, if it has
    /// one.
    pub fn named(nqn: Nqn) -> Self {
        let text = nqn.to_string();
        let own = text.rsplit_once("uuid:").map(|(_, uuid)| uuid);
        let id = own.and_then(|uuid| Uuid::try_parse(uuid).ok());
        let id = id.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()));
        Self {
            nqn,
            id,
            keys: None,
        }
    }
}

/// Which namespace of the subsystem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The one with this UUID.
    Uuid(Uuid),
    /// The one with this NGUID.
    Nguid([u8; 16]),
    /// The one with this identifier.
    Nsid(u32),
    /// The one with this identifier, if it has neither a UUID nor an NGUID: one that has is another one than was meant.
    Unnamed(u32),
    /// The active one with the lowest identifier.
    First,
}

/// Which of the paths that are in the best ANA state takes a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PathPolicy {
    /// The first in the order in which they are wanted: the nearest. What Linux calls `numa`.
    #[default]
    Nearest,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest commands in flight.
    QueueDepth,
}

/// Bounds, times, and the choice of paths. [`Default`] suits a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// I/O queues asked for on each path, each a connection; the target may give fewer.
    pub io_queues: u16,
    /// Commands in flight on each; at most [`crate::QUEUE_DEPTH_MAX`], the target may give fewer.
    pub queue_depth: u16,
    /// Requests accepted and not done.
    pub requests_max: u32,
    /// A path that did not work for this long has failed: requests do not wait for it. It is tried on all the same.
    /// [`Duration::MAX`]: never.
    pub ctrl_loss: Duration,
    /// Requests do not wait longer than this for a path that does not work; they fail when there is none to wait
    /// for. [`Duration::MAX`]: until `ctrl_loss`.
    pub fast_io_fail: Duration,
    /// Longest pause between two tries to connect a path; the first is [`crate::BACKOFF_MIN`], each twice the one
    /// before.
    pub reconnect_delay: Duration,
    /// Keep-alive time-out: a target that does not answer for this long is lost.
    pub keep_alive: Duration,
    /// From the beginning of a connection until it is usable.
    pub connect: Duration,
    /// A command that is not answered for this long is aborted.
    pub io_timeout: Duration,
    /// An aborted command that is not answered for this long costs its controller a reset.
    pub abort_timeout: Duration,
    /// Which path takes a command.
    pub policy: PathPolicy,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            io_queues: 1,
            queue_depth: 128,
            requests_max: 1024,
            ctrl_loss: Duration::from_secs(600),
            fast_io_fail: Duration::MAX,
            reconnect_delay: Duration::from_secs(2),
            keep_alive: Duration::from_secs(5),
            connect: Duration::from_secs(5),
            io_timeout: Duration::from_secs(30),
            abort_timeout: Duration::from_secs(5),
            policy: PathPolicy::default(),
        }
    }
}

impl Limits {
    /// The keep-alive time-out that controllers are told.
    pub(crate) fn kato(&self) -> Duration {
        self.keep_alive.saturating_mul(KATO_FACTOR)
    }

    /// How long requests wait for a path that does not work.
    pub(crate) fn patience(&self) -> Duration {
        self.fast_io_fail.min(self.ctrl_loss)
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
    /// How many paths there are at first, nearest first; the rim knows their addresses.
    pub paths: usize,
    /// Bounds and times.
    pub limits: Limits,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_follow_from_names() {
        let id = |name: &str| Identity::named(Nqn::new(name).unwrap()).id;
        let uuid = "6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20";
        let own = id(&format!("nqn.2014-08.org.nvmexpress:uuid:{uuid}"));
        assert_eq!(own.to_string(), uuid);
        let (one, other) = (
            id("nqn.2026-11.io.roadstead:a"),
            id("nqn.2026-11.io.roadstead:b"),
        );
        assert!(one != other && one == id("nqn.2026-11.io.roadstead:a"));
    }
}
