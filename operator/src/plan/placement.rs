//! Where a volume lives, read back from its status: on a drive of a node, or on a foreign appliance.

use roadstead_crds::condition::{DELETING, find, reason};
use roadstead_crds::{FINALIZER, NVMeNamespace};

/// The recorded place of a volume. All of it is there, or the volume is not placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement<'a> {
    /// Target.
    pub target: &'a str,
    /// Drive of the Target.
    pub drive: &'a str,
    /// Node of the Target.
    pub node: &'a str,
    /// UUID of the volume.
    pub uuid: &'a str,
    /// NQN of its subsystem.
    pub nqn: &'a str,
    /// The size that was granted.
    pub size_bytes: u64,
}

/// The recorded place of a volume.
pub fn placement(namespace: &NVMeNamespace) -> Option<Placement<'_>> {
    let status = namespace.status.as_ref()?;
    Some(Placement {
        target: status.target.as_deref()?,
        drive: status.drive.as_deref()?,
        node: status.node.as_deref()?,
        uuid: status.uuid.as_deref()?,
        nqn: status.nqn.as_deref()?,
        size_bytes: status.size_bytes,
    })
}

/// The namespace of an appliance that a volume is bound to, as recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bound<'a> {
    /// Target.
    pub(super) target: &'a str,
    /// NQN of its subsystem.
    pub(super) nqn: &'a str,
    /// Its identifier when it was first seen.
    pub(super) nsid: u32,
    /// Its UUID.
    pub(super) uuid: Option<&'a str>,
    /// Its NGUID.
    pub(super) nguid: Option<&'a str>,
}

/// What a volume is known by, on every node and appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum VolumeKey<'a> {
    /// Its UUID.
    Uuid(&'a str),
    /// It has no UUID: its NGUID, with the subsystem.
    Nguid(&'a str, &'a str),
    /// It has no name at all: its identifier in that subsystem.
    Nsid(&'a str, u32),
}

impl<'a> VolumeKey<'a> {
    /// From names of which some may be empty.
    pub(super) fn of(nqn: &'a str, uuid: &'a str, nguid: &'a str, nsid: u32) -> Self {
        match (uuid.is_empty(), nguid.is_empty()) {
            (false, _) => VolumeKey::Uuid(uuid),
            (true, false) => VolumeKey::Nguid(nqn, nguid),
            (true, true) => VolumeKey::Nsid(nqn, nsid),
        }
    }
}

impl<'a> Bound<'a> {
    /// What it is known by.
    pub(super) fn key(&self) -> VolumeKey<'a> {
        let names = (
            self.uuid.unwrap_or_default(),
            self.nguid.unwrap_or_default(),
        );
        VolumeKey::of(self.nqn, names.0, names.1, self.nsid)
    }
}

/// What a volume is bound to, if that is a namespace of an appliance.
pub(super) fn bound(namespace: &NVMeNamespace) -> Option<Bound<'_>> {
    namespace.spec.external.as_ref()?;
    let status = namespace.status.as_ref()?;
    Some(Bound {
        target: status.target.as_deref()?,
        nqn: status.nqn.as_deref()?,
        nsid: status.nsid?,
        uuid: status.uuid.as_deref(),
        nguid: status.nguid.as_deref(),
    })
}

/// Where a volume is: what attachments lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home<'a> {
    /// On a drive of a node of ours.
    Drive(Placement<'a>),
    /// On an appliance.
    Appliance(Bound<'a>),
}

impl<'a> Home<'a> {
    /// What it is known by.
    pub(super) fn key(&self) -> VolumeKey<'a> {
        match self {
            Home::Drive(place) => VolumeKey::Uuid(place.uuid),
            Home::Appliance(bound) => bound.key(),
        }
    }
}

/// Where a volume is, once that is recorded.
pub(super) fn home(namespace: &NVMeNamespace) -> Option<Home<'_>> {
    let on_drive = placement(namespace).map(Home::Drive);
    on_drive.or_else(|| bound(namespace).map(Home::Appliance))
}

/// The decision to delete the volume's data is recorded: there is no way back.
pub fn is_removing(namespace: &NVMeNamespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        && namespace
            .status
            .as_ref()
            .and_then(|s| find(&s.conditions, DELETING))
            .is_some_and(|c| c.reason == reason::REMOVING)
}

/// The object carries our finalizer: it cannot vanish before we let it.
pub(super) fn is_protected(finalizers: Option<&Vec<String>>) -> bool {
    finalizers.is_some_and(|list| list.iter().any(|f| f == FINALIZER))
}
