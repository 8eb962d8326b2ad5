//! What other threads see of a path.

use std::time::{SystemTime, UNIX_EPOCH};

use roadstead_host::PathReport;
use roadstead_nvme::Portal;
use roadstead_ring::Segments;

use crate::client::Client;
use crate::rim::Rim;

/// A path and what it does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Where it leads.
    pub portal: Portal,
    /// What it does.
    pub report: PathReport,
    /// When it was lost last, in Unix seconds; 0: never.
    pub lost_s: u64,
    /// What the transport has sent on its present connections, if it tells.
    pub segments: Option<Segments>,
}

/// Every path of a client. `before` is what this said last: a loss since then is one of this moment.
pub(crate) fn statuses(client: &Client, io: &impl Rim, before: &[PathStatus]) -> Vec<PathStatus> {
    let status = |report: PathReport| {
        let portal = client.portal(report.path)?;
        let last = before.iter().find(|last| last.portal == portal);
        let lost_s = match (report.losses, last) {
            (0, _) => 0,
            (losses, Some(last)) if losses == last.report.losses => last.lost_s,
            _ => unix_s(),
        };
        Some(PathStatus {
            portal,
            lost_s,
            segments: client.segments(io, report.path),
            report,
        })
    };
    client.paths().into_iter().filter_map(status).collect()
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
