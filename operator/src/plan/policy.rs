//! The status of TransportPolicies: what each says, in a sentence.

use roadstead_crds::condition::{self, READY, Status, reason};
use roadstead_crds::transport::{Need, NetworkTransport};
use roadstead_crds::{TransportPolicy, TransportPolicySpec, TransportPolicyStatus};

use super::version;
use super::write::{Change, Kind, Write};
use crate::snapshot::Snapshot;

/// The write that a policy needs, if any.
pub(super) fn decide(snapshot: &Snapshot, policy: &TransportPolicy) -> Option<Write> {
    let meta = &policy.metadata;
    if meta.deletion_timestamp.is_some() {
        return None;
    }
    let old = policy.status.clone().unwrap_or_default();
    let now = snapshot.time();
    let new = TransportPolicyStatus {
        observed_generation: meta.generation,
        conditions: vec![condition::next(
            &old.conditions,
            READY,
            Status::True,
            reason::IN_FORCE,
            says(&policy.spec),
            meta.generation,
            &now,
        )],
    };
    let object = version(Kind::Policy, meta);
    (policy.status.as_ref() != Some(&new)).then(|| Write {
        object,
        change: Change::PolicyStatus(new),
        notes: Vec::new(),
    })
}

/// What it prefers for which workload, and which needs it does not know.
fn says(spec: &TransportPolicySpec) -> String {
    let list = |prefer: NetworkTransport| {
        let rows = spec.workloads.iter().filter(|row| row.prefer == prefer);
        let words: Vec<&str> = rows.map(|row| row.workload.word()).collect();
        words.join(", ")
    };
    let mut parts = Vec::new();
    let roce = list(NetworkTransport::Roce);
    match roce.is_empty() {
        true => parts.push("TCP for every workload".to_owned()),
        false => parts.push(format!("RoCE for {roce}; else TCP")),
    }
    let missing = Need::ALL
        .iter()
        .filter(|need| !spec.rows.iter().any(|row| row.need == **need));
    let missing: Vec<&str> = missing.map(|need| need.word()).collect();
    if !missing.is_empty() {
        parts.push(format!(
            "no row for {}: volumes with such a need wait",
            missing.join(", ")
        ));
    }
    parts.join("; ")
}
