//! From CSI's names to objects, and from objects to what CSI wants to know. Pure.

use std::collections::BTreeMap;

use kube::api::ObjectMeta;
use roadstead_crds::condition::{self, reason};
use roadstead_crds::{
    NVMeAttachment, NVMeAttachmentSpec, NVMeNamespace, NVMeNamespaceSpec, Target, quantity,
};
use uuid::Uuid;

use super::error::ControllerError;
use crate::identity::DRIVER_NAME;
use crate::request::{Capacity, MIB, Parameters, PathSpec, PublishContext, TransportNeeds};

/// Label of every object that this driver made.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Label of an attachment that this driver made: the volume, or its hash where the name is no label.
const VOLUME_LABEL: &str = "roadstead.io/volume";
/// Annotation of a volume: the claim that it was made for.
const CLAIM_ANNOTATION: &str = "roadstead.io/claim";
/// The longest name of an object.
const OBJECT_NAME_LEN_MAX: usize = 253;
/// The longest value of a label.
const LABEL_LEN_MAX: usize = 63;

/// Whether an object can have this name (RFC 1123 subdomain).
pub(super) fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        bytes.first().is_some_and(alphanumeric)
            && bytes.last().is_some_and(alphanumeric)
            && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
    };
    name.len() <= OBJECT_NAME_LEN_MAX && name.split('.').all(label)
}

/// The object name of the volume that CSI calls `name`: the same wherever that is possible, else a hash of it.
pub(super) fn volume_name(name: &str) -> String {
    if is_object_name(name) {
        name.to_owned()
    } else {
        format!("vol-{}", hash(name))
    }
}

fn hash(text: &str) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}

fn volume_label(volume: &str) -> String {
    if volume.len() <= LABEL_LEN_MAX {
        volume.to_owned()
    } else {
        hash(volume).to_string()
    }
}

/// Selects the attachments of `volume` that this driver made.
pub(super) fn attachments_of(volume: &str) -> String {
    format!("{VOLUME_LABEL}={}", volume_label(volume))
}

/// Selects every attachment that this driver made.
pub(super) fn all_attachments() -> String {
    VOLUME_LABEL.to_owned()
}

/// The name of an attachment. A volume has one exclusive attachment at most, because its name is the volume's:
/// creating it is the compare-and-swap that two nodes cannot both win.
pub(super) fn attachment_name(volume: &str, node: &str, exclusive: bool) -> String {
    if exclusive {
        return volume.to_owned();
    }
    let name = format!("{volume}.{node}");
    if name.len() <= OBJECT_NAME_LEN_MAX {
        name
    } else {
        format!("att-{}", hash(&name))
    }
}

/// The object of a new volume.
pub(super) fn new_namespace(
    volume: &str,
    parameters: &Parameters,
    needs: TransportNeeds,
    size_bytes: u64,
) -> NVMeNamespace {
    let mut object = NVMeNamespace::new(
        volume,
        NVMeNamespaceSpec {
            size: quantity::exact(size_bytes),
            external: None,
            block_size: parameters.block_size.unwrap_or(BLOCK_SIZE_DEFAULT),
            target: parameters.target.clone(),
            allowed_nodes: None,
            transport: needs.transport.unwrap_or_default(),
            fallback: needs.fallback,
            workload: needs.workload.unwrap_or_default(),
            needs: needs.needs.unwrap_or_default(),
            transport_policy: needs.policy,
        },
    );
    object.metadata.labels = Some(BTreeMap::from([(MANAGED_BY.into(), DRIVER_NAME.into())]));
    object.metadata.annotations = parameters
        .claim
        .clone()
        .map(|claim| BTreeMap::from([(CLAIM_ANNOTATION.into(), claim)]));
    object
}

/// The block size of a volume whose StorageClass names none, in bytes.
const BLOCK_SIZE_DEFAULT: u32 = 4096;

/// The object of a new attachment.
pub(super) fn new_attachment(name: &str, spec: NVMeAttachmentSpec) -> NVMeAttachment {
    let label = volume_label(&spec.namespace);
    let mut object = NVMeAttachment::new(name, spec);
    object.metadata.labels = Some(BTreeMap::from([
        (MANAGED_BY.into(), DRIVER_NAME.into()),
        (VOLUME_LABEL.into(), label),
    ]));
    object
}

/// Whether this driver made the object.
pub(super) fn is_ours(meta: &ObjectMeta) -> bool {
    meta.labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|by| by == DRIVER_NAME)
}

/// The volume is a namespace of a foreign appliance.
pub(super) fn is_external(namespace: &NVMeNamespace) -> bool {
    namespace.spec.external.is_some()
}

/// The size that a volume's spec asks for, in bytes, as the operator rounds it, or that the appliance has; 0 if it cannot
/// be read.
pub(super) fn spec_size_bytes(namespace: &NVMeNamespace) -> u64 {
    if is_external(namespace) {
        return namespace.status.as_ref().map_or(0, |s| s.capacity_bytes);
    }
    quantity::parse_bytes(&namespace.spec.size)
        .unwrap_or(0)
        .div_ceil(MIB)
        * MIB
}

/// A volume that exists satisfies a request to create it, or differs in something.
pub(super) fn check_compatible(
    existing: &NVMeNamespace,
    volume: &str,
    parameters: &Parameters,
    capacity: &Capacity,
) -> Result<(), ControllerError> {
    if existing.metadata.deletion_timestamp.is_some() {
        return Err(ControllerError::BeingDeleted(format!("volume {volume}")));
    }
    let spec = &existing.spec;
    let differs = |difference: String| {
        Err(ControllerError::Incompatible {
            volume: volume.to_owned(),
            difference,
        })
    };
    if is_external(existing) {
        return differs("it is a namespace of a foreign appliance".to_owned());
    }
    if !capacity.accepts(spec_size_bytes(existing)) {
        return differs(format!("its size is {}", spec.size));
    }
    let block_size = parameters.block_size.unwrap_or(BLOCK_SIZE_DEFAULT);
    if spec.block_size != block_size {
        return differs(format!("its blockSize is {}", spec.block_size));
    }
    if spec.target != parameters.target {
        return differs(match &spec.target {
            Some(target) => format!("it is bound to target {target}"),
            None => "it is not bound to a target".to_owned(),
        });
    }
    Ok(())
}

/// What a volume's or attachment's Ready condition says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It is ready, for the spec as it is now.
    Ready,
    /// Not yet, or not now.
    Not {
        /// The condition's reason; empty before the operator saw the object.
        reason: String,
        /// The condition's message.
        message: String,
    },
}

/// Judges an object by its conditions; a condition about an older spec says nothing.
pub(super) fn readiness(meta: &ObjectMeta, conditions: &[roadstead_crds::Condition]) -> Readiness {
    let ready = condition::find(conditions, condition::READY)
        .filter(|c| c.observed_generation.is_none() || c.observed_generation == meta.generation);
    match ready {
        Some(c) if c.status == condition::Status::True.as_str() => Readiness::Ready,
        Some(c) => Readiness::Not {
            reason: c.reason.clone(),
            message: c.message.clone(),
        },
        None => Readiness::Not {
            reason: String::new(),
            message: "the operator has not looked at it yet; does it run?".into(),
        },
    }
}

/// No wait helps: no drive is large enough now.
pub(super) fn is_no_room(reason: &str) -> bool {
    matches!(reason, reason::NO_ROOM | reason::NO_ALLOWED_NODE)
}

/// What the node needs to reach a volume.
pub(super) fn publish_context(
    namespace: &NVMeNamespace,
    attachment: &NVMeAttachment,
) -> Result<PublishContext, ControllerError> {
    let lacks = |object: String, field| ControllerError::Incomplete { object, field };
    let volume = || format!("volume {}", attachment.spec.namespace);
    let status = namespace.status.as_ref();
    let nqn = status.and_then(|s| s.nqn.clone());
    let external = is_external(namespace);
    let uuid = status.and_then(|s| s.uuid.clone());
    let nguid = status.and_then(|s| s.nguid.clone());
    let nguid = nguid.filter(|_| external && uuid.is_none());
    let nsid = status.and_then(|s| s.nsid);
    let nsid = nsid.filter(|_| external && uuid.is_none() && nguid.is_none());
    let is_named = nguid.is_some() || nsid.is_some();
    let paths: Vec<PathSpec> = attachment
        .status
        .iter()
        .flat_map(|s| &s.paths)
        .map(|path| PathSpec {
            transport: path.transport.clone(),
            address: path.address.clone(),
            port: path.port,
            preference: path.preference,
        })
        .collect();
    let method = attachment
        .status
        .as_ref()
        .and_then(|s| s.chosen_method.clone());
    if paths.is_empty() {
        return Err(lacks(format!("the attachment of {}", volume()), "paths"));
    }
    Ok(PublishContext {
        nqn: nqn.ok_or_else(|| lacks(volume(), "nqn"))?,
        uuid: match (uuid, is_named) {
            (Some(uuid), _) => uuid,
            (None, true) => String::new(),
            (None, false) => return Err(lacks(volume(), "uuid")),
        },
        nguid: nguid.unwrap_or_default(),
        nsid: nsid.unwrap_or_default(),
        external: match external {
            true => namespace.spec.target.clone().unwrap_or_default(),
            false => String::new(),
        },
        read_only: attachment.spec.read_only,
        paths,
        method: method.unwrap_or_default(),
    })
}

/// Room for new volumes, in bytes: in all, and on the drive with the most.
pub(super) fn free_space(targets: &[Target], only: Option<&str>) -> (u64, u64) {
    let drives = || {
        targets
            .iter()
            .filter(|t| t.metadata.deletion_timestamp.is_none())
            .filter(|t| only.is_none() || only == t.metadata.name.as_deref())
            .filter_map(|t| t.status.as_ref())
            .flat_map(|s| &s.drives)
            .filter(|d| d.state == "Online")
            .map(|d| d.free_bytes / MIB * MIB)
    };
    (
        drives().fold(0, u64::saturating_add),
        drives().max().unwrap_or(0),
    )
}

/// Room to grow on the drive that holds the volume, in bytes; `None` when that is not known.
pub(super) fn room_to_grow(namespace: &NVMeNamespace, target: &Target) -> Option<u64> {
    let drive = namespace.status.as_ref()?.drive.as_deref()?;
    let drives = &target.status.as_ref()?.drives;
    Some(drives.iter().find(|d| d.name == drive)?.free_bytes)
}
