//! NVMeAttachment: one volume on one node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::transport::TransportKind;

/// One volume on one node: while it exists, the node's host NQN may connect to the volume's subsystem.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "roadstead.io",
    version = "v1alpha1",
    kind = "NVMeAttachment",
    plural = "nvmeattachments",
    singular = "nvmeattachment",
    shortname = "nva",
    category = "roadstead",
    status = "NVMeAttachmentStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "One volume on one node: while it exists, the node may connect to the volume.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Namespace", type_ = "string", json_path = ".spec.namespace"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "Transport",
        type_ = "string",
        json_path = ".status.transport",
        description = "What carries the I/O now"
    ),
    printcolumn(
        name = "Chosen",
        type_ = "string",
        json_path = ".status.chosenTransport",
        description = "What the policy chose"
    ),
    printcolumn(name = "Method", type_ = "string", json_path = ".status.attachMethod"),
    printcolumn(name = "Device", type_ = "string", json_path = ".status.device"),
    printcolumn(
        name = "Why",
        type_ = "string",
        priority = 1,
        json_path = ".status.reason",
        description = "Why this transport"
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
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self == oldSelf",
    "message": "an attachment cannot be changed: delete it and create another one"
}]))]
pub struct NVMeAttachmentSpec {
    /// Name of the NVMeNamespace.
    #[schemars(length(min = 1, max = 253))]
    pub namespace: String,
    /// Name of the Kubernetes node that uses it.
    #[schemars(length(min = 1, max = 253))]
    pub node: String,
    /// The node must not write.
    #[serde(default)]
    pub read_only: bool,
}

/// What is true of an attachment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NVMeAttachmentStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Ready` (the node may connect now), and `Deleting` while the attachment is being deleted.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What carries the I/O now, by the word of the node: `local`, `tcp` or `roce`, several with a comma between. Absent
    /// while no path is live.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub transport: Option<String>,
    /// What the policy chose: `local`, `tcp` or `roce`. Absent while nothing can be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TransportKind")]
    pub chosen_transport: Option<TransportKind>,
    /// How the device is to be made, chosen with the transport.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub chosen_method: Option<String>,
    /// A sentence: why this transport, or why none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub reason: Option<String>,
    /// The TransportPolicy by which it was chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub policy: Option<String>,
    /// Every way to the volume that was considered, with the reason for and against it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub candidates: Vec<CandidateStatus>,
    /// A sentence, if another transport would be chosen now: why this attachment stays with what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub superseded: Option<String>,
    /// NQN of the node's initiator, which the subsystem lets in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub host_nqn: Option<String>,
    /// How the node made the block device: `kernel`, `ublk`, `nbd` or `fuse`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub attach_method: Option<String>,
    /// The block device on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub device: Option<String>,
    /// Every path to the volume, the preferred one first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<PathStatus>,
}

/// One way to the volume that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CandidateStatus {
    /// `local`, `tcp` or `roce`.
    pub transport: TransportKind,
    /// The portal, `10.0.0.1:4420`; absent when the transport has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub portal: String,
    /// Whether it is one of the paths.
    pub accepted: bool,
    /// A sentence: why, or why not.
    pub reason: String,
}

/// One path to the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PathStatus {
    /// `tcp`, `rdma`, or `local` for the one without the network.
    pub transport: String,
    /// IP address of the target; empty for `local`.
    pub address: String,
    /// Port of the target; 0 for `local`.
    #[schemars(schema_with = "crate::schema::count")]
    pub port: u16,
    /// `Available` (not connected), `Live`, `Connecting` or `Failed`.
    pub state: String,
    /// Paths with the smallest number carry the I/O, a larger one takes over while none of these is live.
    #[schemars(schema_with = "crate::schema::count")]
    pub preference: u32,
    /// ANA state of the path as the node sees it: `optimized`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ana_state: String,
    /// Why the path does not work.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}
