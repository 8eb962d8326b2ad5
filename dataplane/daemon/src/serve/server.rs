//! The handle that the rest of the daemon holds, and the threads behind it.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use roadstead_initiator::Dial;
use roadstead_nvme::Portal;
use roadstead_ring::{
    Activity, Inbox, Mailbox, Reactor, ReactorConfig, RingError, mailbox, pin_current_thread,
};
use roadstead_target::{ControllerLimits, PortalRules, Registry, Table};
use roadstead_verbs::Counts;
use uuid::Uuid;

use super::backend::Load;
use super::counters::{CounterTable, IoCounters};
use super::exports::Exports;
use super::rdma::RdmaActivity;
use super::served::{ExportError, Served};
use super::worker::{Message, Worker};

/// Settings of the server.
#[derive(Debug, Clone)]
pub(crate) struct ServeConfig {
    /// One reactor thread for each; `Some` binds it to that core.
    pub(crate) reactors: Vec<Option<usize>>,
    /// Settings of every reactor.
    pub(crate) ring: ReactorConfig,
    pub(crate) limits: Limits,
    /// What controllers offer to hosts.
    pub(crate) controllers: ControllerLimits,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            reactors: vec![None],
            ring: ReactorConfig::default(),
            limits: Limits::default(),
            controllers: ControllerLimits::default(),
        }
    }
}

/// What peers can make the server hold, beyond the limits of the target's core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Open connections of all reactors together; more are closed as soon as they come.
    pub(crate) connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
        }
    }
}

/// A controller that a host has connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ControllerInfo {
    pub(crate) subsystem_nqn: String,
    pub(crate) cntlid: u16,
    pub(crate) host_nqn: String,
    pub(crate) io_queues: u32,
}

/// Whether a portal listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortalResult {
    /// As asked for.
    pub(crate) portal: Portal,
    /// What it is in fact (its port, if 0 was asked for), or a sentence that says why not.
    pub(crate) listening: Result<Portal, String>,
}

/// Why the server does not run (any more).
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// No reactor was asked for.
    #[error("at least one reactor is needed")]
    NoReactor,
    /// A thread could not be started.
    #[error("cannot start a reactor thread: {0}")]
    Thread(#[source] io::Error),
    /// A thread could not be bound to its core.
    #[error(
        "cannot bind a reactor to core {core}: {source}; name a core that this process may use"
    )]
    Pin {
        core: usize,
        #[source]
        source: io::Error,
    },
    /// io_uring said no.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// What is to be served makes no sense.
    #[error(transparent)]
    Exports(#[from] ExportError),
    /// A reactor has ended; the log says why.
    #[error("a reactor has ended; the log says why. Restart the daemon")]
    Ended,
}

/// The running server. Dropping it stops it.
pub(crate) struct Server {
    pub(super) shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    activities: Vec<Arc<Activity>>,
}

/// What all reactors see.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) peers: Vec<Peer>,
    pub(super) counters: CounterTable,
    pub(super) registry: Arc<Registry>,
    served: Mutex<Served>,
    /// Open connections, all reactors.
    pub(super) connections: AtomicUsize,
    /// A reactor ended by itself.
    pub(super) failed: AtomicBool,
    /// Allocations by reactors that have ended.
    #[cfg(test)]
    pub(super) allocations: std::sync::atomic::AtomicU64,
}

/// One reactor, as seen by the others.
pub(super) struct Peer {
    pub(super) mailbox: Mailbox<Message>,
    /// What the acceptor spreads connections by.
    pub(super) load: Arc<Load>,
    /// What its RDMA devices were asked to do.
    pub(super) rdma: RdmaActivity,
}

impl Server {
    /// Starts the reactors; they serve nothing yet.
    ///
    /// # Errors
    /// [`ServeError`]: nothing runs.
    pub(crate) fn start(config: ServeConfig) -> Result<Self, ServeError> {
        if config.reactors.is_empty() {
            return Err(ServeError::NoReactor);
        }
        raise_descriptor_limit();
        let mut peers = Vec::new();
        let mut inboxes = Vec::new();
        for _ in &config.reactors {
            let (mailbox, inbox) = mailbox()?;
            peers.push(Peer {
                mailbox,
                load: Arc::default(),
                rdma: RdmaActivity::default(),
            });
            inboxes.push(inbox);
        }
        let shared = Arc::new(Shared {
            limits: config.limits,
            counters: CounterTable::new(peers.len()),
            peers,
            registry: Arc::new(Registry::with_limits(config.controllers)),
            served: Mutex::new(Served::default()),
            connections: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            #[cfg(test)]
            allocations: Default::default(),
        });
        let mut server = Self {
            shared,
            threads: Vec::new(),
            activities: Vec::new(),
        };
        let mut started = Vec::new();
        for (index, (inbox, core)) in inboxes.into_iter().zip(config.reactors).enumerate() {
            let (tell, told) = channel();
            let (shared, ring) = (Arc::clone(&server.shared), config.ring.clone());
            let thread = std::thread::Builder::new()
                .name(format!("reactor-{index}"))
                .spawn(move || run(index, shared, &ring, core, inbox, &tell))
                .map_err(ServeError::Thread)?;
            server.threads.push(thread);
            started.push(told);
        }
        for told in started {
            let activity = told.recv().map_err(|_| ServeError::Ended)??;
            server.activities.push(activity);
        }
        Ok(server)
    }

    /// Replaces what is served.
    ///
    /// # Errors
    /// [`ServeError::Exports`]: nothing changed. [`ServeError::Ended`].
    pub(crate) fn set_exports(&self, exports: Exports) -> Result<(), ServeError> {
        let mut served = self
            .shared
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (volumes, table) = served.set_exports(exports, &self.shared.counters)?;
        for served in volumes.values() {
            let volume = &served.namespace.volume;
            let registry = &self.shared.registry;
            if let Err(error) = registry.restore_reservations(volume.uuid(), &volume.note()) {
                tracing::error!(volume = volume.name(), %error, "a volume begins without reservations");
            }
        }
        // First the volumes, then who may use them: no host is let in to a volume that a reactor does not know.
        self.tell_all(|done| Message::Volumes {
            volumes: Arc::clone(&volumes),
            done,
        })?;
        self.apply(table)
    }

    fn apply(&self, table: Table) -> Result<(), ServeError> {
        self.shared.registry.apply(table);
        self.tell_all(|done| Message::Refresh { done: Some(done) })
    }

    /// Sends a message to every reactor and waits until all have worked on it.
    fn tell_all(&self, message: impl Fn(Sender<()>) -> Message) -> Result<(), ServeError> {
        let mut answers = Vec::new();
        for peer in &self.shared.peers {
            let (done, answer) = channel();
            peer.mailbox
                .send(message(done))
                .map_err(|_| ServeError::Ended)?;
            answers.push(answer);
        }
        answers.iter().try_for_each(receive)
    }

    /// Replaces the portals. Those that stay are not touched; one that fails is tried
    /// again with the next call.
    ///
    /// # Errors
    /// [`ServeError::Ended`]. A portal that cannot listen is a result, not an error.
    pub(crate) fn set_portals(&self, portals: &[Portal]) -> Result<Vec<PortalResult>, ServeError> {
        let mut served = self
            .shared
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let acceptor = self.shared.peers.first().ok_or(ServeError::Ended)?;
        let (done, answer) = channel();
        let message = Message::Portals {
            portals: portals.to_vec(),
            done,
        };
        acceptor
            .mailbox
            .send(message)
            .map_err(|_| ServeError::Ended)?;
        let results = receive(&answer)?;
        let listening = results
            .iter()
            .filter_map(|result| result.listening.clone().ok());
        let table = served.set_portals(listening.collect())?;
        self.apply(table)?;
        Ok(results)
    }

    /// Replaces what portals are for. Hosts that are connected stay, and are told.
    ///
    /// # Errors
    /// [`ServeError::Exports`]: nothing changed. [`ServeError::Ended`].
    pub(crate) fn set_rules(&self, rules: PortalRules) -> Result<(), ServeError> {
        let mut served = self
            .shared
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let table = served.set_rules(rules)?;
        self.apply(table)
    }

    /// What connects a host in this process. It does not keep the server running.
    ///
    /// # Errors
    /// [`ServeError::Ended`].
    pub(crate) fn dial(&self) -> Result<Dial, ServeError> {
        let acceptor = self.shared.peers.first().ok_or(ServeError::Ended)?;
        let acceptor = acceptor.mailbox.clone();
        Ok(Arc::new(move || {
            let (host, target) = UnixStream::pair()?;
            match acceptor.send(Message::Dialed(target.into())) {
                Ok(()) => Ok(host.into()),
                Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        }))
    }

    /// The controllers that hosts have connected to now, discovery controllers included.
    pub(crate) fn controllers(&self) -> Vec<ControllerInfo> {
        let describe = |info: roadstead_target::ControllerInfo| ControllerInfo {
            subsystem_nqn: info.subsystem.to_string(),
            cntlid: info.cntlid,
            host_nqn: info.host.to_string(),
            io_queues: u32::try_from(info.io_queues).unwrap_or(u32::MAX),
        };
        self.shared
            .registry
            .controllers()
            .into_iter()
            .map(describe)
            .collect()
    }

    /// Counts of a volume since it was first exported; zeroes for one that is not known.
    pub(crate) fn counters(&self, volume: Uuid) -> IoCounters {
        self.shared.counters.sum(volume)
    }

    /// Counts of what each reactor does.
    pub(crate) fn activities(&self) -> &[Arc<Activity>] {
        &self.activities
    }

    /// What the RDMA devices of each reactor were asked to do.
    pub(crate) fn rdma_counts(&self) -> Vec<Counts> {
        let peers = self.shared.peers.iter();
        peers.map(|peer| peer.rdma.counts()).collect()
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// Whether all reactors run. A reactor ends by itself only when its ring is unusable.
    pub(crate) fn is_healthy(&self) -> bool {
        !self.shared.failed.load(Ordering::Relaxed)
    }

    /// Stops: accepts nothing more, lets commands in flight end (a few seconds at most), closes.
    fn end(&mut self) {
        for peer in &self.shared.peers {
            // A reactor that has ended needs no telling.
            let _ = peer.mailbox.send(Message::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a reactor thread panicked");
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

fn receive<T>(answer: &Receiver<T>) -> Result<T, ServeError> {
    answer.recv().map_err(|_| ServeError::Ended)
}

/// Every connection is a descriptor: takes as many as the system lets this process have.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// A reactor thread from its start to its end.
fn run(
    index: usize,
    shared: Arc<Shared>,
    config: &ReactorConfig,
    core: Option<usize>,
    inbox: Inbox<Message>,
    started: &Sender<Result<Arc<Activity>, ServeError>>,
) {
    let pinned = match core {
        Some(core) => pin_current_thread(core).map_err(|source| ServeError::Pin { core, source }),
        None => Ok(()),
    };
    let reactor = pinned.and_then(|()| Ok(Reactor::new(config, inbox)?));
    let mut reactor = match reactor {
        Ok(reactor) => reactor,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    let _ = started.send(Ok(Arc::clone(reactor.activity())));
    let pool = reactor.io().pool().clone();
    let Some(mut worker) = Worker::new(index, Arc::clone(&shared), pool) else {
        return;
    };
    #[cfg(not(test))]
    let ended = reactor.run(&mut worker);
    #[cfg(test)]
    let ended = super::tests::counted(&shared.allocations, || reactor.run(&mut worker));
    if let Err(error) = ended {
        tracing::error!(reactor = index, %error, "a reactor has ended");
        shared.failed.store(true, Ordering::Relaxed);
    }
}
