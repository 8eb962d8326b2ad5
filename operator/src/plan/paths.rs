//! What an attachment's node says of the device, its paths, and what carries the I/O.

use roadstead_api::v1::{self, AnaState, AttachmentReport, PathReport, PathState, Transport};
use roadstead_crds::transport::TransportKind;
use roadstead_crds::{NVMeAttachment, NVMeAttachmentStatus, PathStatus};

use super::index::Index;
use super::placement::Home;
use super::reach::{Reach, reach};
use super::target::transport_word;

/// Puts the node's word into `new`.
pub(super) fn follow<'a>(
    index: &Index<'a>,
    attachment: &'a NVMeAttachment,
    home: &Home<'a>,
    new: &mut NVMeAttachmentStatus,
) {
    let node = attachment.spec.node.as_str();
    match reach(index.snapshot, node) {
        // Too early: what it said last stays.
        Reach::Unsettled => {}
        Reach::Up(_) => {
            let device = index.attachment_report(node, home.key());
            new.attach_method = device.map(|d| d.method.clone());
            new.device = device.map(|d| d.device.clone());
            new.transport = device.and_then(carries);
            let reports = device.map(|d| d.paths.as_slice()).unwrap_or_default();
            for path in &mut new.paths {
                let report = reports.iter().find(|r| is_at(path, r));
                describe(path, report);
            }
            add_others(&mut new.paths, reports);
        }
        // Nobody knows what it does now.
        Reach::Away { message, .. } => {
            new.transport = None;
            for path in new.paths.iter_mut().filter(|_| new.device.is_some()) {
                path.state = "Unknown".into();
                path.ana_state.clear();
                path.message.clone_from(&message);
            }
        }
    }
}

/// Paths that the node has beside the recorded ones.
fn add_others(paths: &mut Vec<PathStatus>, reports: &[PathReport]) {
    let last = paths.iter().map(|p| p.preference + 1).max().unwrap_or(0);
    for report in reports {
        if paths.iter().any(|path| is_at(path, report)) {
            continue;
        }
        let Some(portal) = &report.portal else {
            continue;
        };
        let (Some(transport), Ok(port)) = (
            transport_word(portal.transport()),
            u16::try_from(portal.port),
        ) else {
            continue;
        };
        let mut path = PathStatus {
            transport: transport.into(),
            address: portal.address.clone(),
            port,
            preference: last,
            ..PathStatus::default()
        };
        describe(&mut path, Some(report));
        paths.push(path);
    }
}

fn is_at(path: &PathStatus, report: &PathReport) -> bool {
    report.portal.as_ref().is_some_and(|portal| {
        transport_word(portal.transport()) == Some(path.transport.as_str())
            && (portal.transport() == Transport::Local
                || (portal.address == path.address && portal.port == u32::from(path.port)))
    })
}

fn describe(path: &mut PathStatus, report: Option<&PathReport>) {
    path.state = match report.map(PathReport::state) {
        None | Some(PathState::Unspecified) => "Available",
        Some(PathState::Live) => "Live",
        Some(PathState::Connecting) => "Connecting",
        Some(PathState::Failed) => "Failed",
    }
    .into();
    path.ana_state = report
        .map(|r| ana_word(r.ana_state()))
        .unwrap_or_default()
        .into();
    path.message = report.map(|r| r.message.clone()).unwrap_or_default();
}

/// The name of an ANA state; empty when it is not known.
fn ana_word(state: AnaState) -> &'static str {
    match state {
        AnaState::Unspecified => "",
        AnaState::Optimized => "optimized",
        AnaState::NonOptimized => "non-optimized",
        AnaState::Inaccessible => "inaccessible",
        AnaState::PersistentLoss => "persistent-loss",
        AnaState::Change => "change",
    }
}

/// What carries the I/O: the live paths that the target calls optimized, else the non-optimized ones, else every live
/// path, for then nobody says which of them is used.
fn carries(device: &AttachmentReport) -> Option<String> {
    let live = || device.paths.iter().filter(|p| p.state() == PathState::Live);
    let with = |state: AnaState| live().filter(move |p| p.ana_state() == state);
    let used: Vec<&PathReport> = [AnaState::Optimized, AnaState::NonOptimized]
        .into_iter()
        .map(|state| with(state).collect::<Vec<_>>())
        .find(|paths| !paths.is_empty())
        .unwrap_or_else(|| live().collect());
    let kinds: Vec<TransportKind> = used
        .into_iter()
        .filter_map(|p| kind(p.portal.as_ref()?))
        .collect();
    let words: Vec<&str> = TransportKind::ALL
        .iter()
        .filter(|kind| kinds.contains(kind))
        .map(|kind| kind.word())
        .collect();
    (!words.is_empty()).then(|| words.join(","))
}

fn kind(portal: &v1::Portal) -> Option<TransportKind> {
    match portal.transport() {
        Transport::Local => Some(TransportKind::Local),
        Transport::Tcp => Some(TransportKind::Tcp),
        Transport::Rdma => Some(TransportKind::Roce),
        Transport::Unspecified => None,
    }
}
