//! Completions: of requests, of the way to the namespace, and of looks at it.

use std::time::Instant;

use roadstead_nvme::fabrics::Connect;
use roadstead_nvme::identify::cns;
use roadstead_nvme::{Cqe, Status};

use super::{Association, Host, Phase};
use crate::action::Action;
use crate::admin::{Control, NamespaceData};
use crate::backoff::Backoff;
use crate::flow::Verdict;
use crate::queue::{CONTROL_CID, Queue};
use crate::setup::{Grants, Progress, SetUp, SetUpError};

/// Identifier of Keep Alive.
const CID_KEEP_ALIVE: u16 = CONTROL_CID | 1;
/// Identifier of Asynchronous Event Request.
const CID_EVENT: u16 = CONTROL_CID | 2;
/// Identifier of Connect on an I/O queue.
pub(super) const CID_CONNECT: u16 = CONTROL_CID | 3;
/// Identifiers of the sequence on the admin queue: this, with a count in the lower byte.
pub(super) const CID_SEQUENCE: u16 = CONTROL_CID | 0x100;

impl Host {
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
            && command.moved_bytes != command.transfer.length_bytes;
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

    /// Sends Keep Alive.
    pub(super) fn send_keep_alive(&mut self) {
        self.send(0, CID_KEEP_ALIVE, Control::keep_alive());
    }

    pub(super) fn send_sequence(&mut self, command: Control) {
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

fn refused(what: &'static str, status: Status) -> Result<(), SetUpError> {
    match status.is_success() {
        true => Ok(()),
        false => Err(SetUpError::Refused { what, status }),
    }
}
