//! Attach by the kernel's own NVMe-oF host, over TCP and RDMA.
//!
//! Every path of the specification is one controller of the kernel; native multipath makes one device of
//! them. The kernel reconnects by itself and holds I/O back meanwhile. A path that goes dark while another works is found
//! by us, as the kernel takes longer (`watch`).

mod fabrics;
mod passthru;
mod paths;
mod pulse;
mod sysfs;
mod watch;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use roadstead_nvme::Transport;
use tracing::{info, warn};

use crate::method::{Availability, Device, Method};
use crate::names::{in_use, size_bytes};
use crate::{AttachError, HostIdentity, PathSpec, PathStatus, Spec};

/// How long a device may take to appear after a connection.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long ours may take when the subsystem's other namespaces are there.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a changed size may take to show after a rescan.
const RESCAN_TIMEOUT: Duration = Duration::from_secs(2);
/// Sysfs announces nothing by itself: it is looked at this often.
const POLL: Duration = Duration::from_millis(20);

/// The kernel's host.
pub struct KernelMethod {
    host: HostIdentity,
    sysfs: PathBuf,
    dev: PathBuf,
    seen: paths::Seen,
    watch: watch::Watch,
    /// Attachments by subsystem: an appliance has many namespaces in one, and the kernel connects all of them at once.
    users: Mutex<HashMap<String, HashSet<String>>>,
}

impl KernelMethod {
    /// For this node.
    pub fn new(host: HostIdentity) -> Self {
        Self::with_roots(host, "/sys".into(), "/dev".into())
    }

    /// With sysfs and devices elsewhere, for tests.
    pub fn with_roots(host: HostIdentity, sysfs: PathBuf, dev: PathBuf) -> Self {
        Self {
            host,
            sysfs,
            watch: watch::Watch::new(dev.clone(), Box::new(passthru::keep_alive)),
            dev,
            seen: paths::Seen::default(),
            users: Mutex::new(HashMap::new()),
        }
    }

    fn users(&self) -> MutexGuard<'_, HashMap<String, HashSet<String>>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something else uses the subsystem: another attachment, or whoever holds another of its namespaces open.
    fn is_shared(&self, spec: &Spec) -> Result<bool, AttachError> {
        let others = self.users().get(&spec.subsystem_nqn).is_some_and(|users| {
            let mut users = users.iter();
            users.any(|id| *id != spec.id)
        });
        if others {
            return Ok(true);
        }
        for namespace in sysfs::namespaces(&self.sysfs, &spec.subsystem_nqn) {
            let device = self.device_path(&namespace);
            let ours = spec.is_meant(namespace.nsid, namespace.uuid, namespace.nguid);
            if !ours && device.exists() && in_use(&device)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn controllers(&self, spec: &Spec) -> Vec<sysfs::Controller> {
        let host = spec.host(&self.host);
        sysfs::controllers(&self.sysfs, &spec.subsystem_nqn, &host.nqn)
    }

    fn namespace(&self, spec: &Spec) -> Option<sysfs::Namespace> {
        sysfs::namespaces(&self.sysfs, &spec.subsystem_nqn)
            .into_iter()
            .find(|n| spec.is_meant(n.nsid, n.uuid, n.nguid))
    }

    fn device_path(&self, namespace: &sysfs::Namespace) -> PathBuf {
        self.dev.join(&namespace.name)
    }

    /// Connects what is not connected yet; one path that works is enough.
    fn connect(&self, spec: &Spec) -> Result<(), AttachError> {
        let existing = self.controllers(spec);
        let mut failures = Vec::new();
        let mut working = 0;
        for path in &spec.paths {
            if existing.iter().any(|c| c.is_alive() && c.is_to(path)) {
                working += 1;
                continue;
            }
            match self.connect_path(spec, path) {
                Ok(()) => working += 1,
                Err(error) => {
                    let has_keys = spec.host(&self.host).keys.is_some();
                    failures.push(format!("{path}: {}", fabrics::explain(&error, has_keys)));
                }
            }
        }
        let reason = failures.join("; ");
        if working == 0 {
            return Err(AttachError::Unreachable {
                nqn: spec.subsystem_nqn.clone(),
                reason,
            });
        }
        if !failures.is_empty() {
            warn!(id = spec.id, reason, "some paths cannot be connected");
        }
        Ok(())
    }

    fn connect_path(&self, spec: &Spec, path: &PathSpec) -> std::io::Result<()> {
        let options = fabrics::Options {
            nqn: &spec.subsystem_nqn,
            path,
            host: spec.host(&self.host),
            ctrl_loss_timeout: spec.ctrl_loss_timeout(),
            has_other: spec.paths.len() > 1,
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
        };
        match fabrics::connect(&self.dev.join("nvme-fabrics"), &options) {
            Ok(connected) => {
                info!(id = spec.id, %path, controller = connected.instance,
                    cntlid = connected.cntlid, "kernel connected");
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(libc::EALREADY) => Ok(()),
            // It has just tried to load the module by itself.
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL)
                    && !self.has_module(path.transport) =>
            {
                let name = module(path.transport);
                let what = format!("module {name} is not loaded, and the kernel cannot load it");
                Err(std::io::Error::new(std::io::ErrorKind::Unsupported, what))
            }
            Err(error) => Err(error),
        }
    }

    fn has_module(&self, transport: Transport) -> bool {
        let name = module(transport).replace('-', "_");
        self.sysfs.join("module").join(name).exists()
    }

    /// Waits for the namespace's block device.
    fn wait_for_namespace(&self, spec: &Spec) -> Result<sysfs::Namespace, AttachError> {
        let started = Instant::now();
        loop {
            if let Some(namespace) = self.namespace(spec)
                && self.device_path(&namespace).exists()
            {
                return Ok(namespace);
            }
            // Others may be there while ours is still being scanned.
            let others = sysfs::namespaces(&self.sysfs, &spec.subsystem_nqn);
            let patience = match others.is_empty() {
                true => DEVICE_TIMEOUT,
                false => OTHERS_TIMEOUT,
            };
            if started.elapsed() >= patience {
                let names = others.iter().map(|n| format!("{} has {}", n.name, n.uuid));
                return Err(AttachError::WrongNamespace {
                    nqn: spec.subsystem_nqn.clone(),
                    wanted: spec.wanted_text(),
                    found: match others.is_empty() {
                        true => format!("no device appeared in {} s", patience.as_secs()),
                        false => names.collect::<Vec<_>>().join(", "),
                    },
                });
            }
            std::thread::sleep(POLL);
        }
    }

    fn finish(&self, spec: &Spec) -> Result<Device, AttachError> {
        let namespace = self.wait_for_namespace(spec)?;
        let path = self.device_path(&namespace);
        // The device of an appliance may be there from an earlier attachment.
        if spec.read_only || spec.foreign.is_some() {
            set_read_only(&path, spec.read_only)?;
        }
        let size_bytes = size_bytes(&namespace.dir).unwrap_or_default();
        Ok(Device { path, size_bytes })
    }

    fn forget(&self, spec: &Spec) {
        let mut table = self.users();
        if let Some(users) = table.get_mut(&spec.subsystem_nqn) {
            users.remove(&spec.id);
            if users.is_empty() {
                table.remove(&spec.subsystem_nqn);
            }
        }
    }

    fn disconnect(&self, spec: &Spec) -> Result<(), AttachError> {
        for controller in self.controllers(spec) {
            controller.delete().map_err(AttachError::io(format!(
                "disconnect {}",
                controller.dir.display()
            )))?;
        }
        Ok(())
    }
}

impl Method for KernelMethod {
    fn name(&self) -> &'static str {
        "kernel"
    }

    fn available(&self) -> Availability {
        let has_one = [Transport::Tcp, Transport::Rdma].map(|one| self.has_module(one));
        if has_one == [false, false] {
            return Availability::Missing("module nvme-tcp is not loaded".into());
        }
        let device = self.dev.join("nvme-fabrics");
        if !device.exists() {
            return Availability::Missing(format!("{} does not exist", device.display()));
        }
        Availability::Available
    }

    /// The kernel loads nvme-rdma by itself when it is asked to connect; that makes sense with an RDMA device alone.
    fn carries(&self, transport: Transport) -> Availability {
        if transport == Transport::Local {
            let why = "the kernel's host reaches this daemon over the network only";
            return Availability::Missing(why.into());
        }
        let devices = self.sysfs.join("class/infiniband");
        let has_device = || std::fs::read_dir(devices).is_ok_and(|mut all| all.next().is_some());
        if self.has_module(transport) || (transport == Transport::Rdma && has_device()) {
            return Availability::Available;
        }
        Availability::Missing(format!("module {} is not loaded", module(transport)))
    }

    fn attach(&self, spec: &Spec) -> Result<Device, AttachError> {
        let fresh = self.controllers(spec).is_empty();
        let is_new = self
            .users()
            .entry(spec.subsystem_nqn.clone())
            .or_default()
            .insert(spec.id.clone());
        let result = self.connect(spec).and_then(|()| self.finish(spec));
        if result.is_ok() {
            self.watch_paths(spec, &spec.paths);
        } else {
            if fresh
                && !self.is_shared(spec).unwrap_or(true)
                && let Err(error) = self.disconnect(spec)
            {
                warn!(id = spec.id, %error, "cannot disconnect after a failed attach");
            }
            if is_new {
                self.forget(spec);
            }
        }
        result
    }

    fn detach(&self, spec: &Spec) -> Result<(), AttachError> {
        if let Some(namespace) = self.namespace(spec) {
            let device = self.device_path(&namespace);
            if device.exists() && in_use(&device)? {
                return Err(AttachError::Busy { device });
            }
        }
        // The kernel cannot let go of one namespace of several.
        if !self.is_shared(spec)? {
            self.disconnect(spec)?;
        }
        self.forget(spec);
        self.seen.forget(&spec.id);
        self.watch.forget(&spec.id);
        Ok(())
    }

    fn rescan(&self, spec: &Spec) -> Result<u64, AttachError> {
        let unknown = || AttachError::Unknown {
            id: spec.id.clone(),
        };
        let namespace = self.namespace(spec).ok_or_else(unknown)?;
        let before = size_bytes(&namespace.dir).ok_or_else(unknown)?;
        let controllers = self.controllers(spec);
        let live = controllers
            .iter()
            .find(|c| c.state == "live")
            .ok_or_else(|| AttachError::Unreachable {
                nqn: spec.subsystem_nqn.clone(),
                reason: "no controller of it is live now".into(),
            })?;
        live.rescan()
            .map_err(AttachError::io(format!("rescan {}", live.dir.display())))?;
        // The kernel rescans in the background and says nothing when there is nothing new.
        let deadline = Instant::now() + RESCAN_TIMEOUT;
        loop {
            let now = size_bytes(&namespace.dir).ok_or_else(unknown)?;
            if now != before || Instant::now() >= deadline {
                return Ok(now);
            }
            std::thread::sleep(POLL);
        }
    }

    fn device(&self, spec: &Spec) -> Option<Device> {
        let namespace = self.namespace(spec)?;
        Some(Device {
            path: self.device_path(&namespace),
            size_bytes: size_bytes(&namespace.dir)?,
        })
    }

    fn paths(&self, spec: &Spec) -> Vec<PathStatus> {
        self.status(spec)
    }

    fn follow(&self, spec: &Spec, paths: &[PathSpec]) -> Vec<PathSpec> {
        self.move_to(spec, paths)
    }
}

/// The kernel's module for a transport.
fn module(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "nvme-tcp",
        Transport::Rdma => "nvme-rdma",
        // It reaches the kernel's own target: `carries` refuses it.
        Transport::Local => "nvme-loop",
    }
}

/// Makes the block device itself refuse writes, whoever opens it; or take them again, if the target does.
fn set_read_only(device: &Path, read_only: bool) -> Result<(), AttachError> {
    use std::os::fd::AsRawFd;
    let what = format!("set whether {} is read-only", device.display());
    let file = std::fs::File::open(device).map_err(AttachError::io(what.clone()))?;
    let on: libc::c_int = read_only.into();
    // SAFETY: `file` is open; BLKROSET reads one int at the address, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), BLKROSET, &raw const on) };
    if result < 0 {
        return Err(AttachError::io(what)(std::io::Error::last_os_error()));
    }
    Ok(())
}

/// `_IO(0x12, 93)` of linux/fs.h.
const BLKROSET: libc::c_ulong = 0x125D;

#[cfg(test)]
mod tests;
