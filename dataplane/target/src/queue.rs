//! One queue of a controller, whatever transport carries it: commands in, decisions out.

use std::sync::Arc;

use roadstead_nvme::fabrics::SQHD_NO_FLOW_CONTROL;
use roadstead_nvme::{Cqe, FabricsCommand, Portal, Sqe, Status, opcode};
use zerocopy::little_endian::U16;

use crate::admin::AdminQueue;
use crate::connect::{self, Connected};
use crate::controller::{Ended, Kind};
use crate::errors::{self, Marks};
use crate::io::IoRequest;
use crate::io_queue::IoQueue;
use crate::registry::Registry;
use crate::work::{Abandoned, Phase, Work};

/// Names a command in flight on a connection, from the start of its work to its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u16);

impl Tag {
    /// Of a command that never had a place.
    pub(crate) const NONE: Self = Self(u16::MAX);
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The status.
    pub status: Status,
    /// Command specific.
    pub result: u64,
}

impl Completion {
    /// Success without a result.
    pub const SUCCESS: Self = Self {
        status: Status::SUCCESS,
        result: 0,
    };

    /// Success with a result.
    #[must_use]
    pub fn result(result: u64) -> Self {
        Self {
            status: Status::SUCCESS,
            result,
        }
    }
}

impl From<Status> for Completion {
    fn from(status: Status) -> Self {
        Self { status, result: 0 }
    }
}

/// What to do with a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Complete it.
    Complete(Completion),
    /// Send these bytes, exactly what its data pointer asks for, and complete it with success and this result.
    Reply {
        /// The bytes.
        data: Vec<u8>,
        /// Command specific.
        result: u64,
    },
    /// Take this many bytes of data from the host, then call [`Queue::control`].
    Control {
        /// Bytes, at most [`crate::limits::CONTROL_BYTES_MAX`].
        length: u32,
    },
    /// Do this I/O; for a write take its data from the host first.
    Io(IoRequest),
    /// Keep it until [`Queue::next_event`] goes on with it, or the I/O of a fused pair ends.
    Hold,
}

/// One queue. It becomes an admin or an I/O queue by its first command, Connect. Dropping an admin queue ends its
/// controller.
#[derive(Debug)]
pub struct Queue {
    registry: Arc<Registry>,
    local: Portal,
    role: Role,
    /// Entries.
    entries: u32,
    /// Where the controller is in the submission queue; none without flow control.
    head: Option<u16>,
    work: Work,
    /// The commands in flight, for the error log.
    marks: Marks,
}

#[derive(Debug)]
enum Role {
    Fresh,
    Admin(AdminQueue),
    Io(Box<IoQueue>),
}

impl Queue {
    /// A queue on a fresh connection. `local` is the portal that the host reached.
    #[must_use]
    pub fn new(registry: Arc<Registry>, local: Portal) -> Self {
        Self {
            registry,
            local,
            role: Role::Fresh,
            entries: 1,
            head: None,
            work: Work::default(),
            marks: Marks::default(),
        }
    }

    /// Commands that may be in flight.
    #[must_use]
    pub fn entries(&self) -> u16 {
        u16::try_from(self.entries).unwrap_or(u16::MAX)
    }

    /// Whether Connect succeeded.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        !matches!(self.role, Role::Fresh)
    }

    /// Whether the host counts on submission queue heads in completions.
    #[must_use]
    pub fn has_flow_control(&self) -> bool {
        self.head.is_some()
    }

    /// Notices what changed since the last call: cheap when nothing did. Call before a batch of commands.
    ///
    /// # Errors
    /// The queue must end.
    pub fn refresh(&mut self) -> Result<(), Ended> {
        match &mut self.role {
            Role::Fresh => Ok(()),
            Role::Admin(queue) => queue.refresh(),
            Role::Io(queue) => queue.refresh(),
        }
    }

    /// Checks the keep alive timer and [`Self::refresh`]es. `now_ms` is the rim's clock, which never goes back.
    ///
    /// # Errors
    /// The queue must end.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), Ended> {
        if let Role::Admin(queue) = &mut self.role {
            queue.tick(now_ms)?;
        }
        self.refresh()
    }

    /// Takes a command. `data_length` is what its data pointer says.
    pub fn begin(&mut self, tag: Tag, sqe: &Sqe, data_length: u32, now_ms: u64) -> Decision {
        self.marks.set(tag, sqe);
        match &mut self.role {
            Role::Io(queue) if sqe.opcode != opcode::FABRICS => {
                let decision = queue.begin(tag, sqe, data_length);
                let request = match &decision {
                    Decision::Io(request) => Some(request),
                    _ => None,
                };
                self.work.count_command(request);
                decision
            }
            Role::Io(queue) => match FabricsCommand::parse(sqe) {
                Ok(FabricsCommand::Disconnect) => {
                    queue.disconnect();
                    Decision::Complete(Completion::SUCCESS)
                }
                Ok(_) => Decision::from(Status::INVALID_OPCODE.dnr()),
                Err(status) => Decision::from(status),
            },
            Role::Admin(queue) => queue.begin(tag, sqe, data_length, now_ms),
            Role::Fresh => match FabricsCommand::parse(sqe) {
                Ok(FabricsCommand::Connect(_)) => connect::begin(data_length),
                Err(status) if sqe.opcode == opcode::FABRICS => Decision::from(status),
                Ok(_) | Err(_) => Decision::from(Status::COMMAND_SEQUENCE.dnr()),
            },
        }
    }

    /// Goes on with a command for which [`Decision::Control`] asked for data.
    pub fn control(&mut self, tag: Tag, sqe: &Sqe, data: &[u8], now_ms: u64) -> Decision {
        match &mut self.role {
            Role::Fresh => match connect::connect(&self.registry, sqe, data, self.local, now_ms) {
                Ok(connected) => self.connected(connected),
                Err(completion) => Decision::Complete(completion),
            },
            Role::Io(queue) => queue.control(tag, sqe, data),
            Role::Admin(_) => Decision::from(Status::INTERNAL),
        }
    }

    fn connected(&mut self, connected: Connected) -> Decision {
        let request = connected.request;
        let cntlid = connected.controller.identity().cntlid;
        let registry = Arc::clone(&self.registry);
        self.entries = u32::from(request.sqsize) + 1;
        self.head = request.has_flow_control().then_some(0);
        self.role = if request.qid == 0 {
            Role::Admin(AdminQueue::new(registry, connected.controller))
        } else {
            let watch = self.work.watch();
            let mut state = connected.controller.lock();
            state.watch(request.qid, connected.enable, watch);
            drop(state);
            Role::Io(Box::new(IoQueue::new(registry, connected)))
        };
        Decision::Complete(Completion::result(u64::from(cntlid)))
    }

    /// A command was refused with this status before the queue saw it. Returns the status to refuse it with.
    pub fn skip(&mut self, tag: Tag, sqe: &Sqe, status: Status) -> Status {
        match &mut self.role {
            Role::Io(queue) => queue.skip(tag, sqe, status),
            Role::Fresh | Role::Admin(_) => status,
        }
    }

    /// The data of a command came damaged; the command is being completed for it.
    pub fn lose(&mut self, tag: Tag) {
        if let Role::Io(queue) = &mut self.role {
            queue.lose(tag);
        }
    }

    /// Commands are looked at from now on, until [`Self::leave`]: I/O that is decided about meanwhile counts as in
    /// flight.
    pub fn enter(&mut self) {
        self.work.enter();
    }

    /// See [`Self::enter`].
    pub fn leave(&mut self) {
        self.work.leave();
    }

    /// Whether an I/O that was decided about earlier may start now.
    ///
    /// # Errors
    /// The status to complete it with.
    pub fn may_start(&mut self, request: &IoRequest) -> Result<(), Status> {
        match &mut self.role {
            Role::Io(queue) => queue.may_start(request),
            Role::Fresh | Role::Admin(_) => Ok(()),
        }
    }

    /// An I/O was handed to the rim.
    pub fn io_begins(&mut self) -> Phase {
        self.work.begin()
    }

    /// An I/O came back from the rim.
    pub fn io_ends(&mut self, phase: Phase) {
        self.work.end(phase);
    }

    /// How the two commands of a fused pair end whose I/O ended with this status; none for other I/O.
    pub fn pair_end(&mut self, tag: Tag, status: Status) -> Option<[(Tag, Status); 2]> {
        match &mut self.role {
            Role::Io(queue) => queue.pair_end(tag, status),
            Role::Fresh | Role::Admin(_) => None,
        }
    }

    /// Whether a command waits for I/O of other hosts: ask [`Self::next_event`] again soon.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        match &self.role {
            Role::Io(queue) => queue.is_draining(),
            Role::Admin(queue) => queue.is_draining(),
            Role::Fresh => false,
        }
    }

    /// Ends the queue. Keep what is returned until all I/O ended that was handed out.
    pub fn abandon(self) -> Abandoned {
        Abandoned { work: self.work }
    }

    /// The next held command that goes on. Ask after [`Self::begin`], [`Self::refresh`] and [`Self::tick`].
    pub fn next_event(&mut self) -> Option<(Tag, Decision)> {
        match &mut self.role {
            Role::Admin(queue) => {
                let (tag, completion) = queue.next_event()?;
                Some((tag, Decision::Complete(completion)))
            }
            Role::Io(queue) => queue.next_event(),
            Role::Fresh => None,
        }
    }

    /// The completion queue entry of a command. Notes an error in the controller's log.
    pub fn cqe(&mut self, tag: Tag, cid: u16, completion: Completion) -> Cqe {
        let status = if errors::is_logged(completion.status) {
            self.log_error(tag, cid, completion.status)
        } else {
            completion.status
        };
        let mut cqe = Cqe::new(cid, status, completion.result);
        self.count_completion();
        cqe.sqhd = U16::new(self.head.unwrap_or(SQHD_NO_FLOW_CONTROL));
        cqe
    }

    /// The status that says that the error log has more, if it has.
    fn log_error(&self, tag: Tag, cid: u16, status: Status) -> Status {
        let (controller, qid) = match &self.role {
            Role::Fresh => return status,
            Role::Admin(queue) => (queue.controller(), 0),
            Role::Io(queue) => (queue.controller(), queue.qid()),
        };
        if controller.identity().kind == Kind::Discovery {
            return status;
        }
        let mark = self.marks.get(tag);
        if mark.is_fabrics() {
            return status;
        }
        let status = status.more();
        controller.lock().errors.note(qid, cid, status, mark);
        status
    }

    /// A command was completed, maybe without a completion queue entry.
    pub fn count_completion(&mut self) {
        if let Some(head) = &mut self.head {
            *head = if u32::from(*head) + 1 >= self.entries {
                0
            } else {
                *head + 1
            };
        }
    }
}

impl From<Status> for Decision {
    fn from(status: Status) -> Self {
        Self::Complete(Completion::from(status))
    }
}
