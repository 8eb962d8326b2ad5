//! NVMeHost: one node as an initiator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One node as an initiator. The operator makes it from what the node's daemon reports; its name is the node's.
#[derive(
    CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema,
)]
#[kube(
    group = "roadstead.io",
    version = "v1alpha1",
    kind = "NVMeHost",
    plural = "nvmehosts",
    singular = "nvmehost",
    shortname = "nvh",
    category = "roadstead",
    status = "NVMeHostStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One node as an initiator: what it can do and which of its drives are unused. Made by the operator.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.address"),
    printcolumn(
        name = "Transports",
        type_ = "string",
        json_path = ".status.transports"
    ),
    printcolumn(name = "Attach", type_ = "string", json_path = ".status.attachMethods"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Host NQN",
        type_ = "string",
        priority = 1,
        json_path = ".status.hostNqn"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type==\"Ready\")].message"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct NVMeHostSpec {}

/// What is true of a node as an initiator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NVMeHostStatus {
    /// `Ready`: its daemon is connected to the operator.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Its host NQN.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_nqn: String,
    /// Its host identifier, a UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host_id: String,
    /// The node's internal IP address.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Transports that it can use: `tcp`, `rdma`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub transports: Vec<String>,
    /// Ways to make a block device, the best first: `kernel`, `fuse`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attach_methods: Vec<String>,
    /// Whole drives that nothing uses and that hold nothing known: candidates for a Target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub unused_drives: Vec<UnusedDrive>,
    /// Version of its daemon.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Release of its kernel.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kernel: String,
}

/// A whole drive that nothing uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UnusedDrive {
    /// Device path.
    pub path: String,
    /// Serial number.
    pub serial: String,
    /// Model.
    pub model: String,
    /// Size in bytes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub size_bytes: u64,
}
