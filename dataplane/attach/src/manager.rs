//! The attachments of this node, by id.
//!
//! A specification is on disk before its device exists and leaves it after the device is gone, so whatever
//! the moment of a crash, [`Manager::restore`] knows what there may be. One operation at a time runs on an
//! id; operations on different ids run side by side.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use roadstead_nvme::Transport;
use tracing::{info, warn};

mod follow;

use crate::{AttachError, Device, Method, PathStatus, Spec, best};

/// First pause between two rounds of [`Manager::restore_in_background`]; doubled up to the longest.
const RESTORE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between two rounds.
const RESTORE_PAUSE_MAX: Duration = Duration::from_secs(30);

/// One attachment, for reports.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What was asked for; `method` is the one in use.
    pub spec: Spec,
    /// The device, once there is one.
    pub device: Option<Device>,
    /// What every path does now.
    pub paths: Vec<PathStatus>,
    /// Why there is no device.
    pub error: Option<String>,
}

struct Entry {
    spec: Spec,
    device: Option<Device>,
    error: Option<String>,
    busy: bool,
}

/// The attachments of this node. Cheap to share in an `Arc`; every call may come from any thread.
pub struct Manager {
    dir: PathBuf,
    methods: Vec<Box<dyn Method>>,
    table: Mutex<HashMap<String, Entry>>,
    wanted: follow::Wanted,
}

impl Manager {
    /// Reads the specifications kept in `dir` (made if missing). Attaches nothing yet: see [`Self::restore`].
    /// `methods` are in the order of preference.
    ///
    /// # Errors
    /// [`AttachError::Io`] when the directory or a file in it cannot be used.
    pub fn open(
        dir: impl Into<PathBuf>,
        methods: Vec<Box<dyn Method>>,
    ) -> Result<Self, AttachError> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(AttachError::io(format!("make {}", dir.display())))?;
        let mut table = HashMap::new();
        let listing =
            fs::read_dir(&dir).map_err(AttachError::io(format!("list {}", dir.display())))?;
        for file in listing.flatten() {
            let path = file.path();
            if path.extension().is_none_or(|e| e != "json") {
                continue;
            }
            let text =
                fs::read(&path).map_err(AttachError::io(format!("read {}", path.display())))?;
            let spec: Spec = serde_json::from_slice(&text).map_err(AttachError::io(format!(
                "parse {} (remove it to forget this attachment)",
                path.display()
            )))?;
            let entry = Entry {
                error: Some("not attached again yet since the daemon started".into()),
                device: None,
                busy: false,
                spec,
            };
            table.insert(entry.spec.id.clone(), entry);
        }
        Ok(Self {
            dir,
            methods,
            table: Mutex::new(table),
            wanted: follow::Wanted::default(),
        })
    }

    /// The names of the methods that can work here, best first.
    pub fn available_methods(&self) -> Vec<&'static str> {
        let usable = |m: &&dyn Method| m.available() == crate::Availability::Available;
        let methods = self.methods.iter().map(AsRef::as_ref);
        methods.filter(usable).map(Method::name).collect()
    }

    /// Whether a method that can work here can use paths of this transport.
    pub fn carries(&self, transport: Transport) -> bool {
        let yes = |availability| availability == crate::Availability::Available;
        let mut methods = self.methods.iter();
        methods.any(|method| yes(method.available()) && yes(method.carries(transport)))
    }

    /// Attaches, or finds the attachment that is there. Blocks until the device is usable.
    ///
    /// # Errors
    /// As [`AttachError`] says; a new attachment leaves nothing behind then.
    pub fn attach(&self, spec: Spec) -> Result<Attachment, AttachError> {
        spec.validate()?;
        let id = spec.id.clone();
        let (spec, known) = self.begin_attach(spec)?;
        let result = self.attach_busy(&spec);
        let mut table = self.lock();
        match result {
            Ok((method, device)) => {
                info!(id, method = method.name(), device = %device.path.display(),
                    size_bytes = device.size_bytes, "attached");
                let paths = method.paths(&spec);
                let entry = Entry {
                    spec: spec.clone(),
                    device: Some(device.clone()),
                    error: None,
                    busy: false,
                };
                table.insert(id, entry);
                Ok(Attachment {
                    spec,
                    device: Some(device),
                    paths,
                    error: None,
                })
            }
            Err(error) => {
                if known {
                    if let Some(entry) = table.get_mut(&id) {
                        entry.busy = false;
                        entry.device = None;
                        entry.error = Some(error.to_string());
                    }
                } else {
                    table.remove(&id);
                    drop(table);
                    self.forget(&id)?;
                }
                Err(error)
            }
        }
    }

    /// Detaches. An id that is not known is success.
    ///
    /// # Errors
    /// [`AttachError::Busy`] when the device is in use; everything stays as it is then.
    pub fn detach(&self, id: &str) -> Result<(), AttachError> {
        let spec = match self.begin(id) {
            Err(AttachError::Unknown { .. }) => return Ok(()),
            other => other?,
        };
        let result = self
            .method_of(&spec)
            .and_then(|method| method.detach(&spec))
            .and_then(|()| self.forget(id));
        let mut table = self.lock();
        if result.is_ok() {
            table.remove(id);
            info!(id, "detached");
        } else if let Some(entry) = table.get_mut(id) {
            entry.busy = false;
        }
        result
    }

    /// Gives the device the size that the target has now, and returns it, in bytes.
    ///
    /// # Errors
    /// [`AttachError::Unknown`] when the id is not attached.
    pub fn rescan(&self, id: &str) -> Result<u64, AttachError> {
        let spec = self.begin(id)?;
        let result = self
            .method_of(&spec)
            .and_then(|method| method.rescan(&spec));
        let mut table = self.lock();
        if let Some(entry) = table.get_mut(id) {
            entry.busy = false;
            if let (Ok(size), Some(device)) = (&result, &mut entry.device) {
                device.size_bytes = *size;
            }
        }
        result
    }

    /// Every attachment, sorted by id, with what its paths do now.
    pub fn attachments(&self) -> Vec<Attachment> {
        let mut all: Vec<_> = self
            .lock()
            .values()
            .map(|entry| Attachment {
                spec: entry.spec.clone(),
                device: entry.device.clone(),
                paths: Vec::new(),
                error: entry.error.clone(),
            })
            .collect();
        all.sort_by(|a, b| a.spec.id.cmp(&b.spec.id));
        for attachment in &mut all {
            attachment.paths = match self.method_of(&attachment.spec) {
                Ok(method) => {
                    // It follows the namespace's size by itself.
                    if let (Some(device), Some(now)) =
                        (&mut attachment.device, method.device(&attachment.spec))
                    {
                        device.size_bytes = now.size_bytes;
                    }
                    method.paths(&attachment.spec)
                }
                Err(error) => failed_paths(&attachment.spec, &error.to_string()),
            };
        }
        all
    }

    /// Attaches what has no device yet: all of it after a restart. Returns how many are left without.
    pub fn restore(&self) -> usize {
        let missing: Vec<Spec> = self
            .lock()
            .values()
            .filter(|entry| entry.device.is_none() && !entry.busy)
            .map(|entry| entry.spec.clone())
            .collect();
        let mut left = 0;
        for spec in missing {
            let id = spec.id.clone();
            if let Err(error) = self.attach(spec) {
                warn!(id, %error, "cannot attach again, will try later");
                left += 1;
            }
        }
        left
    }

    /// Runs [`Self::restore`] on a thread of its own until nothing is left to do.
    ///
    /// # Errors
    /// [`AttachError::Io`] when there is no thread to be had.
    pub fn restore_in_background(self: &Arc<Self>) -> Result<(), AttachError> {
        let manager = Arc::clone(self);
        let run = move || {
            let mut pause = RESTORE_PAUSE_MIN;
            while manager.restore() > 0 {
                std::thread::sleep(pause);
                pause = (pause * 2).min(RESTORE_PAUSE_MAX);
            }
        };
        std::thread::Builder::new()
            .name("restore".into())
            .spawn(run)
            .map_err(AttachError::io(
                "start the thread that restores attachments",
            ))?;
        Ok(())
    }

    /// Marks the id busy and persists what will be attached. Returns the specification with its method filled
    /// in, and whether the id was known.
    fn begin_attach(&self, mut spec: Spec) -> Result<(Spec, bool), AttachError> {
        let mut table = self.lock();
        let known = table.get(&spec.id);
        if let Some(entry) = known {
            if entry.busy {
                return Err(AttachError::InProgress { id: spec.id });
            }
            if let Some(field) = entry.spec.conflict(&spec) {
                return Err(AttachError::Conflict { id: spec.id, field });
            }
            if spec.method.is_some() && spec.method != entry.spec.method {
                return Err(AttachError::Conflict {
                    id: spec.id,
                    field: "method",
                });
            }
            spec.method.clone_from(&entry.spec.method);
            spec.stay_host_of(&entry.spec);
        } else {
            let method = best(&self.methods, spec.method.as_deref(), &spec.paths)?;
            spec.method = Some(method.name().into());
        }
        let known = known.is_some();
        self.keep(&spec)?;
        let id = spec.id.clone();
        let entry = table.entry(id).or_insert_with(|| Entry {
            spec: spec.clone(),
            device: None,
            error: None,
            busy: false,
        });
        entry.spec = spec.clone();
        entry.busy = true;
        Ok((spec, known))
    }

    fn attach_busy(&self, spec: &Spec) -> Result<(&dyn Method, Device), AttachError> {
        let method = best(&self.methods, spec.method.as_deref(), &spec.paths)?;
        Ok((method, method.attach(spec)?))
    }

    /// Marks a known id busy.
    fn begin(&self, id: &str) -> Result<Spec, AttachError> {
        let mut table = self.lock();
        let Some(entry) = table.get_mut(id) else {
            return Err(AttachError::Unknown { id: id.into() });
        };
        if entry.busy {
            return Err(AttachError::InProgress { id: id.into() });
        }
        entry.busy = true;
        Ok(entry.spec.clone())
    }

    /// The method that made the device, also when it has become unavailable since.
    fn method_of(&self, spec: &Spec) -> Result<&dyn Method, AttachError> {
        let wanted = spec.method.as_deref();
        match self.methods.iter().find(|m| Some(m.name()) == wanted) {
            Some(method) => Ok(method.as_ref()),
            None => best(&self.methods, wanted, &spec.paths),
        }
    }

    fn file(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}.json"))
    }

    fn keep(&self, spec: &Spec) -> Result<(), AttachError> {
        let path = self.file(&spec.id);
        write_durably(&self.dir, &path, spec)
            .map_err(AttachError::io(format!("write {}", path.display())))
    }

    fn forget(&self, id: &str) -> Result<(), AttachError> {
        let path = self.file(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(AttachError::io(format!("remove {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// A panic elsewhere cannot leave the table half changed: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All paths of `spec` as failed for the same reason.
pub(crate) fn failed_paths(spec: &Spec, reason: &str) -> Vec<PathStatus> {
    let failed = |path: &crate::PathSpec| PathStatus::failed(*path, reason);
    spec.paths.iter().map(failed).collect()
}

fn write_durably(dir: &Path, path: &Path, spec: &Spec) -> io::Result<()> {
    let temporary = path.with_extension("new");
    // One with another mode may be left.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A key may be in it.
    let mut new = OpenOptions::new();
    let mut file = new
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec_pretty(spec)?)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests;
