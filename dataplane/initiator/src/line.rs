//! The connection of one queue, over whichever transport.

use roadstead_host::Epoch;

use crate::rdma;
use crate::tcp::Connection;

/// A queue's connection.
pub(crate) enum Line {
    /// Over TCP, or within the process.
    Tcp(Box<Connection>),
    Rdma(Box<rdma::Queue>),
}

impl Line {
    /// The attempt that it belongs to.
    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            Self::Tcp(connection) => connection.epoch,
            Self::Rdma(queue) => queue.epoch,
        }
    }
}
