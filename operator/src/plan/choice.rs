//! The transport of an attachment: decided until the node was let in, then kept. Another choice moves an existing
//! attachment only by the preference among paths that it has already, which interrupts nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use roadstead_crds::condition::{self, READY, Status, reason};
use roadstead_crds::transport::{NetworkTransport, TransportKind};
use roadstead_crds::{
    CandidateStatus, DEFAULT_POLICY, NVMeAttachment, NVMeAttachmentStatus, NVMeNamespace,
    PathStatus, TransportPolicy, TransportPolicySpec,
};

use super::ends;
use super::external;
use super::index::Index;
use super::placement::Home;
use super::write::Note;
use crate::policy::{Choice, Decision, Input, Needs, PathKey, decide};
use crate::snapshot::Snapshot;

/// Why no transport is chosen: a reason and a sentence.
pub(super) type Pending = (&'static str, String);

/// Puts the transport of `attachment` into `new`, with what is worth an Event; the error says why there is none.
pub(super) fn choose<'a>(
    index: &Index<'a>,
    attachment: &'a NVMeAttachment,
    namespace: &NVMeNamespace,
    home: &Home<'a>,
    new: &mut NVMeAttachmentStatus,
) -> Result<Option<Note>, Pending> {
    let snapshot = index.snapshot;
    let node = attachment.spec.node.as_str();
    let settled = settled(index, attachment, home, new);
    if let Some(transport) = settled {
        new.chosen_transport = Some(transport);
    }
    let target = match home {
        Home::Drive(place) => {
            let report = snapshot.live_report(place.node);
            report.map(|report| ends::target(snapshot, place.node, report))
        }
        Home::Appliance(bound) => external::ends(index, bound, node),
    };
    let (Some(target), Some(host)) = (target, ends::host(snapshot, node)) else {
        return Ok(None);
    };
    if attachment.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let (name, policy) = match policy(snapshot, namespace) {
        Ok(found) => found,
        Err(_) if settled.is_some() => return Ok(None),
        Err(why) => {
            clear(new, &why, Vec::new());
            return Err((reason::POLICY_NOT_FOUND, why));
        }
    };
    // What failed lately is for new attachments: those that exist have paths of both kinds, and their node changes over.
    let measured = match settled {
        Some(_) => BTreeMap::new(),
        None => ends::measured(snapshot.live_report(node)),
    };
    let decision = decide(&Input {
        policy_name: name,
        policy: &policy,
        needs: &Needs::of(&namespace.spec),
        host: &host,
        target: &target,
        measured: &measured,
        now: snapshot.now,
    });
    match settled {
        Some(transport) => Ok(follow(
            index, attachment, home, name, transport, decision, new,
        )),
        None => record(name, decision, new),
    }
}

/// The transport that was chosen when the node was let in; `None` while it can still be decided.
fn settled<'a>(
    index: &Index<'a>,
    attachment: &'a NVMeAttachment,
    home: &Home<'a>,
    status: &NVMeAttachmentStatus,
) -> Option<TransportKind> {
    let node = attachment.spec.node.as_str();
    let conditions = attachment.status.iter().flat_map(|s| &s.conditions);
    let let_in = conditions
        .filter(|c| c.type_ == READY)
        .any(|c| c.status != Status::False.as_str());
    let in_use = index.attachment_report(node, home.key()).is_some() || status.device.is_some();
    if !let_in && !in_use {
        return None;
    }
    // An attachment of an operator that recorded no choice has what its first path is.
    let first = || status.paths.first().and_then(kind_of);
    status.chosen_transport.or_else(first)
}

/// The policy that counts for a volume.
fn policy<'a>(
    snapshot: &'a Snapshot,
    namespace: &'a NVMeNamespace,
) -> Result<(&'a str, Arc<TransportPolicySpec>), String> {
    let named = namespace.spec.transport_policy.as_deref();
    let name = named.unwrap_or(DEFAULT_POLICY);
    let spec = |p: &Arc<TransportPolicy>| Arc::new(p.spec.clone());
    match snapshot.policies.get(name).map(spec) {
        Some(spec) => Ok((name, spec)),
        // Without any object the table of the documentation counts.
        None if name == DEFAULT_POLICY => Ok((name, Arc::default())),
        None => Err(format!(
            "there is no TransportPolicy {name}, which the volume names"
        )),
    }
}

/// Takes out what was chosen before.
fn clear(new: &mut NVMeAttachmentStatus, why: &str, candidates: Vec<CandidateStatus>) {
    new.chosen_transport = None;
    new.chosen_method = None;
    new.reason = Some(why.into());
    new.candidates = candidates;
    new.superseded = None;
    new.paths = Vec::new();
}

/// Records a decision about an attachment that is not in use yet.
fn record(
    policy: &str,
    decision: Decision,
    new: &mut NVMeAttachmentStatus,
) -> Result<Option<Note>, Pending> {
    let before = (new.chosen_transport, new.reason.clone());
    let candidates = candidates(&decision);
    new.policy = Some(policy.into());
    match decision.outcome {
        Err(why) => {
            clear(new, &why, candidates);
            Err((reason::NO_TRANSPORT, why))
        }
        Ok(choice) => {
            new.chosen_transport = Some(choice.transport);
            new.chosen_method = Some(choice.method.word().into());
            new.reason = Some(choice.reason.clone());
            new.candidates = candidates;
            new.superseded = None;
            new.paths = paths(&choice);
            let said = before == (new.chosen_transport, new.reason.clone());
            Ok((!said).then(|| Note {
                warning: choice.last_resort,
                reason: reason::TRANSPORT_CHOSEN.into(),
                message: choice.reason,
            }))
        }
    }
}

/// What a new decision means for an attachment that is in use with `transport`.
fn follow<'a>(
    index: &Index<'a>,
    attachment: &'a NVMeAttachment,
    home: &Home<'a>,
    policy: &str,
    transport: TransportKind,
    decision: Decision,
    new: &mut NVMeAttachmentStatus,
) -> Option<Note> {
    let candidates = candidates(&decision);
    let superseded = match decision.outcome {
        Ok(choice) if choice.transport == transport => None,
        Ok(choice) if has_live_path(index, attachment, home, choice.transport) => {
            new.chosen_transport = Some(choice.transport);
            new.policy = Some(policy.into());
            new.candidates = candidates;
            new.superseded = None;
            reorder(&mut new.paths, &choice);
            let message = format!(
                "{}; the path is there already, so it moves without an interruption",
                choice.reason
            );
            new.reason = Some(choice.reason);
            return Some(Note {
                warning: false,
                reason: reason::TRANSPORT_MOVED.into(),
                message,
            });
        }
        Ok(choice) => Some(format!(
            "a new attachment would get {}; this one stays with {}, because it has no live path of the other kind",
            choice.reason,
            transport.title()
        )),
        Err(why) => Some(format!(
            "a new attachment would wait: {why}; this one stays with {}",
            transport.title()
        )),
    };
    let news = superseded.clone().filter(|_| superseded != new.superseded);
    new.superseded = superseded;
    news.map(|message| Note {
        warning: false,
        reason: reason::TRANSPORT_SUPERSEDED.into(),
        message,
    })
}

/// The node says that a path with this transport is live.
fn has_live_path<'a>(
    index: &Index<'a>,
    attachment: &'a NVMeAttachment,
    home: &Home<'a>,
    transport: TransportKind,
) -> bool {
    let device = index.attachment_report(attachment.spec.node.as_str(), home.key());
    let paths = device.into_iter().flat_map(|d| &d.paths);
    let live = paths.filter(|p| p.state() == roadstead_api::v1::PathState::Live);
    live.filter_map(|p| p.portal.as_ref().and_then(ends::path_key))
        .any(|key| TransportKind::from(key.transport) == transport)
}

/// Puts the paths that the attachment has in the order of the new choice.
fn reorder(paths: &mut [PathStatus], choice: &Choice) {
    let place = |path: &PathStatus| {
        let found = choice.paths.iter().find(|p| is_at(path, &p.key));
        found.map(|p| p.preference)
    };
    let last = choice.paths.iter().map(|p| p.preference + 1).max();
    for path in paths.iter_mut() {
        path.preference = place(path).or(last).unwrap_or_default();
    }
    paths.sort_by_key(|path| path.preference);
}

/// The path is the one of this key.
pub(super) fn is_at(path: &PathStatus, key: &PathKey) -> bool {
    path.transport == wire_word(key.transport)
        && path.address == key.address.to_string()
        && path.port == key.port
}

/// What a recorded path uses.
pub(super) fn kind_of(path: &PathStatus) -> Option<TransportKind> {
    match path.transport.as_str() {
        "local" => Some(TransportKind::Local),
        "tcp" => Some(TransportKind::Tcp),
        "rdma" => Some(TransportKind::Roce),
        _ => None,
    }
}

/// The name of a path's transport in NVMe's words.
pub(super) fn wire_word(transport: NetworkTransport) -> &'static str {
    match transport {
        NetworkTransport::Tcp => "tcp",
        NetworkTransport::Roce => "rdma",
    }
}

fn candidates(decision: &Decision) -> Vec<CandidateStatus> {
    let candidates = decision.candidates.iter();
    candidates
        .map(|c| CandidateStatus {
            transport: c.transport,
            portal: c.portal.map_or_else(String::new, |key| key.to_string()),
            accepted: c.accepted,
            reason: c.reason.clone(),
        })
        .collect()
}

/// The paths of a choice, not connected yet.
fn paths(choice: &Choice) -> Vec<PathStatus> {
    let path = |transport: &str, address: String, port: u16, preference: u32| PathStatus {
        transport: transport.into(),
        address,
        port,
        preference,
        state: "Available".into(),
        ..PathStatus::default()
    };
    if choice.transport == TransportKind::Local {
        return vec![path("local", String::new(), 0, 0)];
    }
    let paths = choice.paths.iter();
    paths
        .map(|p| {
            let word = wire_word(p.key.transport);
            path(word, p.key.address.to_string(), p.key.port, p.preference)
        })
        .collect()
}

/// `PreferredPath` from what the node says of the paths, once it has the device.
pub(super) fn preferred(status: &NVMeAttachmentStatus) -> Option<(Status, &'static str, String)> {
    let chosen = status
        .chosen_transport
        .filter(|_| status.device.is_some())?;
    let Some(used) = status.transport.as_deref() else {
        let message = "no path is live: I/O waits".into();
        return Some((Status::False, reason::NO_LIVE_PATH, message));
    };
    if used.split(',').any(|word| word == chosen.word()) {
        let message = format!("I/O goes over {}", chosen.title());
        return Some((Status::True, reason::AS_CHOSEN, message));
    }
    let down = status.paths.iter().filter(|p| kind_of(p) == Some(chosen));
    let down: Vec<String> = down
        .map(|p| match p.message.is_empty() {
            true => format!("{}:{} is {}", p.address, p.port, p.state),
            false => format!("{}:{} is {}: {}", p.address, p.port, p.state, p.message),
        })
        .collect();
    let message = format!(
        "I/O goes over {used} instead of {}: {}",
        chosen.title(),
        down.join("; ")
    );
    Some((Status::False, reason::FAILED_OVER, message))
}

/// A condition of an attachment that is in use stays while nothing better is known.
pub(super) fn keep(old: &NVMeAttachmentStatus, type_: &str) -> Option<roadstead_crds::Condition> {
    condition::find(&old.conditions, type_).cloned()
}
