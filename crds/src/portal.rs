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
