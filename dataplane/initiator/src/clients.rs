//! What runs on the initiator's thread: a client for each namespace, and who waits for it.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex};

use roadstead_host::{IoError, NamespaceInfo, Refused};
use roadstead_ring::{Event, Handler, Io, Mailbox};

use crate::client::{Client, QUEUE_TOKENS};
use crate::spec::{Dial, Spec};
use crate::status::statuses;
use crate::thread::{Callback, ConnectError, Message, Namespace, NamespaceRequest, Shared, lock};

/// A client and who waits for it.
struct Slot {
    client: Client,
    connecting: Option<SyncSender<Result<Namespace, ConnectError>>>,
    shared: Option<Arc<Mutex<Shared>>>,
    looking: Vec<SyncSender<NamespaceInfo>>,
    watching: Vec<SyncSender<()>>,
    callbacks: Vec<Option<Callback>>,
    free: Vec<usize>,
    /// Requests beyond what the host takes at once. Bounded by what the submitters have in flight.
    waiting: VecDeque<NamespaceRequest>,
    dirty: bool,
}

/// The handler of the initiator's reactor.
pub(crate) struct Clients {
    mailbox: Mailbox<Message>,
    dial: Option<Dial>,
    slots: Vec<Option<Slot>>,
    dirty: Vec<usize>,
}

impl Clients {
    pub(crate) fn new(mailbox: Mailbox<Message>, dial: Option<Dial>) -> Self {
        Self {
            mailbox,
            dial,
            slots: Vec::new(),
            dirty: Vec::new(),
        }
    }

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
        let client = Client::new(spec, index as u64 * QUEUE_TOKENS, io.now());
        if let Some(slot) = self.slots.get_mut(index) {
            *slot = Some(Slot {
                client: client.dialing(self.dial.clone()),
                connecting: Some(reply),
                shared: None,
                looking: Vec::new(),
                watching: Vec::new(),
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
            slot.answer_connect(io, &self.mailbox, index);
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
        self.settle(io);
        while let Some(request) = self.waiting.pop_front() {
            if !self.start(request) {
                break;
            }
        }
        self.client.pump(io);
        self.settle(io);
    }

    /// Tells what has changed, then ends requests: whoever is told that a request failed finds the reason reported.
    fn settle(&mut self, io: &Io) {
        self.report(io);
        self.finish();
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

    fn answer_connect(&mut self, io: &Io, mailbox: &Mailbox<Message>, slot: usize) {
        if self.client.has_connected()
            && let Some(info) = self.client.info().copied()
        {
            let shared = Arc::new(Mutex::new(Shared {
                info,
                paths: statuses(&self.client, io, &[]),
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
        } else if let Some(errors) = self.client.first_failure()
            && let Some(reply) = self.connecting.take()
        {
            let _ = reply.send(Err(ConnectError::Paths(errors)));
        }
    }

    /// Has other threads see what the paths do now.
    fn measure(&self, io: &Io) {
        if let Some(shared) = &self.shared {
            let before = lock(shared).paths.clone();
            let now = statuses(&self.client, io, &before);
            lock(shared).paths = now;
        }
    }

    /// Tells other threads what has changed.
    fn report(&mut self, io: &Io) {
        let mut changed = false;
        while self.client.next_change().is_some() {
            changed = true;
        }
        let (Some(shared), Some(info)) = (&self.shared, self.client.info().copied()) else {
            return;
        };
        if changed {
            lock(shared).info = info;
            // One that has not taken the last message yet will see this change with it.
            let is_there = |watcher: &SyncSender<()>| {
                !matches!(watcher.try_send(()), Err(TrySendError::Disconnected(())))
            };
            self.watching.retain(is_there);
        }
        if self.client.paths_changed() || changed {
            self.measure(io);
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
            | Event::Timer { token, .. }
            | Event::Readable { token, .. } => *token,
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
            Message::Watch(index, watcher) => {
                if let Some(slot) = self.touch(index) {
                    slot.watching.push(watcher);
                }
            }
            Message::Measure(index, reply) => {
                if let Some(slot) = self.slots.get(index).and_then(Option::as_ref) {
                    slot.measure(io);
                }
                let _ = reply.send(());
            }
            Message::Follow(index, portals, reply) => {
                if let Some(slot) = self.slots.get_mut(index).and_then(Option::as_mut) {
                    slot.client.follow(&portals, io.now());
                    slot.pump(io);
                }
                let _ = reply.send(());
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

    fn poll(&mut self, io: &mut Io) -> bool {
        let mut worked = false;
        for index in 0..self.slots.len() {
            let slot = self.slots.get_mut(index).and_then(Option::as_mut);
            if slot.is_some_and(|slot| slot.client.poll(io)) {
                self.touch(index);
                worked = true;
            }
        }
        worked
    }

    fn may_sleep(&mut self, io: &mut Io) -> bool {
        let mut may_sleep = true;
        for index in 0..self.slots.len() {
            let slot = self.slots.get_mut(index).and_then(Option::as_mut);
            if slot.is_some_and(|slot| !slot.client.may_sleep(io)) {
                self.touch(index);
                may_sleep = false;
            }
        }
        // What came of it is not of a turn that ends.
        self.turn_end(io);
        may_sleep
    }

    fn turn_end(&mut self, io: &mut Io) {
        while let Some(index) = self.dirty.pop() {
            self.pump(io, index);
        }
    }
}
