//! Decisions about attachments.

use roadstead_crds::condition::{self, DELETING, PREFERRED, READY, Status, is_true, reason};
use roadstead_crds::{NVMeAttachment, NVMeAttachmentStatus, NVMeNamespace, PathStatus};

use super::access::{Access, access, host_nqn};
use super::choice::{self, Pending};
use super::external;
use super::index::{Applied, Index};
use super::placement::{Bound, Home, Placement, home, is_protected, is_removing};
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
    let home = namespace.and_then(|n| home(n));
    let mut deleting = None;
    if meta.deletion_timestamp.is_some() {
        if !protected {
            return None;
        }
        deleting = home.and_then(|home| holds(index, applied, attachment, &home));
        if deleting.is_none() {
            let mut write = release(object, meta);
            let fenced = home.is_some_and(|h| access(index, attachment, &h) == Access::Fenced);
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
    if let (Some(namespace), Some(home)) = (namespace, &home) {
        new.host_nqn = host_nqn(index, attachment).map(Into::into).or(new.host_nqn);
        chosen = choice::choose(index, attachment, namespace, home, &mut new);
        paths::follow(index, attachment, home, &mut new);
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
    home: &Home<'a>,
) -> Option<Verdict> {
    let node = attachment.spec.node.as_str();
    let access = access(index, attachment, home);
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
        Access::Unfenced => {
            let message = format!(
                "node {node} does not answer, and an appliance cannot be told to shut it out: bring its dataplane back; or, \
                 when the node is surely off, kubectl taint node {node} node.kubernetes.io/out-of-service=:NoExecute"
            );
            return Some((Status::True, reason::WAITING_FOR_NODE, message));
        }
        Access::Released | Access::Fenced | Access::NotYet => {}
    }
    let Home::Drive(place) = home else {
        return None;
    };
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
            access(index, other, &Home::Drive(*place)).is_open()
                && host_nqn(index, other) == Some(nqn)
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
    let conditions = namespace.status.as_ref().map(|s| s.conditions.as_slice());
    let conditions = conditions.unwrap_or_default();
    let place = match home(namespace) {
        None => return not_ready(),
        Some(Home::Drive(place)) => place,
        Some(Home::Appliance(bound)) => {
            return match condition::find(conditions, READY) {
                Some(c) if c.status == Status::Unknown.as_str() => {
                    let message = c.message.clone();
                    Some((Status::Unknown, reason::UNREACHABLE, message))
                }
                Some(c) if c.status == Status::True.as_str() => {
                    ready_on_appliance(index, applied, attachment, &bound, (status, pending))
                }
                _ => not_ready(),
            };
        }
    };
    match reach(index.snapshot, place.node) {
        Reach::Unsettled => return None,
        Reach::Away { reason, message } => return Some((Status::Unknown, reason, message)),
        Reach::Up(_) => {}
    }
    if !is_true(conditions, READY) {
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

/// `Ready` of an attachment to an appliance: its node knows whom it is there, and one of the paths leads to a portal that
/// answers. Whom it lets in is the appliance's affair.
fn ready_on_appliance<'a>(
    index: &Index<'a>,
    applied: &Applied<'a>,
    attachment: &'a NVMeAttachment,
    bound: &Bound<'a>,
    (status, pending): (&NVMeAttachmentStatus, Option<Pending>),
) -> Option<Verdict> {
    let node = attachment.spec.node.as_str();
    if host_nqn(index, attachment).is_none() {
        let message = format!("node {node} never said its host NQN: {}", away(index, node));
        return Some((Status::False, reason::HOST_UNKNOWN, message));
    }
    if let Some((reason, message)) = pending {
        return Some((Status::False, reason, message));
    }
    let snapshot = index.snapshot;
    let target = snapshot.targets.get(bound.target);
    let wanted = target.and_then(|t| external::message(snapshot, bound.target, t));
    if wanted.is_none() || applied.external(node, bound.target) != wanted.as_ref() {
        let target = bound.target;
        let message =
            format!("waits for node {node} to take in what it is told of appliance {target}");
        return Some((Status::False, reason::APPLYING, message));
    }
    let ends = external::ends(index, bound, node);
    let portals = ends.iter().flat_map(|e| &e.portals);
    let mut open = portals.filter(|p| p.listening);
    if !open.any(|p| status.paths.iter().any(|path| choice::is_at(path, &p.key))) {
        let message = format!(
            "no portal of appliance {} that it uses answers",
            bound.target
        );
        return Some((Status::False, reason::PORTAL_DOWN, message));
    }
    let message = format!("node {node} may connect, as far as Roadstead is concerned");
    Some((Status::True, reason::ALLOWED, message))
}

/// Why a node is silent.
fn away(index: &Index<'_>, node: &str) -> String {
    match reach(index.snapshot, node) {
        Reach::Away { message, .. } => message,
        Reach::Up(_) | Reach::Unsettled => "it has just been found".into(),
    }
}
