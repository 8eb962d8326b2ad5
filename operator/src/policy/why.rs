//! The sentence about the outcome: why the first is the first, or why there is none.

use roadstead_crds::transport::{TransportChoice, TransportKind};

use super::decide::{Candidate, Input, Usable};
use super::order::Class;
use super::{needs, reason};

/// Why the first is the first, and what it is there instead of.
pub(super) fn why_chosen(
    input: &Input<'_>,
    first: &Usable,
    usable: &[Usable],
    rejected: &[Candidate],
) -> String {
    let needs = input.needs;
    let preferred = needs::preferred(input.policy, needs.workload);
    let because = match (&first.misfit, first.class.rank) {
        (Some(misfit), _) => misfit.clone(),
        (None, 0) => first.how.clone(),
        (None, _) if needs.transport != TransportChoice::Auto => "the volume asks for it".into(),
        (None, _) if !needs.rows.is_empty() => reason::fits(&needs.rows),
        (None, 1) => reason::prefers(input.policy_name, needs.workload),
        (None, _) => reason::OTHER.into(),
    };
    let mut why = format!("{}: {because}", first.transport.title());
    let wanted = |transport: TransportKind| {
        transport != first.transport
            && (first.class.last_resort || Class::rank(transport, preferred) < first.class.rank)
    };
    for other in usable.iter().filter(|u| wanted(u.transport)) {
        if let Some(trouble) = &other.trouble {
            let title = other.transport.title();
            why.push_str(&format!("; {title} {trouble}"));
        }
    }
    for candidate in rejected.iter().filter(|c| wanted(c.transport)) {
        why.push_str("; ");
        why.push_str(&candidate.reason);
    }
    why
}

/// Why nothing can be used.
pub(super) fn no_transport(input: &Input<'_>, rejected: &[Candidate]) -> String {
    let mut reasons: Vec<&str> = Vec::new();
    for candidate in rejected {
        if !reasons.contains(&candidate.reason.as_str()) {
            reasons.push(&candidate.reason);
        }
    }
    format!(
        "no transport from {} to {} fits: {}",
        input.host.node,
        input.target.node,
        reasons.join("; ")
    )
}
