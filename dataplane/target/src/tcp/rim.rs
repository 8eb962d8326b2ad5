//! What a connection needs from the reactor that drives it.

use roadstead_tcp::Fatal;
use roadstead_tcp::pdu::TermReq;

use crate::controller::Ended;
use crate::io::{IoRequest, IoResult};
use crate::queue::Tag;
use crate::table::VolumeKey;

/// The reactor's storage side.
pub trait Rim {
    /// Memory for the data of one read or write, owned by whoever works on it.
    type Buffer: AsRef<[u8]> + AsMut<[u8]>;

    /// A buffer of at least this many bytes, with any contents. None when there is none now: the command waits until
    /// [`super::Connection::resume`].
    fn allocate(&mut self, length_bytes: usize) -> Option<Self::Buffer>;

    /// Whether [`Self::read_now`] and [`Self::write_now`] are worth trying for a volume.
    fn is_immediate(&self, volume: VolumeKey) -> bool {
        let _ = volume;
        false
    }

    /// Whether [`Self::read_now`] is worth trying for a read: false where a buffer is better, such as for long reads.
    fn reads_now(&self, request: &IoRequest) -> bool {
        self.is_immediate(request.volume)
    }

    /// Reads at once into `into`, which has the request's length. None when that is not possible: the request then
    /// comes by [`Self::submit`], and what is in `into` does not matter.
    fn read_now(&mut self, request: &IoRequest, into: &mut [u8]) -> Option<IoResult> {
        let _ = (request, into);
        None
    }

    /// The data of a read where it lies: a buffer for [`Output::buffer`] alone, whose bytes this end does not look at.
    /// Not asked for when the data needs a digest. None when that is not possible; [`Self::read_now`] is next then.
    fn lend(&mut self, request: &IoRequest) -> Option<Self::Buffer> {
        let _ = request;
        None
    }

    /// Writes `data`, which has the request's length, at once. None when that is not possible and nothing was written:
    /// the request then comes by [`Self::submit`].
    fn write_now(&mut self, request: &IoRequest, data: &[u8]) -> Option<IoResult> {
        let _ = (request, data);
        None
    }

    /// Starts an I/O that ends with exactly one [`super::Connection::complete`] with this tag, not before this
    /// returns. Reads come with a buffer to fill, writes with one that holds the data, in its first
    /// `request.length` bytes; others without.
    fn submit(&mut self, tag: Tag, request: IoRequest, buffer: Option<Self::Buffer>);
}

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

/// One call's view of the reactor.
#[derive(Debug)]
pub struct Turn<'a, R, O> {
    /// Storage.
    pub rim: &'a mut R,
    /// The socket.
    pub out: &'a mut O,
    /// A clock that never goes back, ms.
    pub now_ms: u64,
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
