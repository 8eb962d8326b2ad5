//! One path: the portal that it leads over, and its way to a controller.

use std::time::{Duration, Instant};

use roadstead_nvme::AnaState;

use crate::action::{Epoch, PathReport, PathState, Traffic};
use crate::admin::{Control, Instance};
use crate::association::Association;
use crate::backoff::Backoff;
use crate::choice::Candidate;
use crate::flow::later;
use crate::setup::SetUp;

#[derive(Debug)]
pub(crate) enum Phase {
    /// There is no path at this place.
    Vacant,
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
}

/// A controller that has to be ended.
#[derive(Debug)]
pub(crate) struct Fence {
    /// Of the path.
    pub(crate) attempt: u32,
    pub(crate) cntlid: u16,
    pub(crate) instance: Instance,
    /// When to ask for it.
    pub(crate) at: Instant,
    /// Another controller was asked.
    pub(crate) is_asked: bool,
}

/// A path.
#[derive(Debug)]
pub(crate) struct Path {
    pub(crate) epoch: Epoch,
    /// Otherwise it is used only while no wanted one works, and ends.
    pub(crate) is_wanted: bool,
    pub(crate) phase: Phase,
    pub(crate) backoff: Backoff,
    pub(crate) association: Option<Association>,
    /// Identifier of the last command on the admin queue that is one of a sequence.
    pub(crate) sequence: u16,
    pub(crate) error: String,
    /// Since when it is of no use; `None` while requests can go over it.
    pub(crate) down_since: Option<Instant>,
    /// After a path-related status: it is left alone until then.
    pub(crate) rest_until: Option<Instant>,
    /// Its last controller has to be ended, as commands of it may still take effect.
    pub(crate) fence: Option<Fence>,
    /// How often it was lost while it was live.
    pub(crate) losses: u32,
    /// Over all of its controllers.
    pub(crate) traffic: Traffic,
    is_failed: bool,
    /// What was last reported: whether it is live, has failed, and its ANA state.
    shown: (bool, bool, Option<AnaState>),
}

impl Path {
    /// A place for one.
    pub(crate) fn vacant(epoch: Epoch) -> Self {
        Self {
            epoch,
            is_wanted: false,
            phase: Phase::Vacant,
            backoff: Backoff::new(),
            association: None,
            sequence: 0,
            error: String::new(),
            down_since: None,
            rest_until: None,
            fence: None,
            losses: 0,
            traffic: Traffic::default(),
            is_failed: false,
            shown: (false, false, None),
        }
    }

    /// A path at this place, to be connected. Attempts are counted on, so that no old one is taken for a new one.
    pub(crate) fn occupy(&mut self, now: Instant) {
        *self = Self {
            phase: Phase::Waiting(now),
            down_since: Some(now),
            ..Self::vacant(self.epoch)
        };
    }

    pub(crate) fn is_vacant(&self) -> bool {
        matches!(self.phase, Phase::Vacant)
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// The controller, if commands may be sent to it.
    pub(crate) fn usable(&self) -> Option<&Association> {
        let association = self.association.as_ref()?;
        (self.works() && self.rest_until.is_none()).then_some(association)
    }

    /// As a choice for the next command.
    pub(crate) fn candidate(&self) -> Option<Candidate> {
        let index = usize::from(self.epoch.path);
        Some(self.usable()?.candidate(index, self.is_wanted))
    }

    /// Whether requests go over it, or will after a rest.
    pub(crate) fn works(&self) -> bool {
        let association = self.association.as_ref();
        self.is_live() && association.is_some_and(|a| a.ana_state.is_usable())
    }

    /// Whether it can be ended without a loss: nothing is in flight, and it is not the only one that is of use.
    pub(crate) fn is_done_with(&self, another_works: bool) -> bool {
        if self.is_wanted || self.is_vacant() {
            return false;
        }
        let association = self.association.as_ref();
        let is_idle = association.is_none_or(|a| a.in_flight() == 0);
        let was_live = self.is_live() || self.losses > 0;
        is_idle && (another_works || !was_live)
    }

    /// Whether its controller can be asked to end another one, and is not ending one already.
    pub(crate) fn can_fence(&self) -> bool {
        let association = self.association.as_ref();
        let can = association.is_some_and(|a| a.grants.resets_others && a.fencing.is_none());
        self.is_live() && can
    }

    /// Takes note of whether it works, and for how long it has not. True if the report is another one.
    pub(crate) fn judge(&mut self, ctrl_loss: Duration, now: Instant) -> bool {
        match self.works() {
            true => self.down_since = None,
            false => self.down_since = self.down_since.or(Some(now)),
        }
        self.is_failed = self.has_been_down(ctrl_loss, now);
        let shown = (self.is_live(), self.is_failed, self.ana_state());
        std::mem::replace(&mut self.shown, shown) != shown
    }

    /// Whether it has not worked for this long.
    pub(crate) fn has_been_down(&self, time: Duration, now: Instant) -> bool {
        self.down_since
            .is_some_and(|since| later(since, time) <= now)
    }

    pub(crate) fn report(&self) -> PathReport {
        PathReport {
            path: usize::from(self.epoch.path),
            state: match (self.is_live(), self.is_failed) {
                (true, _) => PathState::Live,
                (false, true) => PathState::Failed,
                (false, false) => PathState::Connecting,
            },
            message: self.error.clone(),
            ana_state: self.ana_state(),
            round_trip: self.association.as_ref().and_then(|a| a.round_trip),
            losses: self.losses,
            traffic: self.traffic,
        }
    }

    /// What the controller says, if it says anything.
    fn ana_state(&self) -> Option<AnaState> {
        let association = self.association.as_ref()?;
        association.grants.ana.map(|_| association.ana_state)
    }
}
