//! Connections that no reactor has yet.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// A connected stream socket, of TCP or within this machine, that belongs to no reactor (yet): it may travel to another
/// thread.
#[derive(Debug)]
pub struct Stream(pub(crate) OwnedFd);

impl Stream {
    /// The address of the other end, if it has one and is still there.
    pub fn peer(&self) -> Option<SocketAddr> {
        rustix::net::getpeername(&self.0)
            .ok()
            .flatten()
            .and_then(|any| SocketAddr::try_from(any).ok())
    }

    /// Our own address, if we have one.
    pub fn local(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(&self.0)
            .ok()
            .and_then(|any| SocketAddr::try_from(any).ok())
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self(stream.into())
    }
}

/// Within this machine: a pair of them has no address, and nobody else can connect.
impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self(stream.into())
    }
}
