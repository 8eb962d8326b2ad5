//! The generated protocol code; `tests/generated.rs` fails when it is stale and says how to renew it.

/// Messages, client and server of `csi.v1`.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod csi;

/// Messages and server of the kubelet's plugin registration.
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, clippy::all)]
pub mod registration;
