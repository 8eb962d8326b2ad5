//! The thread that owns a pool, and the handle that everyone else uses.
//!
//! Commands go through a bounded queue; answers come back through a closure that runs on the drive's thread
//! and should do no more than wake the one who asked (put a message into a reactor's mailbox). Every command
//! is answered exactly once, also when the drive is closed.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use uuid::Uuid;

use crate::error::{Fault, PoolError};
use crate::grace::GraceCycle;
use crate::pool::{ExtentRequest, Outcome, Pool};
use crate::reserve::GraceToken;
use crate::shared::{PoolShared, PoolStats, SyncTicket};
use crate::volume::{Volume, VolumeSpec};

/// Commands that wait at most; a reactor whose command is refused tries again at its next turn.
const QUEUE_DEPTH: usize = 1024;
/// Allocations that go into one journal batch at most.
const MAX_GROUP: usize = 256;
/// The clean reserve is refilled below the one and up to the other, extents.
const LOW_WATER_EXTENTS: usize = 24;
const HIGH_WATER_EXTENTS: usize = 64;
/// Cleaned at once; commands wait this long at most.
const REFILL_EXTENTS: usize = 16;
/// How often a grace period is looked at, first and at last.
const GRACE_POLL_MIN: Duration = Duration::from_millis(1);
const GRACE_POLL_MAX: Duration = Duration::from_millis(50);

type Directory = Mutex<BTreeMap<Uuid, Arc<Volume>>>;
type Answer<T> = Box<dyn FnOnce(Result<T, PoolError>) + Send>;

/// Where the answer to a command goes. Dropped unanswered, it answers [`PoolError::Stopped`].
pub struct Reply<T>(Option<Answer<T>>);

impl<T> Reply<T> {
    /// `answer` runs once, on the drive's thread as a rule.
    pub fn new(answer: impl FnOnce(Result<T, PoolError>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// An answer that nobody waits for.
    pub fn ignore() -> Self {
        Self(None)
    }

    fn send(mut self, result: Result<T, PoolError>) {
        if let Some(answer) = self.0.take() {
            answer(result);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(answer) = self.0.take() {
            answer(Err(PoolError::Stopped));
        }
    }
}

/// What the drive's thread can be asked for.
pub enum Command {
    /// Make a volume; answered when durable.
    Create(VolumeSpec, Reply<Arc<Volume>>),
    /// Give a volume a larger size, bytes; answered when durable.
    Grow(Uuid, u64, Reply<()>),
    /// Delete a volume; answered when durable. Its space comes back by itself when no I/O can reach it.
    Delete(Uuid, Reply<()>),
    /// Give extents of a volume places ([`Volume::extents_of`]); answered when they are published.
    Allocate(Uuid, Range<u32>, Reply<()>),
    /// Make extents of a volume holes ([`Volume::whole_extents`]); answered when they are.
    Deallocate(Uuid, Range<u32>, Reply<()>),
    /// Make everything answered so far durable.
    Sync(Reply<()>),
    /// Find out whether the drive still answers.
    Check(Reply<()>),
    /// End the thread; what is queued is answered [`PoolError::Stopped`].
    Close,
}

/// A command that was not taken; it is handed back.
pub enum Rejected {
    /// The queue is full: try again later.
    Full(Command),
    /// The drive is closed.
    Closed(Command),
}

/// Everyone's access to a drive.
#[derive(Clone)]
pub struct DriveHandle {
    commands: SyncSender<Command>,
    shared: Arc<PoolShared>,
    directory: Arc<Directory>,
}

impl DriveHandle {
    /// Hands a command over without waiting.
    // The command comes back whole so that nothing about it is lost.
    #[allow(clippy::result_large_err)]
    pub fn try_submit(&self, command: Command) -> Result<(), Rejected> {
        self.commands
            .try_send(command)
            .map_err(|error| match error {
                TrySendError::Full(command) => Rejected::Full(command),
                TrySendError::Disconnected(command) => Rejected::Closed(command),
            })
    }

    /// Hands a command over and waits for its answer. Not for reactors.
    pub fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(Reply<T>) -> Command,
    ) -> Result<T, PoolError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let reply = Reply::new(move |result| {
            // Nobody waits any more if this fails.
            let _ = answer.send(result);
        });
        self.commands
            .send(command(reply))
            .map_err(|_| PoolError::Stopped)?;
        answered.recv().unwrap_or(Err(PoolError::Stopped))
    }

    /// Makes a volume and waits until it is durable. Not for reactors.
    pub fn create_volume(&self, spec: VolumeSpec) -> Result<Arc<Volume>, PoolError> {
        self.call(|reply| Command::Create(spec, reply))
    }

    /// Grows a volume and waits until that is durable. Not for reactors.
    pub fn grow_volume(&self, uuid: Uuid, size_bytes: u64) -> Result<(), PoolError> {
        self.call(|reply| Command::Grow(uuid, size_bytes, reply))
    }

    /// Deletes a volume and waits until that is durable. Not for reactors.
    pub fn delete_volume(&self, uuid: Uuid) -> Result<(), PoolError> {
        self.call(|reply| Command::Delete(uuid, reply))
    }

    /// All volumes of the drive.
    pub fn volumes(&self) -> Vec<Arc<Volume>> {
        lock(&self.directory).values().cloned().collect()
    }

    /// A volume of the drive.
    pub fn volume(&self, uuid: Uuid) -> Option<Arc<Volume>> {
        lock(&self.directory).get(&uuid).cloned()
    }

    /// Numbers, without asking the thread.
    pub fn stats(&self) -> PoolStats {
        self.shared.stats()
    }

    /// Why the drive takes no more changes.
    pub fn fault(&self) -> Option<&Fault> {
        self.shared.fault()
    }

    /// See [`Volume::report_fault`].
    pub fn report_fault(&self, fault: Fault) {
        self.shared.set_fault(fault);
    }

    /// See [`Volume::sync_ticket`].
    pub fn sync_ticket(&self) -> SyncTicket {
        self.shared.sync_ticket()
    }

    /// See [`Volume::synced`].
    pub fn synced(&self, ticket: SyncTicket) {
        self.shared.synced(ticket);
    }
}

fn lock(directory: &Directory) -> std::sync::MutexGuard<'_, BTreeMap<Uuid, Arc<Volume>>> {
    directory.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread of one drive. Dropped, it goes on until [`DriveThread::close`] or until the last handle is gone.
pub struct DriveThread {
    handle: DriveHandle,
    thread: JoinHandle<()>,
}

impl DriveThread {
    /// Starts it; `name` is shown as the thread's name.
    pub fn start(pool: Pool, name: &str) -> io::Result<Self> {
        let (commands, queue) = mpsc::sync_channel(QUEUE_DEPTH);
        let directory: BTreeMap<_, _> = pool.volumes().into_iter().map(|v| (v.uuid(), v)).collect();
        let directory = Arc::new(Mutex::new(directory));
        let shared = Arc::clone(pool.shared());
        let worker = Worker {
            pool,
            directory: Arc::clone(&directory),
            waiting: VecDeque::new(),
            grace: None,
            poll: GRACE_POLL_MIN,
            is_refilling: true,
        };
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || worker.run(&queue))?;
        Ok(Self {
            handle: DriveHandle {
                commands,
                shared,
                directory,
            },
            thread,
        })
    }

    /// A handle to it.
    pub fn handle(&self) -> &DriveHandle {
        &self.handle
    }

    /// Syncs, ends the thread and waits for it. The medium is closed when the last volume's user is gone.
    pub fn close(self) {
        // It has ended by itself if this fails.
        let _ = self.handle.commands.send(Command::Close);
        let _ = self.thread.join();
    }
}

struct Allocation {
    request: ExtentRequest,
    reply: Reply<()>,
}

struct Worker {
    pool: Pool,
    directory: Arc<Directory>,
    /// Allocations that found no free extent within reach yet.
    waiting: VecDeque<Allocation>,
    grace: Option<(GraceCycle, GraceToken)>,
    poll: Duration,
    is_refilling: bool,
}

impl Worker {
    fn run(mut self, queue: &Receiver<Command>) {
        loop {
            let busy = self.refill();
            let next = if busy {
                queue.recv_timeout(Duration::ZERO)
            } else if self.grace_pending() {
                queue.recv_timeout(self.poll)
            } else {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            let open = match next {
                Ok(command) => self.work(command, queue),
                Err(RecvTimeoutError::Timeout) => true,
                Err(RecvTimeoutError::Disconnected) => false,
            };
            self.advance_grace();
            if !open {
                // A failed sync is in the pool's fault, where everyone sees it.
                let _ = self.pool.sync();
                return;
            }
        }
    }

    /// Carries `first` and what has queued up behind it out. False: close.
    fn work(&mut self, first: Command, queue: &Receiver<Command>) -> bool {
        let mut group = Vec::new();
        let mut next = Some(first);
        for _ in 0..MAX_GROUP {
            match next.take() {
                Some(Command::Allocate(volume, extents, reply)) => {
                    group.push(Allocation {
                        request: ExtentRequest { volume, extents },
                        reply,
                    });
                }
                Some(Command::Close) => return false,
                Some(other) => {
                    self.allocate(std::mem::take(&mut group));
                    self.single(other);
                }
                None => break,
            }
            next = queue.try_recv().ok();
        }
        self.allocate(group);
        // The group was full.
        next.is_none_or(|command| self.work_one(command))
    }

    fn work_one(&mut self, command: Command) -> bool {
        match command {
            Command::Allocate(volume, extents, reply) => {
                self.allocate(vec![Allocation {
                    request: ExtentRequest { volume, extents },
                    reply,
                }]);
            }
            Command::Close => return false,
            other => self.single(other),
        }
        true
    }

    fn single(&mut self, command: Command) {
        match command {
            Command::Create(spec, reply) => {
                let made = self.pool.create_volume(&spec);
                if let Ok(volume) = &made {
                    lock(&self.directory).insert(volume.uuid(), Arc::clone(volume));
                }
                reply.send(made);
            }
            Command::Grow(uuid, size_bytes, reply) => {
                reply.send(self.pool.grow_volume(uuid, size_bytes))
            }
            Command::Delete(uuid, reply) => {
                let deleted = self.pool.delete_volume(uuid);
                if deleted.is_ok() {
                    lock(&self.directory).remove(&uuid);
                }
                reply.send(deleted.map(drop));
            }
            Command::Deallocate(uuid, extents, reply) => {
                reply.send(self.pool.deallocate(uuid, extents).map(drop));
            }
            Command::Sync(reply) => reply.send(self.pool.sync()),
            Command::Check(reply) => reply.send(self.pool.check_drive()),
            // Taken care of by the callers.
            Command::Allocate(..) | Command::Close => {}
        }
    }

    fn allocate(&mut self, group: Vec<Allocation>) {
        if group.is_empty() {
            return;
        }
        let requests: Vec<ExtentRequest> = group.iter().map(|a| a.request.clone()).collect();
        match self.pool.allocate(&requests) {
            Ok(outcomes) => {
                for (allocation, outcome) in group.into_iter().zip(outcomes) {
                    match outcome {
                        Outcome::Mapped => allocation.reply.send(Ok(())),
                        Outcome::Refused(error) => allocation.reply.send(Err(error)),
                        Outcome::Wait => self.waiting.push_back(allocation),
                    }
                }
            }
            Err(error) => {
                for allocation in group {
                    allocation.reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// One step of filling the clean reserve. True: there is more to do.
    fn refill(&mut self) -> bool {
        let clean = self.pool.reserve().clean_count();
        self.is_refilling =
            (self.is_refilling && clean < HIGH_WATER_EXTENTS) || clean < LOW_WATER_EXTENTS;
        if !self.is_refilling {
            return false;
        }
        // An error is in the pool's fault, where everyone sees it.
        let more = matches!(self.pool.refill(REFILL_EXTENTS), Ok(n) if n > 0);
        self.is_refilling = more;
        more
    }

    fn grace_pending(&self) -> bool {
        self.pool.shared().fault().is_none()
            && (self.grace.is_some() || self.pool.reserve().last_unreleased().is_some())
    }

    /// Lets go free what nobody can reach any more, and serves the allocations that waited for it.
    fn advance_grace(&mut self) {
        let shared = Arc::clone(self.pool.shared());
        let cycle = self.grace.take().or_else(|| {
            let token = self.pool.reserve().last_unreleased()?;
            self.poll = GRACE_POLL_MIN;
            Some((GraceCycle::start(&shared.grace), token))
        });
        if let Some((mut cycle, token)) = cycle {
            if cycle.poll(&shared.grace) {
                self.pool.release(token);
                // An error is in the pool's fault, where everyone sees it.
                let _ = self.pool.reclaim();
                self.is_refilling = true;
            } else {
                self.poll = (self.poll * 2).min(GRACE_POLL_MAX);
                self.grace = Some((cycle, token));
            }
        }
        if !self.waiting.is_empty() && (self.grace.is_none() || shared.fault().is_some()) {
            let group = std::mem::take(&mut self.waiting).into();
            self.allocate(group);
        }
    }
}
