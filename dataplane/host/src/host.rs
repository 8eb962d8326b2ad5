//! One namespace over several paths: connects, keeps alive, reconnects, carries requests.

mod control;
mod events;
mod fence;
mod life;
mod wanted;

use std::collections::VecDeque;
use std::time::Instant;

use roadstead_nvme::Sqe;
use roadstead_nvme::command::{Blocks, IoCommand};

pub(crate) use fence::Fencing;

use crate::action::{Action, Command, Epoch, PathReport, Payload};
use crate::association::Association;
use crate::cache::Cache;
use crate::choice::choose;
use crate::config::HostConfig;
use crate::flow::{COMMAND_BLOCKS_MAX, Flow};
use crate::ghost::{Ghosts, Range};
use crate::path::Path;
use crate::queue::{CONTROL_CID, InFlight, Transfer};
use crate::request::{Done, IoError, Op, Refused, Request};
use crate::setup::NamespaceInfo;

/// See the crate's documentation.
#[derive(Debug)]
pub struct Host {
    config: HostConfig,
    /// By place.
    paths: Vec<Path>,
    /// The places of those that there are: wanted ones, nearest first, then the others.
    order: Vec<u16>,
    /// The path of the last command.
    last_path: usize,
    info: Option<NamespaceInfo>,
    flow: Flow,
    ghosts: Ghosts,
    cache: Cache,
    /// There is no path to wait for.
    given_up: bool,
    closed: bool,
    actions: VecDeque<Action>,
    done: VecDeque<Done>,
}
impl Host {
    /// A host that connects at its first [`Self::tick`].
    pub fn new(config: HostConfig, now: Instant) -> Self {
        let places: Vec<u16> = (0..=u16::MAX).take(config.paths).collect();
        let mut host = Self {
            flow: Flow::new(config.limits.requests_max, config.limits.ctrl_loss),
            paths: Vec::new(),
            order: Vec::new(),
            config,
            last_path: 0,
            info: None,
            ghosts: Ghosts::default(),
            cache: Cache::default(),
            given_up: false,
            closed: false,
            actions: VecDeque::new(),
            done: VecDeque::new(),
        };
        host.want(&places, now);
        host
    }

    /// The namespace, once it was found.
    pub fn info(&self) -> Option<&NamespaceInfo> {
        self.info.as_ref()
    }

    /// Whether this attempt is under way, or its connections are in use.
    pub fn is_current(&self, epoch: Epoch) -> bool {
        let path = self.paths.get(usize::from(epoch.path));
        !self.closed && path.is_some_and(|path| path.epoch == epoch)
    }

    /// Requests that are not done.
    pub fn outstanding(&self) -> usize {
        self.flow.len()
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
        if self.closed {
            self.flow.fail_all(IoError::Closed, &mut self.done);
        } else if self.given_up {
            self.flow.fail_all(IoError::PathLost, &mut self.done);
        }
        Ok(())
    }

    /// The next command to send, as long as queues have room.
    pub fn next_command(&mut self, now: Instant) -> Option<Command> {
        while self.flow.has_pending() {
            let candidates = self.in_order().filter_map(Path::candidate);
            let chosen = choose(self.config.limits.policy, candidates, self.last_path)?;
            let path = self.paths.get_mut(chosen)?;
            let (epoch, association) = (path.epoch, path.association.as_mut()?);
            let info = self.info.as_ref()?;
            let Some((part, request)) = self
                .flow
                .next(|op| blocks_max(op, association, info.block_bytes))
            else {
                continue;
            };
            if matches!(request.op, Op::WriteZeroes { .. }) && !info.has_write_zeroes {
                let error = Some(IoError::Unsupported);
                self.flow.finish(part, error, &mut self.done);
                continue;
            }
            let range = Range {
                lba: request.lba + u64::from(part.first),
                blocks: part.blocks,
            };
            if request.op.is_write() && self.ghosts.block(part.sequence, range) {
                self.flow.hold(part);
                continue;
            }
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
                started: now,
                is_aborted: false,
                is_damaged: false,
            };
            let Some((qid, cid)) = association.start(in_flight) else {
                self.flow.put_back(part);
                return None;
            };
            self.last_path = chosen;
            return Some(Command {
                epoch,
                qid,
                sqe: encode(request.op, cid, association.nsid, range),
                payload: match request.op {
                    Op::Read => Payload::Read(transfer),
                    Op::Write { .. } => Payload::Write(transfer),
                    Op::Flush | Op::WriteZeroes { .. } => Payload::None,
                },
                in_capsule_bytes: association.grants.in_capsule_bytes,
            });
        }
        None
    }

    /// Data of a read came: `length_bytes` at `offset_bytes` of the command's data. Returns where it goes.
    /// `None`: it belongs to no read in flight, or is not the next; the connection must end.
    pub fn received(
        &mut self,
        epoch: Epoch,
        qid: u16,
        cid: u16,
        offset_bytes: u32,
        length_bytes: u32,
    ) -> Option<Transfer> {
        let command = self.in_flight(epoch, qid, cid)?;
        command.received(offset_bytes, length_bytes)
    }

    /// The target asks for data of a write, in any order. Returns where it comes from.
    /// `None`: it belongs to no write in flight, or more is asked for than there is; the connection must end.
    pub fn asked(
        &mut self,
        epoch: Epoch,
        qid: u16,
        cid: u16,
        offset_bytes: u32,
        length_bytes: u32,
    ) -> Option<Transfer> {
        let command = self.in_flight(epoch, qid, cid)?;
        command.asked(offset_bytes, length_bytes)
    }

    /// Data of a read came with a wrong checksum: it will be read again.
    pub fn damaged(&mut self, epoch: Epoch, qid: u16, cid: u16) {
        if let Some(command) = self.in_flight(epoch, qid, cid) {
            command.is_damaged = true;
        }
    }

    /// The place of the path of an attempt that is under way.
    fn current(&self, epoch: Epoch) -> Option<usize> {
        self.is_current(epoch).then_some(usize::from(epoch.path))
    }

    fn in_flight(&mut self, epoch: Epoch, qid: u16, cid: u16) -> Option<&mut InFlight> {
        if cid & CONTROL_CID != 0 {
            return None;
        }
        let path = self.current(epoch)?;
        let association = self.paths.get_mut(path)?.association.as_mut()?;
        let index = usize::from(qid.checked_sub(1)?);
        association.queues.get_mut(index)?.get(cid)
    }

    /// What every path does now: wanted ones, nearest first, then those that are to end.
    pub fn paths(&self) -> Vec<PathReport> {
        self.in_order().map(Path::report).collect()
    }
}

/// Most blocks of one command.
fn blocks_max(op: Op, association: &Association, block_bytes: u32) -> u32 {
    match op {
        Op::WriteZeroes { .. } => {
            let blocks = association.grants.zeroes_bytes_max / u64::from(block_bytes);
            u32::try_from(blocks).unwrap_or(COMMAND_BLOCKS_MAX)
        }
        _ => association.grants.transfer_bytes_max / block_bytes,
    }
}

fn encode(op: Op, cid: u16, nsid: u32, range: Range) -> Sqe {
    let blocks = Blocks {
        start: range.lba,
        count: range.blocks,
    };
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
