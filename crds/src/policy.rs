//! TransportPolicy: which transport fits which need.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::transport::{Need, NetworkTransport, Workload};

/// The policy that counts where no other is named.
pub const DEFAULT_POLICY: &str = "default";

/// Which transport fits which need, as data. The policy named `default` counts where no other is named.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "roadstead.io",
    version = "v1alpha1",
    kind = "TransportPolicy",
    plural = "transportpolicies",
    singular = "transportpolicy",
    shortname = "tpol",
    category = "roadstead",
    status = "TransportPolicyStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "Which transport fits which need. The policy named default counts where no other is named.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Local", type_ = "boolean", json_path = ".spec.local"),
    printcolumn(
        name = "Says",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        description = "What is preferred for which workload"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TransportPolicySpec {
    /// The table: which transports fit each need. A volume with a need that has no row here waits.
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["need"])
    )]
    pub rows: Vec<PolicyRow>,
    /// What is preferred among the transports that fit; TCP for a workload that is not listed.
    #[serde(default)]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["workload"])
    )]
    pub workloads: Vec<WorkloadRow>,
    /// A pod on the volume's own node gets it without the network.
    #[serde(default = "yes")]
    pub local: bool,
    /// What RoCE needs beside a device on both ends.
    #[serde(default)]
    pub limits: PolicyLimits,
}

fn yes() -> bool {
    true
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.tcp || self.roce",
    "message": "a row must fit tcp or roce: a volume with a need that nothing fits could never be attached"
}]))]
pub struct PolicyRow {
    /// The need.
    pub need: Need,
    /// NVMe/TCP fits.
    pub tcp: bool,
    /// RoCE fits.
    pub roce: bool,
    /// The path without the network fits, where the pod runs on the volume's own node.
    #[serde(default = "yes")]
    pub local: bool,
}

/// What is preferred for a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadRow {
    /// The workload.
    pub workload: Workload,
    /// The transport that comes first.
    pub prefer: NetworkTransport,
}

/// Numbers of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyLimits {
    /// The smallest RDMA MTU in bytes with which RoCE is used: the smaller one of both ends counts.
    #[schemars(schema_with = "crate::schema::rdma_mtu")]
    pub roce_mtu_bytes_min: u32,
    /// A path that loses more, in packets of a million, comes after those that do not.
    #[schemars(schema_with = "crate::schema::ppm")]
    pub loss_ppm_max: u32,
    /// For so many seconds after a path broke, it comes after those that did not.
    #[schemars(schema_with = "crate::schema::seconds")]
    pub failure_hold_seconds: u32,
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            roce_mtu_bytes_min: 1024,
            loss_ppm_max: 10_000,
            failure_hold_seconds: 300,
        }
    }
}

impl Default for TransportPolicySpec {
    /// The table of the documentation.
    fn default() -> Self {
        let row = |need, tcp, roce| PolicyRow {
            need,
            tcp,
            roce,
            local: true,
        };
        let prefer = |workload, prefer| WorkloadRow { workload, prefer };
        Self {
            rows: vec![
                row(Need::StandardDriverAndNic, true, false),
                row(Need::DirectConnect, true, true),
                row(Need::LatencyAsLocalSsd, false, true),
                row(Need::MinimiseCpuLoad, false, true),
                row(Need::ReplacesIscsi, true, false),
                row(Need::ReplacesInfiniband, false, true),
                row(Need::AlternativeToFc, true, true),
            ],
            workloads: vec![
                prefer(Workload::General, NetworkTransport::Tcp),
                prefer(Workload::Capacity, NetworkTransport::Tcp),
                prefer(Workload::HighPerformance, NetworkTransport::Roce),
                prefer(Workload::LowLatency, NetworkTransport::Roce),
            ],
            local: true,
            limits: PolicyLimits::default(),
        }
    }
}

/// What is true of a policy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TransportPolicyStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Ready`: decisions follow it.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
