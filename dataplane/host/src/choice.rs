//! Which path takes the next command.

use crate::config::PathPolicy;

/// A path that could.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) path: usize,
    pub(crate) is_wanted: bool,
    pub(crate) is_optimized: bool,
    pub(crate) has_room: bool,
    pub(crate) in_flight: usize,
}

/// The path for the next command, of candidates that come nearest first. `last` took the one before. `None`: wait, for
/// no path of the best state has room; a worse one does not take what a better one is busy with. Any that is wanted is
/// better than one that is not.
pub(crate) fn choose(
    policy: PathPolicy,
    candidates: impl Iterator<Item = Candidate> + Clone,
    last: usize,
) -> Option<usize> {
    let is_wanted = candidates.clone().any(|c| c.is_wanted);
    let candidates = candidates.filter(|c| c.is_wanted == is_wanted);
    let is_optimized = candidates.clone().any(|c| c.is_optimized);
    let mut best = candidates.filter(|c| c.is_optimized == is_optimized);
    let chosen = match policy {
        PathPolicy::Nearest => best.next().filter(|c| c.has_room),
        PathPolicy::RoundRobin => {
            let after = |c: &Candidate| (c.path <= last, c.path);
            best.filter(|c| c.has_room).min_by_key(after)
        }
        PathPolicy::QueueDepth => best.filter(|c| c.has_room).min_by_key(|c| c.in_flight),
    };
    chosen.map(|c| c.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths by number, whether not wanted (x), state (o, n), room (+, -) and commands in flight.
    fn chosen(policy: PathPolicy, paths: &[(usize, &str, usize)], last: usize) -> Option<usize> {
        let candidates = paths.iter().map(|(path, state, in_flight)| Candidate {
            path: *path,
            is_wanted: !state.starts_with('x'),
            is_optimized: state.contains('o'),
            has_room: state.ends_with('+'),
            in_flight: *in_flight,
        });
        choose(policy, candidates, last)
    }

    /// Policy, paths with their states and commands in flight, the last one, the one to choose.
    type Case = (
        PathPolicy,
        &'static [(usize, &'static str, usize)],
        usize,
        Option<usize>,
    );

    #[test]
    fn policies() {
        use PathPolicy::{Nearest, QueueDepth, RoundRobin};
        let table: &[Case] = &[
            (Nearest, &[], 0, None),
            (Nearest, &[(0, "o+", 9), (1, "o+", 0)], 0, Some(0)),
            (Nearest, &[(0, "n+", 0), (1, "o+", 9)], 0, Some(1)),
            (Nearest, &[(1, "n+", 0), (2, "n+", 9)], 0, Some(1)),
            (Nearest, &[(0, "o-", 9), (1, "o+", 0)], 0, None),
            (Nearest, &[(5, "o+", 9), (1, "o+", 0)], 1, Some(5)),
            (Nearest, &[(0, "xo+", 0), (1, "n+", 9)], 0, Some(1)),
            (Nearest, &[(0, "xo+", 0), (1, "n-", 9)], 0, None),
            (Nearest, &[(0, "xn+", 0), (1, "xo+", 9)], 0, Some(1)),
            (RoundRobin, &[(0, "xo+", 9), (1, "o+", 0)], 1, Some(1)),
            (QueueDepth, &[(0, "xo+", 0), (1, "o+", 9)], 1, Some(1)),
            (RoundRobin, &[(0, "o+", 9), (1, "o+", 0)], 0, Some(1)),
            (RoundRobin, &[(0, "o+", 9), (1, "o+", 0)], 1, Some(0)),
            (RoundRobin, &[(0, "o+", 9), (1, "n+", 0)], 0, Some(0)),
            (
                RoundRobin,
                &[(0, "o+", 0), (1, "o-", 0), (2, "o+", 0)],
                0,
                Some(2),
            ),
            (RoundRobin, &[(0, "o-", 0), (1, "n+", 0)], 0, None),
            (
                QueueDepth,
                &[(0, "o+", 9), (1, "o+", 3), (2, "o+", 3)],
                0,
                Some(1),
            ),
            (
                QueueDepth,
                &[(0, "n+", 0), (1, "o+", 3), (2, "o-", 0)],
                0,
                Some(1),
            ),
        ];
        for (policy, paths, last, wanted) in table {
            assert_eq!(
                chosen(*policy, paths, *last),
                *wanted,
                "{policy:?} {paths:?} {last}"
            );
        }
    }
}
