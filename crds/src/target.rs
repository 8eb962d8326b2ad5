//! Target: the drives of one node that carry volumes, or a foreign appliance.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ExternalSource, ExternalSubsystemStatus, PortalStatus};

/// A source of capacity: drives of one node, each of which carries a pool of its own; or a foreign NVMe-oF appliance, whose
/// namespaces are used as they are.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "roadstead.io",
    version = "v1alpha1",
    kind = "Target",
    plural = "targets",
    singular = "target",
    shortname = "tgt",
    category = "roadstead",
    status = "TargetStatus",
    derive = "PartialEq",
    derive = "Default",
    doc = "A source of capacity: drives of one node, each with a pool of its own that carries volumes, or a foreign NVMe-oF appliance.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "Capacity",
        type_ = "string",
        json_path = ".status.capacity",
        description = "Room for volumes on the drives that are online"
    ),
    printcolumn(
        name = "Free",
        type_ = "string",
        json_path = ".status.free",
        description = "Room for new volumes"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
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
        "rule": "has(self.node) != has(self.external)",
        "message": "a Target is either the drives of a node (node and drives) or a foreign appliance (external)"
    },
    {
        "rule": "!has(self.drives) || has(self.node)",
        "message": "an external Target has no drives: its namespaces are the appliance's"
    },
    {
        "rule": "has(self.external) == has(oldSelf.external)",
        "message": "a Target with drives does not become an appliance, nor the reverse: create another Target"
    }
]))]
pub struct TargetSpec {
    /// Name of the Kubernetes node that has the drives. Cannot be changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(
        length(min = 1, max = 253),
        extend("x-kubernetes-validations" = [{
            "rule": "self == oldSelf",
            "message": "a Target stays on its node: delete it when no volume lives on it any more, and create another one for the other node"
        }])
    )]
    pub node: String,
    /// The drives, by a name that stays the same. A drive that is taken out of the list is closed; its data is kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub drives: Vec<DriveSpec>,
    /// A foreign NVMe-oF appliance instead. Nothing is made, grown or deleted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ExternalSource")]
    pub external: Option<ExternalSource>,
}

/// One drive and how to find it: exactly one of `path`, `serial`, `model`, `file` and `memory`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "[has(self.path), has(self.serial), has(self.model), has(self.file), has(self.memory)].filter(x, x).size() == 1",
        "message": "a drive needs exactly one of path, serial, model, file and memory"
    },
    {
        "rule": "has(self.path) == has(oldSelf.path) && (!has(self.path) || self.path == oldSelf.path) && has(self.serial) == has(oldSelf.serial) && (!has(self.serial) || self.serial == oldSelf.serial) && has(self.model) == has(oldSelf.model) && (!has(self.model) || self.model == oldSelf.model) && has(self.file) == has(oldSelf.file) && (!has(self.file) || self.file.path == oldSelf.file.path) && has(self.memory) == has(oldSelf.memory)",
        "message": "the source of a drive cannot be changed: add the other device as a drive with another name"
    }
]))]
pub struct DriveSpec {
    /// Name of the drive within the Target: a DNS label.
    #[schemars(
        length(min = 1, max = 63),
        extend("x-kubernetes-validations" = [{
            "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "message": "the name of a drive has lower-case letters, digits and '-' only, and starts and ends with a letter or digit"
        }])
    )]
    pub name: String,
    /// A block device or partition by any path that leads to it; prefer /dev/disk/by-id/...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 1024), extend("x-kubernetes-validations" = [{
        "rule": "self.startsWith('/dev/')",
        "message": "the path of a drive starts with /dev/; for a file use 'file' with a path and a size"
    }]))]
    pub path: Option<String>,
    /// A whole device, by its serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 128))]
    pub serial: Option<String>,
    /// The first unused whole device of this model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 128))]
    pub model: Option<String>,
    /// A file on the node, made if it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FileSource")]
    pub file: Option<FileSource>,
    /// The daemon's memory, gone with its process: for tests and benchmarks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MemorySource")]
    pub memory: Option<MemorySource>,
    /// Overwrite a foreign file system, partition table or label. A mounted device is refused all the same.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// A file that serves as a drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileSource {
    /// Absolute path on the node.
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = [{
        "rule": "self.startsWith('/') && !self.startsWith('/dev/') && !self.matches('(^|/)[.][.](/|$)')",
        "message": "the path of a file is absolute, has no '..' and is not below /dev; for a device use 'path'"
    }]))]
    pub path: String,
    /// Size, such as 10Gi. May grow, never shrink.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [
        {
            "rule": "isQuantity(self) && quantity(self).isInteger() && !quantity(self).isLessThan(quantity('64Mi'))",
            "message": "the size of a file is a quantity such as 10Gi, a whole number of bytes, and at least 64Mi"
        },
        {
            "rule": "!isQuantity(self) || !isQuantity(oldSelf) || !quantity(self).isLessThan(quantity(oldSelf))",
            "message": "a file cannot shrink: it may hold volumes; give the old size or a larger one"
        }
    ]))]
    pub size: String,
}

/// Memory that serves as a drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemorySource {
    /// Size, such as 1Gi. Cannot be changed.
    #[schemars(length(min = 1, max = 32), extend("x-kubernetes-validations" = [
        {
            "rule": "isQuantity(self) && quantity(self).isInteger() && !quantity(self).isLessThan(quantity('64Mi'))",
            "message": "the size of a memory drive is a quantity such as 1Gi, a whole number of bytes, and at least 64Mi"
        },
        {
            "rule": "self == oldSelf",
            "message": "the size of a memory drive cannot be changed: add another memory drive"
        }
    ]))]
    pub size: String,
}

/// The one source that a drive has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriveSource<'a> {
    /// A block device or partition by path.
    Path(&'a str),
    /// A whole device by serial number.
    Serial(&'a str),
    /// The first unused whole device of a model.
    Model(&'a str),
    /// A file.
    File(&'a FileSource),
    /// Memory.
    Memory(&'a MemorySource),
}

impl DriveSpec {
    /// The drive's source; `None` unless exactly one is given.
    pub fn source(&self) -> Option<DriveSource<'_>> {
        let mut found = [
            self.path.as_deref().map(DriveSource::Path),
            self.serial.as_deref().map(DriveSource::Serial),
            self.model.as_deref().map(DriveSource::Model),
            self.file.as_ref().map(DriveSource::File),
            self.memory.as_ref().map(DriveSource::Memory),
        ]
        .into_iter()
        .flatten();
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }
}

/// What is true of a Target.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and `Deleting` while the Target is being deleted.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Addresses that hosts can connect to now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub portals: Vec<PortalStatus>,
    /// The drives of the spec, as the node found them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub drives: Vec<DriveStatus>,
    /// What an external Target has: subsystems and their namespaces, as the nodes see them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["nqn"]))]
    pub subsystems: Vec<ExternalSubsystemStatus>,
    /// Room for volumes on the drives that are online, in bytes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub capacity_bytes: u64,
    /// Room for new volumes, in bytes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub free_bytes: u64,
    /// `capacityBytes` for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub capacity: String,
    /// `freeBytes` for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub free: String,
}

/// A drive as the node found it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["name", "state"]))] // a list map's key must be there
pub struct DriveStatus {
    /// Name of the drive within the Target.
    pub name: String,
    /// `Online`, `Refused` (it holds something else; nothing was written), `Missing` or `Failed`; `Unknown` before the node reported it.
    pub state: String,
    /// One word for why it is not online.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// A sentence: what was tried and what to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The device that was found.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Its serial number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// Room for volumes, in bytes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub capacity_bytes: u64,
    /// Room for new volumes, in bytes: the capacity less the sizes of all volumes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub free_bytes: u64,
    /// Space in use, in bytes.
    #[schemars(schema_with = "crate::schema::bytes")]
    pub allocated_bytes: u64,
}
