//! The rim of the target: reactor threads that serve volumes over NVMe/TCP.
//!
//! # Use
//! ```ignore
//! let server = Server::start(ServeConfig::default())?;
//! server.set_exports(Exports { subsystems })?;          // whole new state, every time it changes
//! for portal in server.set_portals(&addresses)? { .. }   // says for each whether it listens
//! server.controllers();                                  // who is connected now
//! server.counters(volume_uuid);                          // since the start of the process
//! server.dial()?;                                        // for the initiator of this process
//! drop(server);                                          // stops in order
//! ```
//! All calls are for the control thread: they may block for as long as the reactors need for one turn.
//!
//! # Guarantees
//! - When [`Server::set_exports`] returns, every reactor works by the new state: connections to subsystems that
//!   are gone, or of hosts that are no longer allowed, are being closed, and namespaces that are gone refuse
//!   new commands. The same state twice changes nothing. Calls may be in any order with [`Server::set_portals`].
//! - An acknowledged Flush, or a write with Force Unit Access, is durable with the metadata it needs.
//! - A host whose connection was lost is not let in again before its last write at a drive has ended.
//! - A peer can make us hold at most what `roadstead_target::limits` and [`ServeConfig`] name.
//!
//! # Left out
//! TLS, authentication.

mod backend;
mod connections;
mod counters;
mod drives;
mod exports;
mod jobs;
mod portals;
mod rdma;
mod rim;
mod served;
mod server;
mod worker;

pub(crate) use counters::IoCounters;
pub(crate) use exports::{
    DriveIo, ExportedNamespace, ExportedSubsystem, Exports, HostAccess, MemoryDrive,
};
pub(crate) use server::{ControllerInfo, ServeConfig, ServeError, Server};

#[cfg(test)]
mod tests;
