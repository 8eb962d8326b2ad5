//! The CSI driver of Roadstead, `csi.roadstead.io`.
//!
//! One program in two modes. The controller turns CSI calls into objects of the Kubernetes API and waits for the operator
//! to make them true; the node asks the local dataplane for block devices, formats and mounts them. All calls can be
//! repeated at any point; a repeated call gives the same answer.

pub mod controller;
pub mod http;
pub mod identity;
pub mod in_flight;
pub mod metrics;
pub mod node;
pub mod proto;
pub mod registration;
pub mod request;
pub mod rpc;
pub mod socket;
