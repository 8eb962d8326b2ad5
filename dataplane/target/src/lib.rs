//! The target: NVM subsystems and their controllers as state machines without sockets, threads or clocks.
//!
//! * [`Table`]: what is served to whom, by which paths. [`Registry`]: the table in use and the controllers, shared by all connections.
//! * [`Queue`]: one queue of a controller, for any transport: a command in, a [`Decision`] out.
//! * [`tcp::Connection`]: one NVMe/TCP connection around a queue: bytes in, bytes and [`IoRequest`]s out.
//! * [`rdma::Connection`]: one NVMe/RDMA connection around a queue: capsules in, work requests and [`IoRequest`]s out.
//!
//! # How a reactor drives a connection
//! The reactor implements [`Rim`] (buffers and I/O) and [`tcp::Output`] (bytes to the socket) and calls, each time
//! with a [`Turn`] of both and its clock:
//!
//! | when | call | then |
//! |---|---|---|
//! | a socket was accepted | [`tcp::Connection::new`] | |
//! | bytes came | [`tcp::Connection::receive`] | [`tcp::Flow::Blocked`]: keep the bytes that are left, read no more, offer them again after output was sent |
//! | an I/O ended | [`tcp::Connection::complete`] | |
//! | output was sent, or a buffer came free after `allocate` had none | [`tcp::Connection::resume`] if [`tcp::Connection::is_waiting`] | |
//! | about once a second, and after [`Registry::apply`] | [`tcp::Connection::tick`] | |
//! | an error came from one of these | [`tcp::Connection::abandon`] | send the output, close the socket |
//! | the socket was closed or failed | [`tcp::Connection::abandon`] | |
//!
//! One send a turn for everything in the output is what makes this fast. A connection may end while I/O is in flight:
//! buffers belong to the I/O, whose completion nobody wants any more. Keep the [`Abandoned`] that `abandon` returns until
//! the last of that I/O ended: it keeps the host from coming back and writing what an old write would undo, until the rim
//! says by [`Abandoned::keep_order`] that it lets no I/O overtake one that changes the same bytes.
//!
//! Reads: `allocate`, `submit`, and the buffer comes back by `complete` to go to `Output::buffer` without a copy.
//! Memory drives answer [`Rim::is_immediate`] with true and fill `read_now`'s slice, which lies in the output;
//! writes hand `write_now` the bytes of the socket's buffer. Writes of other drives are copied once, from the socket's
//! buffer to the I/O buffer.
//!
//! # Guarantees
//! * No input panics. A host that breaks the protocol gets a termination request and costs its connection, nothing else.
//! * An [`IoRequest`] lies inside of its volume and has passed every check. Each is completed once.
//! * Steady state I/O neither allocates on the heap nor takes a lock nor writes memory shared between connections.
//! * Memory of a connection is bounded: [`limits::BUFFERED_BYTES_MAX`] in buffers and output, and in-capsule data of as
//!   many commands as the queue has entries, should the rim have no buffers. [`ControllerLimits`] bounds the entries.
//!
//! # Assumptions
//! * `now_ms` never goes back. The rim ends I/O on a volume before it takes it away.
//! * A host reads what it is sent; one that does not is stopped, not served.
//!
//! # Left out
//! Namespaces with metadata, authentication, TLS, namespace management. Abort only
//! ends Asynchronous Event Requests; other commands are said to be not aborted, as they are about to complete.

mod admin;
mod ana;
mod check;
mod connect;
mod controller;
mod discovery;
mod errors;
mod events;
mod features;
mod fuse;
mod identify;
mod io;
mod io_queue;
pub mod limits;
mod logs;
mod notices;
mod queue;
pub mod rdma;
mod registry;
mod reservation;
mod reservation_features;
mod reserve;
mod rim;
mod slots;
mod table;
pub mod tcp;
mod work;

pub use ana::AnaStates;
pub use controller::Ended;
pub use io::{ByteRange, IoError, IoOp, IoRequest, IoResult, SharedReservations};
pub use limits::{ControllerLimits, LimitError};
pub use queue::{Completion, Decision, Queue, Tag};
pub use registry::{ControllerInfo, Refusal, Registry};
pub use reservation::{Malformed, Reservations};
pub use rim::{Rim, Turn};
pub use table::{
    Access, BlockSize, NAMESPACE_ID_MAX, Namespace, Namespaces, PortalRules, Subsystem, Table,
    TableError, VolumeKey,
};
pub use work::{Abandoned, Phase};
