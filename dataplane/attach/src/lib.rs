//! From a namespace on the network to a block device of this machine.
//!
//! A [`Manager`] holds the attachments of one node: it attaches, detaches and rescans by id, keeps each
//! [`Spec`] in a file so that a restarted daemon makes them again, and picks the best [`Method`] that the
//! node has: the kernel's own NVMe-oF host, over TCP and RDMA ([`kernel`]), else our initiator behind ublk, nbd, or FUSE
//! and a loop device ([`fuse`]). A later method implements [`Method`] and is put into the list; no caller changes.
//!
//! Guaranteed: every operation is idempotent; one operation at a time per id; a device that is mounted or
//! held open exclusively is never taken away; a device whose namespace has another name (UUID, NGUID)
//! than asked for is never handed out.
//!
//! Assumed: root, and the devices of the method.
//!
//! A device outlives its daemon: I/O waits, and the next daemon goes on with it. With FUSE that needs a [`holder`] that
//! keeps the connection to the kernel, and Linux 6.9; otherwise the device's I/O fails from then on, and it is made again
//! by the next daemon once nothing uses the old one any more.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use roadstead_initiator::Dial;

mod error;
mod foreign;
mod keys;
mod loopdev;
mod manager;
mod method;
mod names;
mod nbd;
mod remote;
mod served;
mod spec;
mod ublk;
mod volume;

pub mod fuse;
pub mod holder;
pub mod kernel;

pub use error::AttachError;
pub use foreign::{Foreign, ForeignName};
pub use manager::{Attachment, Manager};
pub use method::{Availability, Device, Method, best};
pub use remote::set_io_flusher;
pub use spec::{
    CTRL_LOSS_TIMEOUT_DEFAULT, CommandCounts, HostIdentity, ID_LEN_MAX, Losses, NQN_LEN_MAX,
    PATHS_MAX, PathSpec, PathState, PathStatus, Segments, Spec, Traffic,
};

/// Every method of this build, best first, for [`Manager::open`]. `held`, if there is a holder: it and what it kept for
/// the daemon before this one. `dial`, if this process is a target, too: connects to it, for paths of
/// [`Transport::Local`](roadstead_nvme::Transport).
///
/// # Errors
/// [`AttachError::Io`] when a method's own resources cannot be had.
pub fn default_methods(
    host: &HostIdentity,
    held: Option<(holder::Holder, HashMap<String, OwnedFd>)>,
    dial: Option<Dial>,
) -> Result<Vec<Box<dyn Method>>, AttachError> {
    let remote = Arc::new(remote::Remote::new(host.clone(), dial));
    let mut fuse = fuse::FuseMethod::shared(Arc::clone(&remote));
    if let Some((holder, held)) = held {
        fuse = fuse.held_by(holder, held);
    }
    Ok(vec![
        Box::new(kernel::KernelMethod::new(host.clone())),
        Box::new(served::Served::new(
            ublk::Ublk::default(),
            Arc::clone(&remote),
        )),
        Box::new(served::Served::new(nbd::Nbd, remote)),
        Box::new(fuse),
    ])
}
