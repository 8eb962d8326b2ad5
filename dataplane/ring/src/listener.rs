//! Listening sockets.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, types};
use rustix::net::sockopt;

use crate::error::RingError;
use crate::io::{Io, Kind};
use crate::slab::Key;
use crate::socket::socket_for;

/// Names a listening socket of this reactor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub(crate) Key);

pub(crate) struct Listener {
    fd: OwnedFd,
    pub(crate) token: u64,
    pub(crate) accepting: bool,
    pub(crate) closing: bool,
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
impl Io {
    /// Listens; every connection comes as [`Event::Accepted`](crate::Event). `[::]` also takes IPv4.
    ///
    /// # Errors
    /// [`RingError::Listen`], [`RingError::Full`].
    pub fn listen(&mut self, address: SocketAddr, token: u64) -> Result<ListenerId, RingError> {
        let open = || -> rustix::io::Result<OwnedFd> {
            let fd = socket_for(address)?;
            sockopt::set_socket_reuseaddr(&fd, true)?;
            if address.is_ipv6() {
                sockopt::set_ipv6_v6only(&fd, !address.ip().is_unspecified())?;
            }
            rustix::net::bind(&fd, &address)?;
            rustix::net::listen(&fd, BACKLOG)?;
            Ok(fd)
        };
        let fd = open().map_err(|e| RingError::Listen {
            address,
            source: e.into(),
        })?;
        let listener = Listener {
            fd,
            token,
            accepting: false,
            closing: false,
        };
        let key = self
            .listeners
            .insert(listener)
            .map_err(|_| RingError::Full { what: "listener" })?;
        self.arm_accept(key);
        Ok(ListenerId(key))
    }

    /// The address a listener is bound to (its port, if 0 was asked for).
    pub fn listener_address(&self, listener: ListenerId) -> Option<SocketAddr> {
        let any = rustix::net::getsockname(&self.listeners.get(listener.0)?.fd).ok()?;
        SocketAddr::try_from(any).ok()
    }

    /// Stops listening; [`Event::ListenerClosed`](crate::Event) says when the address is free.
    pub fn close_listener(&mut self, listener: ListenerId) {
        let Some(entry) = self.listeners.get_mut(listener.0) else {
            return;
        };
        if !std::mem::replace(&mut entry.closing, true) {
            if entry.accepting {
                self.cancel(Kind::Accept, listener.0);
            }
            self.closing_listeners.push(listener.0);
        }
    }

    pub(crate) fn arm_accept(&mut self, key: Key) {
        let Some(entry) = self.listeners.get_mut(key) else {
            return;
        };
        if entry.accepting || entry.closing {
            return;
        }
        entry.accepting = true;
        let op =
            opcode::AcceptMulti::new(types::Fd(entry.fd.as_raw_fd())).flags(libc::SOCK_CLOEXEC);
        // SAFETY: the entry points to nothing; the descriptor is owned by the listener, which stays until
        // the accept has ended.
        unsafe { self.push(op.build().user_data(Kind::Accept.tag(key))) }
    }
}
