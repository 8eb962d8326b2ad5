//! What a client needs of a reactor.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use roadstead_ring::{Io, Output, RingError, Segments, SocketId, Stream, TimerId, WatchId};

/// What a [`Client`](crate::Client) needs of a reactor. Each method does what the one of [`Io`] with its name does, which
/// is the only implementation outside of the simulation of both ends.
#[allow(missing_docs, reason = "documented at `Io`")]
pub trait Rim {
    fn now(&self) -> Instant;
    fn connect(&mut self, address: SocketAddr, token: u64) -> Result<SocketId, RingError>;
    fn adopt(&mut self, stream: Stream, token: u64) -> Result<SocketId, RingError>;
    fn output(&mut self, socket: SocketId) -> Option<&mut Output>;
    fn finish(&mut self, socket: SocketId);
    fn close(&mut self, socket: SocketId);
    fn set_timer(&mut self, delay: Duration, token: u64) -> Result<TimerId, RingError>;
    fn cancel_timer(&mut self, timer: TimerId);
    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<WatchId, RingError>;
    fn unwatch(&mut self, watch: WatchId);

    /// None in a simulation, which has no segments.
    fn segments(&self, socket: SocketId) -> Option<Segments> {
        let _ = socket;
        None
    }
}

impl Rim for Io {
    fn now(&self) -> Instant {
        Io::now(self)
    }

    fn connect(&mut self, address: SocketAddr, token: u64) -> Result<SocketId, RingError> {
        Io::connect(self, address, token)
    }

    fn adopt(&mut self, stream: Stream, token: u64) -> Result<SocketId, RingError> {
        Io::adopt(self, stream, token)
    }

    fn output(&mut self, socket: SocketId) -> Option<&mut Output> {
        Io::output(self, socket)
    }

    fn finish(&mut self, socket: SocketId) {
        Io::finish(self, socket);
    }

    fn close(&mut self, socket: SocketId) {
        Io::close(self, socket);
    }

    fn set_timer(&mut self, delay: Duration, token: u64) -> Result<TimerId, RingError> {
        Io::set_timer(self, delay, token)
    }

    fn cancel_timer(&mut self, timer: TimerId) {
        Io::cancel_timer(self, timer);
    }

    fn watch(&mut self, fd: BorrowedFd<'_>, token: u64) -> Result<WatchId, RingError> {
        Io::watch(self, fd, token)
    }

    fn unwatch(&mut self, watch: WatchId) {
        Io::unwatch(self, watch);
    }

    fn segments(&self, socket: SocketId) -> Option<Segments> {
        Io::segments(self, socket)
    }
}
