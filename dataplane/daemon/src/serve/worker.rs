//! One reactor of the server: its connections, their I/O, and what the control side tells it.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::time::Duration;

use roadstead_nvme::Portal;
use roadstead_pool::PoolError;
use roadstead_ring::{BufPool, Event, Handler, Io, Stream};

use super::backend::Backend;
use super::connections::Connections;
use super::drives::Drives;
use super::jobs::{JobId, Jobs, Place};
use super::portals::Portals;
use super::rdma::{Fabric, Request};
use super::rim::Storage;
use super::served::Volumes;
use super::server::{PortalResult, Shared};

/// What other threads tell a reactor.
pub(super) enum Message {
    /// Serve these volumes.
    Volumes {
        volumes: Arc<Volumes>,
        done: Sender<()>,
    },
    /// Something about controllers changed: connections have a look at it.
    Refresh { done: Option<Sender<()>> },
    /// Open these portals, and no others.
    Portals {
        portals: Vec<Portal>,
        done: Sender<Vec<PortalResult>>,
    },
    /// A host in this process connects: this is our end.
    Dialed(Stream),
    /// Serve this connection, which is counted already.
    Adopt(Newcomer),
    /// A drive's thread has answered a job.
    Space {
        job: JobId,
        result: Result<(), PoolError>,
    },
    /// End.
    Stop,
}

/// A connection that was just accepted.
pub(super) enum Newcomer {
    Tcp(Stream),
    Rdma(Request),
    Local(Stream),
}

/// How often time-outs are looked at while there are connections.
const TICK: Duration = Duration::from_secs(1);
/// A controller's end on one connection reaches its others after this time, so that many ends are one message.
const REFRESH_DELAY: Duration = Duration::from_millis(10);
/// Until something is tried again that nothing tells about.
const RETRY_DELAY: Duration = Duration::from_millis(1);
/// How long commands in flight have to end when the server stops.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Tokens of timers.
const TIMER_TICK: u64 = 0;
const TIMER_REFRESH: u64 = 1;
const TIMER_RETRY: u64 = 2;
const TIMER_STOP: u64 = 3;
/// The oldest farewell is over.
pub(super) const TIMER_FAREWELL: u64 = 4;

/// The handler of one reactor.
pub(super) struct Worker {
    index: usize,
    shared: Arc<Shared>,
    drives: Drives,
    portals: Portals,
    backend: Backend,
    connections: Connections,
    fabric: Fabric,
    /// Where the acceptor began to look for a reactor last.
    turn: usize,
    refreshing: bool,
    retrying: bool,
    ticking: bool,
    stopping: bool,
}

impl Worker {
    /// `None` when the server has no such reactor.
    pub(super) fn new(index: usize, shared: Arc<Shared>, pool: BufPool) -> Option<Self> {
        let peer = shared.peers.get(index)?;
        let (mailbox, load) = (peer.mailbox.clone(), Arc::clone(&peer.load));
        let backend = Backend::new(
            Arc::clone(&shared.registry),
            Storage::new(pool),
            Jobs::new(mailbox),
            load,
        );
        Some(Self {
            index,
            shared,
            drives: Drives::default(),
            portals: Portals::default(),
            backend,
            connections: Connections::default(),
            fabric: Fabric::default(),
            turn: 0,
            refreshing: false,
            retrying: false,
            ticking: false,
            stopping: false,
        })
    }

    /// A connection came in: it goes to the reactor that has the fewest.
    fn accepted(&mut self, io: &mut Io, newcomer: Newcomer) {
        if self.stopping {
            return;
        }
        if self.shared.connections.load(Relaxed) >= self.shared.limits.connections {
            tracing::warn!(
                limit = self.shared.limits.connections,
                "too many connections, one was refused"
            );
            return;
        }
        // Ties go around: else the first reactor would get all admin and the second all I/O queues.
        let count = self.shared.peers.len();
        self.turn = (self.turn + 1) % count.max(1);
        let order = (0..count).map(|i| (self.turn + i) % count);
        let peers = order.filter_map(|index| Some((index, self.shared.peers.get(index)?)));
        let Some((index, peer)) = peers.min_by_key(|(_, peer)| peer.load.get()) else {
            return;
        };
        self.shared.connections.fetch_add(1, Relaxed);
        peer.load.add();
        if index == self.index {
            self.adopt(io, newcomer);
        } else if peer.mailbox.send(Message::Adopt(newcomer)).is_err() {
            peer.load.remove();
            self.shared.connections.fetch_sub(1, Relaxed);
        }
    }

    /// Serves a connection, which is counted already.
    fn adopt(&mut self, io: &mut Io, newcomer: Newcomer) {
        let is_served = !self.stopping
            && match newcomer {
                Newcomer::Tcp(stream) => {
                    let local = stream.local().unwrap_or((Ipv6Addr::UNSPECIFIED, 0).into());
                    self.connections
                        .adopt(&self.backend, io, stream, local.into())
                }
                Newcomer::Local(stream) => {
                    self.connections
                        .adopt(&self.backend, io, stream, Portal::LOCAL)
                }
                Newcomer::Rdma(request) => self.fabric.adopt(&self.backend, io, request),
            };
        if !is_served {
            self.backend.load().remove();
            self.shared.connections.fetch_sub(1, Relaxed);
            return;
        }
        if !std::mem::replace(&mut self.ticking, true) {
            self.set_timer(io, TICK, TIMER_TICK);
        }
    }

    fn set_timer(&self, io: &mut Io, delay: Duration, token: u64) {
        if let Err(error) = io.set_timer(delay, token) {
            tracing::error!(reactor = self.index, %error, "a timer could not be set");
        }
    }

    /// Connections have ended.
    fn ended(&mut self, io: &mut Io, count: usize) {
        if count == 0 {
            return;
        }
        self.shared.connections.fetch_sub(count, Relaxed);
        // Their controllers may have ended with them, and have queues elsewhere.
        if !std::mem::replace(&mut self.refreshing, true) {
            self.set_timer(io, REFRESH_DELAY, TIMER_REFRESH);
        }
    }

    /// Looks at time-outs and changes of all connections.
    fn tick_all(&mut self, io: &mut Io) {
        self.backend.tick();
        self.connections.tick(&mut self.backend, io);
        if let Some(peer) = self.shared.peers.get(self.index) {
            self.fabric.tick(&mut self.backend, io, &peer.rdma);
        }
    }

    /// Hands the ends of I/O to their connections, and goes on with what waits. Says whether it must be called again in
    /// a moment.
    fn settle(&mut self, io: &mut Io) -> bool {
        let backend = &mut self.backend;
        backend.jobs.retry(io);
        loop {
            while let Some(done) = backend.jobs.next_done() {
                match done.owner.place {
                    Place::Tcp(index) => self.connections.complete(backend, io, index, done),
                    Place::Rdma(index) => self.fabric.complete(backend, io, index, done),
                }
            }
            self.connections.resume_waiting(backend, io);
            self.fabric.resume_waiting(backend, io);
            if !backend.jobs.has_done() {
                break;
            }
        }
        let ended = self.fabric.take_ended();
        self.ended(io, ended);
        self.backend.jobs.must_poll() || self.connections.must_poll() || self.fabric.must_poll()
    }

    fn set_volumes(&mut self, io: &mut Io, volumes: &Volumes) {
        let mut namespaces = HashMap::new();
        for (&key, served) in volumes {
            let known = self.backend.storage.namespaces().get(&key).cloned();
            let counters = || Arc::clone(&served.counters);
            let opened = known.or_else(|| {
                self.drives
                    .open(io, &served.namespace, counters(), self.index)
            });
            match opened {
                Some(namespace) => drop(namespaces.insert(key, namespace)),
                None => tracing::error!(
                    reactor = self.index,
                    "the reactor has no room for another drive"
                ),
            }
        }
        self.backend.storage.set(namespaces);
        self.drives.close_unused(io);
    }

    fn timer(&mut self, io: &mut Io, token: u64) {
        match token {
            TIMER_TICK => {
                self.report_refusals();
                self.tick_all(io);
                self.ticking = self.connections.len() + self.fabric.len() > 0;
                if self.ticking {
                    self.set_timer(io, TICK, TIMER_TICK);
                }
            }
            TIMER_REFRESH => {
                self.refreshing = false;
                for peer in &self.shared.peers {
                    // A reactor that has ended has no connections to refresh.
                    let _ = peer.mailbox.send(Message::Refresh { done: None });
                }
            }
            TIMER_RETRY => self.retrying = false,
            TIMER_STOP => io.stop(),
            TIMER_FAREWELL => self.connections.farewell_over(io),
            _ => {}
        }
    }

    /// Says which hosts were refused: once for each and its subsystem, however often they try.
    fn report_refusals(&self) {
        for refusal in self.shared.registry.take_refusals() {
            tracing::warn!(
                subsystem = %refusal.subsystem,
                host = %refusal.host,
                "a host was refused: the subsystem does not allow it"
            );
        }
    }

    /// Ends the reactor when it is to stop and nothing is under way any more.
    fn stop_when_idle(&mut self, io: &mut Io) {
        let is_quiet = || self.connections.is_quiet(io) && self.fabric.is_quiet();
        if self.stopping && self.backend.jobs.active() == 0 && is_quiet() {
            io.stop();
        }
    }
}

impl Handler for Worker {
    type Message = Message;

    fn event(&mut self, io: &mut Io, event: Event<'_>) {
        match event {
            Event::Received { token, data, .. } => {
                self.connections
                    .received(&mut self.backend, io, token, data)
            }
            Event::Sent { token, .. } => self.connections.sent(&mut self.backend, io, token),
            Event::File(done) => self.backend.jobs.file_done(io, done),
            Event::Accepted { stream, .. } => self.accepted(io, Newcomer::Tcp(stream)),
            Event::Closed { token, error, .. } => {
                self.connections
                    .closed(&mut self.backend, token, error.as_ref());
                self.ended(io, 1);
            }
            Event::ListenerClosed { .. } => self.portals.closed(io, &mut self.fabric),
            Event::Timer { token, .. } => self.timer(io, token),
            Event::Readable { token } => {
                self.fabric.readable(&mut self.backend, token);
                while let Some(request) = self.fabric.next_request() {
                    self.accepted(io, Newcomer::Rdma(request));
                }
            }
            Event::Connected { .. } => {}
        }
    }

    fn message(&mut self, io: &mut Io, message: Message) {
        match message {
            Message::Volumes { volumes, done } => {
                self.set_volumes(io, &volumes);
                let _ = done.send(());
            }
            Message::Refresh { done } => {
                self.tick_all(io);
                if let Some(done) = done {
                    let _ = done.send(());
                }
            }
            Message::Portals { portals, done } => {
                self.portals.set(io, &mut self.fabric, portals, done)
            }
            Message::Dialed(stream) => self.accepted(io, Newcomer::Local(stream)),
            Message::Adopt(newcomer) => self.adopt(io, newcomer),
            Message::Space { job, result } => self.backend.jobs.space(io, job, result),
            Message::Stop => {
                self.stopping = true;
                self.portals.close_all(io, &mut self.fabric);
                self.connections.pause_all(io);
                self.fabric.pause_all();
                self.set_timer(io, STOP_MAX, TIMER_STOP);
            }
        }
    }

    fn poll(&mut self, io: &mut Io) -> bool {
        self.fabric.poll(&mut self.backend, io)
    }

    fn may_sleep(&mut self, io: &mut Io) -> bool {
        self.fabric.may_sleep(&mut self.backend, io)
    }

    fn turn_end(&mut self, io: &mut Io) {
        let must_poll = self.settle(io);
        if must_poll && !std::mem::replace(&mut self.retrying, true) {
            self.set_timer(io, RETRY_DELAY, TIMER_RETRY);
        }
        if self.drives.len() > 0 && self.backend.jobs.active() == 0 {
            self.drives.close_unused(io);
        }
        self.stop_when_idle(io);
    }
}
