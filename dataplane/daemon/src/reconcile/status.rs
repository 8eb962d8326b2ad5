//! What the reconciler knows, in the words of the report.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use roadstead_api::v1;
use roadstead_nvme::{Portal, Transport};
use roadstead_pool::FaultKind;
use uuid::Uuid;

use super::plan::{Action, home, refusal};
use super::{Reconciler, StepError};
use crate::desired::{self, Desired, DriveSpec, VolumeSpec};
use crate::status::{DriveAbout, DriveStatus, Status, VolumeStatus};

/// The status of this moment.
pub(super) fn of(reconciler: &Reconciler) -> Status {
    let none = Desired::default();
    let desired = reconciler.desired.as_ref().unwrap_or(&none);
    let drives = desired
        .drives
        .iter()
        .map(|spec| drive(reconciler, spec))
        .collect();
    let mut volumes: Vec<_> = desired
        .volumes
        .iter()
        .map(|spec| volume(reconciler, desired, spec))
        .collect();
    volumes.extend(orphans(reconciler, desired));
    Status {
        applied_revision: reconciler.applied_revision.clone(),
        has_state: reconciler.desired.is_some(),
        is_settled: reconciler.is_settled,
        drives,
        volumes,
        discovery: discovery(reconciler),
        portals: desired
            .portals
            .iter()
            .map(|spec| portal(reconciler, spec))
            .collect(),
        subsystems: reconciler.observed.subsystems.keys().cloned().collect(),
        unused: unused(reconciler),
    }
}

/// Without those that were taken since they were looked for.
fn unused(reconciler: &Reconciler) -> Vec<v1::UnusedDrive> {
    let is_taken = |unused: &v1::UnusedDrive| {
        let mut drives = reconciler.drives.values();
        drives.any(|drive| drive.node() == Some(Path::new(&unused.path)))
    };
    let seen = reconciler.unused.iter();
    seen.filter(|unused| !is_taken(unused)).cloned().collect()
}

fn drive(reconciler: &Reconciler, spec: &DriveSpec) -> DriveStatus {
    let mut status = DriveStatus {
        name: spec.name.clone(),
        state: v1::DriveState::Missing,
        reason: "Pending".to_owned(),
        message: "it is being opened".to_owned(),
        about: DriveAbout::default(),
        handle: None,
    };
    if let Some(failed) = reconciler.failures.get(&Action::OpenDrive(spec.clone())) {
        status.state = match &failed.error {
            StepError::Drive(error) => error.verdict().1,
            _ => v1::DriveState::Failed,
        };
        status.reason.clone_from(&failed.failure.reason);
        status.message.clone_from(&failed.failure.message);
        return status;
    }
    let Some(open) = reconciler.drives.get(&spec.name) else {
        return status;
    };
    status.about = open.about.clone();
    status.handle = Some(open.handle().clone());
    (status.state, status.reason, status.message) =
        match (open.handle().fault(), open.removed_file()) {
            (Some(fault), _) => {
                let state = match fault.kind {
                    FaultKind::Gone => v1::DriveState::Missing,
                    FaultKind::Io | FaultKind::Inconsistent => v1::DriveState::Failed,
                };
                (state, fault.reason().to_owned(), fault.to_string())
            }
            (None, Some(removed)) => (v1::DriveState::Failed, "FileRemoved".to_owned(), removed),
            (None, None) => {
                let (reason, message) = growth_failed(reconciler, &spec.name);
                (v1::DriveState::Online, reason, message)
            }
        };
    status
}

/// Why the drive could not be made larger, if it could not: it serves on as it is.
fn growth_failed(reconciler: &Reconciler, name: &str) -> (String, String) {
    let mut failures = reconciler.failures.iter();
    let failed = failures
        .find(|(action, _)| matches!(action, Action::GrowDrive { drive, .. } if drive == name));
    failed.map_or_else(Default::default, |(_, failed)| {
        let failure = &failed.failure;
        (failure.reason.clone(), failure.message.clone())
    })
}

fn volume(reconciler: &Reconciler, desired: &Desired, spec: &VolumeSpec) -> VolumeStatus {
    let live = home(&reconciler.observed, spec, |_| true)
        .and_then(|home| reconciler.drives.get(home)?.handle().volume(spec.uuid));
    let mut status = VolumeStatus {
        uuid: spec.uuid,
        name: spec.name.clone(),
        drive: spec.drive.clone(),
        state: v1::VolumeState::Unavailable,
        reason: String::new(),
        message: String::new(),
        volume: live,
    };
    let mut say = |state, reason: &str, message: String| {
        status.state = state;
        status.reason = reason.to_owned();
        status.message = message;
    };
    if let Some(refusal) = refusal(&reconciler.observed, desired, spec) {
        say(
            v1::VolumeState::Failed,
            refusal.reason(),
            refusal.to_string(),
        );
    } else if let Some(failed) = failure_of(reconciler, spec) {
        say(
            v1::VolumeState::Failed,
            &failed.failure.reason,
            failed.failure.message.clone(),
        );
    } else if !is_online(reconciler, &spec.drive) {
        let message = match desired.drives.iter().any(|drive| drive.name == spec.drive) {
            true => format!("drive '{}' is not online", spec.drive),
            false => format!("the state has no drive '{}'", spec.drive),
        };
        say(v1::VolumeState::Unavailable, "DriveOffline", message);
    } else {
        match (spec.absent, status.volume.is_some()) {
            (true, false) => say(v1::VolumeState::Absent, "", String::new()),
            (false, true) => say(v1::VolumeState::Online, "", String::new()),
            (true, true) => {
                say(
                    v1::VolumeState::Unavailable,
                    "Pending",
                    "it is being deleted".to_owned(),
                );
            }
            (false, false) => {
                say(
                    v1::VolumeState::Unavailable,
                    "Pending",
                    "it is being made".to_owned(),
                );
            }
        }
    }
    status
}

fn is_online(reconciler: &Reconciler, drive: &str) -> bool {
    reconciler
        .drives
        .get(drive)
        .is_some_and(|open| open.handle().fault().is_none())
}

/// Why the last change of the volume failed.
fn failure_of<'a>(reconciler: &'a Reconciler, spec: &VolumeSpec) -> Option<&'a super::StepFailure> {
    let is_about = |action: &Action| match action {
        Action::CreateVolume(volume) => volume.uuid == spec.uuid,
        Action::GrowVolume { uuid, .. } | Action::DeleteVolume { uuid, .. } => *uuid == spec.uuid,
        _ => false,
    };
    reconciler
        .failures
        .iter()
        .find(|(action, _)| is_about(action))
        .map(|(_, failed)| failed)
}

/// Volumes in pools that the state does not speak of.
fn orphans(reconciler: &Reconciler, desired: &Desired) -> Vec<VolumeStatus> {
    let named: BTreeSet<Uuid> = desired.volumes.iter().map(|volume| volume.uuid).collect();
    let mut orphans = Vec::new();
    for (name, open) in &reconciler.drives {
        for volume in open.handle().volumes() {
            if !named.contains(&volume.uuid()) {
                orphans.push(VolumeStatus {
                    uuid: volume.uuid(),
                    name: volume.name().to_owned(),
                    drive: name.clone(),
                    state: v1::VolumeState::Orphan,
                    reason: "NotInState".to_owned(),
                    message: "the pool has it, the desired state does not; it is kept, not served"
                        .to_owned(),
                    volume: Some(volume),
                });
            }
        }
    }
    orphans.sort_by_key(|orphan| orphan.uuid);
    orphans
}

/// Where a discovery service answers over TCP, which is what is told to the local network.
fn discovery(reconciler: &Reconciler) -> BTreeSet<SocketAddr> {
    let observed = &reconciler.observed;
    let tcp = |portals: &mut dyn Iterator<Item = &Portal>| {
        let tcp = portals.filter(|portal| portal.transport == Transport::Tcp);
        tcp.map(|portal| portal.address).collect()
    };
    let all: BTreeSet<SocketAddr> = tcp(&mut observed.portals.iter());
    let own: BTreeSet<SocketAddr> = tcp(&mut observed
        .portals
        .intersection(&observed.rules.discovery_only));
    if own.is_empty() { all } else { own }
}

fn portal(reconciler: &Reconciler, spec: &Portal) -> v1::PortalReport {
    let failed = reconciler.failures.get(&Action::Listen(*spec));
    let states = reconciler.observed.rules.ana.get(spec);
    let states = states.cloned().unwrap_or_default();
    let groups = states.groups.iter().map(|(&group, &state)| v1::AnaGroup {
        group,
        state: desired::ana_state_message(state).into(),
    });
    v1::PortalReport {
        portal: Some(v1::Portal {
            ana_state: desired::ana_state_message(states.others).into(),
            ana_groups: groups.collect(),
            ..desired::portal_message(*spec)
        }),
        listening: reconciler.observed.portals.contains(spec),
        message: failed.map_or_else(String::new, |failed| failed.failure.message.clone()),
        ..v1::PortalReport::default()
    }
}
