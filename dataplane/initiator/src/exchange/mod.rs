//! One admin queue on the caller's thread: a command at a time, and waiting for its answer.

mod rdma;
mod tcp;

use std::io;
use std::time::{Duration, Instant};

use roadstead_host::Control;
use roadstead_nvme::{Cqe, Portal, Transport};
use roadstead_tcp::Fatal;
use roadstead_verbs::VerbsError;

/// Data of one answer that is accepted, in bytes: more than is ever asked for at once.
const DATA_MAX: u32 = 1 << 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection could not be made, or failed.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// The other end violates the protocol.
    #[error(transparent)]
    Protocol(#[from] Fatal),
}

impl From<VerbsError> for ExchangeError {
    fn from(error: VerbsError) -> Self {
        Self::Connection(io::Error::other(error))
    }
}

/// An admin queue. It ends when it is dropped.
pub(crate) enum Exchange {
    /// Over TCP.
    Tcp(Box<tcp::Line>),
    /// Over RDMA.
    Rdma(Box<rdma::Line>),
}

impl Exchange {
    /// Connects. Everything must be done by the deadline.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(crate) fn open(portal: Portal, deadline: Instant) -> Result<Self, ExchangeError> {
        let address = portal.address;
        match portal.transport {
            Transport::Tcp => Ok(Self::Tcp(Box::new(tcp::Line::open(address, deadline)?))),
            Transport::Rdma => Ok(Self::Rdma(Box::new(rdma::Line::open(address, deadline)?))),
            Transport::Local => {
                let what = "within a process only namespaces are connected";
                Err(io::Error::new(io::ErrorKind::Unsupported, what).into())
            }
        }
    }

    /// Sends a command and waits for its end, and for the data that comes of it.
    ///
    /// # Errors
    /// [`ExchangeError`].
    pub(crate) fn run(&mut self, command: &Control) -> Result<(Cqe, Vec<u8>), ExchangeError> {
        match self {
            Self::Tcp(line) => line.run(command),
            Self::Rdma(line) => line.run(command),
        }
    }
}

/// Time until the deadline.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}
