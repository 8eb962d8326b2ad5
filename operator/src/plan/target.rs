//! Decisions about Targets.

use roadstead_api::v1::{DriveReport, DriveState, LinkState, NodeReport, PortalReport, Transport};
use roadstead_crds::condition::{self, DELETING, READY, Status, find, reason};
use roadstead_crds::quantity::{for_people, parse_bytes};
use roadstead_crds::{DriveSource, DriveSpec, DriveStatus, PortalStatus, Target, TargetStatus};

use super::external;
use super::host::{link_word, version_word};
use super::index::Index;
use super::placement::is_protected;
use super::reach::{PENDING, Reach, is_opening, list_names, reach};
use super::room::{DriveKey, Rooms, drive_name};
use super::write::{Change, Kind, Write};
use super::{protect, release, settle, version};

/// The write that a Target needs, if any.
pub(super) fn decide(
    index: &Index<'_>,
    rooms: &Rooms,
    name: &str,
    target: &Target,
) -> Option<Write> {
    let meta = &target.metadata;
    let object = version(Kind::Target, meta);
    let protected = is_protected(meta.finalizers.as_ref());
    let volumes = index.volumes_of_target.get(name).map(Vec::as_slice);
    let volumes = volumes.unwrap_or_default();
    if meta.deletion_timestamp.is_some() {
        if !protected {
            return None;
        }
        if volumes.is_empty() {
            return Some(release(object, meta));
        }
    } else if !protected {
        return Some(protect(object, meta));
    }
    let old = target.status.clone().unwrap_or_default();
    let mut new = match &target.spec.external {
        Some(source) => external::status(index, name, target, source, &old),
        None => status(index, rooms, name, target, &old),
    };
    if meta.deletion_timestamp.is_some() {
        let names = list_names(volumes.iter().copied());
        new.conditions.push(condition::next(
            &old.conditions,
            DELETING,
            Status::True,
            reason::WAITING_FOR_VOLUMES,
            format!("volumes live on it: {names}; it goes when they are deleted"),
            meta.generation,
            &index.snapshot.time(),
        ));
    }
    let conditions = (old.conditions.clone(), new.conditions.clone());
    let changed = target.status.as_ref() != Some(&new);
    changed.then(|| Write::status(object, Change::TargetStatus(new), conditions))
}

fn status(
    index: &Index<'_>,
    rooms: &Rooms,
    name: &str,
    target: &Target,
    old: &TargetStatus,
) -> TargetStatus {
    let snapshot = index.snapshot;
    let generation = target.metadata.generation;
    let ready = |status, reason: &str, message: String| {
        let now = snapshot.time();
        condition::next(
            &old.conditions,
            READY,
            status,
            reason,
            message,
            generation,
            &now,
        )
    };
    match reach(snapshot, &target.spec.node) {
        // What was seen last stays: the drives do not change because the operator, or the node after a restart of
        // its daemon, does not see them yet.
        Reach::Unsettled => TargetStatus {
            conditions: find(&old.conditions, READY).cloned().into_iter().collect(),
            ..old.clone()
        },
        Reach::Away { reason, message } => TargetStatus {
            observed_generation: generation,
            conditions: vec![ready(Status::Unknown, reason, message)],
            portals: Vec::new(),
            ..old.clone()
        },
        Reach::Up(report) if is_reopening(name, report, old) => TargetStatus {
            conditions: find(&old.conditions, READY).cloned().into_iter().collect(),
            ..old.clone()
        },
        Reach::Up(report) => {
            let drives: Vec<DriveStatus> = target
                .spec
                .drives
                .iter()
                .map(|spec| drive_status(rooms, name, spec, report, old))
                .collect();
            let capacity = drives.iter().map(|d| d.capacity_bytes).sum();
            let free = drives.iter().map(|d| d.free_bytes).sum();
            let refusal = snapshot.dataplanes.get(&target.spec.node);
            let refusal = refusal.and_then(|d| d.refusal.as_deref());
            let (status, reason, message) = verdict(&drives, report, refusal);
            TargetStatus {
                observed_generation: generation,
                conditions: vec![ready(status, reason, message)],
                portals: portals(report),
                capacity_bytes: capacity,
                free_bytes: free,
                capacity: for_people(capacity),
                free: for_people(free),
                drives,
                subsystems: Vec::new(),
            }
        }
    }
}

/// A drive that was online is being opened again.
fn is_reopening(target: &str, report: &NodeReport, old: &TargetStatus) -> bool {
    old.drives
        .iter()
        .filter(|d| d.state == "Online")
        .any(|d| is_opening(report, &drive_name(target, &d.name)))
}

/// A drive as its node reported it.
fn drive_status(
    rooms: &Rooms,
    target: &str,
    spec: &DriveSpec,
    report: &NodeReport,
    old: &TargetStatus,
) -> DriveStatus {
    let mut status = DriveStatus {
        name: spec.name.clone(),
        state: "Unknown".into(),
        ..DriveStatus::default()
    };
    if let Err(message) = check_source(spec) {
        status.state = "Refused".into();
        status.reason = reason::INVALID_SPEC.into();
        status.message = message;
        return status;
    }
    let on_node = drive_name(target, &spec.name);
    let Some(drive) = report.drives.iter().find(|d| d.name == on_node) else {
        status.reason = reason::APPLYING.into();
        status.message = "the node has not looked at it yet".into();
        return status;
    };
    status.state = state_word(drive).into();
    status.reason = match drive.reason.as_str() {
        PENDING => reason::APPLYING.into(),
        other => other.into(),
    };
    status.message.clone_from(&drive.message);
    status.path.clone_from(&drive.path);
    status.serial.clone_from(&drive.serial);
    if drive.state() == DriveState::Online {
        let key = DriveKey {
            target: target.into(),
            drive: spec.name.clone(),
        };
        status.capacity_bytes = drive.capacity_bytes;
        status.free_bytes = rooms.free_bytes(&key).unwrap_or_default();
        let before = old.drives.iter().find(|d| d.name == spec.name);
        status.allocated_bytes = settle(
            before.map(|d| d.allocated_bytes),
            drive.allocated_bytes,
            drive.capacity_bytes,
        );
    }
    status
}

fn check_source(spec: &DriveSpec) -> Result<(), String> {
    let source = spec
        .source()
        .ok_or("it needs exactly one of path, serial, model, file and memory")?;
    let size = match source {
        DriveSource::File(file) => &file.size,
        DriveSource::Memory(memory) => &memory.size,
        DriveSource::Path(_) | DriveSource::Serial(_) | DriveSource::Model(_) => return Ok(()),
    };
    parse_bytes(size).map(|_| ()).map_err(|e| e.to_string())
}

fn state_word(drive: &DriveReport) -> &'static str {
    match drive.state() {
        DriveState::Online => "Online",
        DriveState::Refused => "Refused",
        DriveState::Missing => "Missing",
        DriveState::Failed => "Failed",
        DriveState::Unspecified => "Unknown",
    }
}

/// `Ready` from the drives and the portals.
fn verdict(
    drives: &[DriveStatus],
    report: &NodeReport,
    refusal: Option<&str>,
) -> (Status, &'static str, String) {
    let offline: Vec<&DriveStatus> = drives.iter().filter(|d| d.state != "Online").collect();
    let trouble = offline
        .iter()
        .map(|d| match d.message.is_empty() {
            true => format!("{}: {}", d.name, d.state),
            false => format!("{}: {}: {}", d.name, d.state, d.message),
        })
        .collect::<Vec<_>>()
        .join("; ");
    if drives.is_empty() {
        let message = "the Target lists no drives: add one to spec.drives".into();
        return (Status::False, reason::NO_DRIVE_ONLINE, message);
    }
    if let Some(refusal) = refusal {
        let message = format!("the node refused its new state: {refusal}");
        return (Status::False, reason::INVALID_SPEC, message);
    }
    if offline.len() == drives.len() {
        let applying = offline.iter().all(|d| d.reason == reason::APPLYING);
        let reason = if applying {
            reason::APPLYING
        } else {
            reason::NO_DRIVE_ONLINE
        };
        return (Status::False, reason, trouble);
    }
    if !report.portals.iter().any(|p| p.listening) {
        let down = report.portals.iter().map(|p| p.message.as_str());
        let message = format!("no portal listens: {}", list_names(down));
        return (Status::False, reason::PORTAL_DOWN, message);
    }
    if offline.is_empty() {
        let message = format!("{} of {} drives online", drives.len(), drives.len());
        return (Status::True, reason::SERVING, message);
    }
    (Status::True, reason::DRIVES_DEGRADED, trouble)
}

/// The portals that listen, in the words of the API; one with a transport or port that it has no words for is left out.
pub(super) fn portals(report: &NodeReport) -> Vec<PortalStatus> {
    let listening = report.portals.iter().filter(|p| p.listening);
    listening.filter_map(portal).collect()
}

fn portal(report: &PortalReport) -> Option<PortalStatus> {
    let portal = report.portal.as_ref()?;
    let link = match report.link() {
        LinkState::Unspecified => "",
        known => link_word(known),
    };
    Some(PortalStatus {
        transport: transport_word(portal.transport())?.into(),
        address: portal.address.clone(),
        port: u16::try_from(portal.port).ok()?,
        netdev: report.netdev.clone(),
        rdma_device: report.rdma_device.clone(),
        roce_versions: report
            .roce_versions()
            .filter_map(version_word)
            .map(Into::into)
            .collect(),
        link: link.into(),
        speed_gbps: report.speed_gbps,
        mtu_bytes: report.mtu_bytes,
    })
}

/// The name of a transport.
pub(super) fn transport_word(transport: Transport) -> Option<&'static str> {
    match transport {
        Transport::Tcp => Some("tcp"),
        Transport::Rdma => Some("rdma"),
        Transport::Local => Some("local"),
        Transport::Unspecified => None,
    }
}
