//! Which attachments let their node in.
//!
//! An attachment lets its node's host NQN into the volume's subsystem from when it is protected by the finalizer
//! until it is being deleted and its node either shows no use of the volume any more, or is down. A node that is
//! up but whose daemon is away is given a while: its device waits for the daemon, and a pod may be using it.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use roadstead_crds::NVMeAttachment;

use super::index::Index;
use super::placement::{Home, is_protected};
use crate::snapshot::{Link, NodeInfo};

/// How long a deleted attachment waits for a daemon that is away on a node that is up.
pub const DETACH_GRACE: SignedDuration = SignedDuration::from_secs(120);

/// What an attachment means for its node at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// The node is let in.
    Allowed,
    /// Being deleted, but the node still uses the volume: let in.
    InUse,
    /// Being deleted, and its node is up but silent until this time: let in.
    Silent(Timestamp),
    /// Being deleted, and its node has let go of the volume: not let in.
    Released,
    /// Being deleted, and its node is down: shut out.
    Fenced,
    /// Being deleted, and its node is down; it cannot be shut out, for the volume is on an appliance: let in.
    Unfenced,
    /// Not protected yet, or its node's NQN is not known: not let in.
    NotYet,
}

impl Access {
    /// The target lets the node in.
    pub(super) fn is_open(self) -> bool {
        match self {
            Access::Allowed | Access::InUse | Access::Silent(_) | Access::Unfenced => true,
            Access::Released | Access::Fenced | Access::NotYet => false,
        }
    }
}

/// What an attachment of the volume at `home` means now.
pub(super) fn access<'a>(
    index: &Index<'a>,
    attachment: &'a NVMeAttachment,
    home: &Home<'a>,
) -> Access {
    if !is_protected(attachment.metadata.finalizers.as_ref()) {
        return Access::NotYet;
    }
    let node = attachment.spec.node.as_str();
    let Some(deleted_at) = &attachment.metadata.deletion_timestamp else {
        return match host_nqn(index, attachment) {
            Some(_) => Access::Allowed,
            None => Access::NotYet,
        };
    };
    let link = index.snapshot.dataplanes.get(node).map(|d| &d.link);
    let silent_since = match link {
        Some(Link::Up) => {
            return match index.attachment_report(node, home.key()) {
                Some(_) => Access::InUse,
                None => Access::Released,
            };
        }
        // The operator has only just started to look.
        Some(Link::Connecting) => index.snapshot.now,
        Some(Link::Lost { since, .. }) => *since,
        None => deleted_at.0,
    };
    let info = index.snapshot.nodes.get(node);
    if let Home::Appliance(_) = home {
        // Nobody can shut the node out: only who knows that it is off may give the volume to another one.
        return match info.is_none_or(|info| info.out_of_service) {
            true => Access::Fenced,
            false => Access::Unfenced,
        };
    }
    if info.is_none_or(NodeInfo::is_down) {
        return Access::Fenced;
    }
    let until = silence_ends(deleted_at.0, silent_since);
    if index.snapshot.now >= until {
        Access::Fenced
    } else {
        Access::Silent(until)
    }
}

/// When the patience with a silent daemon on a node that is up ends.
pub(super) fn silence_ends(deleted_at: Timestamp, silent_since: Timestamp) -> Timestamp {
    let start = deleted_at.max(silent_since);
    start.saturating_add(DETACH_GRACE).unwrap_or(start)
}

/// The host NQN of an attachment's node: as reported last, also by an earlier operator.
pub(super) fn host_nqn<'a>(index: &Index<'a>, attachment: &'a NVMeAttachment) -> Option<&'a str> {
    let node = attachment.spec.node.as_str();
    let snapshot = index.snapshot;
    let reported = snapshot
        .dataplanes
        .get(node)
        .and_then(|d| d.report.as_ref()?.host.as_ref())
        .map(|h| h.host_nqn.as_str());
    let recorded = snapshot
        .hosts
        .get(node)
        .and_then(|h| h.status.as_ref())
        .map(|s| s.host_nqn.as_str());
    let used = attachment
        .status
        .as_ref()
        .and_then(|s| s.host_nqn.as_deref());
    [reported, recorded, used]
        .into_iter()
        .flatten()
        .find(|nqn| !nqn.is_empty())
}
