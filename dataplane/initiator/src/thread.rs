//! An initiator with a thread of its own, for users on other threads.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use roadstead_host::{IoError, NamespaceInfo, Op, PathReport, Refused};
use roadstead_ring::{Event, Handler, Io, Mailbox, Reactor, ReactorConfig, RingError, mailbox};
use tracing::error;

use crate::client::{Client, QUEUE_TOKENS};
use crate::spec::Spec;

/// How long [`Namespace::look`] waits for the target's answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(10);
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

enum Message {
    Connect(Box<Spec>, SyncSender<Result<Namespace, ConnectError>>),
    Request(usize, NamespaceRequest),
    Look(usize, SyncSender<NamespaceInfo>),
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
            let mut handler = Clients {
                mailbox: own,
                slots: Vec::new(),
                dirty: Vec::new(),
            };
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
struct Shared {
    info: NamespaceInfo,
    paths: Vec<PathReport>,
}

/// A connected namespace, usable from any thread. Dropping the last one does not disconnect:
/// [`Namespace::close`] does.
#[derive(Clone)]
pub struct Namespace {
    mailbox: Mailbox<Message>,
    slot: usize,
    shared: Arc<Mutex<Shared>>,
}

impl Namespace {
    /// What the namespace is, as last seen.
    pub fn info(&self) -> NamespaceInfo {
        lock(&self.shared).info
    }

    /// What every path does now.
    pub fn paths(&self) -> Vec<PathReport> {
        lock(&self.shared).paths.clone()
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

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A client and who waits for it.
struct Slot {
    client: Client,
    connecting: Option<SyncSender<Result<Namespace, ConnectError>>>,
    shared: Option<Arc<Mutex<Shared>>>,
    looking: Vec<SyncSender<NamespaceInfo>>,
    callbacks: Vec<Option<Callback>>,
    free: Vec<usize>,
    /// Requests beyond what the host takes at once. Bounded by what the submitters have in flight.
    waiting: VecDeque<NamespaceRequest>,
    dirty: bool,
}

/// The handler of the initiator's reactor.
struct Clients {
    mailbox: Mailbox<Message>,
    slots: Vec<Option<Slot>>,
    dirty: Vec<usize>,
}

impl Clients {
    fn touch(&mut self, index: usize) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(index)?.as_mut()?;
        if !slot.dirty {
            slot.dirty = true;
            self.dirty.push(index);
        }
        Some(slot)
    }

    fn connect(&mut self, io: &Io, spec: Spec, reply: SyncSender<Result<Namespace, ConnectError>>) {
        let free = self.slots.iter().position(Option::is_none);
        let index = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Slot {
                client: Client::new(spec, index as u64 * QUEUE_TOKENS, io.now()),
                connecting: Some(reply),
                shared: None,
                looking: Vec::new(),
                callbacks: Vec::new(),
                free: Vec::new(),
                waiting: VecDeque::new(),
                dirty: false,
            });
        }
        self.touch(index);
    }

    fn close(&mut self, io: &mut Io, index: usize) {
        if let Some(mut slot) = self.slots.get_mut(index).and_then(Option::take) {
            slot.client.close(io);
            slot.finish();
            for request in slot.waiting.drain(..) {
                (request.done)(Err(IoError::Closed), request.bytes);
            }
        }
    }

    fn pump(&mut self, io: &mut Io, index: usize) {
        let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        slot.dirty = false;
        slot.pump(io);
        if slot.connecting.is_some() {
            slot.answer_connect(&self.mailbox, index);
            if slot.connecting.is_none() && slot.shared.is_none() {
                self.close(io, index);
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        for callback in self.callbacks.drain(..).flatten() {
            callback(Err(IoError::Closed), Vec::new());
        }
    }
}

impl Slot {
    fn pump(&mut self, io: &mut Io) {
        self.client.pump(io);
        self.finish();
        while let Some(request) = self.waiting.pop_front() {
            if !self.start(request) {
                break;
            }
        }
        self.client.pump(io);
        self.finish();
        self.report();
    }

    /// Calls back for requests that are done.
    fn finish(&mut self) {
        while let Some(done) = self.client.next_done() {
            let index = usize::try_from(done.token).unwrap_or(usize::MAX);
            if let Some(callback) = self.callbacks.get_mut(index).and_then(Option::take) {
                self.free.push(index);
                callback(done.result, done.bytes);
            }
        }
    }

    /// Hands a request to the client; false when it has to wait.
    fn start(&mut self, request: NamespaceRequest) -> bool {
        let index = self.free.pop().unwrap_or_else(|| {
            self.callbacks.push(None);
            self.callbacks.len() - 1
        });
        let NamespaceRequest {
            op,
            lba,
            blocks,
            bytes,
            start,
            done,
        } = request;
        match self
            .client
            .submit(op, lba, blocks, (bytes, start), index as u64)
        {
            Ok(()) => {
                if let Some(slot) = self.callbacks.get_mut(index) {
                    *slot = Some(done);
                }
                true
            }
            Err((Refused::Full, bytes)) => {
                self.free.push(index);
                self.waiting.push_front(NamespaceRequest {
                    op,
                    lba,
                    blocks,
                    bytes,
                    start,
                    done,
                });
                false
            }
            Err((Refused::OutOfRange | Refused::NotConnected, bytes)) => {
                self.free.push(index);
                let status = roadstead_nvme::Status::LBA_OUT_OF_RANGE;
                done(Err(IoError::Status(status)), bytes);
                true
            }
        }
    }

    fn answer_connect(&mut self, mailbox: &Mailbox<Message>, slot: usize) {
        if self.client.has_connected()
            && let Some(info) = self.client.info().copied()
        {
            let shared = Arc::new(Mutex::new(Shared {
                info,
                paths: self.client.paths(),
            }));
            self.shared = Some(Arc::clone(&shared));
            let namespace = Namespace {
                mailbox: mailbox.clone(),
                slot,
                shared,
            };
            if let Some(reply) = self.connecting.take() {
                let _ = reply.send(Ok(namespace));
            }
        } else if let Some(errors) = self.client.first_failure() {
            let errors = errors.to_vec();
            if let Some(reply) = self.connecting.take() {
                let _ = reply.send(Err(ConnectError::Paths(errors)));
            }
        }
    }

    /// Tells other threads what has changed.
    fn report(&mut self) {
        let mut changed = false;
        while self.client.next_change().is_some() {
            changed = true;
        }
        let (Some(shared), Some(info)) = (&self.shared, self.client.info().copied()) else {
            return;
        };
        if changed {
            lock(shared).info = info;
        }
        if self.client.paths_changed() || changed {
            lock(shared).paths = self.client.paths();
        }
        if !self.looking.is_empty() && !self.client.is_looking() {
            for reply in self.looking.drain(..) {
                let _ = reply.send(info);
            }
        }
    }
}

impl Handler for Clients {
    type Message = Message;

    fn event(&mut self, io: &mut Io, event: Event<'_>) {
        let token = match &event {
            Event::Connected { token, .. }
            | Event::Received { token, .. }
            | Event::Sent { token, .. }
            | Event::Closed { token, .. }
            | Event::Timer { token, .. } => *token,
            _ => return,
        };
        let index = usize::try_from(token / QUEUE_TOKENS).unwrap_or(usize::MAX);
        let is_last = matches!(event, Event::Closed { .. });
        if let Some(slot) = self.touch(index) {
            slot.client.event(io, event);
        }
        if is_last {
            // It may come after the end of the turn.
            self.turn_end(io);
        }
    }

    fn message(&mut self, io: &mut Io, message: Message) {
        match message {
            Message::Connect(spec, reply) => self.connect(io, *spec, reply),
            Message::Request(index, request) => match self.touch(index) {
                Some(slot) => slot.waiting.push_back(request),
                None => (request.done)(Err(IoError::Closed), request.bytes),
            },
            Message::Look(index, reply) => {
                if let Some(slot) = self.touch(index) {
                    slot.client.look();
                    slot.looking.push(reply);
                }
            }
            Message::Close(index, reply) => {
                self.close(io, index);
                let _ = reply.send(());
            }
            Message::Stop => {
                for index in 0..self.slots.len() {
                    self.close(io, index);
                }
                io.stop();
            }
        }
    }

    fn turn_end(&mut self, io: &mut Io) {
        while let Some(index) = self.dirty.pop() {
            self.pump(io, index);
        }
    }
}
