//! Decisions about volumes.
//!
//! The life of a volume, each step durable before the next: finalizer, placement (status), the node makes it,
//! Ready; then, deleted and without attachments: the decision to remove it (condition `Deleting`, reason
//! `Removing`), the node's tombstone, the node's word that it is gone, the finalizer lifted.

use roadstead_api::subsystem_nqn;
use roadstead_api::v1::{VolumeReport, VolumeState};
use roadstead_crds::condition::{self, DELETING, READY, Status, find, reason};
use roadstead_crds::quantity::for_people;
use roadstead_crds::{Condition, FINALIZER, NVMeNamespace, NVMeNamespaceStatus, VOLUME_NSID};

use super::index::{Applied, Index};
use super::placement::{Placement, is_protected, is_removing, placement};
use super::reach::{PENDING, Reach, is_opening, list_names, reach};
use super::room::{DriveKey, NoPlace, Rooms, drive_name, requested_bytes};
use super::write::{Change, Kind, Note, ObjectVersion, Write};
use super::{protect, release, settle, version};

/// What a `Ready` condition says.
type Verdict = (Status, &'static str, String);

/// The write that a volume needs, if any; takes room for what it grants.
pub(super) fn decide<'a>(
    index: &Index<'a>,
    applied: &Applied<'a>,
    rooms: &mut Rooms,
    name: &'a str,
    namespace: &'a NVMeNamespace,
) -> Option<Write> {
    let meta = &namespace.metadata;
    let object = version(Kind::Namespace, meta);
    let protected = is_protected(meta.finalizers.as_ref());
    let place = placement(namespace);
    if meta.deletion_timestamp.is_some() {
        if !protected {
            return None;
        }
        let held = index.attachments_of.contains_key(name);
        let gone = match place {
            None => !held,
            Some(place) => is_removing(namespace) && is_gone(index, applied, &place),
        };
        if gone {
            return Some(release(object, meta));
        }
    } else if !protected {
        return Some(protect(object, meta));
    }
    let mut draft = Draft::new(index, name, namespace);
    match place {
        Some(place) => draft.follow(rooms, &place),
        None if meta.deletion_timestamp.is_none() => draft.place(rooms),
        None => {}
    }
    draft.deleting(place.as_ref());
    draft.into_write(object)
}

/// The node says that the volume's data is gone, and it says so of the tombstone.
fn is_gone<'a>(index: &Index<'a>, applied: &Applied<'a>, place: &Placement<'a>) -> bool {
    applied.has_tombstone(place.node, place.uuid)
        && index
            .volume_report(place.node, place.uuid)
            .is_some_and(|v| v.state() == VolumeState::Absent)
}

/// A volume's next status.
struct Draft<'i, 'a> {
    index: &'i Index<'a>,
    name: &'a str,
    namespace: &'a NVMeNamespace,
    old: NVMeNamespaceStatus,
    new: NVMeNamespaceStatus,
    notes: Vec<Note>,
}

impl<'i, 'a> Draft<'i, 'a> {
    fn new(index: &'i Index<'a>, name: &'a str, namespace: &'a NVMeNamespace) -> Self {
        let old = namespace.status.clone().unwrap_or_default();
        let mut new = old.clone();
        new.conditions.retain(|c| c.type_ == READY);
        Draft {
            index,
            name,
            namespace,
            old,
            new,
            notes: Vec::new(),
        }
    }

    fn condition(&self, type_: &str, (status, reason, message): Verdict) -> Condition {
        let generation = self.namespace.metadata.generation;
        let now = self.index.snapshot.time();
        condition::next(
            &self.old.conditions,
            type_,
            status,
            reason,
            message,
            generation,
            &now,
        )
    }

    fn ready(&mut self, verdict: Verdict) {
        self.new.observed_generation = self.namespace.metadata.generation;
        self.new.conditions = vec![self.condition(READY, verdict)];
    }

    /// Gives a place to a volume that has none.
    fn place(&mut self, rooms: &mut Rooms) {
        let bytes = match requested_bytes(self.namespace) {
            Ok(bytes) => bytes,
            Err(message) => return self.ready((Status::False, reason::INVALID_SPEC, message)),
        };
        let Some(uuid) = self.namespace.metadata.uid.clone() else {
            return;
        };
        match rooms.place(self.index.snapshot, self.namespace, bytes) {
            Ok((key, node)) => {
                let message = format!(
                    "drive {} of Target {} on node {node}",
                    key.drive, key.target
                );
                self.notes.push(Note {
                    warning: false,
                    reason: reason::PLACED.into(),
                    message: message.clone(),
                });
                self.new.nqn = Some(subsystem_nqn(&uuid));
                self.new.nsid = Some(VOLUME_NSID);
                self.new.uuid = Some(uuid);
                self.new.target = Some(key.target);
                self.new.drive = Some(key.drive);
                self.new.node = Some(node);
                self.new.size_bytes = bytes;
                self.ready((Status::False, reason::PLACED, message));
            }
            // A node that is just being connected to may have the room: the verdict waits for it.
            Err(_) if self.may_find_more() => {}
            Err(no_place) => {
                let (reason, message) = match no_place {
                    NoPlace::TargetNotFound(message) => (reason::TARGET_NOT_FOUND, message),
                    NoPlace::Appliance(message) => (reason::INVALID_SPEC, message),
                    NoPlace::NotAllowed(message) => (reason::NO_ALLOWED_NODE, message),
                    NoPlace::NotReady(message) => (reason::NO_TARGET, message),
                    NoPlace::NoRoom(message) => (reason::NO_ROOM, message),
                };
                self.ready((Status::False, reason, message));
            }
        }
    }

    /// A Target that the volume may use is on a node of which nothing can be said yet.
    fn may_find_more(&self) -> bool {
        let spec = &self.namespace.spec;
        let snapshot = self.index.snapshot;
        snapshot.targets.iter().any(|(name, target)| {
            spec.target.as_ref().is_none_or(|wanted| wanted == name)
                && matches!(reach(snapshot, &target.spec.node), Reach::Unsettled)
        })
    }

    /// Follows a placed volume: grants growth, and says what its node says.
    fn follow(&mut self, rooms: &mut Rooms, place: &Placement<'a>) {
        if is_removing(self.namespace) {
            let message = "its data is being deleted".into();
            return self.ready((Status::False, reason::REMOVING, message));
        }
        let growth = self.grow(rooms, place);
        match reach(self.index.snapshot, place.node) {
            Reach::Unsettled => {}
            Reach::Away { reason, message } => self.ready((Status::Unknown, reason, message)),
            // The daemon has just started again: what was so will be so.
            Reach::Up(report)
                if self.old.capacity_bytes > 0
                    && is_opening(report, &drive_name(place.target, place.drive)) => {}
            Reach::Up(_) => {
                let report = self.index.volume_report(place.node, place.uuid);
                let verdict = self.verdict(place, report, growth);
                self.ready(verdict);
            }
        }
    }

    /// Grants the size of the spec if there is room for it; else says why not.
    fn grow(&mut self, rooms: &mut Rooms, place: &Placement<'_>) -> Option<String> {
        let wanted = match requested_bytes(self.namespace) {
            Ok(wanted) => wanted,
            Err(message) => return Some(message),
        };
        // Without a deletion in between there is nothing to give back: the rule against shrinking holds the rest.
        let more = wanted
            .checked_sub(place.size_bytes)
            .filter(|more| *more > 0)?;
        if self.namespace.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let key = DriveKey {
            target: place.target.into(),
            drive: place.drive.into(),
        };
        if rooms.take(&key, more) {
            self.new.size_bytes = wanted;
            return None;
        }
        let free = rooms.free_bytes(&key).unwrap_or_default();
        Some(format!(
            "it keeps {}: to grow to {} it needs {} more, and drive {} of Target {} has {}",
            for_people(place.size_bytes),
            for_people(wanted),
            for_people(more),
            place.drive,
            place.target,
            for_people(free)
        ))
    }

    /// `Ready` from the node's word.
    fn verdict(
        &mut self,
        place: &Placement<'a>,
        report: Option<&VolumeReport>,
        growth: Option<String>,
    ) -> Verdict {
        let Some(volume) = report else {
            return self.applying(place);
        };
        match volume.state() {
            VolumeState::Online => {
                self.measure(volume);
                match growth {
                    Some(message) => (Status::True, reason::NO_ROOM_TO_GROW, message),
                    None if volume.size_bytes < place.size_bytes => {
                        let size = for_people(place.size_bytes);
                        (
                            Status::True,
                            reason::APPLYING,
                            format!("it is growing to {size}"),
                        )
                    }
                    None => (Status::True, reason::ONLINE, "it is served".into()),
                }
            }
            VolumeState::Unavailable if volume.reason == PENDING => self.applying(place),
            VolumeState::Unavailable => (
                Status::False,
                reason::DRIVE_OFFLINE,
                self.sentence(place, volume),
            ),
            VolumeState::Failed if volume.size_bytes > 0 && volume.reason == "NoRoom" => {
                self.measure(volume);
                (
                    Status::True,
                    reason::NO_ROOM_TO_GROW,
                    self.sentence(place, volume),
                )
            }
            VolumeState::Failed => (
                Status::False,
                reason::VOLUME_FAILED,
                self.sentence(place, volume),
            ),
            VolumeState::Absent | VolumeState::Orphan | VolumeState::Unspecified => {
                self.applying(place)
            }
        }
    }

    fn measure(&mut self, volume: &VolumeReport) {
        self.new.capacity_bytes = volume.size_bytes;
        self.new.allocated_bytes = settle(
            Some(self.old.allocated_bytes),
            volume.allocated_bytes,
            volume.size_bytes,
        );
    }

    /// The node has not spoken of the volume yet, or its drive was taken from the Target.
    fn applying(&self, place: &Placement<'_>) -> Verdict {
        let target = self.index.snapshot.targets.get(place.target);
        let listed = target.is_some_and(|t| t.spec.drives.iter().any(|d| d.name == place.drive));
        if listed {
            // Right after the placement, its condition stands until the node has made the volume.
            if let Some(old) = find(&self.old.conditions, READY)
                && old.reason == reason::PLACED
            {
                return (Status::False, reason::PLACED, old.message.clone());
            }
            let message = format!("waits for node {} to make it", place.node);
            (Status::False, reason::APPLYING, message)
        } else {
            let message = format!(
                "Target {} does not list drive {} any more: put it back to use the volume",
                place.target, place.drive
            );
            (Status::False, reason::DRIVE_REMOVED, message)
        }
    }

    fn sentence(&self, place: &Placement<'_>, volume: &VolumeReport) -> String {
        let target = self.index.snapshot.targets.get(place.target);
        if !target.is_some_and(|t| t.spec.drives.iter().any(|d| d.name == place.drive)) {
            return self.applying(place).2;
        }
        match (volume.message.is_empty(), volume.reason.is_empty()) {
            (false, _) => volume.message.clone(),
            (true, false) => format!("the node says: {}", volume.reason),
            (true, true) => format!("the node gives no reason; see the log of {}", place.node),
        }
    }

    /// The `Deleting` condition of a volume that cannot go yet.
    fn deleting(&mut self, place: Option<&Placement<'a>>) {
        if self.namespace.metadata.deletion_timestamp.is_none() {
            return;
        }
        let holders = self.index.attachments_of.get(self.name).map(Vec::as_slice);
        let holders = holders.unwrap_or_default();
        let verdict = match place {
            Some(place) if is_removing(self.namespace) => {
                (Status::True, reason::REMOVING, self.removing(place))
            }
            Some(place) if holders.is_empty() => {
                let message = format!("its data on node {} is being deleted", place.node);
                (Status::True, reason::REMOVING, message)
            }
            Some(_) | None => {
                let who: Vec<String> = holders
                    .iter()
                    .map(|(name, a)| format!("{name} (node {})", a.spec.node))
                    .collect();
                let who = list_names(who.iter().map(String::as_str));
                let message = format!("attached by {who}; it goes when they are gone");
                (Status::True, reason::WAITING_FOR_ATTACHMENTS, message)
            }
        };
        let condition = self.condition(DELETING, verdict);
        self.new.conditions.push(condition);
    }

    /// What the deletion of the data waits for.
    fn removing(&self, place: &Placement<'a>) -> String {
        let by_hand =
            format!("to give the data up where it is, remove the finalizer {FINALIZER} by hand");
        match reach(self.index.snapshot, place.node) {
            Reach::Away { message, .. } => format!("waits for its node: {message}; {by_hand}"),
            Reach::Unsettled => find(&self.old.conditions, DELETING)
                .map(|c| c.message.clone())
                .unwrap_or_default(),
            Reach::Up(_) => match self.index.volume_report(place.node, place.uuid) {
                Some(volume)
                    if volume.state() == VolumeState::Unavailable && volume.reason != PENDING =>
                {
                    format!(
                        "waits for drive {} of Target {}: {}; {by_hand}",
                        place.drive,
                        place.target,
                        self.sentence(place, volume)
                    )
                }
                Some(volume) if volume.state() == VolumeState::Failed => format!(
                    "node {} cannot delete its data: {}",
                    place.node,
                    self.sentence(place, volume)
                ),
                _ => format!("its data on node {} is being deleted", place.node),
            },
        }
    }

    fn into_write(mut self, object: ObjectVersion) -> Option<Write> {
        if self.new.size_bytes > 0 {
            self.new.size = for_people(self.new.size_bytes);
        }
        if self.namespace.status.as_ref() == Some(&self.new)
            || self.new == NVMeNamespaceStatus::default()
        {
            return None;
        }
        let conditions = (self.old.conditions, self.new.conditions.clone());
        let mut write = Write::status(object, Change::NamespaceStatus(self.new), conditions);
        if !self.notes.is_empty() {
            write.notes = self.notes;
        }
        Some(write)
    }
}
