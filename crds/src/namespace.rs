//! NVMeNamespace: one volume.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ExternalNamespace;
use crate::transport::{Fallback, Need, TransportChoice, Workload};

/// One volume. It lives on one drive of one Target, chosen once and written into the status; or it is a namespace of a
/// foreign appliance, recorded there once.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "roadstead.io",
    version = "v1alpha1",
    kind = "NVMeNamespace",
    plural = "nvmenamespaces",
    singular = "nvmenamespace",
    shortname = "nvns",
    category = "roadstead",
    status = "NVMeNamespaceStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One volume: an NVMe namespace in a subsystem of its own, on one drive of a Target; or a namespace of a foreign appliance.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Target", type_ = "string", json_path = ".status.target"),
    printcolumn(
        name = "Node",
        type_ = "string",
        json_path = ".status.node",
        description = "The node whose drive holds the data"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(
        name = "Drive",
        type_ = "string",
        priority = 1,
        json_path = ".status.drive"
    ),
    printcolumn(
        name = "NQN",
        type_ = "string",
        priority = 1,
        json_path = ".status.nqn"
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
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.target) == has(oldSelf.target) && (!has(self.target) || self.target == oldSelf.target)",
        "message": "target cannot be changed: a volume stays where it was placed"
    },
    {
        "rule": "has(self.size) || has(self.external)",
        "message": "size is needed, such as 10Gi"
    },
    {
        "rule": "!(has(self.size) && has(self.external))",
        "message": "the size of an appliance's namespace is the appliance's: leave size out, and grow the namespace there"
    },
    {
        "rule": "!has(self.external) || has(self.target)",
        "message": "external names a namespace of an appliance: target says of which one"
    },
    {
        "rule": "has(self.external) == has(oldSelf.external)",
        "message": "external cannot be changed: create another NVMeNamespace"
    }
]))]
pub struct NVMeNamespaceSpec {
    /// Size, such as 10Gi; rounded up to a whole MiB. May grow, never shrink. Left out where `external` is given.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [
        {
            "rule": "isQuantity(self) && quantity(self).isInteger() && quantity(self).isGreaterThan(quantity('0'))",
            "message": "size is a quantity such as 10Gi: a whole number of bytes above 0"
        },
        {
            "rule": "!isQuantity(self) || !isQuantity(oldSelf) || !quantity(self).isLessThan(quantity(oldSelf))",
            "message": "a volume cannot shrink: give the old size or a larger one"
        }
    ]))]
    pub size: String,
    /// Logical block size in bytes, 512 or 4096. Cannot be changed.
    #[serde(default = "default_block_size")]
    #[schemars(
        schema_with = "crate::schema::block_size",
        extend("x-kubernetes-validations" = [{
            "rule": "self == oldSelf",
            "message": "blockSize cannot be changed: create another volume and copy the data"
        }])
    )]
    pub block_size: u32,
    /// The namespace of the external Target `target` that this volume is; without it a new one is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExternalNamespace")]
    pub external: Option<ExternalNamespace>,
    /// The Target to live on; without it, the one with the most room. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub target: Option<String>,
    /// Nodes whose drives may hold the volume; without it, any. Counts only until the volume is placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "Vec<String>",
        length(min = 1, max = 5000),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub allowed_nodes: Option<Vec<String>>,
    /// Transport: `auto` leaves it to the policy, `tcp` and `roce` allow nothing else. A change counts for new attachments.
    #[serde(default)]
    pub transport: TransportChoice,
    /// What is taken where nothing fits: `tcp`, or `none`, and the attachment waits. Without it `tcp` for transport `auto`,
    /// else `none`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Fallback")]
    pub fallback: Option<Fallback>,
    /// What kind of application uses it: decides between transports that fit.
    #[serde(default)]
    pub workload: Workload,
    /// Rows of the policy's table that must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7), extend("x-kubernetes-list-type" = "set"))]
    pub needs: Vec<Need>,
    /// The TransportPolicy that counts; without it the one named `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 253))]
    pub transport_policy: Option<String>,
}

/// Keeps a size that was not granted yet out of the object.
#[allow(clippy::trivially_copy_pass_by_ref)] // serde's interface
fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

/// The block size of a volume that names none.
fn default_block_size() -> u32 {
    4096
}

/// What is true of a volume. `target`, `drive`, `node`, `nqn`, `nsid` and `uuid` are written once, together, before any
/// of it exists on a node, and never change. A namespace of an appliance has no `drive` and no `node`; its names are those
/// that the appliance showed when it was first seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(oldSelf.drive) || (has(self.uuid) && has(oldSelf.uuid) && self.uuid == oldSelf.uuid && has(self.target) && has(oldSelf.target) && self.target == oldSelf.target && has(self.drive) && self.drive == oldSelf.drive && has(self.node) && has(oldSelf.node) && self.node == oldSelf.node)",
        "message": "a placed volume does not move: uuid, target, drive and node stay as they are"
    },
    {
        "rule": "has(oldSelf.drive) || !has(oldSelf.nqn) || (has(self.nqn) && self.nqn == oldSelf.nqn && has(self.target) == has(oldSelf.target) && (!has(self.target) || self.target == oldSelf.target) && has(self.nsid) == has(oldSelf.nsid) && (!has(self.nsid) || self.nsid == oldSelf.nsid) && has(self.uuid) == has(oldSelf.uuid) && (!has(self.uuid) || self.uuid == oldSelf.uuid) && has(self.nguid) == has(oldSelf.nguid) && (!has(self.nguid) || self.nguid == oldSelf.nguid) && !has(self.drive) && !has(self.node))",
        "message": "what a volume was bound to on an appliance stays as it is: target, nqn, nsid, uuid and nguid"
    }
]))]
pub struct NVMeNamespaceStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Deleting` while the volume is being deleted.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The Target that it lives on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 253))]
    pub target: Option<String>,
    /// The drive of that Target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 63))]
    pub drive: Option<String>,
    /// The node of that Target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 253))]
    pub node: Option<String>,
    /// NQN of its subsystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub nqn: Option<String>,
    /// Namespace identifier in that subsystem.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::nsid")]
    pub nsid: Option<u32>,
    /// UUID of the volume and of its NVMe namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36))]
    pub uuid: Option<String>,
    /// NGUID of an appliance's namespace, 32 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 32))]
    pub nguid: Option<String>,
    /// Bytes of a block of an appliance's namespace.
    #[serde(skip_serializing_if = "crate::portal::is_zero")]
    #[schemars(schema_with = "crate::schema::count")]
    pub block_size: u32,
    /// The size that was granted, in bytes: there is room for it on the drive. Written before the node is asked for it.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(schema_with = "crate::schema::bytes")]
    pub size_bytes: u64,
    /// The size for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub size: String,
    /// The size that the node made, in bytes: what a host sees.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub capacity_bytes: u64,
    /// Space in use, in bytes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub allocated_bytes: u64,
}
