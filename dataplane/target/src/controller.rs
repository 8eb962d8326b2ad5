//! A controller: what its queues, which may live on several reactors, have in common.
//!
//! Admin commands and connects take its lock; I/O commands do not. I/O queues hold a copy of what they need and
//! look at [`Controller::epoch`] to learn that it is out of date.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use roadstead_nvme::event::mask;
use roadstead_nvme::property::{Configuration, Shutdown, Status as ControllerStatus};
use roadstead_nvme::reservation::Notice;
use roadstead_nvme::{Nqn, Portal};
use uuid::Uuid;

use crate::ana::{AnaCounts, View};
use crate::errors::ErrorLog;
use crate::events::{Events, RESERVATION_LOG};
use crate::features::Hints;
use crate::limits::{self, ControllerLimits};
use crate::notices::Notices;
use crate::work::{Drain, Totals, Watch};

/// What a controller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Io,
    Discovery,
}

/// Fixed by the Connect of the admin queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) cntlid: u16,
    pub(crate) kind: Kind,
    pub(crate) subsystem: Nqn,
    pub(crate) host: Nqn,
    pub(crate) host_id: [u8; 16],
    /// The address of ours that the host reached.
    pub(crate) local: Portal,
    /// Tells it from earlier ones with its identifier; not 0.
    pub(crate) instance: u8,
    /// The same, but cannot be guessed.
    pub(crate) instance_random: u64,
}

/// A controller.
#[derive(Debug)]
pub(crate) struct Controller {
    identity: Identity,
    /// Counts changes that queues must look at. Written with the state's lock held.
    epoch: AtomicU64,
    state: Mutex<State>,
}

/// What may change.
#[derive(Debug)]
pub(crate) struct State {
    /// Why the controller ended, when it did.
    pub(crate) ended: Option<Ended>,
    pub(crate) configuration: Configuration,
    /// Counts enables: I/O queues of an earlier one are dead.
    pub(crate) enables: u64,
    pub(crate) shutdown_complete: bool,
    pub(crate) serial: String,
    /// What the host is shown.
    pub(crate) view: View,
    /// What is served; optimized paths are not shown as such while this rests.
    served: View,
    /// The path that the host came by was lost lately: it rests until then.
    rest_until_ms: Option<u64>,
    pub(crate) ana_counts: AnaCounts,
    pub(crate) events: Events,
    pub(crate) errors: ErrorLog,
    pub(crate) hints: Hints,
    /// I/O queues that it may grant.
    pub(crate) io_queues_max: u16,
    pub(crate) notices: Notices,
    /// I/O queues that the host may connect.
    pub(crate) io_queues_granted: u16,
    /// I/O queues that are connected.
    pub(crate) io_queues: BTreeSet<u16>,
    /// I/O in flight of the I/O queues, ended ones included.
    works: Vec<QueueWork>,
    /// What queues did that are gone.
    gone: Totals,
    /// I/O commands when the keep alive timer was last started again by them.
    commands_seen: u64,
    /// Keep alive time-out, ms; 0 for none.
    pub(crate) kato_ms: u32,
    pub(crate) last_seen_ms: u64,
}

/// I/O in flight of one I/O queue.
#[derive(Debug)]
struct QueueWork {
    qid: u16,
    enable: u64,
    watch: Watch,
}

/// Why a controller ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Ended {
    /// Its subsystem is not served any more.
    #[error("its subsystem is not served any more")]
    SubsystemGone,
    /// Its host is not allowed any more.
    #[error("its host is not allowed any more")]
    HostNotAllowed,
    /// The portal that its host reached is none any more, or for discovery alone.
    #[error("the portal that its host reached is not offered any more")]
    PortalGone,
    /// Its host was silent for too long.
    #[error("its host was silent for longer than the keep alive time-out")]
    KeepAliveExpired,
    /// Its host disabled it; its I/O queues end, its admin queue goes on.
    #[error("its host disabled it")]
    ControllerReset,
    /// A host reset the subsystem.
    #[error("a host reset the subsystem")]
    SubsystemReset,
    /// Its host ended it by another controller, as it could not reach this one.
    #[error("its host ended it by another controller")]
    CrossControllerReset,
    /// Its host disconnected one of its I/O queues; the others go on.
    #[error("its host disconnected this queue")]
    Disconnected,
    /// Its admin queue's connection ended.
    #[error("its admin queue's connection ended")]
    AdminQueueClosed,
}

impl State {
    pub(crate) fn is_ready(&self) -> bool {
        self.ended.is_none() && self.configuration.is_enabled()
    }

    /// An I/O queue starts.
    pub(crate) fn watch(&mut self, qid: u16, enable: u64, watch: Watch) {
        let gone = &mut self.gone;
        // Not each time: a controller may have many queues.
        if self.works.len() == self.works.capacity() {
            self.works.retain(|work| {
                let is_alive = work.watch.is_alive();
                if !is_alive {
                    *gone = gone.plus(work.watch.totals());
                }
                is_alive
            });
        }
        self.works.push(QueueWork { qid, enable, watch });
    }

    /// Whether I/O of an earlier queue is in flight, which a new one with this identifier must wait for.
    pub(crate) fn must_wait(&self, qid: u16) -> bool {
        let is_earlier = |work: &QueueWork| work.qid == qid || work.enable != self.enables;
        self.works
            .iter()
            .any(|work| is_earlier(work) && work.watch.is_busy())
    }

    /// What the I/O queues did.
    pub(crate) fn totals(&self) -> Totals {
        let queues = self.works.iter().map(|work| work.watch.totals());
        queues.fold(self.gone, Totals::plus)
    }

    /// Waits for the I/O in flight of all I/O queues.
    pub(crate) fn drain(&self, drain: &mut Drain) {
        for work in &self.works {
            drain.add(&work.watch);
        }
    }

    /// Whether the controller ended, and I/O of it is in flight.
    pub(crate) fn is_lingering(&self) -> bool {
        self.ended.is_some() && self.works.iter().any(|work| work.watch.is_busy())
    }

    /// Whether I/O may yet be in flight.
    pub(crate) fn may_linger(&self) -> bool {
        self.works.iter().any(|work| work.watch.is_alive())
    }

    /// Shows the host what is served now. True if that is something else.
    fn show(&mut self) -> bool {
        let view = self.served.shown(self.rest_until_ms.is_some());
        if self.view == view {
            return false;
        }
        let changed = self.view.changed(&view);
        if !changed.is_empty() {
            self.events.raise_namespaces(changed);
        }
        if self.view.has_other_paths(&view) {
            self.events.raise(mask::ANA_CHANGE);
        }
        self.ana_counts.count(&self.view, &view);
        self.view = view;
        true
    }

    /// Whether the host went without a word: its path was lost.
    pub(crate) fn was_lost(&self) -> bool {
        let by_host = matches!(
            self.ended,
            Some(Ended::KeepAliveExpired | Ended::AdminQueueClosed | Ended::CrossControllerReset)
        );
        by_host && self.configuration.is_enabled() && !self.shutdown_complete
    }

    pub(crate) fn status(&self) -> ControllerStatus {
        ControllerStatus::new(self.is_ready(), false, self.shutdown_complete)
    }

    /// The host writes the configuration. True when I/O queues must look.
    pub(crate) fn configure(&mut self, new: Configuration) -> bool {
        let was_enabled = self.configuration.is_enabled();
        self.configuration = new;
        if new.shutdown() != Shutdown::None {
            // Nothing needs to be written back here: what the host did not flush it accepts to lose.
            self.shutdown_complete = true;
        } else if !was_enabled && new.is_enabled() {
            self.shutdown_complete = false;
        }
        if was_enabled == new.is_enabled() {
            return false;
        }
        if new.is_enabled() {
            self.enables += 1;
        } else {
            self.io_queues.clear();
            self.ana_counts = AnaCounts::default();
            self.events.reset();
            self.notices = Notices::default();
            self.hints = Hints::default();
            self.io_queues_granted = self.io_queues_max;
        }
        true
    }

    /// Whether the host was silent for too long. I/O commands since the timer was last started start it again, so
    /// silence is noticed within twice the time-out (section 3.9, traffic based keep alive).
    pub(crate) fn is_expired(&mut self, kind: Kind, now_ms: u64) -> bool {
        let silent_ms = now_ms.saturating_sub(self.last_seen_ms);
        let is_over = match (self.kato_ms, kind) {
            (0, Kind::Io) => false,
            (0, Kind::Discovery) => silent_ms > limits::DISCOVERY_IDLE_MS_MAX,
            (kato_ms, _) => silent_ms > u64::from(kato_ms) + limits::KEEP_ALIVE_GRACE_MS,
        };
        if !is_over {
            return false;
        }
        let commands = self.totals().commands;
        if commands == self.commands_seen {
            return true;
        }
        self.commands_seen = commands;
        self.last_seen_ms = now_ms;
        false
    }
}

/// The keep alive time-out in whole units of its granularity, ms.
pub(crate) fn keep_alive_ms(asked_ms: u32) -> u32 {
    let unit_ms = u32::from(limits::KEEP_ALIVE_GRANULARITY_100MS) * 100;
    asked_ms
        .checked_next_multiple_of(unit_ms)
        .unwrap_or(u32::MAX - u32::MAX % unit_ms)
}

impl Controller {
    pub(crate) fn new(
        identity: Identity,
        serial: String,
        view: View,
        limits: ControllerLimits,
        kato_ms: u32,
        now_ms: u64,
        rest_until_ms: Option<u64>,
    ) -> Self {
        Self {
            identity,
            epoch: AtomicU64::new(0),
            state: Mutex::new(State {
                ended: None,
                configuration: Configuration::default(),
                enables: 0,
                shutdown_complete: false,
                serial,
                view: view.shown(rest_until_ms.is_some()),
                served: view,
                rest_until_ms,
                ana_counts: AnaCounts::default(),
                events: Events::default(),
                errors: ErrorLog::default(),
                hints: Hints::default(),
                notices: Notices::default(),
                io_queues_max: limits.io_queues(),
                io_queues_granted: limits.io_queues(),
                io_queues: BTreeSet::new(),
                works: Vec::new(),
                gone: Totals::default(),
                commands_seen: 0,
                kato_ms: keep_alive_ms(kato_ms),
                last_seen_ms: now_ms,
            }),
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Changes whenever the state changed in a way that queues must look at.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the queues look. Call with the lock held.
    pub(crate) fn touch(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
    }

    /// Ends the controller; the first reason stays.
    pub(crate) fn end(&self, reason: Ended) {
        let mut state = self.lock();
        if state.ended.is_none() {
            state.ended = Some(reason);
            self.touch();
        }
    }

    /// What is served changed.
    pub(crate) fn serve(&self, serial: &str, view: View) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.serial.clear();
        state.serial.push_str(serial);
        state.served = view;
        if state.show() {
            self.touch();
        }
    }

    /// The path has rested for long enough, maybe.
    pub(crate) fn rest(&self, now_ms: u64) {
        let mut state = self.lock();
        if state
            .rest_until_ms
            .is_some_and(|until_ms| until_ms <= now_ms)
        {
            state.rest_until_ms = None;
            if state.show() {
                self.touch();
            }
        }
    }

    /// Something happened to the host's rights to a namespace.
    pub(crate) fn reservation_changed(&self, namespace: Uuid, notice: Notice) {
        let mut state = self.lock();
        let state = &mut *state;
        for (nsid, _) in state
            .view
            .namespaces
            .iter()
            .filter(|(_, n)| n.uuid == namespace)
        {
            if state.notices.add(*nsid, notice) {
                state.events.raise(RESERVATION_LOG);
            }
        }
        self.touch();
    }

    /// The discovery log changed.
    pub(crate) fn discovery_changed(&self) {
        let mut state = self.lock();
        state.events.raise(mask::DISCOVERY_LOG);
        self.touch();
    }
}
