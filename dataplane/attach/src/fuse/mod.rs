//! Attach by our own initiator, a FUSE file and a loop device: no kernel module beyond these two.
//!
//! The loop device uses direct I/O on the file, so data is cached once, above the loop device. Reads, writes,
//! flushes, discards and writes of zeroes become the NVMe commands of the same name. I/O waits while the
//! target cannot be reached, up to the attachment's time-out; and, with a [`Holder`](crate::holder::Holder), while
//! the daemon is away: the next one takes the connection to the kernel up and answers what was not answered.

mod mount;
mod server;
mod wire;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use roadstead_initiator::Namespace;
use roadstead_nvme::Transport;
use tracing::{info, warn};

use crate::holder::Holder;
use crate::loopdev;
use crate::method::{Availability, Device, Method};
use crate::names::{in_use, size_bytes};
use crate::remote::{Remote, follow_size, is_read_only, set_io_flusher};
use crate::{AttachError, HostIdentity, PathSpec, PathStatus, Spec};
use server::Server;

/// Where the files are, unless told otherwise.
const RUN_DIR: &str = "/run/roadstead/fuse";
const SYSFS: &str = "/sys";

struct Attached {
    namespace: Namespace,
    device: PathBuf,
    size: Arc<Size>,
    thread: JoinHandle<()>,
}

/// What gives a device its size. One at a time: a device must not be opened for it while it is being taken away, and
/// not afterwards, when its name may be another's.
struct Size {
    /// In the mounted file system; its size is the namespace's.
    file: PathBuf,
    device: PathBuf,
    is_there: Mutex<bool>,
}

impl Size {
    /// Gives the device the size that the namespace has now, unless it is gone.
    fn apply(&self) -> Result<(), AttachError> {
        let is_there = self.is_there();
        if !*is_there {
            return Ok(());
        }
        // The kernel takes over the file's size when it is asked for.
        let stat = std::fs::metadata(&self.file);
        stat.map_err(AttachError::io(format!("stat {}", self.file.display())))?;
        loopdev::set_capacity(&self.device)
    }

    fn is_there(&self) -> MutexGuard<'_, bool> {
        self.is_there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our initiator behind FUSE and loop devices. Its thread starts with the first attachment.
pub struct FuseMethod {
    remote: Arc<Remote>,
    run_dir: PathBuf,
    holder: Option<Holder>,
    /// Connections of the daemon before this one, by attachment, until they are taken up.
    held: Mutex<HashMap<String, OwnedFd>>,
    table: Mutex<HashMap<String, Attached>>,
}

impl FuseMethod {
    /// For this node, with its files below /run/roadstead/fuse.
    pub fn new(host: HostIdentity) -> Self {
        Self::with_run_dir(host, RUN_DIR.into())
    }

    /// With the files elsewhere.
    pub fn with_run_dir(host: HostIdentity, run_dir: PathBuf) -> Self {
        Self::over(Arc::new(Remote::new(host, None)), run_dir)
    }

    /// Over an initiator that other methods use, too.
    pub(crate) fn shared(remote: Arc<Remote>) -> Self {
        Self::over(remote, RUN_DIR.into())
    }

    fn over(remote: Arc<Remote>, run_dir: PathBuf) -> Self {
        Self {
            remote,
            run_dir,
            holder: None,
            held: Mutex::new(HashMap::new()),
            table: Mutex::new(HashMap::new()),
        }
    }

    /// Has connections kept by `holder`, and takes up those that it kept for the daemon before this one.
    #[must_use]
    pub fn held_by(mut self, holder: Holder, held: HashMap<String, OwnedFd>) -> Self {
        self.holder = Some(holder);
        self.held = Mutex::new(held);
        self
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Attached>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespace(&self, spec: &Spec) -> Option<Namespace> {
        Some(self.table().get(&spec.id)?.namespace.clone())
    }

    /// Removes what a daemon that is gone has left: its loop device gives errors, as its file is dead.
    fn clean(&self, spec: &Spec) -> Result<(), AttachError> {
        for device in loopdev::find(Path::new(SYSFS), &file_name(spec)) {
            if in_use(&device)? {
                return Err(AttachError::Busy { device });
            }
            loopdev::clear(&device)?;
            info!(id = spec.id, device = %device.display(), "removed a dead device");
        }
        self.end(spec)
    }

    /// Unmounts and disconnects, when no loop device is left.
    fn end(&self, spec: &Spec) -> Result<(), AttachError> {
        mount::unmount(&self.run_dir.join(&spec.id))?;
        self.held().remove(&spec.id);
        if let Some(holder) = &self.holder {
            let release = holder.release(&spec.id);
            release.map_err(AttachError::io("tell the holder to let a device go"))?;
        }
        let attached = self.table().remove(&spec.id);
        if let Some(attached) = attached {
            *attached.size.is_there() = false;
            attached.namespace.close();
            join(spec, attached.thread);
        }
        Ok(())
    }

    /// From a namespace to a loop device.
    fn make(&self, spec: &Spec, namespace: &Namespace) -> Result<Attached, AttachError> {
        let dir = self.run_dir.join(&spec.id);
        let fuse = mount::mount(&dir)?;
        let held = self.holder.as_ref().map_or(Ok(()), |holder| {
            let hold = holder.hold(&spec.id, &fuse);
            hold.map_err(AttachError::io("have the holder keep a device"))
        });
        let thread = match held.and_then(|()| self.serve(spec, namespace, fuse)) {
            Ok(thread) => thread,
            Err(error) => {
                give_up(spec, mount::unmount(&dir));
                return Err(error);
            }
        };
        match self.loop_device(spec, namespace, &dir) {
            Ok(device) => Ok(self.attached(spec, namespace.clone(), device, thread)),
            Err(error) => {
                give_up(spec, mount::unmount(&dir));
                join(spec, thread);
                Err(error)
            }
        }
    }

    /// Goes on where the daemon before this one died: its loop device is there and in use, requests wait.
    fn take_up(
        &self,
        spec: &Spec,
        device: PathBuf,
        fuse: &OwnedFd,
    ) -> Result<Attached, AttachError> {
        let namespace = self.remote.connect(spec)?;
        let fuse = fuse.try_clone();
        let served = fuse
            .map_err(AttachError::io("copy a descriptor"))
            .and_then(|fuse| {
                let read_only = is_read_only(spec, &namespace);
                let server = Server::new(fuse, namespace.clone(), file_name(spec), read_only);
                let resend = server.ask_again();
                resend.map_err(AttachError::io("ask the kernel for unanswered requests"))?;
                start(server)
            });
        match served {
            Ok(thread) => Ok(self.attached(spec, namespace, device, thread)),
            Err(error) => {
                namespace.close();
                Err(error)
            }
        }
    }

    /// A device that is served; it follows the namespace's size from now on.
    fn attached(
        &self,
        spec: &Spec,
        namespace: Namespace,
        device: PathBuf,
        thread: JoinHandle<()>,
    ) -> Attached {
        let size = Arc::new(Size {
            file: self.run_dir.join(&spec.id).join(file_name(spec)),
            device: device.clone(),
            is_there: Mutex::new(true),
        });
        let followed = Arc::clone(&size);
        follow_size(spec, &namespace, move || followed.apply());
        Attached {
            namespace,
            device,
            size,
            thread,
        }
    }

    fn serve(
        &self,
        spec: &Spec,
        namespace: &Namespace,
        fuse: OwnedFd,
    ) -> Result<JoinHandle<()>, AttachError> {
        let read_only = is_read_only(spec, namespace);
        start(Server::new(
            fuse,
            namespace.clone(),
            file_name(spec),
            read_only,
        ))
    }

    fn loop_device(
        &self,
        spec: &Spec,
        namespace: &Namespace,
        dir: &Path,
    ) -> Result<PathBuf, AttachError> {
        let path = dir.join(file_name(spec));
        let read_only = is_read_only(spec, namespace);
        let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or_default();
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            .custom_flags(direct)
            .open(&path)
            .map_err(AttachError::io(format!("open {}", path.display())))?;
        loopdev::configure(file.as_fd(), namespace.info().block_bytes, read_only)
    }

    fn device_of(&self, attached: &Attached) -> Option<Device> {
        let name = attached.device.file_name()?;
        Some(Device {
            path: attached.device.clone(),
            size_bytes: size_bytes(&Path::new(SYSFS).join("block").join(name))?,
        })
    }
}

impl Method for FuseMethod {
    fn name(&self) -> &'static str {
        "fuse"
    }

    fn available(&self) -> Availability {
        for device in ["/dev/fuse", "/dev/loop-control"] {
            if !Path::new(device).exists() {
                return Availability::Missing(format!("{device} does not exist"));
            }
        }
        Availability::Available
    }

    fn carries(&self, transport: Transport) -> Availability {
        self.remote.carries(transport)
    }

    fn attach(&self, spec: &Spec) -> Result<Device, AttachError> {
        if let Some(device) = self.device(spec) {
            return Ok(device);
        }
        let held = self.held().remove(&spec.id);
        let device = loopdev::find(Path::new(SYSFS), &file_name(spec)).pop();
        if let (Some(fuse), Some(device)) = (held, device) {
            let attached = self.take_up(spec, device, &fuse).inspect_err(|_| {
                self.held().insert(spec.id.clone(), fuse);
            })?;
            info!(id = spec.id, device = %attached.device.display(), "taken up again");
            let device = self.device_of(&attached);
            self.table().insert(spec.id.clone(), attached);
            return device.ok_or_else(|| AttachError::Unknown {
                id: spec.id.clone(),
            });
        }
        self.clean(spec)?;
        let namespace = self.remote.connect(spec)?;
        let attached = match self.make(spec, &namespace) {
            Ok(attached) => attached,
            Err(error) => {
                namespace.close();
                return Err(error);
            }
        };
        let device = self.device_of(&attached).unwrap_or_else(|| Device {
            path: attached.device.clone(),
            size_bytes: 0,
        });
        self.table().insert(spec.id.clone(), attached);
        Ok(device)
    }

    fn detach(&self, spec: &Spec) -> Result<(), AttachError> {
        let size = self.table().get(&spec.id).map(|a| Arc::clone(&a.size));
        let is_there = size.as_ref().map(|size| size.is_there());
        let found = loopdev::find(Path::new(SYSFS), &file_name(spec));
        for device in found {
            loopdev::clear(&device)?;
        }
        if let Some(mut is_there) = is_there {
            *is_there = false;
        }
        self.end(spec)
    }

    fn rescan(&self, spec: &Spec) -> Result<u64, AttachError> {
        let unknown = || AttachError::Unknown {
            id: spec.id.clone(),
        };
        let (namespace, size) = {
            let table = self.table();
            let attached = table.get(&spec.id).ok_or_else(unknown)?;
            (attached.namespace.clone(), Arc::clone(&attached.size))
        };
        let info = namespace.look();
        size.apply()?;
        Ok(info.blocks.saturating_mul(u64::from(info.block_bytes)))
    }

    fn device(&self, spec: &Spec) -> Option<Device> {
        let table = self.table();
        let attached = table.get(&spec.id)?;
        let backing = loopdev::backing_file(Path::new(SYSFS), &attached.device)?;
        let ours = Path::new(&backing).file_name() == Some(file_name(spec).as_ref());
        if ours { self.device_of(attached) } else { None }
    }

    fn paths(&self, spec: &Spec) -> Vec<PathStatus> {
        self.remote.path_statuses(spec, self.namespace(spec))
    }

    fn follow(&self, spec: &Spec, paths: &[PathSpec]) -> Vec<PathSpec> {
        self.remote.follow_paths(spec, self.namespace(spec), paths)
    }
}

/// The name of the file in its file system: by it the loop device is found again, even when the mount it was
/// opened through is gone.
fn file_name(spec: &Spec) -> String {
    format!("roadstead-{}", spec.id)
}

fn give_up(spec: &Spec, result: Result<(), AttachError>) {
    if let Err(error) = result {
        warn!(id = spec.id, %error, "cannot clean up after a failed attach");
    }
}

/// A thread that serves a FUSE connection until it is unmounted.
fn start(server: Server<Namespace>) -> Result<JoinHandle<()>, AttachError> {
    let run = move || {
        set_io_flusher();
        server.run();
    };
    std::thread::Builder::new()
        .name("fuse".into())
        .spawn(run)
        .map_err(AttachError::io("start a thread for a FUSE file"))
}

fn join(spec: &Spec, thread: JoinHandle<()>) {
    if thread.join().is_err() {
        warn!(id = spec.id, "the thread of the FUSE file has failed");
    }
}
