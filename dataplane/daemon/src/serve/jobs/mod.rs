//! I/O commands of volumes: from a range of a volume to operations on its drive.
//!
//! A job goes through stages, each of which may have to wait: for places on the drive (given by the drive's
//! thread), for the drive, for a sync. It owns its buffer and is counted into the volume's grace period from
//! the lookup to the end of its last operation. Once at the drive, a job runs to its end; before that, it ends
//! without effect when its connection is gone.
//!
//! Memory drives take the same way, only that the drive never lets a job wait.

mod data;
mod errors;
mod program;
mod space;
mod sync;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use roadstead_pool::{Command, Fence, InFlight};
use roadstead_ring::{BufPool, Extent, FileDone, Io, IoBuf, Mailbox};
use roadstead_target::{Abandoned, ByteRange, IoError, IoOp, IoRequest, IoResult, Tag};

use super::drives::{Drive, Namespace};
use super::worker::Message;
use program::Program;

/// Names one use of one slot of the job table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct JobId {
    index: u32,
    generation: u32,
}

/// In a ring's token: the operation is a sync, which the job has started for itself and others.
const SYNC: u64 = 1 << 63;

impl JobId {
    fn token(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.index)
    }

    fn from_token(token: u64) -> Self {
        let [a, b, c, d, generation @ ..] = (token & !SYNC).to_le_bytes();
        Self {
            index: u32::from_le_bytes([a, b, c, d]),
            generation: u32::from_le_bytes(generation),
        }
    }
}

/// Whom a job is for: a command of a connection.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    /// Which connection.
    pub(super) place: Place,
    /// Of that very connection.
    pub(super) life: Rc<Life>,
    pub(super) tag: Tag,
}

/// A connection: its number among those of its transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(usize),
    Rdma(usize),
}

/// Whether a connection lives, as its jobs see it.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Once it has ended. As long as a job holds on to this, the core knows that I/O of the host is in flight.
    ended: RefCell<Option<Option<Abandoned>>>,
}

impl Life {
    pub(super) fn is_alive(&self) -> bool {
        self.ended.borrow().is_none()
    }

    /// The connection has ended, with what its core left behind, if it had one.
    pub(super) fn end(&self, abandoned: Option<Abandoned>) {
        self.ended.borrow_mut().get_or_insert(abandoned);
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The slot is not in use.
    Free,
    /// To look up its places.
    Place,
    /// The drive's thread works for it.
    Space,
    /// The drive works.
    Drive,
    /// Waits for a sync.
    Syncing,
}

/// What a job does; as [`IoOp`], with the ranges elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    Write,
    Zero,
    Deallocate,
    Flush,
    /// The next step of the program.
    Next,
}

struct Job {
    generation: u32,
    stage: Stage,
    owner: Option<Owner>,
    namespace: Option<Rc<Namespace>>,
    work: Work,
    /// For commands of several steps, of which the fields here are the one under way.
    program: Option<Box<Program>>,
    offset: u64,
    len: u64,
    fua: bool,
    buf: Option<IoBuf>,
    in_flight: Option<InFlight>,
    /// Its connection is gone; nobody overtakes it.
    fence: Option<Fence>,
    /// What its operations on the drive wrote is durable already.
    durable: bool,
    /// What is still to be deallocated.
    ranges: Vec<ByteRange>,
    /// How often the drive's thread was asked.
    asked: u32,
    /// Bytes that the operation on the drive must move.
    expected: usize,
    result: IoResult,
}

impl Job {
    /// A slot that is not in use.
    fn free(generation: u32) -> Self {
        Self {
            generation,
            stage: Stage::Free,
            owner: None,
            namespace: None,
            work: Work::Flush,
            program: None,
            offset: 0,
            len: 0,
            fua: false,
            buf: None,
            in_flight: None,
            fence: None,
            durable: false,
            ranges: Vec::new(),
            asked: 0,
            expected: 0,
            result: Ok(()),
        }
    }

    fn is_wanted(&self) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| owner.life.is_alive())
    }

    /// Counts the job out of the grace period.
    fn release(&mut self) {
        if let (Some(namespace), Some(in_flight)) = (&self.namespace, self.in_flight.take()) {
            namespace.reader.end(in_flight);
        }
    }

    /// The first error stays.
    fn fail(&mut self, error: IoError) {
        self.result = self.result.and(Err(error));
    }
}

/// A job that has ended.
pub(super) struct Done {
    pub(super) owner: Owner,
    pub(super) result: IoResult,
    pub(super) buf: Option<IoBuf>,
}

/// All jobs of a reactor.
pub(super) struct Jobs {
    slots: Vec<Job>,
    free: Vec<u32>,
    mailbox: Mailbox<Message>,
    /// Jobs that need a buffer of zeroes, in order.
    hungry: VecDeque<JobId>,
    /// Jobs that wait for one that has their bytes for itself, or that want to have them.
    parked: VecDeque<JobId>,
    /// What those that compare read into.
    scratch: BufPool,
    /// Commands that found a drive's queue full.
    refused: VecDeque<(JobId, Command)>,
    done: VecDeque<Done>,
    /// Where a job's range lies; here to be used again by every lookup.
    extents: Vec<Extent>,
}

impl Jobs {
    pub(super) fn new(mailbox: Mailbox<Message>) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            mailbox,
            hungry: VecDeque::new(),
            parked: VecDeque::new(),
            scratch: Self::scratch(),
            refused: VecDeque::new(),
            done: VecDeque::new(),
            extents: Vec::new(),
        }
    }

    fn get(&mut self, id: JobId) -> Option<&mut Job> {
        let slot = self.slots.get_mut(usize::try_from(id.index).ok()?)?;
        (slot.generation == id.generation && slot.stage != Stage::Free).then_some(slot)
    }

    fn drive_of(&mut self, id: JobId) -> Option<Rc<Drive>> {
        Some(Rc::clone(&self.get(id)?.namespace.as_ref()?.drive))
    }

    /// Starts an I/O. Reads come with the buffer to fill, writes with the one to write. Its end comes by
    /// [`Self::next_done`].
    pub(super) fn start(
        &mut self,
        io: &mut Io,
        owner: Owner,
        namespace: Option<Rc<Namespace>>,
        request: IoRequest,
        mut buf: Option<IoBuf>,
    ) {
        // Taken away while the command was under way; what replaces it is not known yet.
        let Some(namespace) = namespace else {
            let result = Err(IoError::Unavailable);
            self.done.push_back(Done { owner, result, buf });
            return;
        };
        let program = Program::of(&request, &mut buf).map(Box::new);
        let mut len = u64::from(request.length);
        let (work, ranges) = match request.op {
            IoOp::Read => (Work::Read, Box::default()),
            IoOp::Write => (Work::Write, Box::default()),
            IoOp::WriteZeroes { .. } => (Work::Zero, Box::default()),
            IoOp::ZeroAll => {
                len = namespace.reader.volume().size_bytes();
                (Work::Zero, Box::default())
            }
            IoOp::Flush => (Work::Flush, Box::default()),
            IoOp::Deallocate { ranges } => (Work::Deallocate, ranges),
            IoOp::Compare
            | IoOp::CompareAndWrite { .. }
            | IoOp::Verify
            | IoOp::Copy { .. }
            | IoOp::SaveReservations { .. } => (Work::Next, Box::default()),
        };
        let id = self.insert();
        let Some(slot) = self
            .slots
            .get_mut(usize::try_from(id.index).unwrap_or(usize::MAX))
        else {
            return;
        };
        *slot = Job {
            stage: Stage::Place,
            owner: Some(owner),
            namespace: Some(namespace),
            work,
            offset: request.offset,
            len,
            // A program sees to it itself, once for all of its steps.
            fua: request.fua && program.is_none(),
            program,
            buf,
            ranges: ranges.into_vec(),
            ..Job::free(id.generation)
        };
        self.step(io, id);
    }

    fn insert(&mut self) -> JobId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Job::free(0));
            // Commands in flight are bounded far below this by the connections.
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let slot = self.slots.get(usize::try_from(index).unwrap_or(usize::MAX));
        JobId {
            index,
            generation: slot.map_or(0, |slot| slot.generation),
        }
    }

    /// Takes a job as far as it goes without waiting.
    fn step(&mut self, io: &mut Io, id: JobId) {
        let Some(job) = self.get(id) else { return };
        if !job.is_wanted() {
            return self.end_with(id, IoError::Unavailable);
        }
        match job.work {
            Work::Read | Work::Write => self.transfer(io, id),
            Work::Zero => self.zero(io, id),
            Work::Deallocate => self.next_range(id),
            Work::Flush => self.sync(io, id),
            Work::Next => self.next_step(io, id),
        }
    }

    /// A connection ends. What its jobs are changing is fenced off until they have ended: an old write that is still
    /// at the drive could land over a newer one.
    pub(super) fn fence(&mut self, life: &Rc<Life>) {
        for job in &mut self.slots {
            let is_own = |owner: &Owner| Rc::ptr_eq(&owner.life, life);
            let is_changing = matches!(job.stage, Stage::Space | Stage::Drive)
                && matches!(job.work, Work::Write | Work::Zero | Work::Deallocate);
            if let (Some(namespace), true) = (&job.namespace, is_changing)
                && job.owner.as_ref().is_some_and(is_own)
            {
                let volume = namespace.reader.volume();
                job.fence = Some(volume.fence(job.offset, job.len));
            }
        }
    }

    /// Lets a job wait for one that has its bytes for itself.
    fn park(&mut self, id: JobId) {
        if let Some(job) = self.get(id) {
            job.release();
            self.parked.push_back(id);
        }
    }

    /// Ends a job, counts it, and frees its slot.
    fn end(&mut self, id: JobId) {
        let Some(job) = self.get(id) else { return };
        job.release();
        if let (Some(namespace), true) = (&job.namespace, job.is_wanted()) {
            let (work, len, is_good) = (job.work, job.len, job.result.is_ok());
            let is_failed = !is_good && job.result != Err(IoError::Miscompare);
            let is_simple = job.program.is_none();
            namespace.count(|counters| match work {
                _ if is_failed => counters.failed(),
                _ if !is_simple => {}
                Work::Read => counters.read(len),
                Work::Write => counters.wrote(len),
                Work::Flush => counters.flushed(),
                Work::Zero | Work::Deallocate | Work::Next => {}
            });
        }
        let ended = std::mem::replace(
            job,
            Job::free(job.generation.wrapping_add(1) & GENERATION_MASK),
        );
        self.free.push(id.index);
        if let Some(owner) = ended.owner {
            self.done.push_back(Done {
                owner,
                result: ended.result,
                buf: ended.buf,
            });
        }
    }

    fn end_with(&mut self, id: JobId, error: IoError) {
        if let Some(job) = self.get(id) {
            job.fail(error);
        }
        self.end(id);
    }

    /// The next job that has ended.
    pub(super) fn next_done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// Whether there is one.
    pub(super) fn has_done(&self) -> bool {
        !self.done.is_empty()
    }

    /// Whether something is waited for that nothing tells about: a drive's full queue, or bytes that another job has
    /// for itself.
    pub(super) fn must_poll(&self) -> bool {
        !self.refused.is_empty() || !self.parked.is_empty()
    }

    /// Jobs under way.
    pub(super) fn active(&self) -> usize {
        self.slots.len() - self.free.len() + self.done.len()
    }

    /// Tries again what could not go on. To be called once a turn. Buffers come back with events of this reactor;
    /// for the rest ([`Self::must_poll`]) a timer is needed.
    pub(super) fn retry(&mut self, io: &mut Io) {
        for _ in 0..self.hungry.len() {
            if let Some(id) = self.hungry.pop_front() {
                self.step(io, id);
            }
        }
        for _ in 0..self.parked.len() {
            if let Some(id) = self.parked.pop_front() {
                self.step(io, id);
            }
        }
        for _ in 0..self.refused.len() {
            if let Some((id, command)) = self.refused.pop_front() {
                self.submit(id, command);
            }
        }
    }

    /// An operation on a drive has ended.
    pub(super) fn file_done(&mut self, io: &mut Io, done: FileDone) {
        let id = JobId::from_token(done.token);
        if done.token & SYNC != 0 {
            self.sync_done(io, id, done.result);
        } else {
            self.transfer_done(io, id, done);
        }
    }
}

/// Generations leave room for [`SYNC`].
const GENERATION_MASK: u32 = u32::MAX >> 1;
