//! Steps on drives, each on a thread of its own, one at a time for each drive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use roadstead_pool::{BlockSize, Command, DriveHandle, PoolError, Reply, Volume, VolumeSpec};

use super::drives::{self, Drive};
use super::plan::{Action, OpenDrive, VolumeNow};
use super::{Event, Reconciler, StepError, caches};
use crate::desired::{DriveSpec, Source};
use crate::serve::ServeError;

/// How long one thread changes volumes of a drive before it tells what was done: hosts get the first of many
/// new volumes soon, and the plan is not made anew for each of them.
const BATCH_TIME: Duration = Duration::from_millis(100);

/// How steps on a drive ended. Those that time did not allow are missing, and are planned again.
pub(crate) struct Done {
    drive: String,
    opened: Option<Drive>,
    results: Vec<(Action, Result<(), StepError>)>,
}

impl Done {
    fn one(drive: String, action: Action, result: Result<(), StepError>) -> Self {
        Self {
            drive,
            opened: None,
            results: vec![(action, result)],
        }
    }
}

type Job = Box<dyn FnOnce() -> Done + Send>;

impl Reconciler {
    /// Starts steps, given in their order, on the drives that nothing else works on.
    pub(super) fn start(&mut self, actions: Vec<Action>) {
        let mut by_drive: BTreeMap<String, Vec<Action>> = BTreeMap::new();
        for action in actions {
            let Some(drive) = action.drive().map(str::to_owned) else {
                continue;
            };
            by_drive.entry(drive).or_default().push(action);
        }
        for (drive, actions) in by_drive {
            self.start_on(drive, actions);
        }
    }

    fn start_on(&mut self, drive: String, mut actions: Vec<Action>) {
        if self.busy.contains(&drive) {
            return;
        }
        let first = actions.remove(0);
        let job = match &first {
            Action::OpenDrive(spec) => self.open_job(spec),
            Action::CloseDrive(_) => self.close_job(&drive),
            _ => {
                let Some(open) = self.drives.get(&drive) else {
                    return;
                };
                actions.insert(0, first.clone());
                change_job(drive.clone(), open.handle().clone(), actions)
            }
        };
        self.busy.insert(drive.clone());
        let to_self = self.to_self.clone();
        let run = move || {
            // Nobody waits any more if the daemon is stopping.
            let _ = to_self.send(Event::Done(Box::new(job())));
        };
        let thread = std::thread::Builder::new()
            .name("step".to_owned())
            .spawn(run);
        if let Err(error) = thread {
            let done = Done::one(drive, first, Err(StepError::Thread(error)));
            let _ = self.to_self.send(Event::Done(Box::new(done)));
        }
    }

    fn open_job(&self, spec: &DriveSpec) -> Job {
        let spec = spec.clone();
        let known = self.known.pool(&spec.name, &spec.owner);
        Box::new(move || {
            let (opened, result) = match drives::open(&spec, known) {
                Ok(drive) => (Some(drive), Ok(())),
                Err(error) => (None, Err(error.into())),
            };
            Done {
                drive: spec.name.clone(),
                opened,
                results: vec![(Action::OpenDrive(spec), result)],
            }
        })
    }

    fn close_job(&mut self, name: &str) -> Job {
        let name = name.to_owned();
        let drive = self.drives.remove(&name);
        self.observed.drives.remove(&name);
        Box::new(move || {
            if let Some(drive) = drive {
                drive.close();
            }
            Done::one(name.clone(), Action::CloseDrive(name), Ok(()))
        })
    }

    pub(super) fn done(&mut self, done: Done) -> Result<(), ServeError> {
        let Done {
            drive,
            mut opened,
            results,
        } = done;
        self.busy.remove(&drive);
        let mut grown = false;
        for (action, result) in results {
            if let Err(error) = result {
                self.failed(action, error);
                continue;
            }
            self.failures.remove(&action);
            if let (Action::OpenDrive(spec), Some(drive)) = (&action, opened.take()) {
                self.opened(spec, drive)?;
            }
            if let Action::GrowDrive { size_bytes, .. } = &action {
                self.note_size(&drive, *size_bytes);
            }
            self.log_change(&action);
            grown |= matches!(action, Action::GrowVolume { .. });
        }
        self.look_at_volumes(&drive);
        if grown {
            // Hosts are told of the new size.
            self.server.set_exports(self.exports())?;
        }
        Ok(())
    }

    /// Notes an open drive. If the same drive was gone before, hosts go over to the new one.
    pub(super) fn opened(&mut self, spec: &DriveSpec, mut drive: Drive) -> Result<(), ServeError> {
        let stats = drive.handle().stats();
        tracing::info!(
            drive = spec.name,
            path = drive.about.path,
            capacity_bytes = stats.capacity_bytes,
            volumes = stats.volumes,
            "drive open"
        );
        if !matches!(spec.source, Source::Memory { .. }) {
            self.known
                .remember(&spec.name, &spec.owner, stats.pool_uuid);
            self.save_known();
            let power = caches::power_of(drive.node());
            drive.cache_epoch = self.caches.opened(&self.directory, stats.pool_uuid, power);
        }
        let open = OpenDrive {
            spec: spec.clone(),
            volumes: BTreeMap::new(),
            gone: false,
        };
        self.observed.drives.insert(spec.name.clone(), open);
        if let Some(old) = self.drives.insert(spec.name.clone(), drive) {
            self.server.set_exports(self.exports())?;
            // Its device may not answer any more: nobody waits for it.
            let _ = std::thread::Builder::new()
                .name("close".to_owned())
                .spawn(move || old.close());
        }
        Ok(())
    }

    fn note_size(&mut self, drive: &str, new_bytes: u64) {
        let open = self.observed.drives.get_mut(drive);
        if let Some(Source::File { size_bytes, .. }) = open.map(|open| &mut open.spec.source) {
            *size_bytes = new_bytes;
        }
    }

    fn log_change(&self, action: &Action) {
        match action {
            Action::CreateVolume(spec) => {
                tracing::info!(volume = spec.name, uuid = %spec.uuid, drive = spec.drive,
                    size_bytes = spec.size_bytes, "volume made");
            }
            Action::GrowVolume {
                uuid,
                size_bytes,
                drive,
            } => {
                let volume = self.names(std::iter::once(uuid)).join("");
                tracing::info!(volume, %uuid, drive, size_bytes, "volume grown");
            }
            Action::DeleteVolume { uuid, drive } => {
                let volume = self.names(std::iter::once(uuid)).join("");
                tracing::info!(volume, %uuid, drive, "volume deleted");
            }
            Action::GrowDrive { drive, size_bytes } => {
                tracing::info!(drive, size_bytes, "drive grown");
            }
            Action::CloseDrive(drive) => tracing::info!(drive, "drive closed"),
            _ => {}
        }
    }

    /// Notes what volumes the drive has now.
    pub(super) fn look_at_volumes(&mut self, name: &str) {
        let (Some(drive), Some(open)) = (self.drives.get(name), self.observed.drives.get_mut(name))
        else {
            return;
        };
        let now = |volume: Arc<Volume>| {
            let now = VolumeNow {
                name: volume.name().to_owned(),
                size_bytes: volume.size_bytes(),
                block_size: volume.block_size().bytes(),
            };
            (volume.uuid(), now)
        };
        open.volumes = drive.handle().volumes().into_iter().map(now).collect();
    }

    /// Notes drives that went away, and asks all others for a sign of life.
    pub(super) fn check_drives(&mut self) {
        self.checked_at = Instant::now();
        for (name, drive) in &self.drives {
            if let Some(open) = self.observed.drives.get_mut(name)
                && !open.gone
                && drive.is_gone()
            {
                tracing::error!(
                    drive = name,
                    path = drive.about.path,
                    "drive is gone; looking for it"
                );
                open.gone = true;
            }
            // A full queue is a sign of life, too, and a closed one shows in the fault.
            let _ = drive.handle().try_submit(Command::Check(Reply::ignore()));
        }
    }

    /// Looks for unused drives, on a thread of its own: they are read.
    pub(super) fn look_for_unused(&mut self) {
        self.unused_looked_at = None;
        let to_self = self.to_self.clone();
        let look = move || {
            // Nobody waits any more if the daemon is stopping.
            let _ = to_self.send(Event::Unused(drives::unused()));
        };
        let thread = std::thread::Builder::new()
            .name("look".to_owned())
            .spawn(look);
        if thread.is_err() {
            self.unused_looked_at = Some(Instant::now());
        }
    }

    pub(super) fn save_known(&mut self) {
        if let Err(error) = self.known.save(&self.directory) {
            tracing::error!(%error, "cannot note which pool is on which drive");
        }
    }
}

/// Changes a drive and its volumes, one step after the other, as many as `BATCH_TIME` allows.
fn change_job(drive: String, handle: DriveHandle, actions: Vec<Action>) -> Job {
    Box::new(move || {
        let start = Instant::now();
        let mut results = Vec::new();
        for action in actions {
            let result = change(&action, &handle);
            results.push((action, result));
            if start.elapsed() >= BATCH_TIME {
                break;
            }
        }
        Done {
            drive,
            opened: None,
            results,
        }
    })
}

fn change(action: &Action, handle: &DriveHandle) -> Result<(), StepError> {
    match action {
        Action::CreateVolume(volume) => {
            let block_size =
                BlockSize::try_from(volume.block_size).map_err(|bytes| PoolError::BadVolume {
                    what: format!("blocks of {bytes} bytes are not possible"),
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
        Action::GrowVolume {
            uuid, size_bytes, ..
        } => handle.grow_volume(*uuid, *size_bytes)?,
        Action::DeleteVolume { uuid, .. } => handle.delete_volume(*uuid)?,
        Action::GrowDrive { size_bytes, .. } => {
            handle.call(|reply| Command::GrowDrive(*size_bytes, reply))?;
        }
        _ => {}
    }
    Ok(())
}
