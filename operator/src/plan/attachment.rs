//! Decisions about attachments.

use roadstead_api::v1::{AttachmentReport, PathState, Transport};
use roadstead_crds::condition::{self, DELETING, READY, Status, is_true, reason};
use roadstead_crds::{
    Condition, NVMeAttachment, NVMeAttachmentStatus, NVMeNamespace, PathStatus, Portal,
};

use super::access::{Access, access, host_nqn};
use super::index::{Applied, Index};
use super::placement::{Placement, is_protected, is_removing, placement};
use super::reach::{Reach, reach};
use super::target::{portal, portals};
use super::write::{Change, Kind, Note, Write};
use super::{protect, release, version};

/// What a condition says.
type Verdict = (Status, &'static str, String);

/// The write that an attachment needs, if any.
pub(super) fn decide<'a>(
    index: &Index<'a>,
    applied: &Applied<'a>,
    attachment: &'a NVMeAttachment,
) -> Option<Write> {
    let meta = &attachment.metadata;
    let object = version(Kind::Attachment, meta);
    let protected = is_protected(meta.finalizers.as_ref());
    let namespace = index.snapshot.namespaces.get(&attachment.spec.namespace);
    let place = namespace.and_then(|n| placement(n));
    let mut deleting = None;
    if meta.deletion_timestamp.is_some() {
        if !protected {
            return None;
        }
        deleting = place.and_then(|place| holds(index, applied, attachment, &place));
        if deleting.is_none() {
            let mut write = release(object, meta);
            let fenced = place.is_some_and(|p| access(index, attachment, &p) == Access::Fenced);
            write.notes.extend(fenced.then(|| fencing(attachment)));
            return Some(write);
        }
    } else if !protected {
        return Some(protect(object, meta));
    }
    let old = attachment.status.clone().unwrap_or_default();
    let now = index.snapshot.time();
    let condition = |type_: &str, (status, reason, message): Verdict| {
        condition::next(
            &old.conditions,
            type_,
            status,
            reason,
            message,
            meta.generation,
            &now,
        )
    };
    let mut new = status(index, attachment, place.as_ref(), &old);
    let verdict = ready(index, applied, attachment, namespace.map(AsRef::as_ref));
    new.conditions = match verdict {
        Some(verdict) => vec![condition(READY, verdict)],
        None => old
            .conditions
            .iter()
            .filter(|c| c.type_ == READY)
            .cloned()
            .collect::<Vec<Condition>>(),
    };
    new.conditions
        .extend(deleting.map(|verdict| condition(DELETING, verdict)));
    let changed =
        attachment.status.as_ref() != Some(&new) && new != NVMeAttachmentStatus::default();
    let conditions = (old.conditions.clone(), new.conditions.clone());
    changed.then(|| Write::status(object, Change::AttachmentStatus(new), conditions))
}

/// What is said when an attachment goes although its node could not let go of it.
fn fencing(attachment: &NVMeAttachment) -> Note {
    Note {
        warning: true,
        reason: reason::FENCED.into(),
        message: format!(
            "node {} is down: the volume lets it in no longer",
            attachment.spec.node
        ),
    }
}

/// What the deletion of an attachment waits for; `None` when it may go.
fn holds<'a>(
    index: &Index<'a>,
    applied: &Applied<'a>,
    attachment: &'a NVMeAttachment,
    place: &Placement<'a>,
) -> Option<Verdict> {
    let node = attachment.spec.node.as_str();
    let access = access(index, attachment, place);
    match access {
        Access::Allowed | Access::InUse => {
            let message = format!(
                "node {node} still has the volume's device; it goes when the device is gone"
            );
            return Some((Status::True, reason::WAITING_FOR_DETACH, message));
        }
        Access::Silent(until) => {
            let message = format!(
                "the dataplane of node {node} is away, so nobody can tell whether the volume is in use; \
                 the node is shut out at {until} or when Kubernetes calls it down"
            );
            return Some((Status::True, reason::WAITING_FOR_NODE, message));
        }
        Access::Released | Access::Fenced | Access::NotYet => {}
    }
    let nqn = host_nqn(index, attachment)?;
    if needed_by_another(index, attachment, place, nqn) {
        return None;
    }
    let still_in = match access {
        Access::Fenced => applied
            .lets_in(place.node, place.nqn, nqn)
            .map(|open| open || connected(index, place, nqn)),
        _ => applied.lets_in(place.node, place.nqn, nqn),
    };
    match (still_in, access) {
        (Some(false), _) => None,
        // The node itself says that it has let go, so there is nothing to shut out.
        (None, Access::Released) => None,
        (None, _) => {
            let message = format!(
                "node {node} is down, and node {}, which must shut it out, cannot be reached",
                place.node
            );
            Some((Status::True, reason::WAITING_FOR_NODE, message))
        }
        (Some(true), _) => {
            let message = format!("node {} is to let node {node} in no longer", place.node);
            Some((Status::True, reason::REVOKING, message))
        }
    }
}

/// Another attachment of the same volume lets the same host in.
fn needed_by_another<'a>(
    index: &Index<'a>,
    attachment: &NVMeAttachment,
    place: &Placement<'a>,
    nqn: &str,
) -> bool {
    let all = index.attachments_of.get(attachment.spec.namespace.as_str());
    all.into_iter()
        .flatten()
        .filter(|(_, other)| other.metadata.uid != attachment.metadata.uid)
        .any(|(_, other)| {
            access(index, other, place).is_open() && host_nqn(index, other) == Some(nqn)
        })
}

/// The target says that the host has a controller in the volume's subsystem.
fn connected(index: &Index<'_>, place: &Placement<'_>, nqn: &str) -> bool {
    let report = index.snapshot.live_report(place.node);
    let subsystems = report.into_iter().flat_map(|r| &r.subsystems);
    subsystems
        .filter(|s| s.nqn == place.nqn)
        .flat_map(|s| &s.controllers)
        .any(|c| c.host_nqn == nqn)
}

/// Everything of the status but the conditions.
fn status<'a>(
    index: &Index<'a>,
    attachment: &'a NVMeAttachment,
    place: Option<&Placement<'a>>,
    old: &NVMeAttachmentStatus,
) -> NVMeAttachmentStatus {
    let mut new = old.clone();
    new.observed_generation = attachment.metadata.generation;
    new.conditions = Vec::new();
    let Some(place) = place else { return new };
    let node = attachment.spec.node.as_str();
    new.host_nqn = host_nqn(index, attachment).map(Into::into).or(new.host_nqn);
    let own = node == place.node;
    new.transport = Some("tcp".into());
    new.reason = Some(if own {
        "the volume lives on this node: NVMe/TCP to the node's own address, without the network"
            .into()
    } else {
        "NVMe/TCP: the transport that both nodes have".into()
    });
    let initiator_speaks = index.snapshot.live_report(node).is_some();
    let device = index.attachment_report(node, place.uuid);
    if initiator_speaks {
        new.attach_method = device.map(|d| d.method.clone());
        new.device = device.map(|d| d.device.clone());
    }
    new.paths = path_portals(index, place, device, old)
        .into_iter()
        .map(|at| {
            let before = old.paths.iter().find(|p| is_at(p, &at));
            match (initiator_speaks, before) {
                // Without the initiator's word, what it said last stays.
                (false, Some(before)) => before.clone(),
                (true, _) | (false, None) => path_status(at, device),
            }
        })
        .collect();
    new
}

/// Where the volume can be reached: the target's portals, or those it had while it is away, and whatever the
/// initiator connects to.
fn path_portals(
    index: &Index<'_>,
    place: &Placement<'_>,
    device: Option<&AttachmentReport>,
    old: &NVMeAttachmentStatus,
) -> Vec<Portal> {
    let mut all = tcp_portals(index, place.node);
    if all.is_empty() {
        all = old
            .paths
            .iter()
            .map(|p| Portal {
                transport: p.transport.clone(),
                address: p.address.clone(),
                port: p.port,
            })
            .collect();
    }
    let in_use = device.into_iter().flat_map(|d| &d.paths);
    for at in in_use.filter_map(|p| p.portal.as_ref().and_then(portal)) {
        if !all.contains(&at) {
            all.push(at);
        }
    }
    all
}

/// The NVMe/TCP portals of a node that listen now.
fn tcp_portals(index: &Index<'_>, node: &str) -> Vec<Portal> {
    let mut all = index
        .snapshot
        .live_report(node)
        .map(portals)
        .unwrap_or_default();
    all.retain(|p| p.transport == "tcp");
    all
}

fn is_at(path: &PathStatus, at: &Portal) -> bool {
    path.transport == at.transport && path.address == at.address && path.port == at.port
}

/// A path, with the state that the initiator gives it.
fn path_status(at: Portal, device: Option<&AttachmentReport>) -> PathStatus {
    let seen = device.and_then(|d| {
        d.paths
            .iter()
            .find(|p| p.portal.as_ref().and_then(portal).as_ref() == Some(&at))
    });
    let state = match seen.map(|p| p.state()) {
        None | Some(PathState::Unspecified) => "Available",
        Some(PathState::Live) => "Live",
        Some(PathState::Connecting) => "Connecting",
        Some(PathState::Failed) => "Failed",
    };
    PathStatus {
        transport: at.transport,
        address: at.address,
        port: at.port,
        state: state.into(),
        ana_state: "optimized".into(),
        message: seen.map(|p| p.message.clone()).unwrap_or_default(),
    }
}

/// `Ready`; `None`: leave it as it is.
fn ready<'a>(
    index: &Index<'a>,
    applied: &Applied<'a>,
    attachment: &'a NVMeAttachment,
    namespace: Option<&'a NVMeNamespace>,
) -> Option<Verdict> {
    let volume = &attachment.spec.namespace;
    let node = &attachment.spec.node;
    let Some(namespace) = namespace else {
        let message = format!("there is no NVMeNamespace {volume}");
        return Some((Status::False, reason::NAMESPACE_NOT_FOUND, message));
    };
    if is_removing(namespace) {
        let message = format!("the data of NVMeNamespace {volume} is being deleted");
        return Some((Status::False, reason::NAMESPACE_DELETING, message));
    }
    let not_ready = || {
        let message = format!(
            "NVMeNamespace {volume} is not ready: see kubectl describe nvmenamespace {volume}"
        );
        Some((Status::False, reason::NAMESPACE_NOT_READY, message))
    };
    let Some(place) = placement(namespace) else {
        return not_ready();
    };
    match reach(index.snapshot, place.node) {
        Reach::Unsettled => return None,
        Reach::Away { reason, message } => return Some((Status::Unknown, reason, message)),
        Reach::Up(_) => {}
    }
    let conditions = namespace.status.as_ref().map(|s| s.conditions.as_slice());
    if !is_true(conditions.unwrap_or_default(), READY) {
        return not_ready();
    }
    let Some(nqn) = host_nqn(index, attachment) else {
        let message = format!("node {node} never said its host NQN: {}", away(index, node));
        return Some((Status::False, reason::HOST_UNKNOWN, message));
    };
    if let Some(host) = index
        .snapshot
        .live_report(node)
        .and_then(|r| r.host.as_ref())
        && !host.transports().any(|t| t == Transport::Tcp)
    {
        let message =
            format!("node {node} cannot use NVMe/TCP: its dataplane offers no such transport");
        return Some((Status::False, reason::NO_COMMON_TRANSPORT, message));
    }
    if tcp_portals(index, place.node).is_empty() {
        let message = format!("no NVMe/TCP portal of node {} listens", place.node);
        return Some((Status::False, reason::PORTAL_DOWN, message));
    }
    if applied.lets_in(place.node, place.nqn, nqn) == Some(true) {
        let message = format!("node {node} may connect");
        return Some((Status::True, reason::ALLOWED, message));
    }
    let message = format!("waits for node {} to let node {node} in", place.node);
    Some((Status::False, reason::APPLYING, message))
}

/// Why a node is silent.
fn away(index: &Index<'_>, node: &str) -> String {
    match reach(index.snapshot, node) {
        Reach::Away { message, .. } => message,
        Reach::Up(_) | Reach::Unsettled => "it has just been found".into(),
    }
}
