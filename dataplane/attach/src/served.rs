//! A method whose requests the kernel hands to this process: what ublk and nbd have in common.
//!
//! Both kernel drivers keep a device while nobody serves it: requests wait. So the device of an attachment is looked
//! for in the kernel first, and taken up if it is there; only detaching removes it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use roadstead_initiator::Namespace;
use roadstead_nvme::Transport;
use tracing::{info, warn};

use crate::method::{Availability, Device, Method};
use crate::names::{in_use, size_bytes};
use crate::remote::{Remote, follow_size, is_read_only};
use crate::{AttachError, PathSpec, PathStatus, Spec};

const SYSFS: &str = "/sys";

/// What a device looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) size_bytes: u64,
    /// Bytes of a block, a power of two from 512.
    pub(crate) block_bytes: u32,
    pub(crate) read_only: bool,
    /// The target knows Write Zeroes, so the device can discard and write zeroes.
    pub(crate) zeroes: bool,
}

impl Shape {
    fn of(spec: &Spec, namespace: &Namespace) -> Self {
        let info = namespace.info();
        Self {
            size_bytes: info.blocks.saturating_mul(u64::from(info.block_bytes)),
            block_bytes: info.block_bytes,
            read_only: is_read_only(spec, namespace),
            zeroes: info.has_write_zeroes,
        }
    }
}

/// A kernel driver that hands requests to user space. Devices have numbers.
pub(crate) trait Driver: Send + Sync + 'static {
    /// What serves a device.
    type Server: Send;

    /// The method's name.
    const NAME: &'static str;
    /// The device's name without its number.
    const DEVICE: &'static str;

    /// As [`Method::available`].
    fn available(&self) -> Availability;

    /// The device that was made for this attachment, by this process or another.
    fn find(&self, id: &str) -> Result<Option<u32>, AttachError>;

    /// Makes the device, or takes it up where the daemon before this one left it. Nothing new is left behind after an
    /// error; a device that was there stays.
    fn serve(
        &self,
        id: &str,
        shape: &Shape,
        namespace: &Namespace,
    ) -> Result<(u32, Self::Server), AttachError>;

    /// Gives a device that is served another size.
    fn resize(&self, id: &str, number: u32, size_bytes: u64) -> Result<(), AttachError>;

    /// Removes a device. Its requests fail from now on.
    fn remove(
        &self,
        id: &str,
        number: u32,
        server: Option<Self::Server>,
    ) -> Result<(), AttachError>;
}

struct Attached<S> {
    namespace: Namespace,
    number: u32,
    server: S,
    size: Arc<Size>,
}

/// Changes of a device's size, one at a time, and none when it is gone: its number may be another's then.
struct Size {
    is_there: Mutex<bool>,
}

impl Size {
    fn is_there(&self) -> MutexGuard<'_, bool> {
        self.is_there.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Our initiator behind a kernel driver.
pub(crate) struct Served<D: Driver> {
    driver: Arc<D>,
    remote: Arc<Remote>,
    table: Mutex<HashMap<String, Attached<D::Server>>>,
}

impl<D: Driver> Served<D> {
    pub(crate) fn new(driver: D, remote: Arc<Remote>) -> Self {
        Self {
            driver: Arc::new(driver),
            remote,
            table: Mutex::new(HashMap::new()),
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Attached<D::Server>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn namespace(&self, spec: &Spec) -> Option<Namespace> {
        Some(self.table().get(&spec.id)?.namespace.clone())
    }

    /// Gives the device the namespace's size, unless it has it or is gone.
    fn apply_size(
        driver: &D,
        id: &str,
        number: u32,
        namespace: &Namespace,
        size: &Size,
    ) -> Result<(), AttachError> {
        let info = namespace.info();
        let wanted = info.blocks.saturating_mul(u64::from(info.block_bytes));
        let is_there = size.is_there();
        if !*is_there || device::<D>(number).is_none_or(|d| d.size_bytes == wanted) {
            return Ok(());
        }
        driver.resize(id, number, wanted)
    }

    fn attached(
        &self,
        spec: &Spec,
        namespace: Namespace,
        (number, server): (u32, D::Server),
    ) -> Attached<D::Server> {
        let size = Arc::new(Size {
            is_there: Mutex::new(true),
        });
        let (driver, id) = (Arc::clone(&self.driver), spec.id.clone());
        let (followed, its) = (Arc::clone(&size), namespace.clone());
        let apply = move || Self::apply_size(&driver, &id, number, &its, &followed);
        // It may have been there with another size.
        if let Err(error) = apply() {
            warn!(id = spec.id, %error, "the device has not the namespace's size");
        }
        follow_size(spec, &namespace, apply);
        Attached {
            namespace,
            number,
            server,
            size,
        }
    }
}

fn path_of<D: Driver>(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/{}{number}", D::DEVICE))
}

fn device<D: Driver>(number: u32) -> Option<Device> {
    let sysfs = Path::new(SYSFS).join(format!("block/{}{number}", D::DEVICE));
    Some(Device {
        path: path_of::<D>(number),
        size_bytes: size_bytes(&sysfs)?,
    })
}

impl<D: Driver> Method for Served<D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn available(&self) -> Availability {
        self.driver.available()
    }

    fn carries(&self, transport: Transport) -> Availability {
        self.remote.carries(transport)
    }

    fn attach(&self, spec: &Spec) -> Result<Device, AttachError> {
        if let Some(device) = self.device(spec) {
            return Ok(device);
        }
        let namespace = self.remote.connect(spec)?;
        let shape = Shape::of(spec, &namespace);
        let served = match self.driver.serve(&spec.id, &shape, &namespace) {
            Ok(served) => served,
            Err(error) => {
                namespace.close();
                return Err(error);
            }
        };
        let attached = self.attached(spec, namespace, served);
        let number = attached.number;
        self.table().insert(spec.id.clone(), attached);
        device::<D>(number).ok_or_else(|| AttachError::Unknown {
            id: spec.id.clone(),
        })
    }

    fn detach(&self, spec: &Spec) -> Result<(), AttachError> {
        let found = self.driver.find(&spec.id)?;
        if let Some(number) = found {
            let device = path_of::<D>(number);
            // Its last close here also writes back what is in the kernel's cache.
            if device.exists() && in_use(&device)? {
                return Err(AttachError::Busy { device });
            }
        }
        let attached = self.table().remove(&spec.id);
        let server = attached.map(|attached| {
            *attached.size.is_there() = false;
            // Requests that wait for a target would hold up the end of the device.
            attached.namespace.close();
            attached.server
        });
        if let Some(number) = found {
            self.driver.remove(&spec.id, number, server)?;
            info!(id = spec.id, number, method = D::NAME, "removed the device");
        }
        Ok(())
    }

    fn rescan(&self, spec: &Spec) -> Result<u64, AttachError> {
        let unknown = || AttachError::Unknown {
            id: spec.id.clone(),
        };
        let (namespace, number, size) = {
            let table = self.table();
            let attached = table.get(&spec.id).ok_or_else(unknown)?;
            let size = Arc::clone(&attached.size);
            (attached.namespace.clone(), attached.number, size)
        };
        namespace.look();
        Self::apply_size(&self.driver, &spec.id, number, &namespace, &size)?;
        let device = device::<D>(number).ok_or_else(unknown)?;
        Ok(device.size_bytes)
    }

    fn device(&self, spec: &Spec) -> Option<Device> {
        let number = self.table().get(&spec.id)?.number;
        device::<D>(number)
    }

    fn paths(&self, spec: &Spec) -> Vec<PathStatus> {
        self.remote.path_statuses(spec, self.namespace(spec))
    }

    fn follow(&self, spec: &Spec, paths: &[PathSpec]) -> Vec<PathSpec> {
        self.remote.follow_paths(spec, self.namespace(spec), paths)
    }
}
