//! A single-threaded reactor on io_uring: sockets, files, timers and messages from other threads.
//!
//! One [`Reactor`] runs on one thread and calls one [`Handler`]. The handler starts operations through [`Io`]
//! and gets their outcome as [`Event`]s; nothing blocks and nothing ticks. The reactor knows no protocol: a
//! target's connections, an initiator's and disk I/O share it, told apart by the tokens their user chose.
//!
//! ```no_run
//! use roadstead_ring::{Event, Handler, Io, Reactor, ReactorConfig, mailbox};
//!
//! struct Echo;
//!
//! impl Handler for Echo {
//!     type Message = ();
//!     fn event(&mut self, io: &mut Io, event: Event<'_>) {
//!         match event {
//!             Event::Accepted { stream, .. } => drop(io.adopt(stream, 7)),
//!             Event::Received { socket, data, .. } => {
//!                 if let Some(output) = io.output(socket) {
//!                     output.put(data);
//!                 }
//!                 if io.queued_bytes(socket) > 1 << 20 {
//!                     io.pause(socket); // back-pressure: the peer does not read
//!                 }
//!             }
//!             Event::Sent { socket, queued_bytes: 0, .. } => io.resume(socket),
//!             _ => {}
//!         }
//!     }
//!     fn message(&mut self, io: &mut Io, (): ()) {
//!         io.stop();
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (stop, inbox) = mailbox()?;
//! let thread = std::thread::spawn(move || -> Result<(), roadstead_ring::RingError> {
//!     // On the thread that runs it:
//!     let mut reactor = Reactor::new(&ReactorConfig::default(), inbox)?;
//!     reactor.io().listen(([127, 0, 0, 1], 7000).into(), 0)?;
//!     reactor.run(&mut Echo)
//! });
//! let _ = stop.send(());
//! # let _ = thread.join();
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//! - An operation in flight owns its buffer and keeps its descriptor open; both come back, or are freed, after its
//!   last completion. Names ([`SocketId`], [`FileId`], ...) of things that are gone find nothing.
//! - [`Event::Closed`] comes exactly once for each connection, after its last operation. No event of that
//!   connection follows.
//! - Everything appended to an [`Output`] in one turn leaves with one `sendmsg` for each connection.
//! - Dropping a reactor ends what is in flight before memory is freed.
//!
//! # Assumed
//! Linux 6.1 or newer, and io_uring allowed to the process: anything else is an error of [`Reactor::new`] that
//! says so. Direct I/O's alignment is the user's business; [`IoBuf`]s are aligned to 4 KiB.
//!
//! # Left out
//! Bounds on output queues (the user sees the fill and stops producing), registered files and buffers, zero-copy
//! send.

mod activity;
mod arena;
mod buf;
mod config;
mod error;
mod event;
mod file;
mod io;
mod listener;
mod mailbox;
mod memory;
mod output;
mod provided;
mod reactor;
mod segments;
mod send;
mod setup;
mod slab;
mod socket;
mod stream;
mod timer;
mod watch;

pub use activity::Activity;
pub use buf::{BUF_MAX_BYTES, BUF_MIN_BYTES, BufPool, IoBuf};
pub use config::{ReactorConfig, pin_current_thread};
pub use error::RingError;
pub use event::{Event, Handler};
pub use file::{Extent, FileDone, FileId, NotStarted};
pub use io::Io;
pub use listener::ListenerId;
pub use mailbox::{Inbox, Mailbox, mailbox};
pub use memory::{OutOfRange, SharedMemory};
pub use output::{Lender, Output};
pub use reactor::Reactor;
pub use segments::Segments;
pub use socket::SocketId;
pub use stream::Stream;
pub use timer::TimerId;
pub use watch::WatchId;
