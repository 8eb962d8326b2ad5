//! What is known of a controller that is connected.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use roadstead_nvme::identify::cns;

use crate::admin::Control;
use crate::ana::Access;
use crate::choice::Candidate;
use crate::queue::{Check, InFlight, Queue};
use crate::setup::{Grants, Way};

/// Something to be read from the controller after an event, or on demand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The start of a log page, for its event to occur again.
    Log(u8),
    /// The namespace.
    Namespace,
    /// The ANA log; after the namespace, which tells its group.
    Ana,
}

/// An Abort that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abort {
    pub(crate) qid: u16,
    pub(crate) cid: u16,
}

/// A controller and its queues.
#[derive(Debug)]
pub(crate) struct Association {
    pub(crate) grants: Grants,
    pub(crate) nsid: u32,
    pub(crate) ana_group: u32,
    pub(crate) access: Access,
    /// Until when `access` may be [`Access::Change`].
    pub(crate) transition_until: Option<Instant>,
    pub(crate) queues: Vec<Queue>,
    next_queue: usize,
    pub(crate) keep_alive_at: Instant,
    pub(crate) keep_alive_sent: Option<Instant>,
    /// What is to be read; the first is being read. Each kind waits at most once.
    pub(crate) looks: VecDeque<Look>,
    /// At most one is under way.
    pub(crate) abort: Option<Abort>,
}

impl Association {
    pub(crate) fn new(way: &Way, queues: Vec<Queue>, keep_alive_at: Instant, now: Instant) -> Self {
        let mut this = Self {
            grants: way.grants,
            nsid: way.info.nsid,
            ana_group: way.ana_group,
            access: Access::Optimized,
            transition_until: None,
            queues,
            next_queue: 0,
            keep_alive_at,
            keep_alive_sent: None,
            looks: VecDeque::new(),
            abort: None,
        };
        this.set_access(way.access, now);
        this
    }

    /// The ANA state is this from now on.
    pub(crate) fn set_access(&mut self, access: Access, now: Instant) {
        self.access = access;
        self.transition_until = match (access, self.grants.ana) {
            (Access::Change, Some(ana)) => self.transition_until.or(Some(now + ana.transition)),
            _ => None,
        };
    }

    /// As a choice for the next command.
    pub(crate) fn candidate(&self, path: usize) -> Candidate {
        Candidate {
            path,
            is_optimized: self.access == Access::Optimized,
            has_room: self.queues.iter().any(Queue::has_room),
            in_flight: self.queues.iter().map(Queue::in_flight).sum(),
        }
    }

    /// Starts a command on the next queue that has room, in turn: its queue and identifier. `None`: no room.
    pub(crate) fn start(&mut self, command: InFlight) -> Option<(u16, u16)> {
        let count = self.queues.len();
        for step in 0..count {
            let index = (self.next_queue + step) % count;
            if let Some(queue) = self.queues.get_mut(index).filter(|queue| queue.has_room()) {
                self.next_queue = (index + 1) % count;
                return Some((u16::try_from(index + 1).ok()?, queue.start(command)?));
            }
        }
        None
    }

    /// Adds what is to be read. Returns the command to send now, if nothing was being read.
    pub(crate) fn look(&mut self, wanted: &[Look]) -> Option<Control> {
        // What is being read may already be out of date; what waits is read after all that is wanted now.
        let current = self.looks.pop_front();
        self.looks.retain(|waiting| !wanted.contains(waiting));
        let has_ana = self.grants.ana.is_some();
        let possible = wanted.iter().filter(|look| **look != Look::Ana || has_ana);
        self.looks.extend(possible);
        match current {
            Some(current) => {
                self.looks.push_front(current);
                None
            }
            None => self.look_command(),
        }
    }

    /// The command for what is to be read first.
    pub(crate) fn look_command(&self) -> Option<Control> {
        Some(match self.looks.front()? {
            Look::Log(id) => Control::log_page(*id),
            Look::Namespace => Control::identify(cns::NAMESPACE, self.nsid),
            Look::Ana => Control::ana_log(self.grants.ana?.log_bytes),
        })
    }

    /// Looks for commands that are not answered. One to be aborted is then in `abort`.
    pub(crate) fn check(&mut self, now: Instant) -> Check {
        let mut found = Check::Fine;
        for (queue, qid) in self.queues.iter_mut().zip(1_u16..) {
            match queue.check(self.abort.is_none(), now) {
                Check::Fine => {}
                Check::Abort(cid) => {
                    self.abort = Some(Abort { qid, cid });
                    found = Check::Abort(cid);
                }
                Check::Reset => return Check::Reset,
            }
        }
        found
    }

    /// The Abort was answered: others may be sent.
    pub(crate) fn aborted(&mut self, now: Instant) {
        self.abort = None;
        for queue in &mut self.queues {
            queue.check_at = now;
        }
    }

    /// When something has to be done about time.
    pub(crate) fn deadline(&self, keep_alive: Duration) -> Instant {
        let alive = match self.keep_alive_sent {
            Some(at) => at + keep_alive,
            None => self.keep_alive_at,
        };
        let busy = self.queues.iter().filter(|queue| queue.in_flight() > 0);
        busy.map(|queue| queue.check_at)
            .chain(self.transition_until)
            .fold(alive, Instant::min)
    }
}
