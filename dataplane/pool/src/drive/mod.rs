//! The thread that owns a pool, and the handle that everyone else uses.
//!
//! Commands go through a bounded queue; answers come back through a closure that runs on the drive's thread
//! and should do no more than wake the one who asked (put a message into a reactor's mailbox). Every command
//! is answered exactly once, also when the drive is closed.

mod worker;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle};

use uuid::Uuid;

use crate::error::{Fault, PoolError};
use crate::pool::Pool;
use crate::shared::{PoolShared, PoolStats, SyncTicket};
use crate::volume::{Volume, VolumeSpec};
use worker::Worker;

/// Commands that wait at most; a reactor whose command is refused tries again at its next turn.
const QUEUE_DEPTH: usize = 1024;
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

/// Gives the bytes of a note. Notes are written in the order in which these are called.
pub type NoteSource = Box<dyn FnOnce() -> Vec<u8> + Send>;

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
    /// Replace what the layer above keeps with a volume by what this gives when its turn comes; answered when durable.
    Note(Uuid, NoteSource, Reply<()>),
    /// Use what the medium has grown by, after making a file at least so large, bytes; answered when durable.
    GrowDrive(u64, Reply<()>),
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
        let worker = Worker::new(pool, Arc::clone(&directory));
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
