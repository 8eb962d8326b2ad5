//! Attach by our own initiator and nbd: the kernel sends a block device's requests over a socket to this process.
//!
//! With a time-out for dead connections the kernel keeps a device whose server died, and its requests wait until
//! another process gives it a new socket. Requests that were sent and not answered are sent again when their own time
//! is up ([`REQUEST_TIMEOUT`]). The device of an attachment is found by the identifier that the kernel keeps for it.

mod netlink;
mod server;
mod wire;

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use roadstead_initiator::Namespace;
use rustix::io::Errno;
use tracing::{info, warn};

use crate::AttachError;
use crate::method::Availability;
use crate::names::attribute as sysfs_attribute;
use crate::remote::set_io_flusher;
use crate::served::{Driver, Shape};
use netlink::{Attributes, Netlink, attribute, command};
use server::End;

const SYSFS: &str = "/sys";
/// How long requests wait for the next daemon. The kernel wants a bound: this one is as good as none.
const DEAD_CONN_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);
/// After so long the kernel looks whether a request was sent over a connection that is gone, and sends it again. It does
/// nothing to a request of a connection that is there.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// First pause before the kernel is given another socket; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The driver of this kernel.
pub(crate) struct Nbd;

/// The thread that serves a device.
pub(crate) struct Server {
    thread: JoinHandle<()>,
    is_ending: Arc<AtomicBool>,
}

fn failed(what: &str, number: u32) -> impl FnOnce(io::Error) -> AttachError {
    AttachError::io(format!("{what} /dev/nbd{number}"))
}

fn block_dir(sysfs: &Path, number: u32) -> PathBuf {
    sysfs.join(format!("block/nbd{number}"))
}

/// The device that the kernel keeps for an attachment.
fn find(sysfs: &Path, id: &str) -> Option<u32> {
    let listing = std::fs::read_dir(sysfs.join("block")).ok()?;
    listing.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let number = name.strip_prefix("nbd")?.parse().ok()?;
        let backend = sysfs_attribute(&entry.path(), "backend")?;
        (backend == identifier(id)).then_some(number)
    })
}

/// What the kernel keeps for an attachment.
fn identifier(id: &str) -> String {
    format!("roadstead-{id}")
}

/// Attributes that name a device.
fn named(id: &str, number: u32) -> Attributes {
    Attributes::default()
        .u32(attribute::INDEX, number)
        .text(attribute::BACKEND_IDENTIFIER, &identifier(id))
}

/// For a new device that is served: the kernel waits for all requests before it changes this. It stays when the device is
/// removed, and does no harm to the next user.
fn set_request_timeout(number: u32) {
    let path = block_dir(Path::new(SYSFS), number).join("queue/io_timeout");
    if let Err(error) = std::fs::write(&path, REQUEST_TIMEOUT.as_millis().to_string()) {
        // Requests are sent again only after the kernel's own 30 s then.
        warn!(path = %path.display(), %error, "cannot set the time-out of requests");
    }
}

fn make(id: &str, shape: &Shape, socket: &UnixStream) -> io::Result<u32> {
    let attributes = Attributes::default()
        .u64(attribute::SIZE_BYTES, shape.size_bytes)
        .u64(attribute::BLOCK_SIZE_BYTES, shape.block_bytes.into())
        .u64(attribute::SERVER_FLAGS, wire::server_flags(shape))
        .u64(attribute::DEAD_CONN_TIMEOUT, DEAD_CONN_TIMEOUT.as_secs())
        .text(attribute::BACKEND_IDENTIFIER, &identifier(id))
        .socket(socket.as_fd());
    netlink::index(&Netlink::connect()?.ask(command::CONNECT, &attributes)?)
}

/// Gives the kernel a new socket in the place of a dead one. It takes none, and says nothing, while the old one is not
/// dead to it: then the new one is at its end at once.
fn reconnect(id: &str, number: u32, socket: &UnixStream) -> io::Result<()> {
    let attributes = named(id, number).socket(socket.as_fd());
    Netlink::connect()?.ask(command::RECONFIGURE, &attributes)?;
    Ok(())
}

/// Serves connections, one after the other, until the device is removed.
fn run(
    id: &str,
    number: u32,
    mut socket: UnixStream,
    namespace: &Namespace,
    is_ending: &AtomicBool,
) -> io::Result<()> {
    let mut pause = PAUSE_MIN;
    loop {
        let end = server::serve(&socket, namespace)?;
        if end == End::Disconnected || is_ending.load(Ordering::Acquire) {
            return Ok(());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
        let (kernel, ours) = UnixStream::pair()?;
        match reconnect(id, number, &kernel) {
            Ok(()) => {}
            // The device is gone.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                return Ok(());
            }
            Err(error) => warn!(number, %error, "cannot give the kernel a new socket"),
        }
        socket = ours;
    }
}

fn start(
    id: &str,
    number: u32,
    socket: UnixStream,
    namespace: &Namespace,
) -> Result<Server, AttachError> {
    let is_ending = Arc::new(AtomicBool::new(false));
    let (id, namespace, ending) = (id.to_owned(), namespace.clone(), Arc::clone(&is_ending));
    let serve = move || {
        set_io_flusher();
        if let Err(error) = run(&id, number, socket, &namespace, &ending) {
            warn!(id, number, %error, "serving an nbd device failed");
        }
    };
    let thread = std::thread::Builder::new().name("nbd".into()).spawn(serve);
    let thread = thread.map_err(AttachError::io("start a thread for an nbd device"))?;
    Ok(Server { thread, is_ending })
}

impl Driver for Nbd {
    type Server = Server;

    const NAME: &'static str = "nbd";
    const DEVICE: &'static str = "nbd";

    fn available(&self) -> Availability {
        if Path::new(SYSFS).join("module/nbd").exists() {
            Availability::Available
        } else {
            Availability::Missing("module nbd is not loaded".into())
        }
    }

    fn find(&self, id: &str) -> Result<Option<u32>, AttachError> {
        Ok(find(Path::new(SYSFS), id))
    }

    fn serve(
        &self,
        id: &str,
        shape: &Shape,
        namespace: &Namespace,
    ) -> Result<(u32, Server), AttachError> {
        let pair = UnixStream::pair().map_err(AttachError::io("make a pair of sockets"));
        let (kernel, ours) = pair?;
        let found = self.find(id)?;
        let is_new = found.is_none();
        let number = match found {
            Some(number) => {
                reconnect(id, number, &kernel).map_err(failed("take up", number))?;
                info!(number, "taken up again");
                number
            }
            None => make(id, shape, &kernel).map_err(AttachError::io("make an nbd device"))?,
        };
        // Only the kernel's own end is left: it is the one that tells the other when it is closed.
        drop(kernel);
        let server = start(id, number, ours, namespace).inspect_err(|_| {
            if is_new && let Err(error) = self.remove(id, number, None) {
                warn!(number, %error, "cannot clean up after a failed attach");
            }
        })?;
        if is_new {
            set_request_timeout(number);
        }
        Ok((number, server))
    }

    fn resize(&self, id: &str, number: u32, size_bytes: u64) -> Result<(), AttachError> {
        let attributes = named(id, number).u64(attribute::SIZE_BYTES, size_bytes);
        let asked = Netlink::connect().and_then(|n| n.ask(command::RECONFIGURE, &attributes));
        asked.map(drop).map_err(failed("resize", number))
    }

    fn remove(&self, _id: &str, number: u32, server: Option<Server>) -> Result<(), AttachError> {
        if let Some(server) = &server {
            server.is_ending.store(true, Ordering::Release);
        }
        let attributes = Attributes::default().u32(attribute::INDEX, number);
        let asked = Netlink::connect().and_then(|n| n.ask(command::DISCONNECT, &attributes));
        asked.map_err(failed("disconnect", number))?;
        if let Some(server) = server
            && server.thread.join().is_err()
        {
            warn!(number, "the thread of an nbd device has failed");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_what_the_kernel_keeps_for_it() {
        let root = tempfile::tempdir().unwrap();
        for (name, backend) in [
            ("nbd0", None),
            ("nbd1", Some("roadstead-ab\n")),
            ("nbd12", Some("roadstead-a\n")),
            ("loop0", Some("roadstead-a\n")),
        ] {
            let dir = root.path().join("block").join(name);
            std::fs::create_dir_all(&dir).unwrap();
            if let Some(backend) = backend {
                std::fs::write(dir.join("backend"), backend).unwrap();
            }
        }
        assert_eq!(find(root.path(), "a"), Some(12));
        assert_eq!(find(root.path(), "b"), None);
    }
}
