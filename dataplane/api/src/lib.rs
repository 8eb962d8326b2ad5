//! The control API of a node's dataplane: messages, client and server code, and how to connect.
//!
//! The contract is `proto/roadstead/v1/node.proto`; [`v1`] is generated from it and checked in
//! (`tests/generated.rs` fails when it is stale and says how to renew it).
//!
//! A dataplane listens at a unix socket, for root on the node, and at a TCP port with mutual TLS, for
//! the operator. [`connect_unix`] and [`connect_mtls`] connect to the one and the other.

mod connect;

/// Messages, client and server of `roadstead.v1`.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod v1;

pub use connect::{ConnectError, TlsIdentity, connect_mtls, connect_unix};

/// They are not for logs.
impl std::fmt::Debug for v1::HostKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HostKeys")
    }
}

/// The name in every dataplane's server certificate.
pub const DATAPLANE_TLS_NAME: &str = "dataplane.roadstead";

/// The common name in the client certificate that a dataplane accepts.
pub const OPERATOR_TLS_NAME: &str = "roadstead-operator";

/// TCP port of the control API.
pub const CONTROL_PORT: u16 = 7420;

/// TCP port of NVMe/TCP portals.
pub const NVME_TCP_PORT: u16 = 4420;

/// Where a dataplane's unix socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/roadstead/roadsteadd.sock";

/// The subsystem NQN of the volume with this UUID: one subsystem a volume.
pub fn subsystem_nqn(volume_uuid: &str) -> String {
    format!("nqn.2026-11.io.roadstead:{volume_uuid}")
}
