//! Room on drives: who has how much of it, and where a new volume goes.
//!
//! A drive's room is what its node reported last as capacity, less every size that was granted on it (whether the
//! node has made it yet or not), less volumes that only the node knows. Nothing is granted beyond it.

use std::collections::{BTreeMap, HashMap};

use roadstead_api::v1::{DriveState, VolumeState};
use roadstead_crds::NVMeNamespace;
use roadstead_crds::quantity::{for_people, parse_bytes};

use super::index::Index;
use super::placement::is_protected;
use crate::snapshot::Snapshot;

/// Volumes have whole extents.
const EXTENT_BYTES: u64 = 1 << 20;

/// A drive of a Target.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DriveKey {
    pub(super) target: String,
    pub(super) drive: String,
}

/// The name that a Target's drive has on its node.
pub(super) fn drive_name(target: &str, drive: &str) -> String {
    format!("{target}/{drive}")
}

/// An online drive with its free room.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) node: String,
    pub(super) free_bytes: u64,
}

/// Why a volume finds no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The named Target does not exist.
    TargetNotFound(String),
    /// The named Target is a foreign appliance, where nothing is made.
    Appliance(String),
    /// The named Target is not on an allowed node, or no Target is.
    NotAllowed(String),
    /// Nothing suitable is ready.
    NotReady(String),
    /// Everything suitable is too full.
    NoRoom(String),
}

/// The free room of every online drive.
#[derive(Clone, Debug)]
pub(super) struct Rooms(BTreeMap<DriveKey, Room>);

impl Rooms {
    /// Counts what is granted on every drive that a live report calls online.
    pub(super) fn count(index: &Index<'_>) -> Self {
        let snapshot = index.snapshot;
        let mut used: HashMap<(&str, String), u64> = HashMap::new();
        for (node, volumes) in &index.placed_on {
            for (_, _, place) in volumes {
                let key = (*node, drive_name(place.target, place.drive));
                let sum = used.entry(key).or_default();
                *sum = sum.saturating_add(place.size_bytes);
            }
        }
        for (node, dataplane) in &snapshot.dataplanes {
            let Some(report) = dataplane.live_report() else {
                continue;
            };
            // Orphans and leftovers of another cluster: no object speaks of them, but they take room.
            let strangers = report.volumes.iter().filter(|v| {
                v.state() != VolumeState::Absent && !index.known_uuids.contains(v.uuid.as_str())
            });
            for volume in strangers {
                let sum = used.entry((node, volume.drive.clone())).or_default();
                *sum = sum.saturating_add(volume.size_bytes);
            }
        }
        let mut rooms = BTreeMap::new();
        for (target_name, target) in &snapshot.targets {
            let node = target.spec.node.as_str();
            let Some(report) = snapshot.live_report(node) else {
                continue;
            };
            for drive in &target.spec.drives {
                let name = drive_name(target_name, &drive.name);
                let online = report
                    .drives
                    .iter()
                    .find(|d| d.name == name && d.state() == DriveState::Online);
                let Some(online) = online else { continue };
                let key = DriveKey {
                    target: target_name.clone(),
                    drive: drive.name.clone(),
                };
                let used = used.get(&(node, name)).copied().unwrap_or_default();
                let free_bytes = online.capacity_bytes.saturating_sub(used);
                rooms.insert(
                    key,
                    Room {
                        node: node.into(),
                        free_bytes,
                    },
                );
            }
        }
        Rooms(rooms)
    }

    /// The free room of a drive, if it is online.
    pub(super) fn free_bytes(&self, key: &DriveKey) -> Option<u64> {
        self.0.get(key).map(|room| room.free_bytes)
    }

    /// Takes `bytes` from a drive; `false`, and nothing is taken, if they are not there.
    pub(super) fn take(&mut self, key: &DriveKey, bytes: u64) -> bool {
        let rest = self
            .0
            .get_mut(key)
            .and_then(|room| Some((room.free_bytes.checked_sub(bytes)?, room)));
        match rest {
            Some((rest, room)) => {
                room.free_bytes = rest;
                true
            }
            None => false,
        }
    }

    /// Finds the drive with the most room among those that the volume may use, and takes the room.
    pub(super) fn place(
        &mut self,
        snapshot: &Snapshot,
        namespace: &NVMeNamespace,
        bytes: u64,
    ) -> Result<(DriveKey, String), NoPlace> {
        let wanted = namespace.spec.target.as_deref();
        if let Some(name) = wanted
            && !snapshot.targets.contains_key(name)
        {
            return Err(NoPlace::TargetNotFound(format!(
                "there is no Target {name}: create it, or delete this volume and name another one"
            )));
        }
        let is_appliance = |name: &str| {
            let target = snapshot.targets.get(name);
            target.is_some_and(|t| t.spec.external.is_some())
        };
        if let Some(name) = wanted.filter(|name| is_appliance(name)) {
            return Err(NoPlace::Appliance(format!(
                "Target {name} is a foreign appliance, where Roadstead makes no volumes: make the namespace there and name it \
                 by spec.external, or name another Target"
            )));
        }
        let allowed = |node: &str| match &namespace.spec.allowed_nodes {
            Some(nodes) => nodes.iter().any(|n| n == node),
            None => true,
        };
        let suitable = |target: &str| wanted.is_none_or(|name| name == target);
        let mut on_allowed_node = false;
        for (name, target) in &snapshot.targets {
            on_allowed_node |= suitable(name) && !is_appliance(name) && allowed(&target.spec.node);
        }
        if !on_allowed_node {
            return Err(no_target(snapshot, wanted));
        }
        let open = |key: &DriveKey| {
            suitable(&key.target)
                && snapshot.targets.get(&key.target).is_some_and(|t| {
                    t.metadata.deletion_timestamp.is_none()
                        && is_protected(t.metadata.finalizers.as_ref())
                        && allowed(&t.spec.node)
                })
        };
        // The first in name order among equals, so that the choice depends on nothing but the snapshot.
        let best = self
            .0
            .iter()
            .filter(|(key, _)| open(key))
            .max_by(|(ka, a), (kb, b)| a.free_bytes.cmp(&b.free_bytes).then(kb.cmp(ka)))
            .map(|(key, room)| (key.clone(), room.clone()));
        let Some((key, room)) = best else {
            return Err(NoPlace::NotReady(match wanted {
                Some(name) => format!(
                    "no drive of Target {name} is online: see kubectl describe target {name}"
                ),
                None => {
                    "no Target that it may use has a drive online: see kubectl get targets".into()
                }
            }));
        };
        if self.take(&key, bytes) {
            return Ok((key, room.node));
        }
        Err(NoPlace::NoRoom(format!(
            "it needs {}, and the drive with the most room, {} of Target {}, has {}: add a drive or delete volumes",
            for_people(bytes),
            key.drive,
            key.target,
            for_people(room.free_bytes)
        )))
    }
}

fn no_target(snapshot: &Snapshot, wanted: Option<&str>) -> NoPlace {
    match wanted {
        Some(name) => NoPlace::NotAllowed(format!(
            "Target {name} is not on a node that allowedNodes lists"
        )),
        None if snapshot.targets.values().all(|t| t.spec.external.is_some()) => NoPlace::NotReady(
            "there is no Target: create one that names the drives of a node".into(),
        ),
        None => NoPlace::NotAllowed("no Target is on a node that allowedNodes lists".into()),
    }
}

/// The size that a volume's spec asks for: whole extents.
///
/// # Errors
/// A sentence, when the quantity is none or zero.
pub(super) fn requested_bytes(namespace: &NVMeNamespace) -> Result<u64, String> {
    let bytes = parse_bytes(&namespace.spec.size).map_err(|e| e.to_string())?;
    if bytes == 0 {
        return Err("the size is 0: give at least 1Mi".into());
    }
    bytes
        .checked_next_multiple_of(EXTENT_BYTES)
        .ok_or_else(|| format!("the size {} is too large", namespace.spec.size))
}
