//! NVMe and NVMe over Fabrics as bytes and as typed values, for both ends of a connection.
//!
//! * [`wire`]: the submission and completion queue entries and data pointers, laid out as on the wire.
//! * [`status`]: status codes, with the type and flag bits.
//! * [`command`]: typed commands. `parse` turns a submission queue entry into one, or into the status that
//!   refuses it; `encode` is the reverse. Whoever holds a typed command need not look at raw bytes again.
//! * [`fabrics`]: Connect, Property Get and Set, Disconnect. [`property`]: the controller's registers. [`dhchap`]: keys and
//!   messages of in-band authentication.
//! * [`identify`], [`log`], [`feature`], [`event`]: the data structures of admin commands.
//! * [`ana`]: states of paths. [`reservation`]: the data structures of reservation commands.
//! * [`portal`]: transports and addresses. [`nqn`]: names of hosts and subsystems. [`name`]: text padded with blanks.
//!
//! Guaranteed: no input makes a function of this crate panic; every wire structure has its size asserted at
//! compile time; unknown codes survive as numbers. Left out: PRPs, metadata and protection information,
//! zoned and key-value command sets.
//!
//! Section numbers refer to the NVM Express Base Specification 2.0c unless they say otherwise.

pub mod ana;
pub mod command;
pub mod dhchap;
pub mod event;
pub mod fabrics;
pub mod feature;
pub mod identify;
pub mod log;
pub mod name;
pub mod nqn;
pub mod opcode;
pub mod portal;
pub mod property;
pub mod reservation;
pub mod status;
pub mod wire;

pub use ana::AnaState;
pub use command::{AdminCommand, IoCommand};
pub use fabrics::FabricsCommand;
pub use nqn::Nqn;
pub use portal::{Portal, Transport};
pub use status::Status;
pub use wire::{Cqe, DataPointer, SglDescriptor, Sqe};
