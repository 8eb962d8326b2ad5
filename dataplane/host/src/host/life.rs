//! Time and loss: connecting, keeping alive, starting over.

use std::time::{Duration, Instant};

use super::{Host, Phase};
use crate::action::Action;
use crate::queue::Queue;
use crate::request::IoError;
use crate::setup::{SetUp, SetUpError};

impl Host {
    /// A connection ended or could not be made.
    pub fn lost(&mut self, epoch: u32, reason: String, now: Instant) {
        if epoch == self.epoch {
            self.fail(SetUpError::Lost(reason), now);
        }
    }

    /// Ends the attempt or the association, and plans the next.
    pub(super) fn fail(&mut self, error: SetUpError, now: Instant) {
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
            true => Duration::ZERO,
            false if round_over => self.backoff.pause(),
            false => Duration::ZERO,
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
            self.send_keep_alive();
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
}
