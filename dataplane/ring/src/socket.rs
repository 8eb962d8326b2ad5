//! Sockets: listening, connecting, receiving, sending, closing.

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
use crate::output::{Output, Sending};
use crate::provided::GROUP;
use crate::slab::Key;

/// Names a connection of this reactor. A name whose connection is closed is never reused.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct SocketId(pub(crate) Key);

/// Names a listening socket of this reactor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ListenerId(pub(crate) Key);

/// A connected TCP socket that belongs to no reactor (yet): it may travel to another thread.
#[derive(Debug)]
pub struct Stream(pub(crate) OwnedFd);

impl Stream {
    /// The address of the other end, if it is still there.
    pub fn peer(&self) -> Option<SocketAddr> {
        rustix::net::getpeername(&self.0)
            .ok()
            .flatten()
            .and_then(|any| SocketAddr::try_from(any).ok())
    }

    /// Our own address.
    pub fn local(&self) -> Option<SocketAddr> {
        rustix::net::getsockname(&self.0)
            .ok()
            .and_then(|any| SocketAddr::try_from(any).ok())
    }
}

impl From<std::net::TcpStream> for Stream {
    fn from(stream: std::net::TcpStream) -> Self {
        Self(stream.into())
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
    fd: OwnedFd,
    pub(crate) token: u64,
    pub(crate) state: State,
    pub(crate) connecting: bool,
    pub(crate) receiving: bool,
    pub(crate) paused: bool,
    dirty: bool,
    write_ended: bool,
    /// What is queued.
    out: Option<Box<Sending>>,
    /// What the send in flight owns.
    flying: Option<Box<Sending>>,
    /// The address that the connect in flight points to.
    address: Option<Box<SocketAddrAny>>,
    pub(crate) error: Option<io::Error>,
}

pub(crate) struct Listener {
    fd: OwnedFd,
    pub(crate) token: u64,
    pub(crate) accepting: bool,
    pub(crate) closing: bool,
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// A peer that vanished without a word is noticed after 30 + 3 * 10 s, also where no protocol above asks.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;
/// Unused send operations kept. Connections that have nothing to send own none.
const SPARES_MAX: usize = 8;

fn socket_for(address: SocketAddr) -> rustix::io::Result<OwnedFd> {
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
        let set_up = || {
            sockopt::set_tcp_nodelay(&fd, true)?;
            sockopt::set_socket_keepalive(&fd, true)?;
            sockopt::set_tcp_keepidle(&fd, KEEPALIVE_IDLE)?;
            sockopt::set_tcp_keepintvl(&fd, KEEPALIVE_INTERVAL)?;
            sockopt::set_tcp_keepcnt(&fd, KEEPALIVE_PROBES)
        };
        set_up().map_err(|e| RingError::Socket {
            what: "set the options of",
            source: e.into(),
        })?;
        if let Some(name) = &self.tcp_congestion {
            // A kernel without it uses its default: slower at worst.
            let _ = sockopt::set_tcp_congestion(&fd, name);
        }
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

    /// Changes the token that the connection's events carry.
    pub fn set_token(&mut self, socket: SocketId, token: u64) {
        if let Some(socket) = self.sockets.get_mut(socket.0) {
            socket.token = token;
        }
    }

    /// The queue to append to; sent at the end of the turn. `None` when the connection is (being) closed.
    /// Before [`Event::Connected`](crate::Event) it only collects.
    pub fn output(&mut self, socket: SocketId) -> Option<&mut Output> {
        let key = socket.0;
        let socket = self.sockets.get_mut(key)?;
        if !matches!(socket.state, State::Open | State::Connecting) {
            return None;
        }
        if !std::mem::replace(&mut socket.dirty, true) {
            self.dirty.push(key);
        }
        let spares = &mut self.spares;
        let out = socket
            .out
            .get_or_insert_with(|| spares.pop().unwrap_or_else(|| Box::new(Sending::new())));
        Some(&mut out.output)
    }

    /// Bytes queued and in flight that the kernel has not taken yet.
    pub fn queued_bytes(&self, socket: SocketId) -> usize {
        self.sockets.get(socket.0).map_or(0, Socket::queued_bytes)
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
        // order and keeps its last words.
        let _ = if in_order {
            shutdown(&socket.fd, Shutdown::Both)
        } else {
            rustix::net::connect_unspec(&socket.fd)
        };
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

    fn keep_spare(&mut self, sending: Option<Box<Sending>>) {
        if let Some(mut sending) = sending
            && self.spares.len() < SPARES_MAX
        {
            sending.done = 0;
            sending.output.clear();
            self.spares.push(sending);
        }
    }

    /// Starts a send for every connection that has something queued and none in flight.
    pub(crate) fn flush(&mut self) {
        while let Some(key) = self.dirty.pop() {
            let Some(socket) = self.sockets.get_mut(key) else {
                continue;
            };
            socket.dirty = false;
            let idle = socket.flying.is_none();
            if !idle || !matches!(socket.state, State::Open | State::Finishing) {
                continue;
            }
            match socket.out.take() {
                Some(out) if !out.output.is_empty() => {
                    socket.flying = Some(out);
                    self.send(key);
                }
                out => {
                    if socket.state == State::Finishing
                        && !std::mem::replace(&mut socket.write_ended, true)
                    {
                        let _ = shutdown(&socket.fd, Shutdown::Write);
                    }
                    self.keep_spare(out);
                }
            }
        }
    }

    fn send(&mut self, key: Key) {
        let Some(socket) = self.sockets.get_mut(key) else {
            return;
        };
        let fd = types::Fd(socket.fd.as_raw_fd());
        let Some(flying) = socket.flying.as_mut() else {
            return;
        };
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_WAITALL).unsigned_abs();
        let op = opcode::SendMsg::new(fd, flying.message()).flags(flags);
        // SAFETY: message, vectors and payload belong to the boxed `flying`, which nobody changes until
        // the send's completion; the descriptor is owned by the socket, which stays as long.
        unsafe { self.push(op.build().user_data(Kind::Send.tag(key))) }
    }

    /// Takes in a send's result; returns the connection's token and fill when the user should hear of it.
    pub(crate) fn sent(&mut self, key: Key, result: io::Result<usize>) -> Option<(u64, usize)> {
        let socket = self.sockets.get_mut(key)?;
        let flying = socket.flying.as_mut()?;
        let total = flying.output.len();
        let closing = socket.state == State::Closing;
        let error = match result {
            Ok(0) => Some(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                flying.done += count;
                None
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => None,
            Err(error) => Some(error),
        };
        if error.is_none() && flying.done < total && !closing {
            self.send(key);
            return None;
        }
        let done = socket.flying.take();
        if closing {
            self.closing.push(key);
        } else if !std::mem::replace(&mut socket.dirty, true) {
            self.dirty.push(key);
        }
        let (token, queued) = (socket.token, socket.queued_bytes());
        self.keep_spare(done);
        match error {
            Some(error) => {
                self.begin_close(key, Some(error));
                None
            }
            None if closing => None,
            None => Some((token, queued)),
        }
    }
}

impl Socket {
    fn queued_bytes(&self) -> usize {
        let out = self.out.as_ref().map_or(0, |out| out.output.len());
        let flying = self
            .flying
            .as_ref()
            .map_or(0, |flying| flying.output.len().saturating_sub(flying.done));
        out + flying
    }

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
