//! Whether a node's dataplane can be spoken with, in the words of conditions.

use k8s_openapi::jiff::SignedDuration;
use roadstead_api::v1::NodeReport;
use roadstead_crds::condition::reason;

use crate::snapshot::{Link, Snapshot};

/// How long a lost connection is not worth a word: a daemon's restart takes less.
pub const LINK_GRACE: SignedDuration = SignedDuration::from_secs(10);

/// What a node gives as reason while it still works on a drive or volume.
pub(super) const PENDING: &str = "Pending";

/// What can be said of a node.
pub(super) enum Reach<'a> {
    /// Connected; this is its report.
    Up(&'a NodeReport),
    /// Too early to tell.
    Unsettled,
    /// Not connected.
    Away {
        reason: &'static str,
        message: String,
    },
}

/// What can be said of `node`.
pub(super) fn reach<'a>(snapshot: &'a Snapshot, node: &str) -> Reach<'a> {
    let Some(dataplane) = snapshot.dataplanes.get(node) else {
        return if snapshot.nodes.contains_key(node) {
            Reach::Away {
                reason: reason::NO_DATAPLANE,
                message: format!(
                    "no Roadstead node pod runs on node {node}: see whether the DaemonSet may schedule there"
                ),
            }
        } else {
            Reach::Away {
                reason: reason::NODE_NOT_FOUND,
                message: format!("the cluster has no node {node}: see kubectl get nodes"),
            }
        };
    };
    match (&dataplane.link, &dataplane.report) {
        (Link::Up, Some(report)) => Reach::Up(report),
        (Link::Up | Link::Connecting, _) => Reach::Unsettled,
        (Link::Lost { since, error }, _) => {
            let until = since.saturating_add(LINK_GRACE).unwrap_or(*since);
            if snapshot.now < until {
                return Reach::Unsettled;
            }
            Reach::Away {
                reason: reason::DATAPLANE_UNREACHABLE,
                message: format!("the dataplane of node {node} cannot be reached: {error}"),
            }
        }
    }
}

/// The node is only just opening the drive.
pub(super) fn is_opening(report: &NodeReport, drive: &str) -> bool {
    report
        .drives
        .iter()
        .any(|d| d.name == drive && d.reason == PENDING)
}

/// At most five names, and how many more there are.
pub(super) fn list_names<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = names.take(SHOWN).collect();
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {more} more", shown.join(", ")),
    }
}
