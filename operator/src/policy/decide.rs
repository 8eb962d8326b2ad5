//! The decision.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use roadstead_crds::transport::{NetworkTransport, TransportKind};
use roadstead_crds::{PolicyRow, TransportPolicySpec};

use super::capability::{self, Host, Method, Portal, TargetNode};
use super::needs::{self, Fit, Needs};
use super::order::{Class, Measured, PathKey};
use super::why::{no_transport, why_chosen};
use super::{reason, roce};

/// Everything that a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// Name of the policy.
    pub policy_name: &'a str,
    /// The policy.
    pub policy: &'a TransportPolicySpec,
    /// What the volume asks for.
    pub needs: &'a Needs,
    /// The pod's node.
    pub host: &'a Host,
    /// The volume's node.
    pub target: &'a TargetNode,
    /// What is known of paths from this node to that one.
    pub measured: &'a BTreeMap<PathKey, Measured>,
    /// The time.
    pub now: Timestamp,
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Everything that was considered: the accepted ones in order, then the rejected ones.
    pub candidates: Vec<Candidate>,
    /// What is to be used, or why nothing is.
    pub outcome: Result<Choice, String>,
}

/// One way to the volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What it uses.
    pub transport: TransportKind,
    /// The portal, if the transport has one.
    pub portal: Option<PathKey>,
    /// It is one of the paths.
    pub accepted: bool,
    /// A sentence: why, or why not.
    pub reason: String,
}

/// What is to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// What carries the I/O.
    pub transport: TransportKind,
    /// How the block device is made.
    pub method: Method,
    /// A sentence: why.
    pub reason: String,
    /// The paths, the best first; none for the path without the network.
    pub paths: Vec<Path>,
    /// It does not fit what the volume needs, and is taken as the fallback.
    pub last_resort: bool,
}

/// A path and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The path.
    pub key: PathKey,
    /// Paths with the smallest number carry the I/O.
    pub preference: u32,
}

/// A candidate that no rule forbids.
pub(super) struct Usable {
    pub(super) transport: TransportKind,
    portal: Option<PathKey>,
    pub(super) class: Class,
    round_trip_us: u32,
    /// How it connects.
    pub(super) how: String,
    /// Why it is the fallback only.
    pub(super) misfit: Option<String>,
    /// Why it comes after others.
    pub(super) trouble: Option<String>,
}

impl Usable {
    /// What is to be said against it.
    fn notes(&self, stands_by: bool) -> String {
        let stands_by = stands_by.then_some("stands by");
        let notes = [stands_by, self.misfit.as_deref(), self.trouble.as_deref()];
        notes.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// Decides which way a volume takes to a node.
pub fn decide(input: &Input<'_>) -> Decision {
    let rows = match needs::rows(input.policy, input.needs) {
        Ok(rows) => rows,
        Err(need) => {
            return Decision {
                candidates: Vec::new(),
                outcome: Err(reason::no_row(input.policy_name, need)),
            };
        }
    };
    let mut usable = Vec::new();
    let mut rejected = Vec::new();
    for (transport, portal) in considered(input) {
        match judge(input, &rows, transport, portal) {
            Ok(candidate) => usable.push(candidate),
            Err(why) => rejected.push(reject(transport, portal.map(|p| p.key), &why)),
        }
    }
    usable.sort_by_key(|u| (u.class, u.round_trip_us, u.portal));
    choose(input, usable, rejected)
}

/// Every way there is or could be, the most wanted first.
fn considered<'a>(input: &Input<'a>) -> Vec<(TransportKind, Option<&'a Portal>)> {
    let mut all = Vec::new();
    if input.host.node == input.target.node {
        all.push((TransportKind::Local, None));
    }
    let first = needs::preferred(input.policy, input.needs.workload);
    let second = match first {
        NetworkTransport::Tcp => NetworkTransport::Roce,
        NetworkTransport::Roce => NetworkTransport::Tcp,
    };
    for transport in [first, second] {
        let portals = input.target.portals_of(transport);
        if portals.is_empty() {
            all.push((transport.into(), None));
        }
        all.extend(portals.into_iter().map(|p| (transport.into(), Some(p))));
    }
    all
}

/// Whether a candidate may be used, and what its place is; else why not.
fn judge(
    input: &Input<'_>,
    rows: &[PolicyRow],
    transport: TransportKind,
    portal: Option<&Portal>,
) -> Result<Usable, String> {
    let policy = (input.policy_name, input.policy);
    let (last_resort, misfit) = match needs::fit(transport, policy, input.needs, rows) {
        Fit::Fits => (false, None),
        Fit::LastResort(why) => (true, Some(why)),
        Fit::Excluded(why) => return Err(why),
    };
    let limits = &input.policy.limits;
    let how = match transport {
        TransportKind::Local => capability::local(input.host),
        TransportKind::Tcp => capability::tcp(input.host, input.target, portal),
        TransportKind::Roce => roce::roce(input.host, input.target, portal, limits),
    }?;
    input.host.method(transport)?;
    let key = portal.map(|p| p.key);
    let measured = key.and_then(|key| input.measured.get(&key)).copied();
    let measured = measured.unwrap_or_default();
    let trouble = measured.trouble(limits, input.now);
    Ok(Usable {
        transport,
        portal: key,
        class: Class {
            troubled: trouble.is_some(),
            last_resort,
            rank: Class::rank(
                transport,
                needs::preferred(input.policy, input.needs.workload),
            ),
        },
        round_trip_us: measured.round_trip_us.unwrap_or(u32::MAX),
        how,
        misfit: misfit.map(|why| reason::last_resort(&why)),
        trouble: trouble.map(reason::trouble),
    })
}

fn reject(transport: TransportKind, portal: Option<PathKey>, why: &str) -> Candidate {
    Candidate {
        transport,
        portal,
        accepted: false,
        reason: reason::rejected(transport, why),
    }
}

/// Takes the first, and those that can stand in for it.
fn choose(input: &Input<'_>, usable: Vec<Usable>, mut rejected: Vec<Candidate>) -> Decision {
    let Some(first) = usable.first() else {
        return Decision {
            outcome: Err(no_transport(input, &rejected)),
            candidates: rejected,
        };
    };
    let transport = first.transport;
    let method = match input.host.method(transport) {
        Ok(method) => method,
        Err(why) => {
            return Decision {
                candidates: rejected,
                outcome: Err(why),
            };
        }
    };
    let reason = why_chosen(input, first, &usable, &rejected);
    let last_resort = first.class.last_resort;
    let mut accepted = Vec::new();
    let mut paths: Vec<Path> = Vec::new();
    let mut last_class = first.class;
    let mut preference = 0;
    for candidate in usable {
        if let Err(why) = stands_in(input, transport, method, &candidate) {
            rejected.push(reject(candidate.transport, candidate.portal, &why));
            continue;
        }
        if candidate.class != last_class {
            preference += 1;
            last_class = candidate.class;
        }
        if let Some(key) = candidate.portal {
            paths.push(Path { key, preference });
        }
        let notes = candidate.notes(preference > 0);
        accepted.push(Candidate {
            transport: candidate.transport,
            portal: candidate.portal,
            accepted: true,
            reason: reason::accepted(candidate.transport, &candidate.how, &notes),
        });
    }
    accepted.append(&mut rejected);
    Decision {
        candidates: accepted,
        outcome: Ok(Choice {
            transport,
            method,
            reason,
            paths,
            last_resort,
        }),
    }
}

/// Whether a candidate is of use beside the chosen one.
fn stands_in(
    input: &Input<'_>,
    chosen: TransportKind,
    method: Method,
    candidate: &Usable,
) -> Result<(), String> {
    if candidate.transport == chosen {
        return Ok(());
    }
    if chosen == TransportKind::Local {
        return Err("not needed: the volume is on the pod's own node".into());
    }
    if !input.host.carries(method, candidate.transport) {
        return Err(format!(
            "the kernel of {} makes the device and has no nvme_rdma",
            input.host.node
        ));
    }
    Ok(())
}
