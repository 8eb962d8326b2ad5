//! The way to the socket, and how a connection ends.

use roadstead_tcp::Fatal;
use roadstead_tcp::pdu::TermReq;

use crate::controller::Ended;

/// The way to the socket: what is put in goes out in this order.
pub trait Output<B> {
    /// Bytes that were put in and not yet sent.
    fn pending(&self) -> usize;

    /// Appends a copy.
    fn bytes(&mut self, bytes: &[u8]);

    /// Appends room with any contents, which the caller fills before it does anything else here.
    fn area(&mut self, length: usize) -> &mut [u8];

    /// Takes back the last [`Self::area`], which had this length.
    fn retract(&mut self, length: usize);

    /// Appends the first `length` bytes of a buffer. The buffer is free again when they were sent.
    fn buffer(&mut self, buffer: B, length: usize);
}

/// Collects everything, for tests and tools that send it by themselves.
impl<B: AsRef<[u8]>> Output<B> for Vec<u8> {
    fn pending(&self) -> usize {
        self.len()
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn area(&mut self, length: usize) -> &mut [u8] {
        let start = self.len();
        self.resize(start + length, 0);
        self.get_mut(start..).unwrap_or_default()
    }

    fn retract(&mut self, length: usize) {
        self.truncate(self.len().saturating_sub(length));
    }

    fn buffer(&mut self, buffer: B, length: usize) {
        self.extend_from_slice(buffer.as_ref().get(..length).unwrap_or_default());
    }
}

/// Whether a connection takes more bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// All bytes were taken.
    Open,
    /// Some were left, because too much output waits for the socket. Offer them again when it is sent.
    Blocked,
}

/// Why a connection must be closed. Send what is in the output first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    /// The host broke the protocol; a termination request that says so is in the output.
    #[error("the host broke the protocol: {0}")]
    Protocol(Fatal),
    /// The host said that this end broke the protocol.
    #[error("the host ended the connection: {} information {}", .0.status, .0.information)]
    Host(TermReq),
    /// The controller ended.
    #[error("the controller ended: {0}")]
    Ended(Ended),
    /// No queue was connected in time.
    #[error("the host did not connect a queue within 10 s")]
    ConnectTimeout,
    /// Data that was asked for did not come in time.
    #[error("the host did not send the data of a write within 60 s")]
    DataTimeout,
    /// The connection was used after it said that it must be closed.
    #[error("the connection was closed before")]
    Closed,
}
