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

mod devices;
mod drives;
mod known;
mod plan;
mod status;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roadstead_pool::{BlockSize, Command, PoolError, Reply, VolumeSpec};
use tokio::sync::watch;
use uuid::Uuid;

use crate::desired::{Desired, DriveSpec, Hosts, PortalSpec, Source, SubsystemSpec};
use crate::serve::{
    ExportedNamespace, ExportedSubsystem, Exports, HostAccess, ServeError, Server,
};
use crate::status::{Failure, Status};
use crate::store::StateDir;
use drives::Drive;
use known::KnownPools;
use plan::{Action, Observed, OpenDrive, VolumeNow, plan};

/// How often drives are asked whether they still answer.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// First and longest pause before a failed step is tried again.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// After this time portals open although a drive has not answered yet.
const LISTEN_DELAY_MAX: Duration = Duration::from_secs(20);

/// What the reconciler is told.
pub(crate) enum Event {
    /// A new state.
    Desired(Desired),
    /// A step on a drive has ended.
    Done(Box<Done>),
    /// End: nothing is changed any more.
    Stop,
}

/// How a step on a drive ended.
pub(crate) struct Done {
    action: Action,
    result: Result<Option<Drive>, StepError>,
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
    failures: HashMap<Action, StepFailure>,
    busy: HashSet<String>,
    applied_revision: String,
    is_settled: bool,
    started_at: Instant,
    checked_at: Instant,
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
            failures: HashMap::new(),
            busy: HashSet::new(),
            applied_revision: String::new(),
            is_settled: false,
            started_at: now,
            checked_at: now,
        }
    }

    /// Works until it is told to stop.
    ///
    /// # Errors
    /// [`ServeError`]: the reactors have ended, and the daemon must be started anew.
    pub(crate) fn run(mut self) -> Result<(), ServeError> {
        loop {
            let event = match self.events.recv_timeout(self.pause()) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            match event {
                Some(Event::Stop) => {
                    self.close_drives();
                    return Ok(());
                }
                Some(Event::Desired(desired)) => self.new_state(desired),
                Some(Event::Done(done)) => self.done(*done)?,
                None => {}
            }
            if self.checked_at.elapsed() >= CHECK_INTERVAL {
                self.check_drives();
            }
            self.work()?;
            self.publish();
        }
    }

    /// Until the next retry or check is due.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let check = self.checked_at + CHECK_INTERVAL;
        let retries = self.failures.values().map(|failed| failed.failure.retry_at);
        let listen = (!self.is_settled).then(|| self.started_at + LISTEN_DELAY_MAX);
        let due = retries.chain(listen.filter(|due| *due > now)).fold(check, Instant::min);
        due.saturating_duration_since(now)
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
            self.failures.values_mut().for_each(|failed| failed.failure.retry_at = now);
            self.desired = Some(desired);
        }
    }

    /// Takes every step that can be taken.
    fn work(&mut self) -> Result<(), ServeError> {
        let Some(desired) = self.desired.take() else { return Ok(()) };
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
            let mut ready: Vec<Action> =
                actions.iter().filter(|action| self.is_ready(action, now)).cloned().collect();
            if !self.may_listen(&ready) {
                ready.retain(|action| !matches!(action, Action::Listen(_)));
            }
            if ready.is_empty() {
                if self.busy.is_empty() && actions.iter().all(|a| self.failures.contains_key(a)) {
                    self.settled(desired);
                }
                return Ok(());
            }
            let (on_drives, on_server): (Vec<_>, Vec<_>) =
                ready.into_iter().partition(|action| action.drive().is_some());
            self.serve(on_server)?;
            for action in on_drives {
                self.start(action);
            }
        }
    }

    fn is_ready(&self, action: &Action, now: Instant) -> bool {
        let is_due = self.failures.get(action).is_none_or(|failed| failed.failure.retry_at <= now);
        is_due && action.drive().is_none_or(|drive| !self.busy.contains(drive))
    }

    fn may_listen(&self, ready: &[Action]) -> bool {
        let nothing_else = ready.iter().all(|action| matches!(action, Action::Listen(_)));
        self.is_settled
            || (nothing_else && self.busy.is_empty())
            || self.started_at.elapsed() >= LISTEN_DELAY_MAX
    }

    fn settled(&mut self, desired: &Desired) {
        let wanted = desired.drives.iter().map(|drive| (drive.name.as_str(), drive.owner.as_str()));
        self.known.keep_only(&wanted.collect());
        self.save_known();
        if self.applied_revision != desired.revision || !self.is_settled {
            let failed = self.failures.len();
            tracing::info!(revision = desired.revision, failed, "state reached");
        }
        self.is_settled = true;
        self.applied_revision.clone_from(&desired.revision);
    }

    /// Carries out steps that concern the reactors, all in one turn of them.
    fn serve(&mut self, actions: Vec<Action>) -> Result<(), ServeError> {
        let mut portals = Vec::new();
        let mut exports_changed = false;
        for action in actions {
            match action {
                Action::Unexport(nqn) => {
                    tracing::info!(subsystem = nqn, "subsystem removed");
                    self.observed.subsystems.remove(&nqn);
                    exports_changed = true;
                }
                Action::Export(subsystem) => {
                    let volumes = self.names(subsystem.namespaces.values());
                    tracing::info!(subsystem = subsystem.nqn, ?volumes, "subsystem served");
                    self.observed.subsystems.insert(subsystem.nqn.clone(), subsystem);
                    exports_changed = true;
                }
                Action::Unlisten(_) | Action::Listen(_) => portals.push(action),
                _ => {}
            }
        }
        if exports_changed {
            self.server.set_exports(self.exports())?;
        }
        if !portals.is_empty() {
            self.set_portals(&portals)?;
        }
        Ok(())
    }

    fn set_portals(&mut self, actions: &[Action]) -> Result<(), ServeError> {
        let mut wanted = self.observed.portals.clone();
        for action in actions {
            match action {
                Action::Listen(portal) if portal.rdma => {
                    let why = "this daemon does not speak RDMA".to_owned();
                    self.failed(action.clone(), StepError::Listen(why));
                }
                Action::Listen(portal) => drop(wanted.insert(*portal)),
                Action::Unlisten(portal) => drop(wanted.remove(portal)),
                _ => {}
            }
        }
        let addresses: Vec<SocketAddr> = wanted.iter().map(|portal| portal.address).collect();
        let results = self.server.set_portals(&addresses)?;
        self.observed.portals.clear();
        for result in results {
            let portal = PortalSpec { rdma: false, address: result.address };
            match result.listening {
                Ok(_) => {
                    if self.failures.remove(&Action::Listen(portal)).is_some()
                        || actions.contains(&Action::Listen(portal))
                    {
                        tracing::info!(address = %portal.address, "portal open");
                    }
                    self.observed.portals.insert(portal);
                }
                Err(why) => self.failed(Action::Listen(portal), StepError::Listen(why)),
            }
        }
        Ok(())
    }

    /// What the observed subsystems mean to the reactors.
    fn exports(&self) -> Exports {
        let subsystems = self.observed.subsystems.values();
        Exports { subsystems: subsystems.map(|subsystem| self.exported(subsystem)).collect() }
    }

    fn exported(&self, subsystem: &SubsystemSpec) -> ExportedSubsystem {
        let namespace = |uuid: &Uuid| {
            let drive = self.drives.values().find(|drive| drive.handle().volume(*uuid).is_some())?;
            let volume = drive.handle().volume(*uuid)?;
            Some(ExportedNamespace { volume, drive: drive.handle().clone(), io: drive.io.clone() })
        };
        let namespaces = subsystem.namespaces.iter();
        ExportedSubsystem {
            nqn: subsystem.nqn.clone(),
            serial: subsystem.serial.clone(),
            hosts: match &subsystem.hosts {
                Hosts::Any => HostAccess::Any,
                Hosts::Listed(hosts) => HostAccess::Listed(hosts.clone()),
            },
            namespaces: namespaces.filter_map(|(nsid, uuid)| Some((*nsid, namespace(uuid)?))).collect(),
        }
    }

    /// The volumes' names, for the log.
    fn names<'a>(&self, uuids: impl Iterator<Item = &'a Uuid>) -> Vec<String> {
        let name = |uuid: &Uuid| {
            let mut drives = self.observed.drives.values();
            let volume = drives.find_map(|drive| drive.volumes.get(uuid));
            volume.map_or_else(|| uuid.to_string(), |volume| volume.name.clone())
        };
        uuids.map(name).collect()
    }

    /// Starts a step on a drive, unless another one runs there.
    fn start(&mut self, action: Action) {
        let Some(name) = action.drive().map(str::to_owned) else { return };
        if self.busy.contains(&name) {
            return;
        }
        let job: Box<dyn FnOnce() -> Result<Option<Drive>, StepError> + Send> = match &action {
            Action::OpenDrive(spec) => {
                let (spec, known) = (spec.clone(), self.known.pool(&spec.name, &spec.owner));
                Box::new(move || Ok(Some(drives::open(&spec, known)?)))
            }
            Action::CloseDrive(_) => {
                let drive = self.drives.remove(&name);
                self.observed.drives.remove(&name);
                Box::new(move || {
                    drive.map(Drive::close);
                    Ok(None)
                })
            }
            change => {
                let Some(handle) = self.drives.get(&name).map(|drive| drive.handle().clone()) else {
                    return;
                };
                let change = change.clone();
                Box::new(move || change_volume(&change, &handle).map(|()| None))
            }
        };
        self.busy.insert(name);
        let to_self = self.to_self.clone();
        let step = action.clone();
        let run = move || {
            let done = Done { result: job(), action: step };
            // Nobody waits any more if the daemon is stopping.
            let _ = to_self.send(Event::Done(Box::new(done)));
        };
        let thread = std::thread::Builder::new().name("step".to_owned()).spawn(run);
        if let Err(error) = thread {
            let done = Done { action, result: Err(StepError::Thread(error)) };
            let _ = self.to_self.send(Event::Done(Box::new(done)));
        }
    }

    fn done(&mut self, done: Done) -> Result<(), ServeError> {
        let Done { action, result } = done;
        let Some(name) = action.drive().map(str::to_owned) else { return Ok(()) };
        self.busy.remove(&name);
        match result {
            Err(error) => self.failed(action, error),
            Ok(opened) => {
                self.failures.remove(&action);
                if let (Some(drive), Action::OpenDrive(spec)) = (opened, &action) {
                    self.opened(spec, drive)?;
                }
                self.look_at_volumes(&name);
                self.log_change(&action);
                if matches!(action, Action::GrowVolume { .. }) {
                    // Hosts are told of the new size.
                    self.server.set_exports(self.exports())?;
                }
            }
        }
        Ok(())
    }

    /// Notes an open drive. If the same drive was gone before, hosts go over to the new one.
    fn opened(&mut self, spec: &DriveSpec, drive: Drive) -> Result<(), ServeError> {
        let stats = drive.handle().stats();
        tracing::info!(
            drive = spec.name,
            path = drive.about.path,
            capacity_bytes = stats.capacity_bytes,
            volumes = stats.volumes,
            "drive open"
        );
        if !matches!(spec.source, Source::Memory { .. }) {
            self.known.remember(&spec.name, &spec.owner, stats.pool_uuid);
            self.save_known();
        }
        let open = OpenDrive { spec: spec.clone(), volumes: BTreeMap::new(), gone: false };
        self.observed.drives.insert(spec.name.clone(), open);
        if let Some(old) = self.drives.insert(spec.name.clone(), drive) {
            self.server.set_exports(self.exports())?;
            // Its device may not answer any more: nobody waits for it.
            let _ = std::thread::Builder::new().name("close".to_owned()).spawn(move || old.close());
        }
        Ok(())
    }

    fn log_change(&self, action: &Action) {
        match action {
            Action::CreateVolume(spec) => {
                tracing::info!(volume = spec.name, uuid = %spec.uuid, drive = spec.drive,
                    size_bytes = spec.size_bytes, "volume made");
            }
            Action::GrowVolume { uuid, size_bytes, drive } => {
                let volume = self.names(std::iter::once(uuid)).join("");
                tracing::info!(volume, %uuid, drive, size_bytes, "volume grown");
            }
            Action::DeleteVolume { uuid, drive } => {
                tracing::info!(%uuid, drive, "volume deleted");
            }
            Action::CloseDrive(drive) => tracing::info!(drive, "drive closed"),
            _ => {}
        }
    }

    /// Notes what volumes the drive has now.
    fn look_at_volumes(&mut self, name: &str) {
        let (Some(drive), Some(open)) =
            (self.drives.get(name), self.observed.drives.get_mut(name))
        else {
            return;
        };
        let now = |volume: Arc<roadstead_pool::Volume>| {
            let now = VolumeNow {
                name: volume.name().to_owned(),
                size_bytes: volume.size_bytes(),
                block_size: volume.block_size().bytes(),
            };
            (volume.uuid(), now)
        };
        open.volumes = drive.handle().volumes().into_iter().map(now).collect();
    }

    /// Notes that a step failed and when it is tried again. Said in the log when it is news.
    fn failed(&mut self, action: Action, error: StepError) {
        let message = error.to_string();
        let before = self.failures.get(&action).map(|failed| &failed.failure);
        let attempts = before.map_or(0, |failure| failure.attempts) + 1;
        if before.is_none_or(|failure| failure.message != message) {
            tracing::warn!(step = %action, error = message, "step failed; it is tried again");
        }
        let pause = RETRY_PAUSE_MIN.saturating_mul(1 << attempts.min(16)) / 2;
        let failure = Failure {
            reason: error.reason().to_owned(),
            message,
            attempts,
            retry_at: Instant::now() + pause.min(RETRY_PAUSE_MAX),
        };
        self.failures.insert(action, StepFailure { failure, error });
    }

    /// Notes drives that went away, and asks all others for a sign of life.
    fn check_drives(&mut self) {
        self.checked_at = Instant::now();
        for (name, drive) in &self.drives {
            if let Some(open) = self.observed.drives.get_mut(name)
                && !open.gone
                && drive.is_gone()
            {
                tracing::error!(drive = name, path = drive.about.path, "drive is gone; looking for it");
                open.gone = true;
            }
            // A full queue is a sign of life, too, and a closed one shows in the fault.
            let _ = drive.handle().try_submit(Command::Check(Reply::ignore()));
        }
    }

    fn save_known(&mut self) {
        if let Err(error) = self.known.save(&self.directory) {
            tracing::error!(%error, "cannot note which pool is on which drive");
        }
    }

    fn publish(&self) {
        let status = status::of(self);
        self.publish.send_replace(Arc::new(status));
    }

    /// At the end: what was acknowledged is durable already; this saves the next start some work.
    fn close_drives(&mut self) {
        for (_, drive) in self.drives.drain() {
            drive.close();
        }
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

fn change_volume(
    action: &Action,
    handle: &roadstead_pool::DriveHandle,
) -> Result<(), StepError> {
    match action {
        Action::CreateVolume(volume) => {
            let block_size = BlockSize::try_from(volume.block_size).map_err(|bytes| {
                PoolError::BadVolume { what: format!("blocks of {bytes} bytes are not possible") }
            })?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            handle.create_volume(VolumeSpec {
                uuid: volume.uuid,
                name: volume.name.clone(),
                size_bytes: volume.size_bytes,
                block_size,
                created_unix_s: now.map_or(0, |since| since.as_secs()),
            })?;
        }
        Action::GrowVolume { uuid, size_bytes, .. } => handle.grow_volume(*uuid, *size_bytes)?,
        Action::DeleteVolume { uuid, .. } => handle.delete_volume(*uuid)?,
        _ => {}
    }
    Ok(())
}
