//! The paths of a client: what they do, and which there are.

use std::time::Instant;

use roadstead_host::PathReport;
use roadstead_nvme::Portal;
use roadstead_ring::Segments;

use super::{Client, PATHS_MAX};
use crate::line::Line;
use crate::rim::Rim;

impl Client {
    /// What every path does now: wanted ones, nearest first, then those that are to end.
    pub fn paths(&self) -> Vec<PathReport> {
        self.host.paths()
    }

    /// Where a path of [`Self::paths`] leads.
    pub fn portal(&self, path: usize) -> Option<Portal> {
        *self.portals.get(path)?
    }

    /// What the transport has sent on the present connections of a path of [`Self::paths`], if it tells. System calls:
    /// for reports.
    pub fn segments(&self, io: &impl Rim, path: usize) -> Option<Segments> {
        let of_line = |line: &Line| match line {
            Line::Tcp(connection) => io.segments(connection.socket),
            Line::Rdma(_) => None,
        };
        let of_lines = self.lines.of(path).filter_map(of_line);
        of_lines.reduce(|sum, one| Segments {
            sent: sum.sent.saturating_add(one.sent),
            sent_again: sum.sent_again.saturating_add(one.sent_again),
        })
    }

    /// Has the namespace reached over these portals from now on, nearest first, at most [`PATHS_MAX`]. Paths that there
    /// are stay as they are; others come, or go once one of these works and nothing is in flight on them. Without any
    /// portal nothing changes. What comes of it is done by [`Self::pump`].
    pub fn follow(&mut self, portals: &[Portal], now: Instant) {
        let mut places = Vec::new();
        for portal in portals.iter().take(PATHS_MAX) {
            let known = self.portals.iter().position(|at| *at == Some(*portal));
            // Without a free place it has to wait until a path has gone, and the caller asks again.
            let place = known.or_else(|| self.portals.iter().position(Option::is_none));
            let Some(place) = place else { continue };
            if let Some(at) = self.portals.get_mut(place) {
                *at = Some(*portal);
            }
            places.extend(u16::try_from(place));
        }
        self.host.want(&places, now);
        self.paths_changed = true;
    }
}
