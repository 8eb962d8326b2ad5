//! The connections of one reactor that carry NVMe/TCP: over TCP, and from the host in this process.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use roadstead_nvme::Portal;
use roadstead_ring::{Io, SocketId, Stream};
use roadstead_target::Turn;
use roadstead_target::tcp::{Close, Connection, Flow};

use super::backend::{Backend, Weight};
use super::jobs::{Done, Life, Place};
use super::rim::{Data, Port, Storage};
use super::worker::TIMER_FAREWELL;

/// How long a host has to take what was sent before its connection was ended.
const FAREWELL_MAX: Duration = Duration::from_secs(5);

/// A connection.
struct Served {
    /// None once it has ended and only its socket is left.
    core: Option<Connection<Data>>,
    socket: SocketId,
    life: Rc<Life>,
    peer: Option<SocketAddr>,
    /// Input that was not taken because too much output waits.
    left: Vec<u8>,
    /// Is in the list of connections that wait.
    is_listed: bool,
    weight: Weight,
}

impl Served {
    fn abandon(&mut self, backend: &mut Backend) {
        let abandoned = self.core.take().map(Connection::abandon);
        backend.ended(&self.life, abandoned);
    }
}

type CoreTurn<'a, 'b> = Turn<'a, Storage, Port<'b>>;

/// All connections of a reactor that carry NVMe/TCP.
#[derive(Default)]
pub(super) struct Connections {
    /// By token.
    slots: Vec<Option<Served>>,
    free: Vec<usize>,
    /// Connections whose commands wait for buffers or for room in their output.
    waiting: Vec<usize>,
    /// Connections that have ended and still send, oldest first.
    farewells: VecDeque<SocketId>,
}

impl Connections {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Serves a connection of a host that reached `local`. False when that is not possible; it is closed then.
    pub(super) fn adopt(
        &mut self,
        backend: &Backend,
        io: &mut Io,
        stream: Stream,
        local: Portal,
    ) -> bool {
        let index = self.free.pop().unwrap_or(self.slots.len());
        let peer = stream.peer();
        let socket = match io.adopt(stream, index as u64) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(?peer, %error, "a connection could not be taken");
                if index < self.slots.len() {
                    self.free.push(index);
                }
                return false;
            }
        };
        let core = Connection::new(Arc::clone(&backend.registry), local, backend.now_ms(io));
        let life = Rc::new(Life::default());
        let served = Served {
            core: Some(core),
            socket,
            life,
            peer,
            left: Vec::new(),
            is_listed: false,
            weight: Weight::counted(),
        };
        match self.slots.get_mut(index) {
            Some(slot) => *slot = Some(served),
            None => self.slots.push(Some(served)),
        }
        true
    }

    fn get(&mut self, index: usize) -> Option<&mut Served> {
        self.slots.get_mut(index)?.as_mut()
    }

    /// Calls the core of a connection, then starts the I/O that it handed out. `None` when the connection has
    /// ended.
    fn call<T>(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        index: usize,
        with: impl FnOnce(&mut Connection<Data>, &mut CoreTurn<'_, '_>) -> T,
    ) -> Option<T> {
        let now_ms = backend.now_ms(io);
        let served = self.slots.get_mut(index)?.as_mut()?;
        let core = served.core.as_mut()?;
        let queued = io.queued_bytes(served.socket);
        let output = io.output(served.socket)?;
        let flying = queued.saturating_sub(output.len());
        let mut port = Port { output, flying };
        let result = with(
            core,
            &mut Turn {
                rim: &mut backend.storage,
                out: &mut port,
                now_ms,
            },
        );
        if core.is_waiting() && !served.is_listed {
            served.is_listed = true;
            self.waiting.push(index);
        }
        let life = Rc::clone(&served.life);
        if backend.start_submitted(io, Place::Tcp(index), &life)
            && let Some(served) = self.get(index)
        {
            served.weight.works(backend.load());
        }
        Some(result)
    }

    /// Bytes came.
    pub(super) fn received(&mut self, backend: &mut Backend, io: &mut Io, index: u64, data: &[u8]) {
        let index = slot(index);
        let Some(served) = self.get(index) else {
            return;
        };
        if !served.left.is_empty() {
            // It was paused with these on their way already.
            served.left.extend_from_slice(data);
            return;
        }
        self.take_input(backend, io, index, data);
    }

    fn take_input(&mut self, backend: &mut Backend, io: &mut Io, index: usize, data: &[u8]) {
        let mut input = data;
        match self.call(backend, io, index, |core, turn| {
            core.receive(&mut input, turn)
        }) {
            Some(Ok(Flow::Open)) | None => {}
            Some(Ok(Flow::Blocked)) => {
                let Some(served) = self.get(index) else {
                    return;
                };
                served.left = input.to_vec();
                io.pause(served.socket);
            }
            Some(Err(close)) => self.end(backend, io, index, &close),
        }
    }

    /// Output was sent.
    pub(super) fn sent(&mut self, backend: &mut Backend, io: &mut Io, index: u64) {
        let index = slot(index);
        let Some(served) = self.get(index) else {
            return;
        };
        if served.left.is_empty() {
            return;
        }
        let left = std::mem::take(&mut served.left);
        self.take_input(backend, io, index, &left);
        if let Some(served) = self.get(index)
            && served.left.is_empty()
        {
            io.resume(served.socket);
        }
    }

    /// Looks at time-outs and changes of all connections.
    pub(super) fn tick(&mut self, backend: &mut Backend, io: &mut Io) {
        for index in 0..self.slots.len() {
            if let Some(served) = self.get(index) {
                served.weight.tick(backend.load());
            }
            if let Some(Err(close)) = self.call(backend, io, index, |core, turn| core.tick(turn)) {
                self.end(backend, io, index, &close);
            }
        }
    }

    /// Ends a connection: what is in its output is sent, its commands are forgotten.
    fn end(&mut self, backend: &mut Backend, io: &mut Io, index: usize, close: &Close) {
        let Some(served) = self.slots.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        served.abandon(backend);
        served.left = Vec::new();
        let (socket, peer) = (
            served.socket,
            served.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        );
        match close {
            Close::Protocol(_) | Close::DataTimeout | Close::Host(_) if backend.may_log() => {
                tracing::warn!(peer, reason = %close, "a connection was ended");
            }
            _ => tracing::debug!(peer, reason = %close, "a connection was ended"),
        }
        io.finish(socket);
        self.farewells.push_back(socket);
        if io.set_timer(FAREWELL_MAX, TIMER_FAREWELL).is_err() {
            io.close(socket);
        }
    }

    /// The oldest farewell has had its time.
    pub(super) fn farewell_over(&mut self, io: &mut Io) {
        if let Some(socket) = self.farewells.pop_front() {
            io.close(socket);
        }
    }

    /// The socket is gone.
    pub(super) fn closed(&mut self, backend: &mut Backend, index: u64, error: Option<&io::Error>) {
        let index = slot(index);
        if let Some(mut served) = self.slots.get_mut(index).and_then(Option::take) {
            served.abandon(backend);
            served.weight.remove(backend.load());
            self.free.push(index);
            tracing::debug!(peer = ?served.peer, ?error, "a connection is closed");
        }
    }

    /// Goes on with what waits.
    pub(super) fn resume_waiting(&mut self, backend: &mut Backend, io: &mut Io) {
        for index in std::mem::take(&mut self.waiting) {
            self.resume(backend, io, index);
        }
    }

    /// Whether something waits that nothing tells about.
    pub(super) fn must_poll(&self) -> bool {
        self.waiting.iter().any(|index| self.is_draining(*index))
    }

    fn is_draining(&self, index: usize) -> bool {
        let served = self.slots.get(index).and_then(Option::as_ref);
        let core = served.and_then(|served| served.core.as_ref());
        core.is_some_and(Connection::is_draining)
    }

    /// An I/O of a connection has ended.
    pub(super) fn complete(
        &mut self,
        backend: &mut Backend,
        io: &mut Io,
        index: usize,
        done: Done,
    ) {
        let Done { owner, result, buf } = done;
        let is_same = |served: &mut Served| Rc::ptr_eq(&served.life, &owner.life);
        if self.get(index).is_some_and(is_same) {
            self.call(backend, io, index, |core, turn| {
                core.complete(owner.tag, result, buf.map(Data::Buffer), turn)
            });
        }
    }

    fn resume(&mut self, backend: &mut Backend, io: &mut Io, index: usize) {
        let Some(served) = self.get(index) else {
            return;
        };
        served.is_listed = false;
        self.call(backend, io, index, |core, turn| core.resume(turn));
    }

    /// Takes no more commands.
    pub(super) fn pause_all(&mut self, io: &mut Io) {
        for served in self.slots.iter().flatten() {
            io.pause(served.socket);
        }
    }

    /// Whether all output is sent.
    pub(super) fn is_quiet(&self, io: &Io) -> bool {
        let is_sent = |served: &Served| io.queued_bytes(served.socket) == 0;
        self.slots.iter().flatten().all(is_sent)
    }
}

/// A connection's number from its token.
fn slot(token: u64) -> usize {
    usize::try_from(token).unwrap_or(usize::MAX)
}
