//! The state that each node should have.
//!
//! It follows from what is *recorded* in the objects alone: placement and size from a volume's status, the
//! decision to delete from its `Deleting` condition. So nothing reaches a node before it is durable in the API,
//! and a new operator computes the same states.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use roadstead_api::v1::{
    Drive, FileSource, MemorySource, Namespace, NodeState, Subsystem, Volume, drive::Source,
};
use roadstead_crds::quantity::parse_bytes;
use roadstead_crds::{DriveSource, DriveSpec, Target, VOLUME_NSID};
use uuid::Uuid;

use super::access::{access, host_nqn};
use super::external;
use super::index::Index;
use super::network;
use super::placement::{Home, Placement, is_protected, is_removing};
use super::room::drive_name;

/// Characters of an NVMe serial number.
const SERIAL_LENGTH: usize = 20;

/// The state of every node that has a dataplane.
pub(super) fn node_states(index: &Index<'_>) -> BTreeMap<String, NodeState> {
    index
        .snapshot
        .dataplanes
        .keys()
        .map(|node| (node.clone(), node_state(index, node)))
        .collect()
}

fn node_state(index: &Index<'_>, node: &str) -> NodeState {
    let mut state = NodeState::default();
    let targets = index.snapshot.targets.iter().filter(|(_, target)| {
        target.spec.node == node && is_protected(target.metadata.finalizers.as_ref())
    });
    for (name, target) in targets {
        let drives = target.spec.drives.iter();
        state
            .drives
            .extend(drives.filter_map(|drive| node_drive(name, target, drive)));
    }
    let placed = index.placed_on.get(node).map(Vec::as_slice);
    for (name, namespace, place) in placed.unwrap_or_default() {
        if !is_protected(namespace.metadata.finalizers.as_ref()) {
            continue;
        }
        let absent = is_removing(namespace);
        state.volumes.push(Volume {
            uuid: place.uuid.into(),
            name: (*name).into(),
            drive: drive_name(place.target, place.drive),
            size_bytes: place.size_bytes,
            block_size: namespace.spec.block_size,
            absent,
        });
        if !absent {
            state.subsystems.push(subsystem(index, name, place));
        }
    }
    if !state.drives.is_empty() {
        state.portals = network::portals(index, node);
    }
    state.attachments = network::attachments(index, node);
    state.externals = external::of_node(index, node);
    state.revision = revision(&state);
    state
}

/// The drive as the node is told of it; `None` if its spec cannot be understood, which its Target's status says.
fn node_drive(target_name: &str, target: &Target, drive: &DriveSpec) -> Option<Drive> {
    let source = match drive.source()? {
        DriveSource::Path(path) => Source::Path(path.into()),
        DriveSource::Serial(serial) => Source::Serial(serial.into()),
        DriveSource::Model(model) => Source::Model(model.into()),
        DriveSource::File(file) => Source::File(FileSource {
            path: file.path.clone(),
            size_bytes: parse_bytes(&file.size).ok()?,
        }),
        DriveSource::Memory(memory) => Source::Memory(MemorySource {
            size_bytes: parse_bytes(&memory.size).ok()?,
        }),
    };
    Some(Drive {
        name: drive_name(target_name, &drive.name),
        owner: target.metadata.uid.clone().unwrap_or_default(),
        force: drive.force,
        source: Some(source),
    })
}

fn subsystem(index: &Index<'_>, name: &str, place: &Placement<'_>) -> Subsystem {
    let attachments = index.attachments_of.get(name).map(Vec::as_slice);
    let allowed: BTreeSet<&str> = attachments
        .unwrap_or_default()
        .iter()
        .filter(|(_, attachment)| access(index, attachment, &Home::Drive(*place)).is_open())
        .filter_map(|(_, attachment)| host_nqn(index, attachment))
        .collect();
    Subsystem {
        nqn: place.nqn.into(),
        serial: serial(place.uuid),
        namespaces: vec![Namespace {
            nsid: VOLUME_NSID,
            volume_uuid: place.uuid.into(),
            ana_group: network::ana_group(index, name, place.node),
        }],
        allow_any_host: false,
        allowed_hosts: allowed.into_iter().map(Into::into).collect(),
    }
}

/// The serial number of a volume's subsystem: the first digits of its UUID.
fn serial(uuid: &str) -> String {
    uuid.chars()
        .filter(char::is_ascii_alphanumeric)
        .take(SERIAL_LENGTH)
        .collect()
}

/// A name of the state that follows from its content: the same state has the same one in every operator.
fn revision(state: &NodeState) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &state.encode_to_vec()).to_string()
}
