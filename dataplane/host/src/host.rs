//! One namespace over several paths: connects, keeps alive, reconnects, carries requests.

mod control;
mod life;

use std::collections::VecDeque;
use std::time::Instant;

use roadstead_nvme::Sqe;
use roadstead_nvme::command::{Blocks, IoCommand};

use crate::action::{Action, Command, PathReport, PathState, Payload};
use crate::admin::Control;
use crate::backoff::Backoff;
use crate::config::HostConfig;
use crate::flow::{COMMAND_BLOCKS_MAX, Flow};
use crate::queue::{CONTROL_CID, InFlight, Queue, Transfer};
use crate::request::{Done, IoError, Op, Refused, Request};
use crate::setup::{Grants, NamespaceInfo, SetUp};

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
                moved_bytes: 0,
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
        command.moved(true, offset_bytes, length_bytes)
    }

    /// The target asks for data of a write. Returns where it comes from; each byte is asked for once.
    /// `None`: it belongs to no write in flight, or is not the next; the connection must end.
    pub fn asked(
        &mut self,
        epoch: u32,
        qid: u16,
        cid: u16,
        offset_bytes: u32,
        length_bytes: u32,
    ) -> Option<Transfer> {
        let command = self.in_flight(epoch, qid, cid)?;
        command.moved(false, offset_bytes, length_bytes)
    }

    fn in_flight(&mut self, epoch: u32, qid: u16, cid: u16) -> Option<&mut InFlight> {
        if epoch != self.epoch || cid & CONTROL_CID != 0 {
            return None;
        }
        let index = usize::from(qid.checked_sub(1)?);
        self.association.as_mut()?.queues.get_mut(index)?.get(cid)
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
            all: false,
        },
    };
    command.encode(cid)
}

#[cfg(test)]
mod tests;
