//! Time and loss: connecting, keeping alive, starting over, giving up.

use std::time::{Duration, Instant};

use super::Host;
use crate::action::Action;
use crate::flow::later;
use crate::ghost::Range;
use crate::path::{Fence, Path, Phase};
use crate::queue::{Check, Queue};
use crate::request::IoError;
use crate::setup::{ADMIN_SQSIZE, SetUp, SetUpError};
use crate::{action::Epoch, association::Association};

impl Host {
    /// A connection ended or could not be made.
    pub fn lost(&mut self, epoch: Epoch, reason: String, now: Instant) {
        if let Some(index) = self.current(epoch) {
            self.fail(index, SetUpError::Lost(reason), now);
        }
    }

    /// Ends the attempt or the association, and plans the next.
    pub(super) fn fail(&mut self, index: usize, error: SetUpError, now: Instant) {
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        if self.closed || matches!(path.phase, Phase::Vacant | Phase::Waiting(_)) {
            return;
        }
        let pause = match path.is_live() {
            true => {
                path.losses = path.losses.saturating_add(1);
                Duration::ZERO
            }
            false => path.backoff.pause(self.config.limits.reconnect_delay),
        };
        path.phase = Phase::Waiting(now + pause);
        path.rest_until = None;
        path.error = error.to_string();
        let epoch = path.epoch;
        if let Some(association) = path.association.take() {
            self.abandon(index, association, now);
        }
        self.actions.push_back(Action::Close { epoch });
        self.actions.push_back(Action::Down { path: index, error });
        self.tick(now);
    }

    /// Takes back what is in flight on a controller. Copies of it may still take effect.
    fn abandon(&mut self, index: usize, association: Association, now: Instant) {
        if let Some(fencing) = association.fencing {
            self.fence_lost(fencing);
        }
        let end = self.config.limits.kato().saturating_mul(2);
        let until = later(now, end.saturating_add(association.grants.quiesce));
        let parts: Vec<_> = association
            .queues
            .into_iter()
            .flat_map(Queue::abandon)
            .collect();
        for part in &parts {
            if let Some(request) = self.flow.request(part).filter(|r| r.op.is_write()) {
                let range = Range {
                    lba: request.lba + u64::from(part.first),
                    blocks: part.blocks,
                };
                self.ghosts.add(index, part.sequence, range, until);
            }
        }
        // Without writes in flight there is nothing to wait for.
        if self.ghosts.has(index)
            && let Some(path) = self.paths.get_mut(index)
        {
            let attempt = path.epoch.attempt;
            path.fence = association.grants.instance.map(|instance| Fence {
                attempt,
                cntlid: association.grants.cntlid,
                instance,
                at: now,
                is_asked: false,
            });
        }
        self.flow.requeue(parts.into_iter());
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant) {
        if self.closed {
            return;
        }
        self.flow.tick(now);
        for index in 0..self.paths.len() {
            self.tick_path(index, now);
        }
        if self.ghosts.expire(now) {
            self.flow.release();
        }
        self.fence(now);
        self.judge(now);
        self.prune();
    }

    /// Gives up when there is no path to wait for.
    pub(super) fn judge(&mut self, now: Instant) {
        let limits = self.config.limits;
        let paths = self.paths.iter_mut().zip(0..);
        for (path, index) in paths.filter(|(path, _)| !path.is_vacant()) {
            if path.judge(limits.ctrl_loss, now) {
                self.actions.push_back(Action::PathChanged { path: index });
            }
        }
        let is_down = |path: &Path| path.has_been_down(limits.patience(), now);
        let hopeless = self.info.is_some() && self.in_order().all(is_down);
        if hopeless && !self.given_up {
            self.actions.push_back(Action::GivenUp);
        }
        self.given_up = hopeless;
        if hopeless {
            self.flow.fail_all(IoError::PathLost, &mut self.done);
        }
    }

    fn tick_path(&mut self, index: usize, now: Instant) {
        let connect = self.config.limits.connect;
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        path.rest_until = path.rest_until.filter(|until| *until > now);
        match &mut path.phase {
            Phase::Waiting(at) if *at <= now => self.begin(index, now),
            Phase::SetUp { deadline, .. } | Phase::Queues { deadline } if *deadline <= now => {
                self.fail(index, SetUpError::Timeout(connect.as_secs()), now);
            }
            Phase::SetUp { later, .. } => {
                if let Some((_, command)) = later.take_if(|(at, _)| *at <= now) {
                    self.send_sequence(index, command);
                }
            }
            Phase::Live => self.tick_live(index, now),
            _ => {}
        }
    }

    fn begin(&mut self, index: usize, now: Instant) {
        let (machine, _) = SetUp::start(&self.config);
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        path.epoch.attempt = path.epoch.attempt.wrapping_add(1);
        path.phase = Phase::SetUp {
            deadline: now + self.config.limits.connect,
            machine: Box::new(machine),
            later: None,
        };
        let epoch = path.epoch;
        self.actions.push_back(Action::Open {
            epoch,
            qid: 0,
            entries: ADMIN_SQSIZE + 1,
        });
    }

    fn tick_live(&mut self, index: usize, now: Instant) {
        let keep_alive = self.config.limits.keep_alive;
        let has_other = self.has_other(index);
        let path = self.paths.get_mut(index);
        let Some(association) = path.and_then(|path| path.association.as_mut()) else {
            return;
        };
        let check = association.check(now);
        let lost_at = association.lost_at(keep_alive, has_other);
        let silent = lost_at.is_some_and(|at| now >= at);
        let what = if silent {
            "Keep Alive was not answered in time"
        } else if check == Check::Reset {
            "a command was not answered in time, nor was its Abort"
        } else if association.transition_until.is_some_and(|at| at <= now) {
            "the ANA state Change lasted longer than the target's transition time"
        } else {
            let abort = association.abort.filter(|_| check != Check::Fine);
            let is_due = association.keep_alive_sent.is_none()
                && now >= association.keep_alive_due(has_other);
            if is_due {
                association.keep_alive_sent = Some(now);
                self.send_keep_alive(index);
            }
            if let Some(abort) = abort {
                self.send_abort(index, abort);
            }
            return;
        };
        self.fail(index, SetUpError::Lost(what.into()), now);
    }

    /// When [`Self::tick`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let keep_alive = self.config.limits.keep_alive;
        let of_paths = self
            .paths
            .iter()
            .enumerate()
            .filter_map(|(index, path)| path.deadline(keep_alive, self.has_other(index)));
        let patience = self.config.limits.patience();
        let give_up = match self.given_up || self.info.is_none() {
            true => None,
            false => self.give_up_at(patience),
        };
        let others = [
            give_up,
            self.flow.deadline(),
            self.ghosts.deadline(),
            self.fence_deadline(),
        ];
        of_paths.chain(others.into_iter().flatten()).min()
    }

    /// Whether requests could go over another path.
    fn has_other(&self, index: usize) -> bool {
        let mut paths = self.paths.iter().enumerate();
        paths.any(|(other, path)| other != index && path.usable().is_some())
    }

    /// When the last path will have been down for so long; never while one works.
    fn give_up_at(&self, patience: Duration) -> Option<Instant> {
        let mut last = None;
        for path in self.in_order() {
            last = last.max(Some(path.down_since?));
        }
        last.map(|since| later(since, patience))
    }

    /// Ends everything; requests that are not done fail with [`IoError::Closed`].
    pub fn close(&mut self) {
        for path in &mut self.paths {
            if let Some(association) = path.association.take() {
                let queues = association.queues.into_iter();
                self.flow.requeue(queues.flat_map(Queue::abandon));
            }
            self.actions.push_back(Action::Close { epoch: path.epoch });
        }
        self.flow.fail_all(IoError::Closed, &mut self.done);
        self.closed = true;
    }
}

impl Path {
    fn deadline(&self, keep_alive: Duration, has_other: bool) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Vacant => None,
            Phase::Waiting(at) => Some(*at),
            Phase::SetUp {
                deadline, later, ..
            } => {
                let later = later.as_ref().map(|(at, _)| *at);
                Some(later.map_or(*deadline, |at| at.min(*deadline)))
            }
            Phase::Queues { deadline } => Some(*deadline),
            Phase::Live => self
                .association
                .as_ref()
                .map(|a| a.deadline(keep_alive, has_other)),
        };
        phase.into_iter().chain(self.rest_until).min()
    }
}
