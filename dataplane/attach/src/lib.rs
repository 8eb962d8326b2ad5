//! From a namespace on the network to a block device of this machine.
//!
//! A [`Manager`] holds the attachments of one node: it attaches, detaches and rescans by id, keeps each
//! [`Spec`] in a file so that a restarted daemon makes them again, and picks the best [`Method`] that the
//! node has: the kernel's own NVMe/TCP host ([`kernel`]), else our initiator behind FUSE and a loop device
//! ([`fuse`]). A later method implements [`Method`] and is put into the list; no caller changes.
//!
//! Guaranteed: every operation is idempotent; one operation at a time per id; a device that is mounted or
//! held open exclusively is never taken away; a device whose namespace has another UUID than asked for is
//! never handed out.
//!
//! Assumed: root, and (for FUSE) /dev/fuse and loop devices.
//!
//! Left out: with FUSE, a device does not survive the death of its daemon: its I/O fails from then on, and it
//! is made again by the next daemon once nothing uses the old one any more.

mod error;
mod loopdev;
mod manager;
mod method;
mod names;
mod spec;

pub mod fuse;
pub mod kernel;

pub use error::AttachError;
pub use manager::{Attachment, Manager};
pub use method::{Availability, Device, Method, best};
pub use spec::{
    CTRL_LOSS_TIMEOUT_DEFAULT, HostIdentity, ID_LEN_MAX, NQN_LEN_MAX, PATHS_MAX, PathSpec,
    PathState, PathStatus, Spec,
};

/// Every method of this build, best first, for [`Manager::open`].
///
/// # Errors
/// [`AttachError::Io`] when a method's own resources cannot be had.
pub fn default_methods(host: &HostIdentity) -> Result<Vec<Box<dyn Method>>, AttachError> {
    Ok(vec![
        Box::new(kernel::KernelMethod::new(host.clone())),
        Box::new(fuse::FuseMethod::new(host.clone())),
    ])
}
