//! An address that hosts connect to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An address at which a subsystem can be reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Portal {
    /// `tcp` or `rdma`.
    pub transport: String,
    /// IP address.
    pub address: String,
    /// Port, usually 4420.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,
}

/// A portal of a Target, as its node reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortalStatus {
    /// `tcp` or `rdma`.
    pub transport: String,
    /// IP address.
    pub address: String,
    /// Port, usually 4420.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,
    /// The network interface that has the address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub netdev: String,
    /// The RDMA device behind it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rdma_device: String,
    /// GID types with which it can be reached: `v1`, `v2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub roce_versions: Vec<String>,
    /// `Up` or `Down`; absent when the node does not say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub link: String,
    /// Speed of the link in Gbit/s; absent when not known.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub speed_gbps: u32,
    /// MTU in bytes: of the interface, or of the RDMA port; absent when not known.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub mtu_bytes: u32,
}

/// Keeps what is not known out of an object.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's interface
pub(crate) fn is_zero(number: &u32) -> bool {
    *number == 0
}
