//! The sentences of a decision. They name no number that moves by itself, so that a status is not written for nothing.

use std::collections::BTreeSet;

use roadstead_crds::transport::{Need, TransportChoice, TransportKind, Workload};

use super::order::Trouble;

/// The volume names another transport.
pub(super) fn asks_for(choice: TransportChoice) -> String {
    format!("the volume asks for transport {choice}")
}

/// The policy forbids the path without the network.
pub(super) fn local_forbidden(policy: &str) -> String {
    format!("policy {policy} has local: false")
}

/// Rows without a tick.
pub(super) fn does_not_fit(policy: &str, needs: &[Need]) -> String {
    format!("policy {policy} says that it does not fit {}", list(needs))
}

/// The policy does not know a need.
pub(super) fn no_row(policy: &str, need: Need) -> String {
    format!("policy {policy} has no row for {need}, which the volume needs")
}

/// The chosen one is not what the workload would get first.
pub(super) const OTHER: &str = "the preferred one cannot be used";

/// Every need holds.
pub(super) fn fits(needs: &BTreeSet<Need>) -> String {
    format!("it fits {}", list(needs))
}

/// The workload decides.
pub(super) fn prefers(policy: &str, workload: Workload) -> String {
    format!("policy {policy} prefers it for workload {workload}")
}

/// TCP is taken in spite of something.
pub(super) fn last_resort(why: &str) -> String {
    format!("taken as the fallback, although {why}")
}

fn list<'a>(needs: impl IntoIterator<Item = &'a Need>) -> String {
    let titles: Vec<String> = needs
        .into_iter()
        .map(|n| format!("'{}'", n.title()))
        .collect();
    titles.join(", ")
}

/// A candidate that is not used.
pub(super) fn rejected(transport: TransportKind, why: &str) -> String {
    format!("{} rejected: {why}", transport.title())
}

/// A candidate that is used: `how` it connects, and what is to be said against it.
pub(super) fn accepted(transport: TransportKind, how: &str, notes: &str) -> String {
    match notes {
        "" => format!("{} accepted: {how}", transport.title()),
        _ => format!("{} accepted: {how}; {notes}", transport.title()),
    }
}

/// What is wrong with a path.
pub(super) fn trouble(trouble: Trouble) -> String {
    match trouble {
        Trouble::Failed { at, until } => {
            format!("comes last until {until:.0}, because it broke at {at:.0}")
        }
        Trouble::Lossy { ppm_max } => {
            format!("comes last, because it loses more than {ppm_max} packets of a million")
        }
    }
}
