//! Steps on drives, each on a thread of its own, one at a time for each drive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use roadstead_pool::{BlockSize, Command, DriveHandle, PoolError, Reply, Volume, VolumeSpec};

use super::drives::{self, Drive};
use super::plan::{Action, OpenDrive, VolumeNow};
use super::{Done, Event, Reconciler, StepError};
use crate::desired::{DriveSpec, Source};
use crate::serve::ServeError;

/// What a step on a drive does, and the drive that it opened.
type Job = Box<dyn FnOnce() -> Result<Option<Drive>, StepError> + Send>;

impl Reconciler {
    /// Starts a step on a drive, unless another one runs there.
    pub(super) fn start(&mut self, action: Action) {
        let Some(name) = action.drive().map(str::to_owned) else {
            return;
        };
        if self.busy.contains(&name) {
            return;
        }
        let job: Job = match &action {
            Action::OpenDrive(spec) => {
                let (spec, known) = (spec.clone(), self.known.pool(&spec.name, &spec.owner));
                Box::new(move || Ok(Some(drives::open(&spec, known)?)))
            }
            Action::CloseDrive(_) => {
                let drive = self.drives.remove(&name);
                self.observed.drives.remove(&name);
                Box::new(move || {
                    if let Some(drive) = drive {
                        drive.close();
                    }
                    Ok(None)
                })
            }
            change => {
                let Some(handle) = self.drives.get(&name).map(|drive| drive.handle().clone())
                else {
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
            let done = Done {
                result: job(),
                action: step,
            };
            // Nobody waits any more if the daemon is stopping.
            let _ = to_self.send(Event::Done(Box::new(done)));
        };
        let thread = std::thread::Builder::new()
            .name("step".to_owned())
            .spawn(run);
        if let Err(error) = thread {
            let done = Done {
                action,
                result: Err(StepError::Thread(error)),
            };
            let _ = self.to_self.send(Event::Done(Box::new(done)));
        }
    }

    pub(super) fn done(&mut self, done: Done) -> Result<(), ServeError> {
        let Done { action, result } = done;
        let Some(name) = action.drive().map(str::to_owned) else {
            return Ok(());
        };
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
    pub(super) fn opened(&mut self, spec: &DriveSpec, drive: Drive) -> Result<(), ServeError> {
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
                tracing::info!(%uuid, drive, "volume deleted");
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

fn change_volume(action: &Action, handle: &DriveHandle) -> Result<(), StepError> {
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
        _ => {}
    }
    Ok(())
}
