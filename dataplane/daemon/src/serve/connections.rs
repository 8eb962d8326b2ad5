//! The connections of one reactor, and their I/O.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use roadstead_ring::{Io, SocketId, Stream};
use roadstead_target::Registry;
use roadstead_target::Turn;
use roadstead_target::tcp::{Close, Connection, Flow};

use super::jobs::{Done, Jobs, Life, Owner};
use super::rim::{Data, Port, Storage};
use super::worker::TIMER_FAREWELL;

/// How long a host has to take what was sent before its connection was ended.
const FAREWELL_MAX: Duration = Duration::from_secs(5);
/// Lines in the log about ended connections between two ticks.
const LOG_LINES_MAX: u32 = 10;

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
    /// Counts as load of the reactor: it has done I/O, or is too young to tell.
    is_load: bool,
    did_io: bool,
    ticks: u8,
}

impl Served {
    /// Ends the connection; its I/O at drives goes on without it.
    fn abandon(&mut self, jobs: &mut Jobs) {
        let Some(core) = self.core.take() else {
            return self.life.end(None);
        };
        jobs.fence(&self.life);
        let abandoned = core.abandon();
        abandoned.keep_order();
        self.life.end(Some(abandoned));
    }
}

type CoreTurn<'a, 'b> = Turn<'a, Storage, Port<'b>>;

/// All connections of a reactor.
pub(super) struct Connections {
    registry: Arc<Registry>,
    pub(super) storage: Storage,
    pub(super) jobs: Jobs,
    /// By token.
    slots: Vec<Option<Served>>,
    free: Vec<usize>,
    /// Connections whose commands wait for buffers or for room in their output.
    waiting: Vec<usize>,
    /// Connections that have ended and still send, oldest first.
    farewells: VecDeque<SocketId>,
    started: Instant,
    log_lines: u32,
    /// Connections that count as load. The acceptor, which fills it in advance, looks at it.
    load: Arc<Load>,
}

/// How many connections of a reactor are at work, more or less.
#[derive(Debug, Default)]
pub(super) struct Load(AtomicUsize);

impl Load {
    pub(super) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Connections {
    pub(super) fn new(
        registry: Arc<Registry>,
        storage: Storage,
        jobs: Jobs,
        load: Arc<Load>,
    ) -> Self {
        Self {
            registry,
            storage,
            jobs,
            slots: Vec::new(),
            free: Vec::new(),
            waiting: Vec::new(),
            farewells: VecDeque::new(),
            started: Instant::now(),
            log_lines: 0,
            load,
        }
    }

    /// The reactor's load.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn now_ms(&self, io: &Io) -> u64 {
        let elapsed = io.now().saturating_duration_since(self.started);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// Serves a connection. False when that is not possible; it is closed then.
    pub(super) fn adopt(&mut self, io: &mut Io, stream: Stream) -> bool {
        let index = self.free.pop().unwrap_or(self.slots.len());
        let local = stream.local().unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into());
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
        let core = Connection::new(Arc::clone(&self.registry), local, self.now_ms(io));
        let life = Rc::new(Life::default());
        let served = Served {
            core: Some(core),
            socket,
            life,
            peer,
            left: Vec::new(),
            is_listed: false,
            is_load: true,
            did_io: false,
            ticks: 0,
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
        io: &mut Io,
        index: usize,
        with: impl FnOnce(&mut Connection<Data>, &mut CoreTurn<'_, '_>) -> T,
    ) -> Option<T> {
        let now_ms = self.now_ms(io);
        let served = self.slots.get_mut(index)?.as_mut()?;
        let core = served.core.as_mut()?;
        let queued = io.queued_bytes(served.socket);
        let output = io.output(served.socket)?;
        let flying = queued.saturating_sub(output.len());
        let mut port = Port { output, flying };
        let result = with(
            core,
            &mut Turn {
                rim: &mut self.storage,
                out: &mut port,
                now_ms,
            },
        );
        if std::mem::take(&mut self.storage.did_io) {
            served.did_io = true;
            if !std::mem::replace(&mut served.is_load, true) {
                self.load.add();
            }
        }
        if core.is_waiting() && !served.is_listed {
            served.is_listed = true;
            self.waiting.push(index);
        }
        if !self.storage.submitted.is_empty() {
            let life = Rc::clone(&served.life);
            self.start_submitted(io, index, &life);
        }
        Some(result)
    }

    fn start_submitted(&mut self, io: &mut Io, connection: usize, life: &Rc<Life>) {
        let mut submitted = std::mem::take(&mut self.storage.submitted);
        for one in submitted.drain(..) {
            let namespace = self.storage.find(one.request.volume).cloned();
            let owner = Owner {
                connection,
                life: Rc::clone(life),
                tag: one.tag,
            };
            self.jobs.start(io, owner, namespace, one.request, one.buf);
        }
        self.storage.submitted = submitted;
    }

    /// Bytes came.
    pub(super) fn received(&mut self, io: &mut Io, index: u64, data: &[u8]) {
        let index = slot(index);
        let Some(served) = self.get(index) else {
            return;
        };
        if !served.left.is_empty() {
            // It was paused with these on their way already.
            served.left.extend_from_slice(data);
            return;
        }
        self.take_input(io, index, data);
    }

    fn take_input(&mut self, io: &mut Io, index: usize, data: &[u8]) {
        let mut input = data;
        match self.call(io, index, |core, turn| core.receive(&mut input, turn)) {
            Some(Ok(Flow::Open)) | None => {}
            Some(Ok(Flow::Blocked)) => {
                let Some(served) = self.get(index) else {
                    return;
                };
                served.left = input.to_vec();
                io.pause(served.socket);
            }
            Some(Err(close)) => self.end(io, index, &close),
        }
    }

    /// Output was sent.
    pub(super) fn sent(&mut self, io: &mut Io, index: u64) {
        let index = slot(index);
        let Some(served) = self.get(index) else {
            return;
        };
        if served.left.is_empty() {
            return;
        }
        let left = std::mem::take(&mut served.left);
        self.take_input(io, index, &left);
        if let Some(served) = self.get(index)
            && served.left.is_empty()
        {
            io.resume(served.socket);
        }
    }

    /// Looks at time-outs and changes of all connections.
    pub(super) fn tick(&mut self, io: &mut Io) {
        self.log_lines = 0;
        for index in 0..self.slots.len() {
            self.judge(index);
            if let Some(Err(close)) = self.call(io, index, |core, turn| core.tick(turn)) {
                self.end(io, index, &close);
            }
        }
    }

    /// A connection that has done no I/O by its second tick is taken for an admin queue: no load.
    fn judge(&mut self, index: usize) {
        let Some(served) = self.slots.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        served.ticks = served.ticks.saturating_add(1);
        if served.ticks == 2 && !served.did_io && std::mem::take(&mut served.is_load) {
            self.load.remove();
        }
    }

    /// Ends a connection: what is in its output is sent, its commands are forgotten.
    fn end(&mut self, io: &mut Io, index: usize, close: &Close) {
        let may_log = self.log_lines < LOG_LINES_MAX;
        let Some(served) = self.slots.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        served.abandon(&mut self.jobs);
        served.left = Vec::new();
        let (socket, peer) = (
            served.socket,
            served.peer.map(|peer| peer.to_string()).unwrap_or_default(),
        );
        match close {
            Close::Protocol(_) | Close::DataTimeout | Close::Host(_) if may_log => {
                self.log_lines += 1;
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
    pub(super) fn closed(&mut self, index: u64, error: Option<&io::Error>) {
        let index = slot(index);
        if let Some(mut served) = self.slots.get_mut(index).and_then(Option::take) {
            served.abandon(&mut self.jobs);
            if served.is_load {
                self.load.remove();
            }
            self.free.push(index);
            tracing::debug!(peer = ?served.peer, ?error, "a connection is closed");
        }
    }

    /// Hands the ends of I/O to their connections, and goes on with what waits. Says whether it must be called again
    /// in a moment.
    pub(super) fn settle(&mut self, io: &mut Io) -> bool {
        self.jobs.retry(io);
        loop {
            while let Some(done) = self.jobs.next_done() {
                self.complete(io, done);
            }
            for index in std::mem::take(&mut self.waiting) {
                self.resume(io, index);
            }
            if !self.jobs.has_done() {
                break;
            }
        }
        self.jobs.must_poll() || self.waiting.iter().any(|index| self.is_draining(*index))
    }

    fn is_draining(&self, index: usize) -> bool {
        let served = self.slots.get(index).and_then(Option::as_ref);
        let core = served.and_then(|served| served.core.as_ref());
        core.is_some_and(Connection::is_draining)
    }

    fn complete(&mut self, io: &mut Io, done: Done) {
        let Done { owner, result, buf } = done;
        let is_same = |served: &mut Served| Rc::ptr_eq(&served.life, &owner.life);
        if self.get(owner.connection).is_some_and(is_same) {
            self.call(io, owner.connection, |core, turn| {
                core.complete(owner.tag, result, buf.map(Data::Buffer), turn)
            });
        }
    }

    fn resume(&mut self, io: &mut Io, index: usize) {
        let Some(served) = self.get(index) else {
            return;
        };
        served.is_listed = false;
        self.call(io, index, |core, turn| core.resume(turn));
    }

    /// Takes no more commands.
    pub(super) fn pause_all(&mut self, io: &mut Io) {
        for served in self.slots.iter().flatten() {
            io.pause(served.socket);
        }
    }

    /// Whether no I/O is under way and all output is sent.
    pub(super) fn is_quiet(&self, io: &Io) -> bool {
        let is_sent = |served: &Served| io.queued_bytes(served.socket) == 0;
        self.jobs.active() == 0 && self.slots.iter().flatten().all(is_sent)
    }
}

/// A connection's number from its token.
fn slot(token: u64) -> usize {
    usize::try_from(token).unwrap_or(usize::MAX)
}
