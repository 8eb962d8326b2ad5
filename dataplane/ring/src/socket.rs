//! Connections: their making, receiving, closing.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use io_uring::{opcode, types};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrAny, SocketFlags, SocketType, ipproto, shutdown, sockopt,
};

use crate::error::RingError;
use crate::io::{Io, Kind};
use crate::output::Sending;
use crate::provided::GROUP;
use crate::slab::Key;
use crate::stream::Stream;

/// Names a connection of this reactor. A name whose connection is closed is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SocketId(pub(crate) Key);

impl SocketId {
    /// A name for a connection that no reactor knows: a simulation makes its own.
    pub fn simulated(number: u64) -> Self {
        Self(Key::from_bits(number))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Connecting,
    Open,
    /// Sends what is queued, then ends the stream and waits for the peer's end; input is discarded.
    Finishing,
    /// Frees itself as soon as nothing is in flight.
    Closing,
}

pub(crate) struct Socket {
    pub(crate) fd: OwnedFd,
    pub(crate) token: u64,
    pub(crate) state: State,
    pub(crate) connecting: bool,
    pub(crate) receiving: bool,
    pub(crate) paused: bool,
    pub(crate) dirty: bool,
    pub(crate) write_ended: bool,
    /// What is queued.
    pub(crate) out: Option<Box<Sending>>,
    /// What the send in flight owns.
    pub(crate) flying: Option<Box<Sending>>,
    /// The address that the connect in flight points to.
    address: Option<Box<SocketAddrAny>>,
    pub(crate) error: Option<io::Error>,
}

/// A peer that vanished without a word is noticed after 30 + 3 * 10 s, also where no protocol above asks.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

pub(crate) fn socket_for(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    rustix::net::socket_with(
        family,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        Some(ipproto::TCP),
    )
}

impl Io {
    /// Connects; the outcome is [`Event::Connected`](crate::Event), or `Closed` with the error.
    ///
    /// # Errors
    /// [`RingError::Socket`], [`RingError::Full`].
    pub fn connect(&mut self, address: SocketAddr, token: u64) -> Result<SocketId, RingError> {
        let fd = socket_for(address).map_err(|e| RingError::Socket {
            what: "make",
            source: e.into(),
        })?;
        let key = self.insert_socket(fd, token, State::Connecting)?;
        let boxed = Box::new(SocketAddrAny::from(address));
        let Some(socket) = self.sockets.get_mut(key) else {
            return Err(RingError::Full { what: "socket" });
        };
        let (pointer, len) = (boxed.as_ptr().cast(), boxed.addr_len());
        socket.address = Some(boxed);
        socket.connecting = true;
        let op = opcode::Connect::new(types::Fd(socket.fd.as_raw_fd()), pointer, len);
        // SAFETY: the address is boxed and kept by the socket, as is the descriptor, until the connect's
        // completion.
        unsafe { self.push(op.build().user_data(Kind::Connect.tag(key))) }
        Ok(SocketId(key))
    }

    /// Takes a connected socket into this reactor and starts receiving.
    ///
    /// # Errors
    /// [`RingError::Socket`], [`RingError::Full`]; the connection is closed.
    pub fn adopt(&mut self, stream: Stream, token: u64) -> Result<SocketId, RingError> {
        let key = self.insert_socket(stream.0, token, State::Open)?;
        self.arm_recv(key);
        Ok(SocketId(key))
    }

    fn insert_socket(&mut self, fd: OwnedFd, token: u64, state: State) -> Result<Key, RingError> {
        self.set_up(&fd).map_err(|e| RingError::Socket {
            what: "set the options of",
            source: e.into(),
        })?;
        let socket = Socket {
            fd,
            token,
            state,
            connecting: false,
            receiving: false,
            paused: false,
            dirty: false,
            write_ended: false,
            out: None,
            flying: None,
            address: None,
            error: None,
        };
        self.sockets
            .insert(socket)
            .map_err(|_| RingError::Full { what: "socket" })
    }

    /// Sets what a socket of TCP needs. One within this machine needs nothing: no network can fail silently there.
    fn set_up(&self, fd: &OwnedFd) -> rustix::io::Result<()> {
        if sockopt::socket_domain(fd)? == AddressFamily::UNIX {
            return Ok(());
        }
        sockopt::set_tcp_nodelay(fd, true)?;
        sockopt::set_socket_keepalive(fd, true)?;
        sockopt::set_tcp_keepidle(fd, KEEPALIVE_IDLE)?;
        sockopt::set_tcp_keepintvl(fd, KEEPALIVE_INTERVAL)?;
        sockopt::set_tcp_keepcnt(fd, KEEPALIVE_PROBES)?;
        if let Some(name) = &self.tcp_congestion {
            // A kernel without it uses its default: slower at worst.
            let _ = sockopt::set_tcp_congestion(fd, name);
        }
        Ok(())
    }

    /// Changes the token that the connection's events carry.
    pub fn set_token(&mut self, socket: SocketId, token: u64) {
        if let Some(socket) = self.sockets.get_mut(socket.0) {
            socket.token = token;
        }
    }

    /// Connections of this reactor, closing ones included.
    pub fn connections(&self) -> usize {
        self.sockets.len()
    }

    /// Stops receiving: TCP slows the sender down. What was received before may still come.
    pub fn pause(&mut self, socket: SocketId) {
        let key = socket.0;
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if !std::mem::replace(&mut socket.paused, true) && socket.receiving {
            self.cancel(Kind::Recv, key);
        }
    }

    /// Receives again.
    pub fn resume(&mut self, socket: SocketId) {
        let key = socket.0;
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if std::mem::replace(&mut socket.paused, false) && !socket.receiving {
            self.rearm.push(key);
        }
    }

    pub(crate) fn arm_recv(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let wanted = match socket.state {
            State::Open => !socket.paused,
            State::Finishing => true,
            State::Connecting | State::Closing => false,
        };
        if socket.receiving || !wanted {
            return;
        }
        socket.receiving = true;
        let op = opcode::RecvMulti::new(types::Fd(socket.fd.as_raw_fd()), GROUP);
        // SAFETY: the kernel writes into provided buffers only, which outlive all operations; the
        // descriptor is owned by the socket, which stays until the receive has ended.
        unsafe { self.push(op.build().user_data(Kind::Recv.tag(key))) }
    }

    /// Closes at once: what is queued is dropped, operations are cancelled, and
    /// [`Event::Closed`](crate::Event) comes when the last has ended.
    pub fn close(&mut self, socket: SocketId) {
        self.begin_close(socket.0, None);
    }

    /// Sends what is queued, ends the stream, and closes when the peer does. Input is discarded from here
    /// on. The wait has no bound: set a timer and [`Io::close`].
    pub fn finish(&mut self, socket: SocketId) {
        let key = socket.0;
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if socket.state == State::Open {
            socket.state = State::Finishing;
            socket.paused = false;
            if !std::mem::replace(&mut socket.dirty, true) {
                self.dirty.push(key);
            }
            if !socket.receiving {
                self.rearm.push(key);
            }
        }
    }

    pub(crate) fn begin_close(&mut self, key: Key, error: Option<io::Error>) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        if socket.state == State::Closing {
            return;
        }
        let in_order = socket.state == State::Finishing;
        socket.state = State::Closing;
        socket.error = error;
        let out = socket.out.take();
        // Both end operations that a cancel could miss between two of their steps. What was not sent must
        // never be: after a reconnect, a retransmitted write of this connection could otherwise reach the
        // peer behind a newer one and undo it. So the connection is reset at once, unless it finishes in
        // order and keeps its last words. One within this machine cannot be reset, and transmits nothing again.
        if in_order || rustix::net::connect_unspec(&socket.fd).is_err() {
            let _ = shutdown(&socket.fd, Shutdown::Both);
        }
        let flying = [
            (Kind::Recv, socket.receiving),
            (Kind::Send, socket.flying.is_some()),
            (Kind::Connect, socket.connecting),
        ];
        self.keep_spare(out);
        for (kind, in_flight) in flying {
            if in_flight {
                self.cancel(kind, key);
            }
        }
        self.closing.push(key);
    }
}

impl Socket {
    /// Takes in the outcome of the connect.
    pub(crate) fn connected(&mut self) {
        self.connecting = false;
        self.address = None;
    }

    /// Whether the socket is closed and nothing in flight uses it.
    pub(crate) fn is_free(&self) -> bool {
        self.state == State::Closing && !self.receiving && !self.connecting && self.flying.is_none()
    }

    /// Has the socket looked at by `flush` again.
    pub(crate) fn mark_dirty(&mut self) -> bool {
        !std::mem::replace(&mut self.dirty, true)
    }
}
