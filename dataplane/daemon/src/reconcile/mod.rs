//! Moves the node to the desired state: one thread that looks, plans (`plan`, pure) and acts.
//!
//! The loop takes one event, applies it, and then takes every step that the plan names and nothing holds up.
//! Steps on drives run on threads of their own, one at a time for each drive, so that a drive that hangs
//! holds up nobody else. A step that fails is tried again with a growing pause, and at once when a new state
//! comes.
//!
//! Guaranteed: `applied_revision` follows a state when each of its steps has succeeded or failed at least
//! once. Portals open after the drives were tried, so that a host that comes back after a restart does not
//! find its subsystem missing for a moment.

mod caches;
mod drives;
mod known;
mod plan;
mod serving;
mod status;
mod steps;

use std::collections::{HashMap, HashSet};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use roadstead_api::v1;
use roadstead_pool::PoolError;
use tokio::sync::watch;

use crate::desired::Desired;
use crate::serve::{Exports, ServeError, Server};
use crate::status::{Failure, Status};
use crate::store::StateDir;
use caches::Caches;
use drives::Drive;
use known::KnownPools;
use plan::{Action, Observed, plan};

/// How often drives are asked whether they still answer.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// How often drives are looked for that nothing uses.
const UNUSED_INTERVAL: Duration = Duration::from_secs(60);
/// First and longest pause before a failed step is tried again. The first is short: after kill -9 the kernel
/// needs a moment to give back ports and files.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// After this time portals open although a drive has not answered yet.
const LISTEN_DELAY_MAX: Duration = Duration::from_secs(20);

/// What the reconciler is told.
pub(crate) enum Event {
    /// A new state.
    Desired(Box<Desired>),
    /// Steps on a drive have ended.
    Done(Box<steps::Done>),
    /// The drives that nothing uses, as just seen.
    Unused(Vec<v1::UnusedDrive>),
    /// End: nothing is changed any more.
    Stop,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Drive(#[from] drives::DriveError),
    #[error(transparent)]
    Volume(#[from] PoolError),
    #[error("{0}")]
    Listen(String),
    #[error("a thread for the step could not be started: {0}")]
    Thread(std::io::Error),
}

/// The reconciler's whole state.
pub(crate) struct Reconciler {
    server: Arc<Server>,
    directory: Arc<StateDir>,
    events: Receiver<Event>,
    /// For the threads of steps.
    to_self: Sender<Event>,
    publish: watch::Sender<Arc<Status>>,

    desired: Option<Desired>,
    observed: Observed,
    drives: HashMap<String, Drive>,
    known: KnownPools,
    caches: Caches,
    failures: HashMap<Action, StepFailure>,
    busy: HashSet<String>,
    applied_revision: String,
    is_settled: bool,
    /// Drives that nothing uses, and when they were looked for last; `None` while that goes on.
    unused: Vec<v1::UnusedDrive>,
    unused_looked_at: Option<Instant>,
    started_at: Instant,
    checked_at: Instant,
    /// Everything that was due then, and ready, was done.
    worked_at: Instant,
}

/// A failed step: what is shown, and what the drive's state is because of it.
struct StepFailure {
    failure: Failure,
    error: StepError,
}

/// The channel of the reconciler's events, made before it so that others can hold the sending end.
pub(crate) fn channel() -> (Sender<Event>, Receiver<Event>) {
    mpsc::channel()
}

impl Reconciler {
    pub(crate) fn new(
        server: Arc<Server>,
        directory: Arc<StateDir>,
        (to_self, events): (Sender<Event>, Receiver<Event>),
        publish: watch::Sender<Arc<Status>>,
    ) -> Self {
        let known = KnownPools::load(&directory);
        let caches = Caches::load(&directory);
        let now = Instant::now();
        Self {
            server,
            directory,
            events,
            to_self,
            publish,
            desired: None,
            observed: Observed::default(),
            drives: HashMap::new(),
            known,
            caches,
            failures: HashMap::new(),
            busy: HashSet::new(),
            applied_revision: String::new(),
            is_settled: false,
            unused: Vec::new(),
            unused_looked_at: None,
            started_at: now,
            checked_at: now,
            worked_at: now,
        }
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// [`ServeError`]: the reactors have ended, and the daemon must be started anew.
    pub(crate) fn run(mut self) -> Result<(), ServeError> {
        self.look_for_unused();
        loop {
            let event = match self.events.recv_timeout(self.pause()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            match event {
                Some(Event::Stop) => return self.stop(),
                Some(Event::Desired(desired)) => self.new_state(*desired),
                Some(Event::Done(done)) => self.done(*done)?,
                Some(Event::Unused(unused)) => {
                    self.unused = unused;
                    self.unused_looked_at = Some(Instant::now());
                }
                None => {}
            }
            if self
                .unused_looked_at
                .is_some_and(|at| at.elapsed() >= UNUSED_INTERVAL)
            {
                self.look_for_unused();
            }
            if self.checked_at.elapsed() >= CHECK_INTERVAL {
                self.check_drives();
            }
            self.work()?;
            self.publish();
        }
    }

    /// Until the next retry or check is due. A step that was due already and not taken waits for the end of
    /// another, which is an event.
    fn pause(&self) -> Duration {
        let check = self.checked_at + CHECK_INTERVAL;
        let retries = self.failures.values().map(|failed| failed.failure.retry_at);
        let listen = (!self.is_settled).then(|| self.started_at + LISTEN_DELAY_MAX);
        retries
            .chain(listen)
            .filter(|due| *due > self.worked_at)
            .fold(check, Instant::min)
            .saturating_duration_since(Instant::now())
    }

    fn new_state(&mut self, desired: Desired) {
        let same = self.desired.as_ref() == Some(&desired);
        tracing::info!(
            revision = desired.revision,
            drives = desired.drives.len(),
            volumes = desired.volumes.len(),
            subsystems = desired.subsystems.len(),
            same,
            "desired state"
        );
        if !same {
            // Whoever changes the state wants to see what it does now, not after a pause.
            let now = Instant::now();
            self.failures
                .values_mut()
                .for_each(|failed| failed.failure.retry_at = now);
            self.desired = Some(desired);
        }
    }

    /// Takes every step that can be taken.
    fn work(&mut self) -> Result<(), ServeError> {
        let Some(desired) = self.desired.take() else {
            return Ok(());
        };
        let result = self.work_on(&desired);
        self.desired = Some(desired);
        result
    }

    fn work_on(&mut self, desired: &Desired) -> Result<(), ServeError> {
        loop {
            let actions = plan(&self.observed, desired);
            let wanted: HashSet<&Action> = actions.iter().collect();
            self.failures.retain(|action, _| wanted.contains(action));
            let now = Instant::now();
            self.worked_at = now;
            let mut ready: Vec<Action> = actions
                .iter()
                .filter(|action| self.is_ready(action, now))
                .cloned()
                .collect();
            if !self.may_listen(&ready) {
                ready.retain(|action| !matches!(action, Action::Listen(_)));
            }
            if ready.is_empty() {
                if self.busy.is_empty() && actions.iter().all(|a| self.failures.contains_key(a)) {
                    self.settled(desired);
                }
                return Ok(());
            }
            let (on_drives, on_server): (Vec<_>, Vec<_>) = ready
                .into_iter()
                .partition(|action| action.drive().is_some());
            self.serve(on_server)?;
            self.start(on_drives);
        }
    }

    fn is_ready(&self, action: &Action, now: Instant) -> bool {
        let is_due = self
            .failures
            .get(action)
            .is_none_or(|failed| failed.failure.retry_at <= now);
        is_due
            && action
                .drive()
                .is_none_or(|drive| !self.busy.contains(drive))
    }

    fn may_listen(&self, ready: &[Action]) -> bool {
        let nothing_else = ready
            .iter()
            .all(|action| matches!(action, Action::Listen(_)));
        self.is_settled
            || (nothing_else && self.busy.is_empty())
            || self.started_at.elapsed() >= LISTEN_DELAY_MAX
    }

    fn settled(&mut self, desired: &Desired) {
        let wanted = desired
            .drives
            .iter()
            .map(|drive| (drive.name.as_str(), drive.owner.as_str()));
        self.known.keep_only(&wanted.collect());
        self.save_known();
        if self.applied_revision != desired.revision || !self.is_settled {
            let failed = self.failures.len();
            tracing::info!(revision = desired.revision, failed, "state reached");
        }
        self.is_settled = true;
        self.applied_revision.clone_from(&desired.revision);
    }

    /// Notes that a step failed and when it is tried again. Said in the log when it is news.
    fn failed(&mut self, action: Action, error: StepError) {
        let message = error.to_string();
        let before = self.failures.get(&action).map(|failed| &failed.failure);
        let attempts = before.map_or(0, |failure| failure.attempts) + 1;
        if before.is_none_or(|failure| failure.message != message) {
            tracing::warn!(step = %action, error = message, "step failed; it is tried again");
        }
        let pause = RETRY_PAUSE_MIN.saturating_mul(1 << (attempts - 1).min(16));
        let failure = Failure {
            reason: error.reason().to_owned(),
            message,
            attempts,
            retry_at: Instant::now() + pause.min(RETRY_PAUSE_MAX),
        };
        self.failures.insert(action, StepFailure { failure, error });
    }

    fn publish(&self) {
        let status = status::of(self);
        self.publish.send_replace(Arc::new(status));
    }

    /// Hosts first: they see a lost connection and wait for the next daemon. What was acknowledged is durable
    /// already; closing the drives saves the next start some work.
    fn stop(mut self) -> Result<(), ServeError> {
        self.server.set_portals(&[])?;
        self.server.set_exports(Exports::default())?;
        let drives = self.drives.drain();
        let clean: Vec<_> = drives
            .filter_map(|(_, drive)| drive.close_clean())
            .collect();
        self.caches.closed(&self.directory, &clean);
        Ok(())
    }
}

impl StepError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Drive(error) => error.verdict().0,
            Self::Volume(error) => error.reason(),
            Self::Listen(_) => "CannotListen",
            Self::Thread(_) => "NoThread",
        }
    }
}
