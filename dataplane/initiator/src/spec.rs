//! What to connect to.

use std::io;
use std::sync::Arc;

use roadstead_host::{HostConfig, Identity, Limits, Wanted};
use roadstead_nvme::Portal;
use roadstead_nvme::nqn::Nqn;
use roadstead_ring::Stream;

use crate::client::IO_QUEUES_MAX;

/// Connects to the target of this process: gives the host's end of a connection that the target serves, at once. It is
/// how [`Portal::LOCAL`] is reached.
pub type Dial = Arc<dyn Fn() -> io::Result<Stream> + Send + Sync>;

/// A namespace and the paths to it.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Who connects.
    pub identity: Identity,
    /// The subsystem.
    pub subsystem_nqn: Nqn,
    /// The namespace in it.
    pub namespace: Wanted,
    /// Portals, nearest first: all are connected, at most [`crate::PATHS_MAX`].
    pub paths: Vec<Portal>,
    /// Bounds and times.
    pub limits: Limits,
    /// Ask for CRC-32C on heads, over TCP.
    pub header_digest: bool,
    /// Ask for CRC-32C on data, over TCP.
    pub data_digest: bool,
}

impl Spec {
    pub(crate) fn host_config(&self) -> HostConfig {
        HostConfig {
            identity: self.identity.clone(),
            subsystem_nqn: self.subsystem_nqn.clone(),
            namespace: self.namespace,
            paths: self.paths.len(),
            limits: Limits {
                io_queues: self.limits.io_queues.min(IO_QUEUES_MAX),
                ..self.limits
            },
        }
    }
}
