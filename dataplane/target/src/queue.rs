//! One queue of a controller, whatever transport carries it: commands in, decisions out.

use std::net::SocketAddr;
use std::sync::Arc;

use roadstead_nvme::fabrics::SQHD_NO_FLOW_CONTROL;
use roadstead_nvme::{Cqe, FabricsCommand, Sqe, Status, opcode};
use zerocopy::little_endian::U16;

use crate::admin::AdminQueue;
use crate::ana::View;
use crate::connect::{self, Connected};
use crate::controller::{Controller, Ended, Kind};
use crate::errors::{self, Marks};
use crate::io::{self, IoRequest};
use crate::registry::Registry;
use crate::work::{Abandoned, Work};

/// Names a command in flight on a connection, from the start of its work to its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u16);

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
    /// Keep it until [`Queue::next_event`] completes it.
    Hold,
}

/// One queue. It becomes an admin or an I/O queue by its first command, Connect. Dropping an admin queue ends its
/// controller.
#[derive(Debug)]
pub struct Queue {
    registry: Arc<Registry>,
    local: SocketAddr,
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
    Io(IoQueue),
}

#[derive(Debug)]
struct IoQueue {
    controller: Arc<Controller>,
    qid: u16,
    /// The enable of the controller that this queue belongs to.
    enable: u64,
    view: View,
    seen_epoch: u64,
    /// Its host ended it; the answer to that is on its way.
    is_disconnected: bool,
}

impl Queue {
    /// A queue on a fresh connection. `local` is the address that the host reached.
    #[must_use]
    pub fn new(registry: Arc<Registry>, local: SocketAddr) -> Self {
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
            queue.check_keep_alive(now_ms)?;
        }
        self.refresh()
    }

    /// Takes a command. `data_length` is what its data pointer says.
    pub fn begin(&mut self, tag: Tag, sqe: &Sqe, data_length: u32, now_ms: u64) -> Decision {
        self.marks.set(tag, sqe);
        match &mut self.role {
            Role::Io(queue) if sqe.opcode != opcode::FABRICS => {
                let decision = io::begin(&queue.view, sqe, data_length);
                let request = match &decision {
                    Decision::Io(request) => Some(request),
                    _ => None,
                };
                self.work.count(request);
                decision
            }
            Role::Io(queue) => match FabricsCommand::parse(sqe) {
                Ok(FabricsCommand::Disconnect) => {
                    queue.is_disconnected = true;
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
    pub fn control(&mut self, sqe: &Sqe, data: &[u8], now_ms: u64) -> Decision {
        match &self.role {
            Role::Fresh => match connect::connect(&self.registry, sqe, data, self.local, now_ms) {
                Ok(connected) => self.connected(connected),
                Err(completion) => Decision::Complete(completion),
            },
            Role::Io(queue) => {
                io::deallocate(&queue.view, sqe, data).unwrap_or_else(Decision::from)
            }
            Role::Admin(_) => Decision::from(Status::INTERNAL),
        }
    }

    fn connected(&mut self, connected: Connected) -> Decision {
        let Connected {
            controller,
            request,
            enable,
            view,
        } = connected;
        let cntlid = controller.identity().cntlid;
        self.entries = u32::from(request.sqsize) + 1;
        self.head = request.has_flow_control().then_some(0);
        self.role = if request.qid == 0 {
            Role::Admin(AdminQueue::new(Arc::clone(&self.registry), controller))
        } else {
            let watch = self.work.watch();
            controller.lock().watch(request.qid, enable, watch);
            // Anything that changed since Connect looked is seen by the first refresh.
            let seen_epoch = controller.epoch().wrapping_sub(1);
            Role::Io(IoQueue {
                controller,
                qid: request.qid,
                enable,
                view,
                seen_epoch,
                is_disconnected: false,
            })
        };
        Decision::Complete(Completion::result(u64::from(cntlid)))
    }

    /// An I/O was handed to the rim.
    pub fn io_begins(&self) {
        self.work.begin();
    }

    /// An I/O came back from the rim.
    pub fn io_ends(&self) {
        self.work.end();
    }

    /// Ends the queue. Keep what is returned until all I/O ended that was handed out.
    pub fn abandon(self) -> Abandoned {
        Abandoned { _work: self.work }
    }

    /// The next held command that an event completes. Ask after [`Self::begin`], [`Self::refresh`] and
    /// [`Self::tick`].
    pub fn next_event(&mut self) -> Option<(Tag, Completion)> {
        match &mut self.role {
            Role::Admin(queue) => queue.next_event(),
            Role::Fresh | Role::Io(_) => None,
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
            Role::Io(queue) => (&*queue.controller, queue.qid),
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

impl IoQueue {
    fn refresh(&mut self) -> Result<(), Ended> {
        if self.is_disconnected {
            return Err(Ended::Disconnected);
        }
        let epoch = self.controller.epoch();
        if epoch == self.seen_epoch {
            return Ok(());
        }
        let state = self.controller.lock();
        if let Some(ended) = state.ended {
            return Err(ended);
        }
        if state.enables != self.enable || !state.is_ready() {
            return Err(Ended::ControllerReset);
        }
        self.view = state.view.clone();
        self.seen_epoch = epoch;
        Ok(())
    }
}

impl Drop for IoQueue {
    fn drop(&mut self) {
        let mut state = self.controller.lock();
        if state.enables == self.enable {
            state.io_queues.remove(&self.qid);
        }
    }
}
