//! Decisions about attachments.

use roadstead_crds::condition::{self, DELETING, PREFERRED, READY, Status, is_true, reason};
use roadstead_crds::{NVMeAttachment, NVMeAttachmentStatus, NVMeNamespace, PathStatus};

use super::access::{Access, access, host_nqn};
use super::choice::{self, Pending};
use super::index::{Applied, Index};
use super::placement::{Placement, is_protected, is_removing, placement};
use super::reach::{Reach, reach};
use super::target::portals;
use super::write::{Change, Kind, Note, Write};
use super::{paths, protect, release, version};

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
    let mut new = old.clone();
    new.observed_generation = meta.generation;
    let mut chosen = Ok(None);
    if let (Some(namespace), Some(place)) = (namespace, &place) {
        new.host_nqn = host_nqn(index, attachment).map(Into::into).or(new.host_nqn);
        chosen = choice::choose(index, attachment, namespace, place, &mut new);
        paths::follow(index, attachment, place, &mut new);
    }
    let (news, pending) = match chosen {
        Ok(news) => (news, None),
        Err(pending) => (None, Some(pending)),
    };
    let namespace = namespace.map(AsRef::as_ref);
    let verdict = ready(index, applied, attachment, namespace, (&new, pending));
    let ready = verdict.map(|verdict| condition(READY, verdict));
    new.conditions = ready
        .or_else(|| choice::keep(&old, READY))
        .into_iter()
        .collect();
    let preferred = choice::preferred(&new).map(|verdict| condition(PREFERRED, verdict));
    new.conditions.extend(preferred);
    new.conditions
        .extend(deleting.map(|verdict| condition(DELETING, verdict)));
    let changed =
        attachment.status.as_ref() != Some(&new) && new != NVMeAttachmentStatus::default();
    let conditions = (old.conditions.clone(), new.conditions.clone());
    changed.then(|| {
        let mut write = Write::status(object, Change::AttachmentStatus(new), conditions);
        write.notes.splice(0..0, news);
        write
    })
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

/// One of the paths leads to a portal that listens, or to none because it needs none.
fn is_served(index: &Index<'_>, node: &str, paths: &[PathStatus]) -> bool {
    let report = index.snapshot.live_report(node);
    let listening = report.map(portals).unwrap_or_default();
    paths.iter().any(|path| {
        path.transport == "local"
            || listening.iter().any(|p| {
                p.transport == path.transport && p.address == path.address && p.port == path.port
            })
    })
}

/// `Ready`; `None`: leave it as it is.
fn ready<'a>(
    index: &Index<'a>,
    applied: &Applied<'a>,
    attachment: &'a NVMeAttachment,
    namespace: Option<&'a NVMeNamespace>,
    (status, pending): (&NVMeAttachmentStatus, Option<Pending>),
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
    if let Some((reason, message)) = pending {
        return Some((Status::False, reason, message));
    }
    if !is_served(index, place.node, &status.paths) {
        let message = format!("no portal of node {} that it uses listens", place.node);
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
