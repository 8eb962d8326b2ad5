//! Which portals answer and which are dark. Pure: the caller says what it sent, what was answered, and when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::PathSpec;

/// No portal is dark before it has been silent for this long.
const SILENCE_MIN: Duration = Duration::from_millis(200);
/// Nor before this many of its usual round trips.
const ROUND_TRIPS_MAX: u32 = 4;
/// What a new sample counts in the usual round trip: one part in this many.
const SMOOTHING: u32 = 8;

/// What probes say of every portal.
#[derive(Debug, Default)]
pub(super) struct Pulses(HashMap<PathSpec, Pulse>);

#[derive(Debug, Default)]
struct Pulse {
    /// When the probe was sent that is not answered yet.
    sent: Option<Instant>,
    round_trip: Option<Duration>,
}

impl Pulse {
    fn is_silent(&self, since: Instant, now: Instant) -> bool {
        let patience = self.round_trip.unwrap_or_default() * ROUND_TRIPS_MAX;
        self.sent.is_some_and(|sent| {
            sent <= since && now.duration_since(sent) > patience.max(SILENCE_MIN)
        })
    }
}

impl Pulses {
    /// A probe is on its way to `portal`.
    pub(super) fn sent(&mut self, portal: PathSpec, now: Instant) {
        self.0.entry(portal).or_default().sent = Some(now);
    }

    /// `portal` answered its probe. Returns the portals that were asked before it and are silent: dark, as the network
    /// and this machine do work.
    pub(super) fn answered(&mut self, portal: PathSpec, now: Instant) -> Vec<PathSpec> {
        let pulse = self.0.entry(portal).or_default();
        let Some(sent) = pulse.sent.take() else {
            return Vec::new();
        };
        let sample = now.duration_since(sent);
        let smoothed = |usual: Duration| (usual * (SMOOTHING - 1) + sample) / SMOOTHING;
        pulse.round_trip = Some(pulse.round_trip.map_or(sample, smoothed));
        let others = self
            .0
            .iter()
            .filter(|(_, other)| other.is_silent(sent, now));
        others.map(|(portal, _)| *portal).collect()
    }

    /// The probe ended without an answer.
    pub(super) fn unanswered(&mut self, portal: &PathSpec) {
        if let Some(pulse) = self.0.get_mut(portal) {
            pulse.sent = None;
        }
    }

    /// The usual round trip to a portal.
    pub(super) fn round_trip(&self, portal: &PathSpec) -> Option<Duration> {
        self.0.get(portal)?.round_trip
    }

    /// Nothing is sent there any more.
    pub(super) fn forget(&mut self, portal: &PathSpec) {
        self.0.remove(portal);
    }
}

#[cfg(test)]
mod tests {
    use roadstead_nvme::Portal;

    use super::*;

    fn portals() -> [PathSpec; 2] {
        ["rdma:10.7.0.1:4420", "10.8.0.1:4420"].map(|text| text.parse::<Portal>().unwrap().into())
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_portal_is_dark_when_it_is_silent_and_one_that_was_asked_later_answers() {
        // The usual round trip to A; when B is asked and answers, after A was asked; whether A is dark then.
        let table = [
            (1, 150, 151, false),
            (1, 150, 201, true),
            (1, 200, 201, true),
            (1, 5000, 5001, true),
            (40, 190, 201, true),
            (100, 390, 400, false),
            (100, 390, 401, true),
        ];
        let [a, b] = portals();
        for (usual, asked, answers, wanted) in table {
            let mut pulses = Pulses::default();
            let start = Instant::now();
            pulses.sent(a, start);
            assert_eq!(pulses.answered(a, start + ms(usual)), []);
            let again = start + ms(1000);
            pulses.sent(a, again);
            pulses.sent(b, again + ms(asked));
            let dark = pulses.answered(b, again + ms(answers));
            assert_eq!(dark == [a], wanted, "{usual} {asked} {answers}: {dark:?}");
        }
    }

    #[test]
    fn no_portal_is_dark_because_of_one_that_was_asked_before_it_or_of_itself() {
        let [a, b] = portals();
        let mut pulses = Pulses::default();
        let start = Instant::now();
        pulses.sent(b, start);
        pulses.sent(a, start + ms(1));
        assert_eq!(pulses.answered(b, start + ms(900)), []);
        assert_eq!(pulses.answered(a, start + ms(2000)), []);
    }

    #[test]
    fn a_probe_that_ended_or_was_never_sent_says_nothing() {
        let [a, b] = portals();
        let mut pulses = Pulses::default();
        let start = Instant::now();
        pulses.sent(a, start);
        pulses.unanswered(&a);
        pulses.sent(b, start + ms(300));
        assert_eq!(pulses.answered(b, start + ms(301)), []);
        assert_eq!(pulses.answered(a, start + ms(302)), []);
        assert_eq!(pulses.round_trip(&a), None);
    }

    #[test]
    fn the_round_trip_is_smoothed_and_forgotten() {
        let [a, _] = portals();
        let mut pulses = Pulses::default();
        let mut now = Instant::now();
        for sample in [ms(8), ms(16)] {
            pulses.sent(a, now);
            now += sample;
            pulses.answered(a, now);
        }
        assert_eq!(pulses.round_trip(&a), Some(ms(9)));
        pulses.forget(&a);
        assert_eq!(pulses.round_trip(&a), None);
    }
}
