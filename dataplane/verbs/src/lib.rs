//! RDMA verbs and the connection manager behind a safe interface.
//!
//! * [`Channel`]: connections as they come and go, by [`CmEvent`]s about [`Id`]s.
//! * [`Domain`], [`MemoryRegion`], [`CompletionChannel`], [`SharedReceives`]: what a [`Device`] gives a thread once.
//! * [`QueuePair`]: one connection: reads and writes of the other end's memory, messages, completions.
//!
//! # Guaranteed
//! * A machine without RDMA, or without its libraries, runs the same program: they are looked for at run time, and
//!   [`available`] says what is missing.
//! * Nothing blocks. A buffer that the device works on belongs to the queue pair until that has ended, whatever fails.
//! * What needs another thing keeps it: things may be dropped in any order.
//! * A steady state allocates nothing on the heap; a batch of requests is one call, and only as many of them have
//!   completions as are needed to get their buffers back.
//!
//! # Assumed
//! The kernel modules of the devices, `rdma_ucm` and `ib_uverbs`. Limits of locked memory that allow the regions.
//!
//! # Left out
//! Datagrams, atomics, memory windows, multicast. A receive that was begun when its connection broke can be lost to the
//! shared receives.

mod address;
mod api;
mod channel;
mod completion_channel;
mod completions;
mod domain;
mod error;
mod events;
mod id;
mod ledger;
mod queue_pair;
mod receives;
mod sysfs;
mod work;

pub use api::available;
pub use channel::{Channel, CmEvent, CmEventKind, Listener};
pub use completion_channel::CompletionChannel;
pub use completions::Received;
pub use domain::{Access, Device, DeviceLimits, Domain, MemoryRegion};
pub use error::VerbsError;
pub use events::DeviceEvent;
pub use id::{ConnectLimits, Id};
pub use ledger::{Finished, Kind, WorkStatus};
pub use queue_pair::{Counts, QueuePair, QueueSizes};
pub use receives::SharedReceives;
pub use sysfs::{
    DeviceInfo, Gid, GidType, LinkLayer, PortInfo, PortState, SYSFS, devices, devices_in,
};
pub use work::{HEAD_BYTES_MAX, Remote};
