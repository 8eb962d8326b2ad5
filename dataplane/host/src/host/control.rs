//! Completions: of requests, and of the way to the namespace.

use std::time::Instant;

use roadstead_nvme::event::AsyncEvent;
use roadstead_nvme::fabrics::Connect;
use roadstead_nvme::{Cqe, Status};

use super::Host;
use crate::action::{Action, Epoch};
use crate::admin::Control;
use crate::ana::from_status;
use crate::association::{Abort, Association, Look};
use crate::auth::Admission;
use crate::backoff::Backoff;
use crate::flow::{Part, RETRY_PAUSE, Verdict};
use crate::path::Phase;
use crate::queue::{CONTROL_CID, Queue, Times};
use crate::request::{IoError, Op};
use crate::setup::{NamespaceInfo, Progress, SetUp, SetUpError, Way};

/// Identifier of Keep Alive.
const CID_KEEP_ALIVE: u16 = CONTROL_CID | 1;
/// Identifier of Asynchronous Event Request.
pub(super) const CID_EVENT: u16 = CONTROL_CID | 2;
/// Identifier of Connect on an I/O queue, and of what may follow it, one after the other.
pub(super) const CID_CONNECT: u16 = CONTROL_CID | 3;
/// Identifier of Abort.
pub(super) const CID_ABORT: u16 = CONTROL_CID | 4;
/// Of Cross-Controller Reset.
pub(super) const CID_FENCE: u16 = CONTROL_CID | 5;
/// Identifiers of the sequence on the admin queue: this, with a count in the lower byte.
pub(super) const CID_SEQUENCE: u16 = CONTROL_CID | 0x100;

pub(super) use crate::setup::UNKNOWN_COMMAND;

impl Host {
    /// A connection is open and initialised.
    pub fn ready(&mut self, epoch: Epoch, qid: u16) {
        let Some(index) = self.current(epoch) else {
            return;
        };
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        match (&mut path.phase, qid) {
            (Phase::Vacant | Phase::Waiting(_) | Phase::Live, _) => {}
            (Phase::SetUp { machine, .. }, 0) => {
                let (fresh, command) = SetUp::start(&self.config);
                **machine = fresh;
                self.send_sequence(index, command);
            }
            (_, qid) => {
                let Some(association) = &path.association else {
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
                self.send(index, qid, CID_CONNECT, command);
            }
        }
    }

    /// A command completed; `data` is what came for a command that is no request.
    pub fn completed(&mut self, epoch: Epoch, qid: u16, cqe: &Cqe, data: &[u8], now: Instant) {
        let Some(index) = self.current(epoch) else {
            return;
        };
        let cid = cqe.cid.get();
        if let Some(association) = self.association(index) {
            association.heard_at = now;
        }
        let outcome = if cid & CONTROL_CID == 0 {
            self.request_completed(index, qid, cqe, now)
        } else {
            let outcome = self.control_completed(index, qid, cqe, data, now);
            self.judge(now);
            outcome
        };
        if let Err(error) = outcome {
            self.fail(index, error, now);
        }
    }

    pub(super) fn association(&mut self, index: usize) -> Option<&mut Association> {
        self.paths.get_mut(index)?.association.as_mut()
    }

    fn request_completed(
        &mut self,
        index: usize,
        qid: u16,
        cqe: &Cqe,
        now: Instant,
    ) -> Result<(), SetUpError> {
        let queue = usize::from(qid.wrapping_sub(1));
        let path = self.paths.get_mut(index).ok_or(UNKNOWN_COMMAND)?;
        let queue = path
            .association
            .as_mut()
            .and_then(|a| a.queues.get_mut(queue));
        let command = queue.and_then(|queue| queue.finish(cqe.cid.get()));
        let command = command.ok_or(UNKNOWN_COMMAND)?;
        let status = match (cqe.status(), command.is_damaged) {
            (status, true) if status.is_success() => Status::TRANSIENT_TRANSPORT,
            (status, _) => status,
        };
        let missing = command.transfer.is_read
            && status.is_success()
            && command.moved_bytes != command.transfer.length_bytes;
        if missing {
            self.flow.put_back(command.part);
            return Err(SetUpError::Invalid(
                "a read completed without all of its data",
            ));
        }
        if status.is_success() {
            path.traffic.count(&command.transfer);
        }
        if status.is_success() && !self.note_success(command.part) {
            let error = Some(IoError::CacheLost);
            self.flow.finish(command.part, error, &mut self.done);
            return Ok(());
        }
        match self
            .flow
            .answered(command.part, status, now, &mut self.done)
        {
            Verdict::Done | Verdict::Retry => {}
            Verdict::Failover => self.avoid(index, status, now),
        }
        Ok(())
    }

    /// The target has done a command. False: it has lost what the command was to make durable.
    fn note_success(&mut self, part: Part) -> bool {
        match self.flow.request(&part).map(|request| request.op) {
            Some(Op::Flush) => return self.cache.flushed(part.sequence),
            Some(Op::Write { durable: false } | Op::WriteZeroes { .. }) => {
                self.cache.wrote(self.flow.last());
            }
            _ => {}
        }
        true
    }

    /// A path-related status: the path rests, and what it is good for is found out.
    fn avoid(&mut self, index: usize, status: Status, now: Instant) {
        if let Some(path) = self.paths.get_mut(index) {
            path.rest_until = Some(now + RETRY_PAUSE);
        }
        if let Some(ana_state) = from_status(status)
            && let Some(association) = self.association(index)
            && association.grants.ana.is_some()
        {
            association.set_ana_state(ana_state, now);
            self.look_at(index, &[Look::Namespace, Look::Ana]);
        }
        self.judge(now);
    }

    fn control_completed(
        &mut self,
        index: usize,
        qid: u16,
        cqe: &Cqe,
        data: &[u8],
        now: Instant,
    ) -> Result<(), SetUpError> {
        let (cid, status) = (cqe.cid.get(), cqe.status());
        let keep_alive = self.config.limits.keep_alive;
        let path = self.paths.get_mut(index).ok_or(UNKNOWN_COMMAND)?;
        let sequence = CID_SEQUENCE | path.sequence;
        match (cid, qid, &mut path.association) {
            (CID_CONNECT, 1.., _) => self.queue_connected(index, qid, cqe, data),
            (CID_FENCE, 0, Some(_)) => self.fence_answered(index, cqe),
            (CID_KEEP_ALIVE, 0, Some(association)) => {
                association.kept_alive(keep_alive, now);
                refused("Keep Alive", status)
            }
            // Whether it was aborted shows in the command's own completion.
            (CID_ABORT, 0, Some(association)) if association.abort.is_some() => {
                association.aborted(now);
                Ok(())
            }
            (CID_EVENT, 0, Some(_)) => {
                refused("Asynchronous Event Request", status)?;
                let [a, b, c, d, ..] = cqe.result.get().to_le_bytes();
                self.event(index, AsyncEvent::parse(u32::from_le_bytes([a, b, c, d])));
                Ok(())
            }
            (cid, 0, _) if cid == sequence => self.sequence_completed(index, cqe, data, now),
            _ => Err(UNKNOWN_COMMAND),
        }
    }

    fn sequence_completed(
        &mut self,
        index: usize,
        cqe: &Cqe,
        data: &[u8],
        now: Instant,
    ) -> Result<(), SetUpError> {
        let path = self.paths.get_mut(index).ok_or(UNKNOWN_COMMAND)?;
        let Phase::SetUp {
            machine,
            later,
            deadline,
        } = &mut path.phase
        else {
            return self.look_completed(index, cqe, data, now);
        };
        match machine.answer(&self.config, cqe, data, now)? {
            Progress::Send(command) => self.send_sequence(index, command),
            Progress::Later(at, command) => *later = Some((at, command)),
            Progress::Done(way) => {
                let deadline = *deadline;
                path.phase = Phase::Queues { deadline };
                self.found(way.info)?;
                self.open_queues(index, &way, now);
            }
        }
        Ok(())
    }

    /// A path leads to this namespace: it has to be the one that is known.
    fn found(&mut self, info: NamespaceInfo) -> Result<(), SetUpError> {
        if let Some(known) = self.info.filter(|known| *known != info) {
            let is_same = match (known.uuid, info.uuid) {
                (Some(known), Some(found)) => known == found,
                _ => known.nsid == info.nsid,
            };
            if !is_same {
                return Err(SetUpError::Invalid("the path leads to another namespace"));
            }
            if known.block_bytes != info.block_bytes {
                return Err(SetUpError::Invalid(
                    "the namespace's block size has changed",
                ));
            }
            self.actions.push_back(Action::Changed(info));
        }
        self.info = Some(info);
        if self.cache.seen(info.cache_epoch, self.flow.last()) {
            self.actions.push_back(Action::CacheLost);
        }
        Ok(())
    }

    fn open_queues(&mut self, index: usize, way: &Way, now: Instant) {
        let limits = self.config.limits;
        let times = Times {
            io_timeout: limits.io_timeout,
            abort_timeout: limits.abort_timeout,
        };
        let queues = (0..way.grants.io_queues)
            .map(|_| Queue::new(way.grants.queue_depth, times, now))
            .collect();
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        let mut association = Association::new(way, queues, now);
        let (host, nqn) = (&self.config.identity, &self.config.subsystem_nqn);
        let admissions = (0..way.grants.io_queues).map(|_| Admission::of_io_queue(host, nqn));
        association.admissions = admissions.collect();
        path.association = Some(association);
        let epoch = path.epoch;
        let entries = way.grants.queue_depth.saturating_add(1);
        let open = |qid| Action::Open {
            epoch,
            qid,
            entries,
        };
        self.actions.extend((1..=way.grants.io_queues).map(open));
        if way.grants.events != 0 {
            self.send(index, 0, CID_EVENT, Control::async_event());
        }
    }

    fn queue_connected(
        &mut self,
        index: usize,
        qid: u16,
        cqe: &Cqe,
        data: &[u8],
    ) -> Result<(), SetUpError> {
        let path = self.paths.get_mut(index).ok_or(UNKNOWN_COMMAND)?;
        let (Phase::Queues { .. }, Some(association)) = (&path.phase, &mut path.association) else {
            return Err(UNKNOWN_COMMAND);
        };
        let number = usize::from(qid - 1);
        let admission = association.admissions.get_mut(number);
        if let Some(next) = admission.ok_or(UNKNOWN_COMMAND)?.answer(cqe, data)? {
            self.send(index, qid, CID_CONNECT, next);
            return Ok(());
        }
        if let Some(queue) = association.queues.get_mut(number) {
            queue.connected = true;
        }
        if association.queues.iter().all(|queue| queue.connected) {
            path.phase = Phase::Live;
            path.backoff = Backoff::new();
            path.error.clear();
            path.fence = None;
            if self.ghosts.ended(index) {
                self.flow.release();
            }
            if let Some(info) = self.info {
                self.actions.push_back(Action::Up { path: index, info });
            }
        }
        Ok(())
    }

    /// Sends Keep Alive.
    pub(super) fn send_keep_alive(&mut self, index: usize) {
        self.send(index, 0, CID_KEEP_ALIVE, Control::keep_alive());
    }

    pub(super) fn send_abort(&mut self, index: usize, abort: Abort) {
        self.send(index, 0, CID_ABORT, Control::abort(abort.qid, abort.cid));
    }

    pub(super) fn send_sequence(&mut self, index: usize, command: Control) {
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        path.sequence = (path.sequence + 1) % 0x100;
        let cid = CID_SEQUENCE | path.sequence;
        self.send(index, 0, cid, command);
    }

    pub(super) fn send(&mut self, index: usize, qid: u16, cid: u16, command: Control) {
        let Some(path) = self.paths.get(index) else {
            return;
        };
        let mut sqe = Box::new(command.sqe);
        sqe.cid = cid.into();
        self.actions.push_back(Action::Send {
            epoch: path.epoch,
            qid,
            sqe,
            data_out: command.data_out,
            data_in: command.data_in,
        });
    }
}

pub(super) fn refused(what: &'static str, status: Status) -> Result<(), SetUpError> {
    match status.is_success() {
        true => Ok(()),
        false => Err(SetUpError::Refused { what, status }),
    }
}
