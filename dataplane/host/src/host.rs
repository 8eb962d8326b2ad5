//! One namespace over several paths: connects, keeps alive, reconnects, carries requests.

use std::collections::VecDeque;
use std::time::Instant;

use roadstead_nvme::command::{Blocks, IoCommand};
use roadstead_nvme::fabrics::Connect;
use roadstead_nvme::identify::cns;
use roadstead_nvme::{Cqe, Sqe, Status};

use crate::admin::{Control, NamespaceData};
use crate::backoff::Backoff;
use crate::config::HostConfig;
use crate::flow::{COMMAND_BLOCKS_MAX, Flow, Verdict};
use crate::queue::{CONTROL_CID, InFlight, Queue, Transfer};
use crate::request::{Done, IoError, Op, Refused, Request};
use crate::setup::{Grants, NamespaceInfo, Progress, SetUp, SetUpError};

/// Identifier of Keep Alive.
const CID_KEEP_ALIVE: u16 = CONTROL_CID | 1;
/// Identifier of Asynchronous Event Request.
const CID_EVENT: u16 = CONTROL_CID | 2;
/// Identifier of Connect on an I/O queue.
const CID_CONNECT: u16 = CONTROL_CID | 3;
/// Identifiers of the sequence on the admin queue: this, with a count in the lower byte.
const CID_SEQUENCE: u16 = CONTROL_CID | 0x100;

/// What the rim has to do. `epoch` numbers the attempts to connect: things of older ones are dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open the transport connection of a queue (0: admin), then call [`Host::ready`].
    Open {
        /// The attempt.
        epoch: u32,
        /// The queue.
        qid: u16,
        /// Which path.
        path: usize,
    },
    /// Send a command that is no request; its data goes in the capsule.
    Send {
        /// The attempt.
        epoch: u32,
        /// The queue.
        qid: u16,
        /// The command, complete.
        sqe: Box<Sqe>,
        /// Data to send with it.
        data_out: Vec<u8>,
        /// Most bytes of data that may come back, to be given to [`Host::completed`].
        data_in: u32,
    },
    /// Close all connections of this attempt.
    Close {
        /// The attempt.
        epoch: u32,
    },
    /// The namespace can be used; comes after every reconnect.
    Up {
        /// Which path.
        path: usize,
        /// What it is now.
        info: NamespaceInfo,
    },
    /// The namespace changed while connected.
    Changed(NamespaceInfo),
    /// A connection was lost, or could not be made.
    Down {
        /// Which path.
        path: usize,
        /// Why.
        error: SetUpError,
    },
    /// No path worked for as long as configured: requests fail from now on. Connecting goes on.
    GivenUp,
}

/// Where a command's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload {
    /// No data.
    None,
    /// The target sends it.
    Read(Transfer),
    /// The rim sends it: in the capsule when it fits, else when asked for.
    Write(Transfer),
}

/// A command of a request, to be sent now. Its data pointer is left to the rim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    /// The queue.
    pub qid: u16,
    /// The command.
    pub sqe: Sqe,
    /// Its data.
    pub payload: Payload,
}

/// What a path does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathState {
    /// Requests go over it.
    Live,
    /// Being connected, waiting for the next try, or standing by.
    Connecting,
    /// Given up on; still tried now and then.
    Failed,
}

/// A path, for reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// Its state.
    pub state: PathState,
    /// Its last error, or that it stands by.
    pub message: String,
}

#[derive(Debug)]
enum Phase {
    /// Until it is time to connect.
    Waiting(Instant),
    /// On the admin queue. `later`: a command to be sent at its time.
    SetUp {
        deadline: Instant,
        machine: Box<SetUp>,
        later: Option<(Instant, Control)>,
    },
    /// Opening I/O queues.
    Queues {
        deadline: Instant,
    },
    Live,
    Closed,
}

/// What is known of the controller now connected.
#[derive(Debug)]
struct Association {
    grants: Grants,
    queues: Vec<Queue>,
    next_queue: usize,
    keep_alive_at: Instant,
    keep_alive_sent: Option<Instant>,
    /// A look at the namespace is under way: the log page was asked for (true) or the namespace (false).
    look: Option<bool>,
    look_again: bool,
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    phase: Phase,
    epoch: u32,
    path: usize,
    backoff: Backoff,
    association: Option<Association>,
    info: Option<NamespaceInfo>,
    flow: Flow,
    /// Since when no path works.
    down_since: Option<Instant>,
    given_up: bool,
    sequence: u16,
    path_errors: Vec<String>,
    actions: VecDeque<Action>,
    done: VecDeque<Done>,
}

impl Host {
    /// A host that connects at its first [`Self::tick`].
    pub fn new(config: HostConfig, now: Instant) -> Self {
        Self {
            flow: Flow::new(config.limits.requests_max, config.limits.ctrl_loss),
            path_errors: vec![String::new(); config.paths],
            config,
            phase: Phase::Waiting(now),
            epoch: 0,
            path: 0,
            backoff: Backoff::new(),
            association: None,
            info: None,
            down_since: None,
            given_up: false,
            sequence: 0,
            actions: VecDeque::new(),
            done: VecDeque::new(),
        }
    }

    /// The namespace, once it was found.
    pub fn info(&self) -> Option<&NamespaceInfo> {
        self.info.as_ref()
    }

    /// The attempt to connect that is under way, or whose connections are in use.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Requests that are not done.
    pub fn outstanding(&self) -> usize {
        self.flow.len()
    }

    /// Most data that goes in a command's capsule, in bytes; 0 while there is no controller.
    pub fn in_capsule_bytes(&self) -> u32 {
        self.association
            .as_ref()
            .map_or(0, |a| a.grants.in_capsule_bytes)
    }

    /// The next thing to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The next request that ended.
    pub fn next_done(&mut self) -> Option<Done> {
        self.done.pop_front()
    }

    /// Accepts a request; it will be done exactly once.
    ///
    /// # Errors
    /// [`Refused`]: nothing of it happens.
    pub fn submit(&mut self, request: Request) -> Result<(), Refused> {
        let info = self.info.as_ref().ok_or(Refused::NotConnected)?;
        let end = request.lba.checked_add(u64::from(request.blocks));
        let is_flush = request.op == Op::Flush;
        if is_flush == (request.blocks != 0) || end.is_none_or(|end| end > info.blocks) {
            return Err(Refused::OutOfRange);
        }
        self.flow.submit(request)?;
        if self.given_up {
            self.flow.fail_all(IoError::PathLost, &mut self.done);
        } else if matches!(self.phase, Phase::Closed) {
            self.flow.fail_all(IoError::Closed, &mut self.done);
        }
        Ok(())
    }

    /// The next command to send, as long as queues have room.
    pub fn next_command(&mut self, now: Instant) -> Option<Command> {
        let (Phase::Live, Some(association), Some(info)) =
            (&self.phase, &mut self.association, &self.info)
        else {
            return None;
        };
        let transfer_blocks = association.grants.transfer_bytes_max / info.block_bytes;
        let zeroes_blocks = association.grants.zeroes_bytes_max / u64::from(info.block_bytes);
        let zeroes_blocks = u32::try_from(zeroes_blocks).unwrap_or(COMMAND_BLOCKS_MAX);
        loop {
            if !self.flow.has_pending() {
                return None;
            }
            let (index, qid) = association.queue_with_room()?;
            let (part, request) = self.flow.next(|op| match op {
                Op::WriteZeroes { .. } => zeroes_blocks,
                _ => transfer_blocks,
            })?;
            if matches!(request.op, Op::WriteZeroes { .. }) && !info.has_write_zeroes {
                let error = Some(IoError::Unsupported);
                self.flow.finish(part, error, &mut self.done);
                continue;
            }
            let queue = association.queues.get_mut(index)?;
            let has_data = matches!(request.op, Op::Read | Op::Write { .. });
            let transfer = Transfer {
                token: request.token,
                offset_bytes: u64::from(part.first) * u64::from(info.block_bytes),
                length_bytes: if has_data {
                    part.blocks * info.block_bytes
                } else {
                    0
                },
                is_read: request.op == Op::Read,
            };
            let in_flight = InFlight {
                part,
                transfer,
                received_bytes: 0,
            };
            let Some(cid) = queue.start(in_flight, now) else {
                self.flow.put_back(part);
                return None;
            };
            let lba = request.lba + u64::from(part.first);
            return Some(Command {
                qid,
                sqe: encode(request.op, cid, info.nsid, lba, part.blocks),
                payload: match request.op {
                    Op::Read => Payload::Read(transfer),
                    Op::Write { .. } => Payload::Write(transfer),
                    Op::Flush | Op::WriteZeroes { .. } => Payload::None,
                },
            });
        }
    }

    /// Where the data of a command in flight is, for a target that asks for it.
    pub fn transfer(&mut self, epoch: u32, qid: u16, cid: u16) -> Option<Transfer> {
        Some(self.in_flight(epoch, qid, cid)?.transfer)
    }

    /// Data of a read came: `length_bytes` at `offset_bytes` of the command's data. Returns where it goes.
    /// `None`: it belongs to no read in flight, or is not the next; the connection must end.
    pub fn received(
        &mut self,
        epoch: u32,
        qid: u16,
        cid: u16,
        offset_bytes: u32,
        length_bytes: u32,
    ) -> Option<Transfer> {
        let command = self.in_flight(epoch, qid, cid)?;
        let transfer = command.transfer;
        let end = offset_bytes.checked_add(length_bytes)?;
        if !transfer.is_read
            || offset_bytes != command.received_bytes
            || end > transfer.length_bytes
        {
            return None;
        }
        command.received_bytes = end;
        Some(transfer)
    }

    fn in_flight(&mut self, epoch: u32, qid: u16, cid: u16) -> Option<&mut InFlight> {
        if epoch != self.epoch || cid & CONTROL_CID != 0 {
            return None;
        }
        let index = usize::from(qid.checked_sub(1)?);
        self.association.as_mut()?.queues.get_mut(index)?.get(cid)
    }

    /// A connection is open and initialised.
    pub fn ready(&mut self, epoch: u32, qid: u16) {
        if epoch != self.epoch {
            return;
        }
        match (&mut self.phase, qid) {
            (Phase::Waiting(_) | Phase::Live | Phase::Closed, _) => {}
            (Phase::SetUp { machine, .. }, 0) => {
                let (fresh, command) = SetUp::start(&self.config);
                **machine = fresh;
                self.send_sequence(command);
            }
            (_, qid) => {
                let Some(association) = &self.association else {
                    return;
                };
                let queue = Connect {
                    qid,
                    // One more than commands in flight, zero's based.
                    sqsize: association.grants.queue_depth,
                    attributes: 0,
                    kato_ms: 0,
                };
                let cntlid = Some(association.grants.cntlid);
                let (host, nqn) = (&self.config.identity, &self.config.subsystem_nqn);
                let command = Control::connect(host, nqn, queue, cntlid);
                self.send(qid, CID_CONNECT, command);
            }
        }
    }

    /// A command completed; `data` is what came for a command that is no request.
    pub fn completed(&mut self, epoch: u32, qid: u16, cqe: &Cqe, data: &[u8], now: Instant) {
        if epoch != self.epoch {
            return;
        }
        let cid = cqe.cid.get();
        let outcome = if cid & CONTROL_CID == 0 {
            self.request_completed(qid, cqe, now)
        } else {
            self.control_completed(qid, cid, cqe, data, now)
        };
        if let Err(error) = outcome {
            self.fail(error, now);
        }
    }

    fn request_completed(&mut self, qid: u16, cqe: &Cqe, now: Instant) -> Result<(), SetUpError> {
        let index = usize::from(qid.wrapping_sub(1));
        let command = self
            .association
            .as_mut()
            .and_then(|a| a.queues.get_mut(index)?.finish(cqe.cid.get(), now))
            .ok_or(SetUpError::Invalid("a completion for no command in flight"))?;
        let status = cqe.status();
        let missing = command.transfer.is_read
            && status.is_success()
            && command.received_bytes != command.transfer.length_bytes;
        if missing {
            self.flow.put_back(command.part);
            return Err(SetUpError::Invalid(
                "a read completed without all of its data",
            ));
        }
        match self
            .flow
            .answered(command.part, status, now, &mut self.done)
        {
            Verdict::Done | Verdict::Retry => Ok(()),
            Verdict::Failover => Err(SetUpError::Refused {
                what: "an I/O command",
                status,
            }),
        }
    }

    fn control_completed(
        &mut self,
        qid: u16,
        cid: u16,
        cqe: &Cqe,
        data: &[u8],
        now: Instant,
    ) -> Result<(), SetUpError> {
        let status = cqe.status();
        match (cid, qid) {
            (CID_CONNECT, 1..) => self.queue_connected(qid, status),
            (CID_KEEP_ALIVE, 0) => {
                if let Some(association) = &mut self.association {
                    association.keep_alive_sent = None;
                    association.keep_alive_at = now + self.config.limits.keep_alive / 2;
                }
                refused("Keep Alive", status)
            }
            (CID_EVENT, 0) => {
                refused("Asynchronous Event Request", status)?;
                self.send(0, CID_EVENT, Control::async_event());
                self.look();
                Ok(())
            }
            _ if qid == 0 && cid == CID_SEQUENCE | self.sequence => {
                self.sequence_completed(cqe, data, now)
            }
            _ => Err(SetUpError::Invalid("a completion for no command in flight")),
        }
    }

    fn sequence_completed(
        &mut self,
        cqe: &Cqe,
        data: &[u8],
        now: Instant,
    ) -> Result<(), SetUpError> {
        let Phase::SetUp {
            machine,
            later,
            deadline,
        } = &mut self.phase
        else {
            return self.look_completed(cqe, data);
        };
        match machine.answer(&self.config, cqe, data, now)? {
            Progress::Send(command) => self.send_sequence(command),
            Progress::Later(at, command) => *later = Some((at, command)),
            Progress::Done(grants, info) => {
                if self
                    .info
                    .is_some_and(|old| old.block_bytes != info.block_bytes)
                {
                    return Err(SetUpError::Invalid(
                        "the namespace's block size has changed",
                    ));
                }
                let deadline = *deadline;
                self.info = Some(info);
                self.open_queues(grants, now);
                self.phase = Phase::Queues { deadline };
            }
        }
        Ok(())
    }

    fn open_queues(&mut self, grants: Grants, now: Instant) {
        let queues = (0..grants.io_queues).map(|_| Queue::new(grants.queue_depth, now));
        self.association = Some(Association {
            queues: queues.collect(),
            grants,
            next_queue: 0,
            keep_alive_at: now + self.config.limits.keep_alive / 2,
            keep_alive_sent: None,
            look: None,
            look_again: false,
        });
        for qid in 1..=grants.io_queues {
            self.actions.push_back(Action::Open {
                epoch: self.epoch,
                qid,
                path: self.path,
            });
        }
        if grants.has_events {
            self.send(0, CID_EVENT, Control::async_event());
        }
    }

    fn queue_connected(&mut self, qid: u16, status: Status) -> Result<(), SetUpError> {
        refused("Connect of an I/O queue", status)?;
        let (Phase::Queues { .. }, Some(association)) = (&self.phase, &mut self.association) else {
            return Err(SetUpError::Invalid("a completion for no command in flight"));
        };
        if let Some(queue) = association.queues.get_mut(usize::from(qid - 1)) {
            queue.connected = true;
        }
        if association.queues.iter().all(|queue| queue.connected) {
            self.phase = Phase::Live;
            self.backoff = Backoff::new();
            self.down_since = None;
            self.given_up = false;
            if let Some(error) = self.path_errors.get_mut(self.path) {
                error.clear();
            }
            if let Some(info) = self.info {
                let path = self.path;
                self.actions.push_back(Action::Up { path, info });
            }
        }
        Ok(())
    }

    /// Asks the target what the namespace is now; [`Action::Changed`] comes if it changed.
    pub fn look(&mut self) {
        let Some(association) = &mut self.association else {
            return; // Connecting looks anyhow.
        };
        if !matches!(self.phase, Phase::Live) || association.look.is_some() {
            association.look_again = true;
            return;
        }
        association.look = Some(true);
        self.send_sequence(Control::changed_namespaces());
    }

    fn look_completed(&mut self, cqe: &Cqe, data: &[u8]) -> Result<(), SetUpError> {
        let (Some(association), Some(info)) = (&mut self.association, &mut self.info) else {
            return Err(SetUpError::Invalid("a completion for no command in flight"));
        };
        match association.look.take() {
            // A target without that log page has no events that need it read.
            Some(true) => {
                association.look = Some(false);
                let nsid = info.nsid;
                self.send_sequence(Control::identify(cns::NAMESPACE, nsid));
            }
            Some(false) => {
                refused("Identify Namespace", cqe.status())?;
                let now = NamespaceData::parse(data)
                    .filter(|d| d.block_bytes == info.block_bytes && d.blocks > 0);
                if let Some(now) = now
                    && (now.blocks, now.read_only) != (info.blocks, info.read_only)
                {
                    info.blocks = now.blocks;
                    info.read_only = now.read_only;
                    self.actions.push_back(Action::Changed(*info));
                }
                if std::mem::take(&mut association.look_again) {
                    self.look();
                }
            }
            None => {
                return Err(SetUpError::Invalid("a completion for no command in flight"));
            }
        }
        Ok(())
    }

    /// Whether a look at the namespace is under way.
    pub fn is_looking(&self) -> bool {
        match &self.association {
            Some(association) => association.look.is_some() || association.look_again,
            None => false,
        }
    }

    /// A connection ended or could not be made.
    pub fn lost(&mut self, epoch: u32, reason: String, now: Instant) {
        if epoch == self.epoch {
            self.fail(SetUpError::Lost(reason), now);
        }
    }

    /// Ends the attempt or the association, and plans the next.
    fn fail(&mut self, error: SetUpError, now: Instant) {
        if matches!(self.phase, Phase::Waiting(_) | Phase::Closed) {
            return;
        }
        let was_live = matches!(self.phase, Phase::Live);
        if let Some(association) = self.association.take() {
            let queues = association.queues.into_iter();
            self.flow.requeue(queues.flat_map(Queue::abandon));
        }
        self.actions.push_back(Action::Close { epoch: self.epoch });
        if let Some(message) = self.path_errors.get_mut(self.path) {
            *message = error.to_string();
        }
        let path = self.path;
        self.actions.push_back(Action::Down { path, error });
        if self.info.is_some() {
            self.down_since = self.down_since.or(Some(now));
        }
        self.path += 1;
        let round_over = self.path >= self.config.paths;
        if was_live || round_over {
            self.path = 0;
        }
        let pause = match was_live {
            true => std::time::Duration::ZERO,
            false if round_over => self.backoff.pause(),
            false => std::time::Duration::ZERO,
        };
        self.phase = Phase::Waiting(now + pause);
        self.tick(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        self.flow.tick(now);
        if let Some(since) = self.down_since
            && !self.given_up
            && now >= since + self.config.limits.ctrl_loss
        {
            self.given_up = true;
            self.flow.fail_all(IoError::PathLost, &mut self.done);
            self.actions.push_back(Action::GivenUp);
        }
        match &mut self.phase {
            Phase::Waiting(at) if *at <= now => self.begin(now),
            Phase::SetUp { deadline, .. } | Phase::Queues { deadline } if *deadline <= now => {
                let error = SetUpError::Timeout(self.config.limits.connect.as_secs());
                self.fail(error, now);
            }
            Phase::SetUp { later, .. } => {
                if let Some((_, command)) = later.take_if(|(at, _)| *at <= now) {
                    self.send_sequence(command);
                }
            }
            Phase::Live => self.tick_live(now),
            _ => {}
        }
    }

    fn begin(&mut self, now: Instant) {
        self.epoch = self.epoch.wrapping_add(1);
        let (machine, _) = SetUp::start(&self.config);
        self.phase = Phase::SetUp {
            deadline: now + self.config.limits.connect,
            machine: Box::new(machine),
            later: None,
        };
        self.actions.push_back(Action::Open {
            epoch: self.epoch,
            qid: 0,
            path: self.path,
        });
    }

    fn tick_live(&mut self, now: Instant) {
        let limits = self.config.limits;
        let Some(association) = &mut self.association else {
            return;
        };
        let silent = association
            .keep_alive_sent
            .is_some_and(|at| now >= at + limits.keep_alive);
        let stalled = association
            .queues
            .iter()
            .any(|q| q.in_flight() > 0 && now >= q.progress + limits.io_stall);
        if silent || stalled {
            let what = match silent {
                true => "Keep Alive was not answered in time",
                false => "commands were not answered in time",
            };
            self.fail(SetUpError::Lost(what.into()), now);
            return;
        }
        if association.keep_alive_sent.is_none() && now >= association.keep_alive_at {
            association.keep_alive_sent = Some(now);
            self.send(0, CID_KEEP_ALIVE, Control::keep_alive());
        }
        if let Some(association) = &mut self.association
            && association.look_again
            && association.look.is_none()
        {
            association.look_again = false;
            self.look();
        }
    }

    /// When [`Self::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let limits = self.config.limits;
        let phase = match &self.phase {
            Phase::Waiting(at) => Some(*at),
            Phase::SetUp {
                deadline, later, ..
            } => Some(
                later
                    .as_ref()
                    .map_or(*deadline, |(at, _)| *at.min(deadline)),
            ),
            Phase::Queues { deadline } => Some(*deadline),
            Phase::Live => self.association.as_ref().map(|association| {
                let keep_alive = match association.keep_alive_sent {
                    Some(at) => at + limits.keep_alive,
                    None => association.keep_alive_at,
                };
                let busy = association.queues.iter().filter(|q| q.in_flight() > 0);
                busy.map(|q| q.progress + limits.io_stall)
                    .fold(keep_alive, Instant::min)
            }),
            Phase::Closed => return None,
        };
        let give_up = match self.given_up {
            true => None,
            false => self.down_since.map(|since| since + limits.ctrl_loss),
        };
        [phase, give_up, self.flow.deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What every path does now.
    pub fn paths(&self) -> Vec<PathReport> {
        let live = matches!(self.phase, Phase::Live);
        let report = |(index, error): (usize, &String)| {
            let state = if live && index == self.path {
                PathState::Live
            } else if self.given_up {
                PathState::Failed
            } else {
                PathState::Connecting
            };
            let message = match (state, error.is_empty()) {
                (PathState::Connecting, true) if live => "stands by".into(),
                _ => error.clone(),
            };
            PathReport { state, message }
        };
        self.path_errors.iter().enumerate().map(report).collect()
    }

    /// Ends everything; requests that are not done fail with [`IoError::Closed`].
    pub fn close(&mut self) {
        if let Some(association) = self.association.take() {
            let queues = association.queues.into_iter();
            self.flow.requeue(queues.flat_map(Queue::abandon));
        }
        self.flow.fail_all(IoError::Closed, &mut self.done);
        self.actions.push_back(Action::Close { epoch: self.epoch });
        self.phase = Phase::Closed;
        self.down_since = None;
    }

    fn send_sequence(&mut self, command: Control) {
        self.sequence = (self.sequence + 1) % 0x100;
        self.send(0, CID_SEQUENCE | self.sequence, command);
    }

    fn send(&mut self, qid: u16, cid: u16, command: Control) {
        let mut sqe = Box::new(command.sqe);
        sqe.cid = cid.into();
        self.actions.push_back(Action::Send {
            epoch: self.epoch,
            qid,
            sqe,
            data_out: command.data_out,
            data_in: command.data_in,
        });
    }
}

impl Association {
    /// The next queue that can take a command, in turn.
    fn queue_with_room(&mut self) -> Option<(usize, u16)> {
        let count = self.queues.len();
        for step in 0..count {
            let index = (self.next_queue + step) % count;
            if self.queues.get(index).is_some_and(Queue::has_room) {
                self.next_queue = (index + 1) % count;
                return Some((index, u16::try_from(index + 1).ok()?));
            }
        }
        None
    }
}

fn refused(what: &'static str, status: Status) -> Result<(), SetUpError> {
    match status.is_success() {
        true => Ok(()),
        false => Err(SetUpError::Refused { what, status }),
    }
}

fn encode(op: Op, cid: u16, nsid: u32, start: u64, count: u32) -> Sqe {
    let blocks = Blocks { start, count };
    let command = match op {
        Op::Read => IoCommand::Read {
            nsid,
            blocks,
            fua: false,
        },
        Op::Write { durable: fua } => IoCommand::Write { nsid, blocks, fua },
        Op::Flush => IoCommand::Flush { nsid },
        Op::WriteZeroes { deallocate } => IoCommand::WriteZeroes {
            nsid,
            blocks,
            fua: false,
            deallocate,
        },
    };
    command.encode(cid)
}

#[cfg(test)]
mod tests;
