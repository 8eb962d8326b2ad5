//! A namespace on a reactor that the user runs.

mod actions;
mod paths;

use std::collections::VecDeque;
use std::time::Instant;

use roadstead_host::{Host, IoError, NamespaceInfo, Op, Refused, Request};
use roadstead_nvme::Portal;
use roadstead_ring::{Event, RingError, SocketId, TimerId};
use roadstead_tcp::{PduWriter, Role};
use roadstead_verbs::VerbsError;
use tracing::warn;

use crate::buffers::{Buffer, Buffers};
use crate::line::Line;
use crate::rdma::Fabric;
use crate::rim::Rim;
use crate::spec::{Dial, Spec};
use crate::surroundings::Surroundings;
use crate::table::Table;
use crate::tcp::{Broken, Connection};

/// How many tokens a client uses, from the one it was given: one for each queue of each path and one for its timer.
pub const QUEUE_TOKENS: u64 = 1 << 16;
/// Tokens of a path's place; the queue's number is the lower part.
const PATH_TOKENS: u64 = QUEUE_TOKENS / PLACES_MAX as u64;
/// The timer's token, counted from the first: of a queue that is never asked for.
const TIMER: u64 = QUEUE_TOKENS - 1;
/// The first token of what RDMA has watched: of queues that are never asked for.
const FABRIC: u64 = QUEUE_TOKENS - PATH_TOKENS / 4;
/// Most paths of a client; others are not used.
pub const PATHS_MAX: usize = 16;
/// Places for paths: as many as are wanted, and as many that are not wanted any more and still in use.
const PLACES_MAX: usize = 2 * PATHS_MAX;
/// Most I/O queues of a path.
pub const IO_QUEUES_MAX: u16 = 1 << 10;
// No queue has a token of the fabric's.
const _: () = assert!((IO_QUEUES_MAX as u64) < PATH_TOKENS - PATH_TOKENS / 4);

/// A request that ended; its memory comes back.
#[derive(Debug)]
pub struct Completed {
    /// The submitter's.
    pub token: u64,
    /// How it ended.
    pub result: Result<(), IoError>,
    /// The memory given with the request.
    pub bytes: Vec<u8>,
}

/// A request that was not accepted, with its memory.
pub type NotAccepted = (Refused, Vec<u8>);

/// A namespace on a reactor that the user runs: give it the events of its tokens, and call [`Client::pump`]
/// at the end of every turn in which something of it happened.
pub struct Client {
    spec: Spec,
    /// To the target of this process, if it has one.
    dial: Option<Dial>,
    /// Where each path leads, by its place; `None`: the place is free.
    portals: [Option<Portal>; PLACES_MAX],
    host: Host,
    token: u64,
    lines: Table<Line>,
    fabric: Fabric,
    buffers: Buffers,
    timer: Option<(TimerId, Instant)>,
    /// The last error of each path that there was at first before the first success; `None` after it.
    first: Option<Vec<Option<String>>>,
    /// Paths that are connected.
    up: [bool; PLACES_MAX],
    changes: VecDeque<NamespaceInfo>,
    paths_changed: bool,
    /// A connection on which the target is being told what was wrong. At most one: the next one ends it.
    ending: Option<SocketId>,
}

impl Client {
    /// A client that connects at its first [`Self::pump`]; its events carry tokens from `token` to
    /// `token` + [`QUEUE_TOKENS`] - 1.
    pub fn new(mut spec: Spec, token: u64, now: Instant) -> Self {
        spec.paths.truncate(PATHS_MAX);
        let paths = spec.paths.len();
        let mut portals = [None; PLACES_MAX];
        for (place, portal) in portals.iter_mut().zip(&spec.paths) {
            *place = Some(*portal);
        }
        Self {
            host: Host::new(spec.host_config(), now),
            spec,
            dial: None,
            portals,
            token,
            lines: Table::new(PLACES_MAX),
            fabric: Fabric::new(token + FABRIC),
            buffers: Buffers::default(),
            timer: None,
            first: Some(vec![None; paths]),
            up: [false; PLACES_MAX],
            changes: VecDeque::new(),
            paths_changed: true,
            ending: None,
        }
    }

    /// Reaches [`Portal::LOCAL`](roadstead_nvme::Portal::LOCAL) by this; without, it is a path that fails.
    #[must_use]
    pub fn dialing(self, dial: Option<Dial>) -> Self {
        Self { dial, ..self }
    }

    /// The namespace, once connected.
    pub fn info(&self) -> Option<&NamespaceInfo> {
        self.host.info()
    }

    /// Whether it was connected at least once: requests are accepted from then on.
    pub fn has_connected(&self) -> bool {
        self.first.is_none()
    }

    /// Whether [`Self::paths`] may say something else than before the last call of this.
    pub fn paths_changed(&mut self) -> bool {
        std::mem::take(&mut self.paths_changed)
    }

    /// The reasons, when every path was tried once and none has worked ever.
    pub fn first_failure(&self) -> Option<Vec<String>> {
        self.first.as_ref()?.iter().cloned().collect()
    }

    /// The namespace was found, or has changed since the last call.
    pub fn next_change(&mut self) -> Option<NamespaceInfo> {
        self.changes.pop_front()
    }

    /// Requests that are not done.
    pub fn outstanding(&self) -> usize {
        self.host.outstanding()
    }

    /// Asks the target what the namespace is now; [`Self::is_looking`] says until when.
    pub fn look(&mut self) {
        self.host.look();
    }

    /// Whether the answer to [`Self::look`] is still to come.
    pub fn is_looking(&self) -> bool {
        self.host.is_looking()
    }

    /// Accepts a request. The data of a read or a write is in `bytes` from `start` on. It is sent by
    /// [`Self::pump`].
    ///
    /// # Errors
    /// [`Refused`], with the memory.
    pub fn submit(
        &mut self,
        op: Op,
        lba: u64,
        blocks: u32,
        (bytes, start): (Vec<u8>, usize),
        token: u64,
    ) -> Result<(), NotAccepted> {
        let block_bytes = self.host.info().map_or(0, |info| info.block_bytes as usize);
        let has_data = matches!(op, Op::Read | Op::Write { .. });
        let needed = start.saturating_add(block_bytes.saturating_mul(blocks as usize));
        if has_data && bytes.len() < needed {
            return Err((Refused::OutOfRange, bytes));
        }
        let number = self.buffers.insert(Buffer::new(token, bytes, start));
        let request = Request {
            op,
            lba,
            blocks,
            token: number,
        };
        self.host.submit(request).map_err(|refused| {
            let buffer = self.buffers.remove(number);
            (refused, buffer.map(Buffer::into_bytes).unwrap_or_default())
        })
    }

    /// The next request that ended.
    pub fn next_done(&mut self) -> Option<Completed> {
        loop {
            let done = self.host.next_done()?;
            if let Some(buffer) = self.buffers.remove(done.token) {
                return Some(Completed {
                    token: buffer.token,
                    result: done.result,
                    bytes: buffer.into_bytes(),
                });
            }
        }
    }

    /// Takes in an event that carries one of this client's tokens.
    pub fn event(&mut self, io: &mut impl Rim, event: Event<'_>) {
        match event {
            Event::Connected { socket, token, .. } => {
                if let Some(connection) =
                    find(&mut self.lines, token.wrapping_sub(self.token), socket)
                    && let Some(out) = io.output(socket)
                {
                    connection.request(&self.spec, out);
                }
            }
            Event::Received {
                socket,
                token,
                data,
                ..
            } => self.received(io, socket, token, data),
            Event::Closed {
                socket,
                token,
                error,
                ..
            } => {
                let reason = match error {
                    Some(error) => error.to_string(),
                    None => "the target closed the connection".into(),
                };
                self.lost(io, socket, token, reason);
                // Nobody may call us again in this turn.
                self.pump(io);
            }
            Event::Timer { timer, .. } => {
                if self.timer.is_some_and(|(id, _)| id == timer) {
                    self.timer = None;
                }
                self.host.tick(io.now());
            }
            Event::Readable { token, .. } => {
                let (lines, host) = (&mut self.lines, &mut self.host);
                self.fabric.readable(io, token, lines, host);
            }
            _ => {}
        }
    }

    /// Looks at what the reactor does not know of, to be called in every turn: true if there was something, and
    /// [`Self::pump`] is due.
    pub fn poll(&mut self, io: &mut impl Rim) -> bool {
        let (mut around, fabric, lines) = self.around(io.now());
        fabric.poll(lines, &mut around)
    }

    /// The reactor is about to sleep. False if there was something in the meantime: it must not, and [`Self::pump`] is
    /// due.
    pub fn may_sleep(&mut self, io: &mut impl Rim) -> bool {
        let (mut around, fabric, lines) = self.around(io.now());
        fabric.may_sleep(lines, &mut around)
    }

    /// What RDMA connections work on, and they themselves.
    fn around(&mut self, now: Instant) -> (Surroundings<'_>, &mut Fabric, &mut Table<Line>) {
        let around = Surroundings {
            host: &mut self.host,
            buffers: &mut self.buffers,
            spec: &self.spec,
            now,
        };
        (around, &mut self.fabric, &mut self.lines)
    }

    fn received(&mut self, io: &mut impl Rim, socket: SocketId, token: u64, data: &[u8]) {
        let now = io.now();
        let connection = find(&mut self.lines, token.wrapping_sub(self.token), socket);
        let (Some(connection), Some(out)) = (connection, io.output(socket)) else {
            return;
        };
        let mut around = Surroundings {
            host: &mut self.host,
            buffers: &mut self.buffers,
            spec: &self.spec,
            now,
        };
        if let Err(broken) = connection.receive(data, &mut around, out) {
            if let Broken::Fatal(fatal) = &broken {
                out.put(&PduWriter::term(Role::Host, fatal));
                io.finish(socket);
                if let Some(other) = self.ending.replace(socket) {
                    io.close(other);
                }
            }
            self.host.lost(connection.epoch, broken.to_string(), now);
        }
    }

    fn lost(&mut self, io: &impl Rim, socket: SocketId, token: u64, reason: String) {
        if let Some(connection) = find(&mut self.lines, token.wrapping_sub(self.token), socket) {
            self.host.lost(connection.epoch, reason, io.now());
        }
    }

    /// Does what the host's state machine wants, and sends what has been submitted.
    pub fn pump(&mut self, io: &mut impl Rim) {
        let now = io.now();
        self.host.tick(now);
        loop {
            while let Some(action) = self.host.next_action() {
                self.act(io, action);
            }
            self.send_commands(io, now);
            match self.host.next_action() {
                Some(action) => self.act(io, action),
                None => break,
            }
        }
        self.arm(io);
    }

    fn send_commands(&mut self, io: &mut impl Rim, now: Instant) {
        while let Some(command) = self.host.next_command(now) {
            let (path, queue) = (usize::from(command.epoch.path), usize::from(command.qid));
            match self.lines.get_mut(path, queue) {
                Some(Line::Tcp(connection)) => {
                    if let Some(out) = io.output(connection.socket) {
                        connection.send(&command, &mut self.buffers, out);
                    }
                }
                Some(Line::Rdma(queue)) => {
                    if let Some(adapter) = self.fabric.adapter_of(queue)
                        && let Err(error) = queue.send(command, adapter, &self.buffers)
                    {
                        self.host.lost(queue.epoch, error.to_string(), now);
                    }
                }
                // Its end is under way, and the command will be sent again.
                None => {}
            }
        }
        let host = &mut self.host;
        let lost = |epoch, error: VerbsError| host.lost(epoch, error.to_string(), now);
        self.fabric.flush(&mut self.lines, &self.buffers, lost);
    }

    /// Has [`Self::event`] called when the host's machine has something to do.
    fn arm(&mut self, io: &mut impl Rim) {
        let Some(at) = self.host.deadline() else {
            return;
        };
        if self.timer.is_some_and(|(_, armed)| armed <= at) {
            return;
        }
        if let Some((timer, _)) = self.timer.take() {
            io.cancel_timer(timer);
        }
        let delay = at.saturating_duration_since(io.now());
        match io.set_timer(delay, self.token + TIMER) {
            Ok(timer) => self.timer = Some((timer, at)),
            Err(RingError::Full { .. }) | Err(_) => warn!("no timer is to be had"),
        }
    }

    /// Ends everything; requests that are not done fail with [`IoError::Closed`].
    pub fn close(&mut self, io: &mut impl Rim) {
        self.host.close();
        if let Some((timer, _)) = self.timer.take() {
            io.cancel_timer(timer);
        }
        if let Some(socket) = self.ending.take() {
            io.close(socket);
        }
        self.pump(io);
        self.fabric.close(io);
    }
}

/// The TCP connection at a token, counted from the client's first; `None` for one of an attempt that is over.
fn find(lines: &mut Table<Line>, token: u64, socket: SocketId) -> Option<&mut Connection> {
    let path = usize::try_from(token / PATH_TOKENS).ok()?;
    let queue = usize::try_from(token % PATH_TOKENS).ok()?;
    match lines.get_mut(path, queue)? {
        Line::Tcp(connection) => (connection.socket == socket).then_some(&mut **connection),
        Line::Rdma(_) => None,
    }
}
