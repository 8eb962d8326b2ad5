//! What a volume asks for, and what the policy says to it.

use std::collections::BTreeSet;

use roadstead_crds::transport::{
    Fallback, Need, NetworkTransport, TransportChoice, TransportKind, Workload,
};
use roadstead_crds::{NVMeNamespaceSpec, PolicyRow, TransportPolicySpec};

use super::reason;

/// What a volume asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The transport, or `auto`.
    pub transport: TransportChoice,
    /// As given; see [`Needs::fallback`].
    pub fallback: Option<Fallback>,
    /// The workload class.
    pub workload: Workload,
    /// Rows of the table that must hold.
    pub rows: BTreeSet<Need>,
}

impl Needs {
    /// What a volume's spec asks for.
    pub fn of(spec: &NVMeNamespaceSpec) -> Self {
        Self {
            transport: spec.transport,
            fallback: spec.fallback,
            workload: spec.workload,
            rows: spec.needs.iter().copied().collect(),
        }
    }

    /// What is taken where nothing fits: TCP for `auto` unless it is forbidden, nothing for a transport that was asked for
    /// by name unless it is allowed.
    pub fn fallback(&self) -> Fallback {
        self.fallback.unwrap_or(match self.transport {
            TransportChoice::Auto => Fallback::Tcp,
            TransportChoice::Tcp | TransportChoice::Roce => Fallback::None,
        })
    }
}

/// How a transport stands to what a volume asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// Everything holds.
    Fits,
    /// Something does not hold, but TCP was allowed as the fallback; why it does not fit.
    LastResort(String),
    /// Not to be used; why.
    Excluded(String),
}

/// The rows of the policy for the needs of a volume; the first need without one is the error.
pub(super) fn rows(policy: &TransportPolicySpec, needs: &Needs) -> Result<Vec<PolicyRow>, Need> {
    let row = |need: &Need| policy.rows.iter().find(|row| row.need == *need).copied();
    needs
        .rows
        .iter()
        .map(|need| row(need).ok_or(*need))
        .collect()
}

/// How `transport` stands to the needs, by the rows that count.
pub(super) fn fit(
    transport: TransportKind,
    policy: (&str, &TransportPolicySpec),
    needs: &Needs,
    rows: &[PolicyRow],
) -> Fit {
    let (name, spec) = policy;
    let asked = match (transport, needs.transport) {
        (_, TransportChoice::Auto)
        | (TransportKind::Tcp, TransportChoice::Tcp)
        | (TransportKind::Roce, TransportChoice::Roce) => None,
        (_, choice) => Some(reason::asks_for(choice)),
    };
    let forbidden =
        (transport == TransportKind::Local && !spec.local).then(|| reason::local_forbidden(name));
    let misses = || {
        let missed = rows.iter().filter(|row| !ticks(row, transport));
        let missed: Vec<Need> = missed.map(|row| row.need).collect();
        (!missed.is_empty()).then(|| reason::does_not_fit(name, &missed))
    };
    match asked.or(forbidden).or_else(misses) {
        None => Fit::Fits,
        Some(why) if transport == TransportKind::Tcp && needs.fallback() == Fallback::Tcp => {
            Fit::LastResort(why)
        }
        Some(why) => Fit::Excluded(why),
    }
}

fn ticks(row: &PolicyRow, transport: TransportKind) -> bool {
    match transport {
        TransportKind::Local => row.local,
        TransportKind::Tcp => row.tcp,
        TransportKind::Roce => row.roce,
    }
}

/// The transport that the policy puts first for a workload.
pub(super) fn preferred(policy: &TransportPolicySpec, workload: Workload) -> NetworkTransport {
    let row = policy.workloads.iter().find(|row| row.workload == workload);
    row.map_or(NetworkTransport::Tcp, |row| row.prefer)
}
