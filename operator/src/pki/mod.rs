//! The control API's own certificates: when each is made anew ([`renewal`], pure) and how ([`issue`]).
//!
//! One authority signs two leaf certificates: the dataplanes' (one for all, by name, not by address) and the
//! operator's. Peers trust the authorities in their `ca.crt`. The authority is replaced with overlap: first the next
//! one is only trusted, then, when every node has surely got it, it signs; the previous one stays trusted until
//! its leaves are gone everywhere. Private keys of authorities stay in the operator's Secret.

mod inspect;
pub mod issue;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub use inspect::{InspectError, inspect};

/// Life of an authority: ten years.
pub const CA_LIFE: SignedDuration = SignedDuration::from_hours(10 * 365 * 24);

/// Life of a leaf certificate: a year. A node that gets no new one keeps working that long.
pub const LEAF_LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);

/// How long an authority is trusted before it signs, and after it stops: Secrets reach every node's files in minutes.
pub const OVERLAP: SignedDuration = SignedDuration::from_hours(24);

/// How far certificates are dated back, for clocks that are behind.
pub const BACKDATE: SignedDuration = SignedDuration::from_hours(1);

/// What matters of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Name of who it speaks of.
    pub subject: String,
    /// Name of who signed it.
    pub issuer: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
}

impl Certificate {
    /// Two thirds of its life are over.
    fn is_due(&self, now: Timestamp) -> bool {
        let life = self.not_before.duration_until(self.not_after);
        now >= self
            .not_before
            .saturating_add(life / 3 * 2)
            .unwrap_or(self.not_after)
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// It exists long enough to have reached every node.
    fn is_known_everywhere(&self, now: Timestamp) -> bool {
        let made = self
            .not_before
            .saturating_add(BACKDATE)
            .unwrap_or(self.not_before);
        made.duration_until(now) >= OVERLAP
    }
}

/// The authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities {
    /// The one that signs.
    pub current: Option<Certificate>,
    /// The one that will sign; trusted already.
    pub next: Option<Certificate>,
    /// The one that signed before; still trusted.
    pub previous: Option<Certificate>,
}

/// Which leaf certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Leaf {
    /// The dataplanes' server certificate.
    Dataplane,
    /// The operator's client certificate.
    Operator,
}

/// A leaf certificate as found in its Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafState {
    /// The certificate; `None` if it is missing or cannot be read.
    pub certificate: Option<Certificate>,
    /// The authorities beside it are exactly the ones to trust now.
    pub bundle_is_current: bool,
}

/// What is to be done next. After each step the Secrets are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Make the first authority, or replace one that is unusable.
    CreateAuthority,
    /// Make the next authority; it is only trusted for now.
    CreateNextAuthority,
    /// The next authority signs from now on; the current one becomes the previous.
    PromoteNextAuthority,
    /// Trust the previous authority no longer.
    DropPreviousAuthority,
    /// Make a leaf certificate (its bundle comes with it).
    Issue(Leaf),
    /// Write the authorities to trust beside a leaf certificate.
    Bundle(Leaf),
}

/// The next step, or `None` when all is well.
pub fn renewal(
    now: Timestamp,
    authorities: &Authorities,
    leaf: impl Fn(Leaf) -> LeafState,
) -> Option<Renewal> {
    let Some(current) = authorities.current.as_ref().filter(|c| c.is_valid(now)) else {
        return Some(Renewal::CreateAuthority);
    };
    match &authorities.next {
        Some(next) if next.is_known_everywhere(now) => return Some(Renewal::PromoteNextAuthority),
        None if current.is_due(now) => return Some(Renewal::CreateNextAuthority),
        Some(_) | None => {}
    }
    let leaves = [Leaf::Dataplane, Leaf::Operator].map(|which| (which, leaf(which)));
    for (which, state) in &leaves {
        let good = state
            .certificate
            .as_ref()
            .is_some_and(|c| c.is_valid(now) && !c.is_due(now) && c.issuer == current.subject);
        if !good {
            return Some(Renewal::Issue(*which));
        }
        if !state.bundle_is_current {
            return Some(Renewal::Bundle(*which));
        }
    }
    // The leaves of the previous authority were replaced above; the new ones must have reached every node.
    let renewed = leaves.iter().all(|(_, state)| {
        state
            .certificate
            .as_ref()
            .is_some_and(|c| c.is_known_everywhere(now))
    });
    (authorities.previous.is_some() && renewed).then_some(Renewal::DropPreviousAuthority)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24;

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).expect("a time")
    }

    fn authority(name: &str, made_at_h: i64) -> Certificate {
        Certificate {
            subject: name.into(),
            issuer: name.into(),
            not_before: at(made_at_h - 1),
            not_after: at(made_at_h - 1) + CA_LIFE,
        }
    }

    fn leaf(issuer: &str, made_at_h: i64) -> LeafState {
        LeafState {
            certificate: Some(Certificate {
                subject: "leaf".into(),
                issuer: issuer.into(),
                not_before: at(made_at_h - 1),
                not_after: at(made_at_h - 1) + LEAF_LIFE,
            }),
            bundle_is_current: true,
        }
    }

    fn missing() -> LeafState {
        LeafState {
            certificate: None,
            bundle_is_current: false,
        }
    }

    /// Name, hours since the first authority was made, Secrets, step.
    type Row = (
        &'static str,
        i64,
        Authorities,
        LeafState,
        LeafState,
        Option<Renewal>,
    );

    #[test]
    fn table() {
        let year = 365 * DAY;
        let none = Authorities::default();
        let one = |made| Authorities {
            current: Some(authority("a", made)),
            ..Authorities::default()
        };
        let with_next = |made| Authorities {
            next: Some(authority("b", made)),
            ..one(0)
        };
        let after = |made| Authorities {
            current: Some(authority("b", made)),
            next: None,
            previous: Some(authority("a", 0)),
        };
        let stale = |mut state: LeafState| {
            state.bundle_is_current = false;
            state
        };
        let due = 10 * year * 2 / 3 + DAY;
        let rows: [Row; 15] = [
            (
                "nothing yet",
                0,
                none.clone(),
                missing(),
                missing(),
                Some(Renewal::CreateAuthority),
            ),
            (
                "authority over",
                11 * year,
                one(0),
                leaf("a", 0),
                leaf("a", 0),
                Some(Renewal::CreateAuthority),
            ),
            (
                "authority not yet valid",
                -DAY,
                one(0),
                missing(),
                missing(),
                Some(Renewal::CreateAuthority),
            ),
            (
                "no leaves",
                0,
                one(0),
                missing(),
                missing(),
                Some(Renewal::Issue(Leaf::Dataplane)),
            ),
            (
                "one leaf",
                0,
                one(0),
                leaf("a", 0),
                missing(),
                Some(Renewal::Issue(Leaf::Operator)),
            ),
            (
                "all well",
                100 * DAY,
                one(0),
                leaf("a", 0),
                leaf("a", 0),
                None,
            ),
            (
                "leaf due",
                250 * DAY,
                one(0),
                leaf("a", 0),
                leaf("a", 200 * DAY),
                Some(Renewal::Issue(Leaf::Dataplane)),
            ),
            (
                "bundle stale",
                DAY,
                one(0),
                leaf("a", 0),
                stale(leaf("a", 0)),
                Some(Renewal::Bundle(Leaf::Operator)),
            ),
            (
                "authority due",
                due,
                one(0),
                leaf("a", due),
                leaf("a", due),
                Some(Renewal::CreateNextAuthority),
            ),
            (
                "next is new: bundles first",
                due,
                with_next(due),
                stale(leaf("a", due)),
                leaf("a", due),
                Some(Renewal::Bundle(Leaf::Dataplane)),
            ),
            (
                "next is new",
                due,
                with_next(due),
                leaf("a", due),
                leaf("a", due),
                None,
            ),
            (
                "next is known",
                due + DAY,
                with_next(due),
                leaf("a", due),
                leaf("a", due),
                Some(Renewal::PromoteNextAuthority),
            ),
            (
                "old leaves after the change",
                due + DAY,
                after(due),
                leaf("a", due),
                leaf("a", due),
                Some(Renewal::Issue(Leaf::Dataplane)),
            ),
            (
                "new leaves are new",
                due + DAY,
                after(due),
                leaf("b", due + DAY),
                leaf("b", due + DAY),
                None,
            ),
            (
                "new leaves are known",
                due + 2 * DAY,
                after(due),
                leaf("b", due + DAY),
                leaf("b", due + DAY),
                Some(Renewal::DropPreviousAuthority),
            ),
        ];
        for (name, hours, authorities, dataplane, operator, expected) in rows {
            let next = renewal(at(hours), &authorities, |which| match which {
                Leaf::Dataplane => dataplane.clone(),
                Leaf::Operator => operator.clone(),
            });
            assert_eq!(next, expected, "{name}");
        }
    }
}
