//! RDMA verbs and the connection manager behind a safe interface.
//!
//! * [`devices`]: what RDMA devices the machine has, from the kernel's files alone.
//! * [`Channel`]: connections as they come and go, by [`CmEvent`]s about [`Id`]s.
//! * [`Domain`], [`MemoryRegion`], [`CompletionChannel`], [`SharedReceives`]: what a [`Device`] gives a thread once.
//! * [`QueuePair`]: one connection: reads and writes of the other end's memory, messages, completions.
//!
//! A listening end: [`Channel::listen`], [`CmEventKind::Request`], maybe [`Id::migrate`] to the channel of another thread,
//! [`QueuePair::new`], [`QueuePair::accept`], [`CmEventKind::Established`]. A connecting end: [`Channel::connect`],
//! [`CmEventKind::AddressResolved`], [`Id::resolve_route`], [`CmEventKind::RouteResolved`], [`QueuePair::new`],
//! [`QueuePair::connect`], [`CmEventKind::Established`]. An end that is told of [`CmEventKind::Disconnected`] ends its
//! queue pair, which is what tells the other end that it is done.
//!
//! Who waits for completions arms the queue pair, polls once more, and sleeps only if that found nothing: what came
//! before the arming is not told of.
//!
//! # Guaranteed
//! * A machine without RDMA, or without its libraries, runs the same program: they are looked for at run time, and
//!   [`available`] says what is missing.
//! * Nothing waits for the network. A buffer that the device works on belongs to the queue pair until that has ended,
//!   whatever fails: until a completion proves it, or the queue pair is destroyed.
//! * What needs another thing keeps it: things may be dropped in any order and in any state. A device stays open for as
//!   long as the program runs once it was used, with one protection domain of the library's own. Drivers that cannot
//!   take a device from a program, as that of soft-RoCE, wait for the program's end to remove it.
//! * A steady state allocates nothing on the heap; a batch of requests is one call, and only as many of them have
//!   completions as are needed to get their buffers back: reads, the last of a batch with a buffer, and one of 16.
//! * Things of different devices, or another's receives, are refused. Identifiers may be used by one thread while another
//!   takes events of their channel.
//!
//! # Assumed
//! * The kernel modules of the devices, `rdma_ucm` and `ib_uverbs`. Limits of locked memory that allow the regions.
//! * Where a driver cannot take a device from a program: `ib_uverbs` loaded before `rdma_ucm`, or no program is told that the
//!   device goes.
//! * No `ibacm` service: where one runs, [`Id::resolve_route`] waits for its answer.
//! * The other end keeps to the buffers that it was given: the key of an [`Access::Remote`] region opens all of it.
//!
//! # Left out
//! * Datagrams, atomics, memory windows, multicast. Without windows the other end cannot invalidate a key of ours, and
//!   must not be asked to; ours can invalidate a kernel's.
//! * Receives of one queue pair alone: devices without shared receives are refused.
//! * A receive that was begun when its connection broke can be lost to the shared receives, on devices that drop the
//!   completions of a destroyed queue pair; [`DeviceEvent::LastReceive`] tells when there can be none.

mod adapter;
mod address;
mod api;
mod attention;
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

pub use adapter::Adapter;
pub use api::available;
pub use attention::{Attention, Next};
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
