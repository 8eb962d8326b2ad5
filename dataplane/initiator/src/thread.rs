//! An initiator with a thread of its own, for users on other threads.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use roadstead_host::{IoError, NamespaceInfo, Op};
use roadstead_nvme::Portal;
use roadstead_ring::{Mailbox, Reactor, ReactorConfig, RingError, mailbox};
use tracing::error;

use crate::clients::Clients;
use crate::spec::{Dial, Spec};
use crate::status::PathStatus;

/// How long [`Namespace::look`] waits for the target's answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
/// How long [`Namespace::measure`] and [`Namespace::follow`] wait for the initiator's thread.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the end of a namespace may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Called on the initiator's thread when a request is done; must not block. Gets the memory back.
pub type Callback = Box<dyn FnOnce(Result<(), IoError>, Vec<u8>) + Send>;

/// A request to a [`Namespace`].
pub struct NamespaceRequest {
    /// What to do.
    pub op: Op,
    /// First block.
    pub lba: u64,
    /// Blocks; 0 for a flush.
    pub blocks: u32,
    /// Memory of a read or a write: the data is at `start`.
    pub bytes: Vec<u8>,
    /// Where in `bytes` the data begins.
    pub start: usize,
    /// Called once when it is done.
    pub done: Callback,
}

/// Why a namespace could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Every path was tried: the error of each.
    #[error("{}", .0.join("; "))]
    Paths(Vec<String>),
    /// No path was given.
    #[error("no path was given")]
    NoPath,
    /// The initiator's thread has ended.
    #[error("the initiator has ended")]
    Ended,
    /// The reactor cannot run here.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// No thread is to be had.
    #[error("start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// To the initiator's thread.
pub(crate) enum Message {
    Connect(Box<Spec>, SyncSender<Result<Namespace, ConnectError>>),
    Request(usize, NamespaceRequest),
    Look(usize, SyncSender<NamespaceInfo>),
    Watch(usize, SyncSender<()>),
    Measure(usize, SyncSender<()>),
    Follow(usize, Vec<Portal>, SyncSender<()>),
    Close(usize, SyncSender<()>),
    Stop,
}

/// A thread that connects to namespaces and carries requests to them. Dropping it ends them all.
pub struct Initiator {
    mailbox: Mailbox<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Initiator {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`ConnectError::Ring`] when io_uring cannot be used, [`ConnectError::Thread`].
    pub fn start(config: ReactorConfig) -> Result<Self, ConnectError> {
        Self::start_beside_target(config, None)
    }

    /// Starts the thread in a process that is a target, too: `dial` connects to it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_beside_target(
        config: ReactorConfig,
        dial: Option<Dial>,
    ) -> Result<Self, ConnectError> {
        let (mailbox, inbox) = mailbox()?;
        let (started, result) = sync_channel(1);
        let own = mailbox.clone();
        let run = move || {
            let mut reactor = match Reactor::new(&config, inbox) {
                Ok(reactor) => reactor,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(()));
            let mut handler = Clients::new(own, dial);
            if let Err(error) = reactor.run(&mut handler) {
                error!(%error, "the initiator has failed");
            }
        };
        let thread = std::thread::Builder::new()
            .name("initiator".into())
            .spawn(run)
            .map_err(ConnectError::Thread)?;
        result.recv().map_err(|_| ConnectError::Ended)??;
        Ok(Self {
            mailbox,
            thread: Some(thread),
        })
    }

    /// Connects; returns when the namespace can be used, or when every path was tried once.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn connect(&self, spec: Spec) -> Result<Namespace, ConnectError> {
        if spec.paths.is_empty() {
            return Err(ConnectError::NoPath);
        }
        let (reply, result) = sync_channel(1);
        self.mailbox
            .send(Message::Connect(Box::new(spec), reply))
            .map_err(|_| ConnectError::Ended)?;
        result.recv().map_err(|_| ConnectError::Ended)?
    }
}

impl Drop for Initiator {
    fn drop(&mut self) {
        let _ = self.mailbox.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is known of a namespace, for other threads.
pub(crate) struct Shared {
    pub(crate) info: NamespaceInfo,
    pub(crate) paths: Vec<PathStatus>,
}

/// A connected namespace, usable from any thread. Dropping the last one does not disconnect:
/// [`Namespace::close`] does.
#[derive(Clone)]
pub struct Namespace {
    pub(crate) mailbox: Mailbox<Message>,
    pub(crate) slot: usize,
    pub(crate) shared: Arc<Mutex<Shared>>,
}

impl Namespace {
    /// What the namespace is, as last seen.
    pub fn info(&self) -> NamespaceInfo {
        lock(&self.shared).info
    }

    /// What every path does now: wanted ones, nearest first, then those that are to end. What is measured is of the
    /// last change.
    pub fn paths(&self) -> Vec<PathStatus> {
        lock(&self.shared).paths.clone()
    }

    /// As [`Self::paths`], measured now. Not to be called on the initiator's thread, which answers.
    pub fn measure(&self) -> Vec<PathStatus> {
        self.ask(Message::Measure, ANSWER_TIMEOUT);
        self.paths()
    }

    /// Has the namespace reached over these portals from now on, nearest first; what is in use goes on. Missing paths
    /// are connected, others go once one of these works and nothing is in flight on them: [`Self::paths`] tells. With no
    /// portal nothing changes. As [`Self::measure`], not to be called on the initiator's thread.
    pub fn follow(&self, portals: Vec<Portal>) {
        let message = |slot, reply| Message::Follow(slot, portals, reply);
        self.ask(message, ANSWER_TIMEOUT);
    }

    /// Starts a request; its callback is called exactly once, unless the request is handed back because the
    /// initiator has ended.
    ///
    /// # Errors
    /// The request.
    pub fn submit(&self, request: NamespaceRequest) -> Result<(), NamespaceRequest> {
        let sent = self.mailbox.send(Message::Request(self.slot, request));
        sent.map_err(|message| match message {
            Message::Request(_, request) => request,
            // `send` hands back what it was given.
            _ => NamespaceRequest {
                op: Op::Flush,
                lba: 0,
                blocks: 0,
                bytes: Vec::new(),
                start: 0,
                done: Box::new(|_, _| {}),
            },
        })
    }

    /// Asks the target what the namespace is now. Without a working path, or without an answer within
    /// 10 s, it is what was last seen.
    pub fn look(&self) -> NamespaceInfo {
        self.ask(Message::Look, LOOK_TIMEOUT)
            .unwrap_or_else(|| self.info())
    }

    /// Gets a message after [`Self::info`] has changed; several changes may be one message. It ends with the
    /// namespace.
    pub fn changes(&self) -> Receiver<()> {
        let (sender, receiver) = sync_channel(1);
        // Without an initiator nothing will change, and the receiver ends at once.
        let _ = self.mailbox.send(Message::Watch(self.slot, sender));
        receiver
    }

    /// Disconnects; requests that are not done fail with [`IoError::Closed`].
    pub fn close(&self) {
        let _ = self.ask(Message::Close, CLOSE_TIMEOUT);
    }

    fn ask<T>(
        &self,
        message: impl FnOnce(usize, SyncSender<T>) -> Message,
        timeout: Duration,
    ) -> Option<T> {
        let (reply, result): (_, Receiver<T>) = sync_channel(1);
        self.mailbox.send(message(self.slot, reply)).ok()?;
        result.recv_timeout(timeout).ok()
    }
}

pub(crate) fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
