//! RDMA portals.

use std::net::SocketAddr;

use roadstead_ring::Io;

/// Why an RDMA portal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum FabricError {
    /// Not here yet.
    #[error("this daemon does not speak RDMA")]
    None,
}

/// The RDMA side of a reactor.
pub(super) struct Fabric;

impl Fabric {
    /// Opens a portal.
    pub(super) fn listen(&mut self, _io: &mut Io, _address: SocketAddr) -> Result<(), FabricError> {
        Err(FabricError::None)
    }

    /// Closes a portal.
    pub(super) fn unlisten(&mut self, _address: SocketAddr) {}
}
