//! The objects of API group `roadstead.io/v1alpha1`, all of them cluster-scoped.
//!
//! | kind | spec is written by | says |
//! |---|---|---|
//! | [`Target`] | the administrator | the drives of a node that carry volumes, or a foreign appliance |
//! | [`NVMeNamespace`] | the CSI driver or a person | one volume |
//! | [`NVMeAttachment`] | the CSI driver or a person | one volume on one node |
//! | [`NVMeHost`] | the operator | one node as an initiator |
//! | [`TransportPolicy`] | the administrator | which transport fits which need |
//!
//! The structs are the single source of the CRD YAML under `charts/roadstead/crds`; a test fails when that is
//! stale. Everything a schema or a CEL rule can refuse is refused at admission, so the readers of these types
//! may rely on it for objects that passed a current API server; they still parse quantities themselves,
//! because an object may be older than a rule.

// Every print column has a name, a type and a path: the lint takes them for one attribute given twice.
#![allow(clippy::duplicated_attributes)]

pub mod condition;
pub mod quantity;
pub mod transport;

mod attachment;
mod external;
mod host;
mod manifest;
mod namespace;
mod policy;
mod portal;
mod schema;
mod target;

pub use attachment::{
    CandidateStatus, NVMeAttachment, NVMeAttachmentSpec, NVMeAttachmentStatus, PathStatus,
};
pub use external::{
    ExternalAddress, ExternalNamespace, ExternalNamespaceStatus, ExternalPortalStatus,
    ExternalSource, ExternalSubsystemStatus, SecretRef,
};
pub use host::{
    GidStatus, KernelModuleStatus, NVMeHost, NVMeHostSpec, NVMeHostStatus, NetdevStatus,
    RdmaDeviceStatus, UnusedDrive,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use manifest::{Manifest, ManifestError, manifests};
pub use namespace::{NVMeNamespace, NVMeNamespaceSpec, NVMeNamespaceStatus};
pub use policy::{
    DEFAULT_POLICY, PolicyLimits, PolicyRow, TransportPolicy, TransportPolicySpec,
    TransportPolicyStatus, WorkloadRow,
};
pub use portal::{Portal, PortalStatus};
pub use target::{
    DriveSource, DriveSpec, DriveStatus, FileSource, MemorySource, Target, TargetSpec, TargetStatus,
};

/// The API group of every object.
pub const GROUP: &str = "roadstead.io";

/// The only version so far.
pub const VERSION: &str = "v1alpha1";

/// Finalizer that the operator sets before anything of an object exists on a node, and lifts when nothing does.
pub const FINALIZER: &str = "roadstead.io/protect";

/// The namespace identifier of a volume: the only one in its subsystem.
pub const VOLUME_NSID: u32 = 1;

/// Topology key of the CSI driver: its value is the node's name.
pub const TOPOLOGY_KEY: &str = "topology.roadstead.io/node";
