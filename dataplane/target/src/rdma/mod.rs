//! One NVMe/RDMA connection on the controller's side.
//!
//! The rim gives it the capsules that were received and does the work that it asks for by [`Port`]: it fetches the data
//! of writes from the host's memory, writes that of reads there, and sends responses.
//!
//! Guaranteed: no capsule panics; memory is bounded as that of an NVMe/TCP connection; the host's memory is touched
//! within what the command's data pointer stands for, and not after its response. Assumed: the rim does what it is asked
//! in that order, as a queue pair does. Left out: more than one descriptor for a command.

mod io;
mod port;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use roadstead_nvme::wire::SQE_BYTES;
use roadstead_nvme::{Portal, Sqe, Status};
use roadstead_rdma::private::{Accept, Reject, Request};
use roadstead_rdma::{DataPointer, Remote};
use zerocopy::FromBytes;

pub use port::{Close, Port};

use crate::io::{IoOp, IoRequest};
use crate::limits;
use crate::queue::{Completion, Decision, Queue, Tag};
use crate::registry::Registry;
use crate::rim::{Rim, Turn};
use crate::slots::{NoSlot, Slots};
use crate::work::{Abandoned, Phase};

/// Longest command capsule.
pub const CAPSULE_BYTES_MAX: usize = SQE_BYTES + limits::RDMA_IN_CAPSULE_BYTES_MAX as usize;

/// Answers a connection request, whose private data this is.
///
/// # Errors
/// What to refuse it with.
pub fn accept(registry: &Registry, private_data: &[u8]) -> Result<Accept, Reject> {
    let request = Request::parse(private_data)?;
    if request.qid > limits::IO_QUEUES_MAX {
        return Err(Reject::InvalidQueue);
    }
    if request.send_entries > registry.limits().queue_entries() {
        return Err(Reject::InvalidSendSize);
    }
    if request.qid > 0 && request.cntlid > 0 && registry.find(request.cntlid).is_none() {
        return Err(Reject::InvalidController);
    }
    let receive_entries = u16::try_from(request.send_entries).unwrap_or(u16::MAX);
    Ok(Accept { receive_entries })
}

/// A command, as far as its response needs it.
#[derive(Clone, Copy, Debug)]
struct Head {
    cid: u16,
    remote: Remote,
}

/// What a command in flight waits for.
#[derive(Debug, Default)]
enum Slot {
    /// None.
    #[default]
    Free,
    /// The queue keeps it.
    Held(Head),
    /// A buffer.
    Waiting(Head, Want),
    /// Its data.
    Fetch(Head, Fetched),
    /// The rim's I/O.
    Io {
        head: Head,
        is_read: bool,
        /// Of its buffer.
        length: u32,
        phase: Phase,
    },
}

/// What a command needs a buffer for.
#[derive(Debug)]
enum Want {
    Read(IoRequest),
    /// Data that came in the capsule.
    Write(IoRequest, Vec<u8>),
    Fetch(Fetched),
    /// A reply, and the result.
    Reply(Vec<u8>, u64),
}

/// What to do with data that is fetched.
#[derive(Debug)]
enum Fetched {
    Io(IoRequest),
    Control { sqe: Box<Sqe>, length: u32 },
}

impl Fetched {
    fn length(&self) -> u32 {
        match self {
            Self::Io(request) => request.length,
            Self::Control { length, .. } => *length,
        }
    }
}

impl Want {
    fn length(&self) -> u32 {
        match self {
            Self::Read(request) | Self::Write(request, _) => request.length,
            Self::Fetch(fetched) => fetched.length(),
            Self::Reply(data, _) => u32::try_from(data.len()).unwrap_or(u32::MAX),
        }
    }
}

/// One connection: one queue. Owned by one reactor.
#[derive(Debug)]
pub struct Connection {
    queue: Queue,
    slots: Slots<Slot>,
    /// Commands that wait for a buffer, oldest first.
    waiting: VecDeque<Tag>,
    /// Bytes of buffers in use by commands.
    buffered: usize,
    created_ms: u64,
    is_closed: bool,
}

impl Connection {
    /// A connection that was just accepted. `local` is the address that the host reached.
    #[must_use]
    pub fn new(registry: Arc<Registry>, local: SocketAddr, now_ms: u64) -> Self {
        Self {
            queue: Queue::new(registry, Portal::rdma(local)),
            slots: Slots::new(),
            waiting: VecDeque::new(),
            buffered: 0,
            created_ms: now_ms,
            is_closed: false,
        }
    }

    /// Whether commands wait for a buffer, or [`Self::is_draining`]: call [`Self::resume`] when there may be some.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.is_draining()
    }

    /// Whether a command waits for the end of other hosts' I/O, which nothing tells about: call [`Self::resume`] every
    /// millisecond or so.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.queue.is_draining()
    }

    /// Commands in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.used()
    }

    /// Ends the connection: call this when its queue pair is in error or to be destroyed. Keep what is returned until
    /// all I/O ended that [`Rim::submit`] got from it.
    pub fn abandon(self) -> Abandoned {
        self.queue.abandon()
    }

    /// Takes a capsule.
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn receive<R, P>(&mut self, capsule: &[u8], turn: &mut Turn<'_, R, P>) -> Result<(), Close>
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        if self.is_closed {
            return Err(Close::Closed);
        }
        self.queue.enter();
        let result = self.queue.refresh().map_err(Close::Ended);
        let result = result.and_then(|()| self.command(capsule, turn));
        if result.is_ok() {
            self.report_events(turn);
        }
        self.queue.leave();
        self.is_closed |= result.is_err();
        result
    }

    /// Checks time-outs, reports events, notices what the control side changed. Call about once a second, and at once
    /// after [`Registry::apply`].
    ///
    /// # Errors
    /// The connection must be closed.
    pub fn tick<R, P>(&mut self, turn: &mut Turn<'_, R, P>) -> Result<(), Close>
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        if self.is_closed {
            return Err(Close::Closed);
        }
        let age_ms = turn.now_ms.saturating_sub(self.created_ms);
        let result = if !self.queue.is_connected() && age_ms > limits::CONNECT_MS_MAX {
            Err(Close::ConnectTimeout)
        } else {
            self.queue.tick(turn.now_ms).map_err(Close::Ended)
        };
        match result {
            Ok(()) => self.report_events(turn),
            Err(_) => self.is_closed = true,
        }
        result
    }

    fn command<R, P>(&mut self, capsule: &[u8], turn: &mut Turn<'_, R, P>) -> Result<(), Close>
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        let (sqe, data) = Sqe::ref_from_prefix(capsule).map_err(|_| Close::ShortCapsule)?;
        let cid = sqe.cid.get();
        let tag = match self.slots.allocate(self.queue.entries(), cid) {
            Ok(tag) => tag,
            Err(NoSlot::Conflict) => {
                let conflict = Status::COMMAND_ID_CONFLICT.dnr();
                let cqe = self.queue.cqe(Tag::NONE, cid, conflict.into());
                turn.out.respond(&cqe, None);
                return Ok(());
            }
            Err(NoSlot::Full) => return Err(Close::QueueFull),
        };
        let mut head = Head {
            cid,
            remote: Remote::NONE,
        };
        match locate(sqe, data) {
            Err(status) => {
                let status = self.queue.skip(tag, sqe, status);
                self.complete_command(tag, head, status.into(), turn.out);
            }
            Ok(Place::Here(data)) => self.begin(tag, head, sqe, Some(data), turn),
            Ok(Place::There(remote)) => {
                head.remote = remote;
                self.begin(tag, head, sqe, None, turn);
            }
        }
        Ok(())
    }

    /// Starts a command, whose data is `here` or at the host.
    fn begin<R, P>(
        &mut self,
        tag: Tag,
        head: Head,
        sqe: &Sqe,
        here: Option<&[u8]>,
        turn: &mut Turn<'_, R, P>,
    ) where
        R: Rim,
        P: Port<R::Buffer>,
    {
        let in_capsule = |data: &[u8]| u32::try_from(data.len()).unwrap_or(u32::MAX);
        let length = here.map_or(head.remote.length, in_capsule);
        let wrong_place = Status::SGL_TYPE_INVALID.dnr();
        match (self.queue.begin(tag, sqe, length, turn.now_ms), here) {
            (Decision::Complete(completion), _) => {
                self.complete_command(tag, head, completion, turn.out);
            }
            (Decision::Hold, _) => self.slots.set(tag, Slot::Held(head)),
            (Decision::Reply { .. }, Some(_)) => {
                self.complete_command(tag, head, wrong_place.into(), turn.out);
            }
            (Decision::Reply { data, result }, None) => {
                self.start_or_wait(tag, head, Want::Reply(data, result), turn);
            }
            (Decision::Control { .. }, Some(data)) => {
                let decision = self.queue.control(tag, sqe, data, turn.now_ms);
                self.go_on(tag, head, decision, turn);
            }
            (Decision::Control { length }, None) => {
                let sqe = Box::new(*sqe);
                let want = Want::Fetch(Fetched::Control { sqe, length });
                self.start_or_wait(tag, head, want, turn);
            }
            (Decision::Io(request), here) => match (&request.op, here) {
                (IoOp::Read, Some(_)) => {
                    self.complete_command(tag, head, wrong_place.into(), turn.out);
                }
                (IoOp::Read, None) => self.start_or_wait(tag, head, Want::Read(request), turn),
                (IoOp::Write | IoOp::Compare, Some(data)) => {
                    self.write_here(tag, head, request, data, turn);
                }
                (IoOp::Write | IoOp::Compare, None) => {
                    self.start_or_wait(tag, head, Want::Fetch(Fetched::Io(request)), turn);
                }
                _ => self.submit(tag, head, request, None, turn),
            },
        }
    }

    fn report_events<R, P>(&mut self, turn: &mut Turn<'_, R, P>)
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        while let Some((tag, decision)) = self.queue.next_event() {
            if let Slot::Held(head) = self.slots.take(tag) {
                self.go_on(tag, head, decision, turn);
            }
        }
    }

    /// Goes on with a command that was held, or whose data came.
    fn go_on<R, P>(&mut self, tag: Tag, head: Head, decision: Decision, turn: &mut Turn<'_, R, P>)
    where
        R: Rim,
        P: Port<R::Buffer>,
    {
        match decision {
            Decision::Complete(completion) => {
                self.complete_command(tag, head, completion, turn.out)
            }
            Decision::Hold => self.slots.set(tag, Slot::Held(head)),
            Decision::Io(request)
                if !matches!(request.op, IoOp::Read | IoOp::Write | IoOp::Compare) =>
            {
                self.submit(tag, head, request, None, turn);
            }
            Decision::Io(_) | Decision::Reply { .. } | Decision::Control { .. } => {
                self.complete_command(tag, head, Status::INTERNAL.into(), turn.out);
            }
        }
    }

    /// Completes a command and frees its place.
    fn complete_command<B>(
        &mut self,
        tag: Tag,
        head: Head,
        completion: Completion,
        out: &mut impl Port<B>,
    ) {
        self.slots.release(tag);
        let cqe = self.queue.cqe(tag, head.cid, completion);
        out.respond(&cqe, head.remote.key_to_invalidate());
    }
}

/// Where a command's data is.
enum Place<'a> {
    Here(&'a [u8]),
    There(Remote),
}

/// Finds a command's data; `data` is what came behind it.
fn locate<'a>(sqe: &Sqe, data: &'a [u8]) -> Result<Place<'a>, Status> {
    match DataPointer::parse(&sqe.dptr).map_err(Status::dnr)? {
        DataPointer::InCapsule { offset, .. } if offset != 0 => {
            Err(Status::SGL_OFFSET_INVALID.dnr())
        }
        DataPointer::InCapsule { length, .. } => {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let data = data.get(..length).ok_or(Status::SGL_LENGTH_INVALID.dnr())?;
            Ok(Place::Here(data))
        }
        DataPointer::Remote(remote) => Ok(Place::There(remote)),
    }
}
