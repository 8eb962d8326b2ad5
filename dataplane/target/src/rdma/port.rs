//! What the queue pair is asked to do.

use roadstead_nvme::Cqe;
use roadstead_rdma::Remote;

use crate::controller::Ended;
use crate::queue::Tag;

/// The way to the queue pair: what is put in is done in this order.
pub trait Port<B> {
    /// Bytes of buffers that were put in and are not done with.
    fn pending(&self) -> usize;

    /// Reads the host's memory into a buffer that is at least as long; then
    /// [`Connection::fetched`](super::Connection::fetched) gets the buffer. If it fails, so does the queue pair.
    fn fetch(&mut self, tag: Tag, remote: Remote, buffer: B);

    /// Writes the first bytes of a buffer to the host's memory.
    fn write(&mut self, remote: Remote, buffer: B);

    /// Sends a response after what was written before, and invalidates the host's key with it.
    fn respond(&mut self, cqe: &Cqe, invalidate: Option<u32>);
}

/// Why a connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Close {
    /// A capsule without a whole submission queue entry.
    #[error("the host sent a capsule that is shorter than a command")]
    ShortCapsule,
    /// More commands than the queue has entries.
    #[error("the host sent more commands than its queue has entries")]
    QueueFull,
    /// The controller ended.
    #[error("the controller ended: {0}")]
    Ended(Ended),
    /// No queue was connected in time.
    #[error("the host did not connect a queue within 10 s")]
    ConnectTimeout,
    /// The connection was used after it said that it must be closed.
    #[error("the connection was closed before")]
    Closed,
}
