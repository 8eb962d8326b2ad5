//! Attach by our own initiator and ublk: the kernel hands a block device's requests to this process over io_uring.
//!
//! The kernel keeps a device whose server died, and its requests wait, until another process takes it up
//! (`UBLK_F_USER_RECOVERY`); requests that were not answered then come again (`UBLK_F_USER_RECOVERY_REISSUE`). The
//! device of an attachment is found by a mark that its server leaves in it.

mod control;
mod queue;
mod wire;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use roadstead_initiator::Namespace;
use rustix::io::Errno;
use tracing::{info, warn};
use zerocopy::FromZeros;

use crate::AttachError;
use crate::method::Availability;
use crate::remote::set_io_flusher;
use crate::served::{Driver, Shape};
use queue::Queue;
use wire::{DeviceInfo, Params, feature, state};

const SYSFS: &str = "/sys";
/// Requests of a device in flight.
const DEPTH: u16 = 128;
/// Most data of one request; times the depth it is the bound on a device's buffers.
const REQUEST_BYTES_MAX: u32 = 512 << 10;
/// How long the kernel may take to notice that the old server is gone, and the device's node to appear.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause between two looks.
const POLL: Duration = Duration::from_millis(20);

/// What the kernel must be able to do; Linux 6.5 can.
const NEEDED: u64 =
    feature::USER_RECOVERY | feature::USER_RECOVERY_REISSUE | feature::CMD_IOCTL_ENCODE;

/// The driver of this kernel.
#[derive(Default)]
pub(crate) struct Ublk {
    /// Asked once.
    features: Mutex<Option<u64>>,
}

impl Ublk {
    fn features(&self) -> io::Result<u64> {
        let mut known = self.features.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(features) = *known {
            return Ok(features);
        }
        let features = control::features()?;
        *known = Some(features);
        Ok(features)
    }
}

/// Names an attachment in its device (FNV-1a, 64 bits).
fn mark(id: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    b"roadstead/"
        .iter()
        .chain(id.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| step(hash, *byte))
}

fn failed(what: &str, number: u32) -> impl FnOnce(io::Error) -> AttachError {
    AttachError::io(format!("{what} ublk device {number}"))
}

/// The thread that serves a device.
pub(crate) struct Server(JoinHandle<()>);

impl Server {
    /// Starts it; it asks the kernel for requests at once.
    fn start(info: &DeviceInfo, namespace: &Namespace) -> Result<Self, AttachError> {
        let device = open(info.device)?;
        let (depth, namespace, number) = (info.depth, namespace.clone(), info.device);
        let request_bytes = usize::try_from(info.request_bytes_max).unwrap_or_default();
        let run = move || {
            set_io_flusher();
            let served = Queue::new(device, depth, request_bytes, namespace);
            if let Err(error) = served.and_then(|mut queue| queue.run()) {
                warn!(number, %error, "serving a ublk device failed");
            }
        };
        let thread = std::thread::Builder::new().name("ublk".into()).spawn(run);
        let thread = thread.map_err(AttachError::io("start a thread for a ublk device"))?;
        Ok(Self(thread))
    }
}

fn open(number: u32) -> Result<File, AttachError> {
    let path = PathBuf::from(format!("/dev/ublkc{number}"));
    let mut options = OpenOptions::new();
    let open = || options.read(true).write(true).open(&path);
    until(open, |error| error.kind() == io::ErrorKind::NotFound)
        .map_err(AttachError::io(format!("open {}", path.display())))
}

/// Tries again, within a bound, while the error is one that passes.
fn until<T>(
    mut attempt: impl FnMut() -> io::Result<T>,
    passes: impl Fn(&io::Error) -> bool,
) -> io::Result<T> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(error) if passes(&error) && started.elapsed() < READY_TIMEOUT => {
                std::thread::sleep(POLL);
            }
            other => return other,
        }
    }
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

fn make(id: &str, shape: &Shape, namespace: &Namespace) -> Result<(u32, Server), AttachError> {
    let wanted = DeviceInfo {
        queues: 1,
        depth: DEPTH,
        request_bytes_max: REQUEST_BYTES_MAX,
        flags: NEEDED,
        server_flags: mark(id),
        ..DeviceInfo::new_zeroed()
    };
    let info = control::add(wanted).map_err(AttachError::io("make a ublk device"))?;
    let number = info.device;
    let params = Params::new(shape, info.request_bytes_max);
    let served = control::set_params(number, params)
        .map_err(failed("set up", number))
        .and_then(|()| Server::start(&info, namespace));
    let result = match served {
        Ok(server) => match control::start(number) {
            Ok(()) => return Ok((number, server)),
            Err(error) => Err((failed("start", number)(error), Some(server))),
        },
        Err(error) => Err((error, None)),
    };
    result.map_err(|(error, server)| {
        if let Err(error) = remove(number, server) {
            warn!(number, %error, "cannot clean up after a failed attach");
        }
        error
    })
}

/// Goes on where the server before this one died: requests wait.
fn take_up(number: u32, namespace: &Namespace) -> Result<Server, AttachError> {
    // Until the kernel has noticed the death.
    until(|| control::start_recovery(number), is_busy).map_err(failed("take up", number))?;
    let info = control::info(number).map_err(failed("read", number))?;
    let server = Server::start(&info, namespace)?;
    control::end_recovery(number).map_err(failed("go on with", number))?;
    info!(number, "taken up again");
    Ok(server)
}

fn remove(number: u32, server: Option<Server>) -> Result<(), AttachError> {
    control::stop(number).map_err(failed("stop", number))?;
    if let Some(Server(thread)) = server
        && thread.join().is_err()
    {
        warn!(number, "the thread of a ublk device has failed");
    }
    control::delete(number).map_err(failed("remove", number))
}

impl Driver for Ublk {
    type Server = Server;

    const NAME: &'static str = "ublk";
    const DEVICE: &'static str = "ublkb";

    fn available(&self) -> Availability {
        if !Path::new(control::CONTROL).exists() {
            let missing = format!("{} does not exist (module ublk_drv)", control::CONTROL);
            return Availability::Missing(missing);
        }
        match self.features() {
            Ok(features) if features & NEEDED == NEEDED => Availability::Available,
            Ok(_) => Availability::Missing("this kernel's ublk has no user recovery".into()),
            Err(error) => Availability::Missing(format!("this kernel's ublk is too old: {error}")),
        }
    }

    fn find(&self, id: &str) -> Result<Option<u32>, AttachError> {
        let wanted = mark(id);
        for number in control::devices(Path::new(SYSFS)) {
            match control::info(number) {
                Ok(info) if info.server_flags == wanted => return Ok(Some(number)),
                Ok(_) => {}
                // It went away just now.
                Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {}
                Err(error) => return Err(failed("read", number)(error)),
            }
        }
        Ok(None)
    }

    fn serve(
        &self,
        id: &str,
        shape: &Shape,
        namespace: &Namespace,
    ) -> Result<(u32, Server), AttachError> {
        let Some(number) = self.find(id)? else {
            return make(id, shape, namespace);
        };
        let info = control::info(number).map_err(failed("read", number))?;
        if info.state == state::DEAD {
            // Its server died before it was a block device, or was taking it away.
            remove(number, None)?;
            return make(id, shape, namespace);
        }
        Ok((number, take_up(number, namespace)?))
    }

    fn resize(&self, _id: &str, number: u32, size_bytes: u64) -> Result<(), AttachError> {
        let what = "read the features of ublk";
        let features = self.features().map_err(AttachError::io(what))?;
        if features & feature::UPDATE_SIZE == 0 {
            return Err(AttachError::FixedSize {
                device: format!("/dev/ublkb{number}").into(),
                reason: "ublk of this kernel (before Linux 6.16) cannot resize".into(),
            });
        }
        let sectors = wire::sectors(size_bytes);
        control::update_size(number, sectors).map_err(failed("resize", number))
    }

    fn remove(&self, _id: &str, number: u32, server: Option<Server>) -> Result<(), AttachError> {
        remove(number, server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_tell_attachments_apart() {
        assert_eq!(mark("pvc-1"), mark("pvc-1"));
        assert_ne!(mark("pvc-1"), mark("pvc-2"));
        // Golden: a daemon of another version must find the device.
        assert_eq!(mark("a"), 0x34a3_21e7_5f63_ddae);
    }

    #[test]
    fn devices_are_listed_from_sysfs() {
        let root = tempfile::tempdir().unwrap();
        assert!(control::devices(root.path()).is_empty());
        for name in ["ublkc0", "ublkc12", "other"] {
            std::fs::create_dir_all(root.path().join("class/ublk-char").join(name)).unwrap();
        }
        let mut found = control::devices(root.path());
        found.sort_unstable();
        assert_eq!(found, [0, 12]);
    }
}
