//! Sending: one operation at a time for each connection, of everything that is queued.

use std::io;
use std::os::fd::AsRawFd;

use io_uring::{opcode, types};
use rustix::net::{Shutdown, shutdown};

use crate::io::{Io, Kind};
use crate::output::{Output, Sending};
use crate::slab::Key;
use crate::socket::{Socket, SocketId, State};

/// Unused send operations kept. Connections that have nothing to send own none.
const SPARES_MAX: usize = 8;

impl Io {
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

    pub(crate) fn keep_spare(&mut self, sending: Option<Box<Sending>>) {
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
}
