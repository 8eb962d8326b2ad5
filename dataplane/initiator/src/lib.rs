//! The initiator, over NVMe/TCP and NVMe/RDMA: the host's state machine ([`roadstead_host`]) with connections and threads.
//!
//! Two ways to use it:
//! - [`Client`] lives on a reactor that its user runs: no other thread is involved. The load generator does so.
//! - [`Initiator`] is a thread with a reactor of its own that serves any number of namespaces; a
//!   [`Namespace`] takes requests from any thread and calls back on the initiator's. Attaching does so.
//!
//! [`discover`] asks discovery services where subsystems answer, [`look`] a subsystem what it has.
//!
//! What is guaranteed about requests stands in [`roadstead_host`]. Data is copied once on each way: from a
//! request's buffer to the connection's output or to a registered buffer, and from there to the request's buffer.
//!
//! Left out: TLS.

mod buffers;
mod client;
mod clients;
mod discovery;
mod exchange;
mod line;
mod look;
mod rdma;
mod rim;
mod spec;
mod status;
mod surroundings;
mod table;
mod tcp;
mod thread;

pub use client::{Client, Completed, IO_QUEUES_MAX, NotAccepted, PATHS_MAX, QUEUE_TOKENS};
pub use discovery::{DiscoverError, Found, SERVICES_MAX, discover, portals};
pub use look::{LOOK_PORTALS_MAX, Reach, Seen, look};
pub use rdma::rdma_available;
pub use rim::Rim;
pub use roadstead_host::{
    AuthError, Identity, IoError, Limits, Listed, Names, NamespaceInfo, Op, PathPolicy, PathReport,
    PathState, Refused, Traffic, Wanted, nguid_text,
};
pub use roadstead_nvme::dhchap::{Keys, Secret, SecretError};
pub use roadstead_nvme::nqn::{Nqn, NqnError};
pub use roadstead_nvme::{Portal, Status, Transport};
pub use roadstead_ring::Segments;
pub use spec::{Dial, Spec};
pub use status::PathStatus;
pub use thread::{Callback, ConnectError, Initiator, Namespace, NamespaceRequest};
