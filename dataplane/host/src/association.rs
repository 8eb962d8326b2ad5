//! What is known of a controller that is connected.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use roadstead_nvme::AnaState;
use roadstead_nvme::identify::cns;

use crate::admin::Control;
use crate::auth::Admission;
use crate::choice::Candidate;
use crate::host::Fencing;
use crate::queue::{Check, InFlight, Queue};
use crate::setup::{Grants, Way};

/// A controller that answers nothing for so long, though commands are in flight, is probed, if there is another path.
const PROBE_AFTER: Duration = Duration::from_millis(100);
/// A probe that is not answered for so many of the usual round trips, and for so long at least, costs the path.
const ROUND_TRIPS_MAX: u32 = 4;
const PROBE_TIMEOUT_MIN: Duration = Duration::from_millis(200);
/// The same before a round trip was measured.
const PROBE_TIMEOUT_FIRST: Duration = Duration::from_secs(1);
/// The part of the round trip that one measurement makes.
const SMOOTHING: u32 = 8;

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
    pub(crate) ana_state: AnaState,
    /// Until when `ana_state` may be [`AnaState::Change`].
    pub(crate) transition_until: Option<Instant>,
    pub(crate) queues: Vec<Queue>,
    /// Their ways in.
    pub(crate) admissions: Vec<Admission>,
    next_queue: usize,
    pub(crate) keep_alive_at: Instant,
    pub(crate) keep_alive_sent: Option<Instant>,
    /// When the controller last answered, or was asked while nothing was in flight.
    pub(crate) heard_at: Instant,
    /// Of Keep Alives, smoothed; `None` before the first.
    pub(crate) round_trip: Option<Duration>,
    /// Another controller that this one is asked to end.
    pub(crate) fencing: Option<Fencing>,
    /// What is to be read; the first is being read. Each kind waits at most once.
    pub(crate) looks: VecDeque<Look>,
    /// At most one is under way.
    pub(crate) abort: Option<Abort>,
}

impl Association {
    pub(crate) fn new(way: &Way, queues: Vec<Queue>, now: Instant) -> Self {
        let mut this = Self {
            grants: way.grants,
            nsid: way.info.nsid,
            ana_group: way.ana_group,
            ana_state: AnaState::Optimized,
            transition_until: None,
            queues,
            admissions: Vec::new(),
            next_queue: 0,
            // At once: it is the first measurement.
            keep_alive_at: now,
            keep_alive_sent: None,
            heard_at: now,
            round_trip: None,
            fencing: None,
            looks: VecDeque::new(),
            abort: None,
        };
        this.set_ana_state(way.ana_state, now);
        this
    }

    /// The ANA state is this from now on.
    pub(crate) fn set_ana_state(&mut self, ana_state: AnaState, now: Instant) {
        self.ana_state = ana_state;
        self.transition_until = match (ana_state, self.grants.ana) {
            (AnaState::Change, Some(ana)) => self.transition_until.or(Some(now + ana.transition)),
            _ => None,
        };
    }

    /// As a choice for the next command.
    pub(crate) fn candidate(&self, path: usize, is_wanted: bool) -> Candidate {
        Candidate {
            path,
            is_wanted,
            is_optimized: self.ana_state == AnaState::Optimized,
            has_room: self.queues.iter().any(Queue::has_room),
            in_flight: self.in_flight(),
        }
    }

    /// Starts a command on the next queue that has room, in turn: its queue and identifier. `None`: no room.
    pub(crate) fn start(&mut self, command: InFlight) -> Option<(u16, u16)> {
        let count = self.queues.len();
        if self.in_flight() == 0 {
            self.heard_at = command.started;
        }
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

    /// Commands of requests in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.queues.iter().map(Queue::in_flight).sum()
    }

    /// Keep Alive was answered.
    pub(crate) fn kept_alive(&mut self, keep_alive: Duration, now: Instant) {
        if let Some(sent) = self.keep_alive_sent.take() {
            let sample = now.saturating_duration_since(sent);
            let smoothed = |last: Duration| last - last / SMOOTHING + sample / SMOOTHING;
            self.round_trip = Some(self.round_trip.map_or(sample, smoothed));
        }
        self.keep_alive_at = now + keep_alive / 2;
    }

    /// When Keep Alive is due: for the controller's sake, or as a probe when nothing comes of what is in flight.
    /// `has_other`: requests could go over another path.
    pub(crate) fn keep_alive_due(&self, has_other: bool) -> Instant {
        let probe = self.heard_at + PROBE_AFTER;
        match has_other && self.in_flight() > 0 {
            true => self.keep_alive_at.min(probe),
            false => self.keep_alive_at,
        }
    }

    /// When the controller counts as lost, unless it answers before. Who has another path does not wait for long.
    pub(crate) fn lost_at(&self, keep_alive: Duration, has_other: bool) -> Option<Instant> {
        let sent = self.keep_alive_sent?;
        if !has_other {
            return Some(sent + keep_alive);
        }
        let usual = self.round_trip.map(|usual| usual * ROUND_TRIPS_MAX);
        let patience = usual.unwrap_or(PROBE_TIMEOUT_FIRST).max(PROBE_TIMEOUT_MIN);
        Some(sent.max(self.heard_at) + patience.min(keep_alive))
    }

    /// When something has to be done about time.
    pub(crate) fn deadline(&self, keep_alive: Duration, has_other: bool) -> Instant {
        let alive = self
            .lost_at(keep_alive, has_other)
            .unwrap_or_else(|| self.keep_alive_due(has_other));
        let busy = self.queues.iter().filter(|queue| queue.in_flight() > 0);
        busy.map(|queue| queue.check_at)
            .chain(self.transition_until)
            .fold(alive, Instant::min)
    }
}
