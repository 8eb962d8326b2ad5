//! NVMeHost: one node as an initiator.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::portal::is_zero;

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
    printcolumn(
        name = "RDMA",
        type_ = "string",
        json_path = ".status.rdma",
        description = "RDMA devices, their link and GID types"
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
    /// Ways to make a block device, the best first: `kernel`, `ublk`, `nbd`, `fuse`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub attach_methods: Vec<String>,
    /// A pod gets a volume of its own node without the network.
    pub local_attach: bool,
    /// The RDMA devices in a line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rdma: String,
    /// RDMA devices, an entry for each port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub rdma_devices: Vec<RdmaDeviceStatus>,
    /// Network interfaces with an address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub netdevs: Vec<NetdevStatus>,
    /// Kernel modules that matter here and that the node has.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub kernel_modules: Vec<KernelModuleStatus>,
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

/// A port of an RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RdmaDeviceStatus {
    /// Name of the device: `mlx5_0`.
    pub name: String,
    /// Number of the port, from 1.
    #[schemars(schema_with = "crate::schema::count")]
    pub port: u32,
    /// `Up`, `Down` or `Unknown`.
    pub link: String,
    /// Speed of the link in Gbit/s; absent when not known.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub speed_gbps: u32,
    /// Active MTU in bytes; absent when not known.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub mtu_bytes: u32,
    /// The port's network interface.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub netdev: String,
    /// Kernel module of the device.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// The GID table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub gids: Vec<GidStatus>,
    /// Why it cannot be used.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An entry of a GID table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GidStatus {
    /// `v1` or `v2`: the version of RoCE.
    #[serde(rename = "type")]
    pub type_: String,
    /// The IP address in it.
    pub address: String,
    /// Length of the address' prefix on the network interface; absent when not known.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub prefix_len: u32,
}

/// A network interface with an address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetdevStatus {
    /// Name.
    pub name: String,
    /// `Up`, `Down` or `Unknown`.
    pub link: String,
    /// Speed of the link in Gbit/s; absent when not known.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub speed_gbps: u32,
    /// MTU in bytes.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub mtu_bytes: u32,
    /// Addresses with their prefix: `10.0.0.7/24`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,
}

/// A kernel module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct KernelModuleStatus {
    /// Name: `nvme_tcp`.
    pub name: String,
    /// `Builtin`, `Loaded` or `Loadable`.
    pub state: String,
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
