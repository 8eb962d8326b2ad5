//! What goes over paths in a second, from what has gone over them so far.
//!
//! Reports are asked for at any time, by several callers. Each gets the rates since the last samples, which are taken
//! when it is time for one.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use roadstead_attach::{CommandCounts, PathSpec, Segments, Traffic};

/// Between two samples, at least: counts of a shorter time make no rate.
const STEP_MIN: Duration = Duration::from_secs(1);
/// Rates are of this time; over a longer one they would say nothing of now.
const RATES: Duration = Duration::from_secs(10);
/// Loss is of this time, for there is little of it. What was not asked for in it is forgotten.
const LOSS: Duration = Duration::from_secs(60);
const MILLION: u64 = 1_000_000;

/// What goes over a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) read_iops: u64,
    pub(crate) write_iops: u64,
    pub(crate) read_bytes_per_s: u64,
    pub(crate) write_bytes_per_s: u64,
    /// Segments sent again, in a million; `None`: not measured.
    pub(crate) loss_ppm: Option<u32>,
}

/// The samples of all paths, by attachment and path.
#[derive(Debug, Default)]
pub(crate) struct Meter(HashMap<(String, PathSpec), Track>);

/// Of one path.
#[derive(Debug)]
struct Track {
    last_at: Instant,
    last: Traffic,
    /// Oldest first, none longer ago than [`LOSS`]: with [`STEP_MIN`] that bounds them.
    steps: VecDeque<Step>,
}

/// What went over a path between two samples.
#[derive(Debug)]
struct Step {
    from: Instant,
    to: Instant,
    moved: Traffic,
}

impl Meter {
    /// The rates of a path of an attachment over which `traffic` has gone by now.
    pub(crate) fn rates(
        &mut self,
        attachment: &str,
        path: PathSpec,
        traffic: Traffic,
        now: Instant,
    ) -> Rates {
        let key = (attachment.to_owned(), path);
        let track = self.0.entry(key).or_insert_with(|| Track {
            last_at: now,
            last: traffic,
            steps: VecDeque::new(),
        });
        track.sample(traffic, now);
        track.rates(now)
    }

    /// Forgets paths that nobody reports any more.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.0
            .retain(|_, track| now.saturating_duration_since(track.last_at) <= LOSS);
    }
}

impl Track {
    fn sample(&mut self, traffic: Traffic, now: Instant) {
        if now.saturating_duration_since(self.last_at) < STEP_MIN {
            return;
        }
        self.steps.push_back(Step {
            from: self.last_at,
            to: now,
            moved: difference(self.last, traffic),
        });
        self.last_at = now;
        self.last = traffic;
        let is_recent = |step: &Step| now.saturating_duration_since(step.from) <= LOSS;
        self.steps.retain(is_recent);
    }

    fn rates(&self, now: Instant) -> Rates {
        let mut time = Duration::ZERO;
        let mut moved = CommandCounts::default();
        for step in &self.steps {
            let age = now.saturating_duration_since(step.from);
            if age <= RATES {
                time += step.to.saturating_duration_since(step.from);
                let more = step.moved.commands;
                moved.reads = moved.reads.saturating_add(more.reads);
                moved.writes = moved.writes.saturating_add(more.writes);
                moved.read_bytes = moved.read_bytes.saturating_add(more.read_bytes);
                moved.written_bytes = moved.written_bytes.saturating_add(more.written_bytes);
            }
        }
        Rates {
            read_iops: per_second(moved.reads, time),
            write_iops: per_second(moved.writes, time),
            read_bytes_per_s: per_second(moved.read_bytes, time),
            write_bytes_per_s: per_second(moved.written_bytes, time),
            loss_ppm: self.loss_ppm(now),
        }
    }

    fn loss_ppm(&self, now: Instant) -> Option<u32> {
        let recent = |step: &&Step| now.saturating_duration_since(step.from) <= LOSS;
        let of_steps = self.steps.iter().filter(recent);
        let segments = of_steps.filter_map(|step| step.moved.segments);
        let (sent, again) = segments.fold((0_u64, 0_u64), |(sent, again), one| {
            (
                sent.saturating_add(one.sent),
                again.saturating_add(one.sent_again),
            )
        });
        let ppm = again.saturating_mul(MILLION).checked_div(sent)?;
        u32::try_from(ppm.min(MILLION)).ok()
    }
}

/// What was counted between two samples. A count that went back is one of another connection: it says nothing.
fn difference(before: Traffic, after: Traffic) -> Traffic {
    let segments = before.segments.zip(after.segments);
    let (old, new) = (before.commands, after.commands);
    Traffic {
        commands: CommandCounts {
            reads: new.reads.saturating_sub(old.reads),
            writes: new.writes.saturating_sub(old.writes),
            read_bytes: new.read_bytes.saturating_sub(old.read_bytes),
            written_bytes: new.written_bytes.saturating_sub(old.written_bytes),
        },
        segments: segments
            .filter(|(before, after)| before.sent <= after.sent)
            .map(|(before, after)| Segments {
                sent: after.sent - before.sent,
                sent_again: after.sent_again.saturating_sub(before.sent_again),
            }),
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let rate = u128::from(count) * 1000;
    let rate = rate.checked_div(time.as_millis()).unwrap_or(0);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use roadstead_nvme::Portal;

    use super::*;

    fn path(text: &str) -> PathSpec {
        text.parse::<Portal>().unwrap().into()
    }

    /// So many reads of 4 KiB, writes of 8 KiB, and segments with those sent again.
    fn traffic(reads: u64, writes: u64, segments: Option<(u64, u64)>) -> Traffic {
        Traffic {
            commands: CommandCounts {
                reads,
                writes,
                read_bytes: reads * 4096,
                written_bytes: writes * 8192,
            },
            segments: segments.map(|(sent, sent_again)| Segments { sent, sent_again }),
        }
    }

    /// A meter of one path whose clock starts at 0.
    struct Bench(Meter, Instant);

    impl Bench {
        fn new() -> Self {
            Self(Meter::default(), Instant::now())
        }

        fn at(&mut self, ms: u64, traffic: Traffic) -> Rates {
            let now = self.1 + Duration::from_millis(ms);
            self.0.rates("a", path("10.0.0.1:4420"), traffic, now)
        }
    }

    fn rates(read_iops: u64, write_iops: u64, loss_ppm: Option<u32>) -> Rates {
        Rates {
            read_iops,
            write_iops,
            read_bytes_per_s: read_iops * 4096,
            write_bytes_per_s: write_iops * 8192,
            loss_ppm,
        }
    }

    /// When a report is asked for, what has gone over the path, and the rates that are reported.
    type Look = (u64, Traffic, Rates);

    #[test]
    fn rates_are_of_the_time_between_samples() {
        let none = Rates::default();
        let table: &[(&str, &[Look])] = &[
            (
                "the first report knows nothing",
                &[(0, traffic(100, 7, Some((5, 1))), none)],
            ),
            (
                "a short time is no measure, and another caller takes nothing away",
                &[
                    (0, traffic(0, 0, None), none),
                    (500, traffic(900, 0, None), none),
                    (2000, traffic(2000, 400, None), rates(1000, 200, None)),
                    (2001, traffic(9000, 400, None), rates(1000, 200, None)),
                ],
            ),
            (
                "the mean of the last seconds",
                &[
                    (0, traffic(0, 0, None), none),
                    (1000, traffic(100, 0, None), rates(100, 0, None)),
                    (3000, traffic(900, 0, None), rates(300, 0, None)),
                    (11_000, traffic(900, 0, None), rates(80, 0, None)),
                    (13_000, traffic(900, 0, None), rates(0, 0, None)),
                ],
            ),
            (
                "what nobody asked for in a long time says nothing of now",
                &[
                    (0, traffic(0, 0, None), none),
                    (30_000, traffic(3000, 0, Some((10, 0))), none),
                    (
                        31_000,
                        traffic(3100, 0, Some((20, 0))),
                        rates(100, 0, Some(0)),
                    ),
                ],
            ),
            (
                "a new connection counts from zero",
                &[
                    (0, traffic(500, 500, Some((1000, 9))), none),
                    (1000, traffic(0, 0, Some((3, 0))), rates(0, 0, None)),
                    (
                        2000,
                        traffic(50, 0, Some((103, 1))),
                        rates(25, 0, Some(10_000)),
                    ),
                ],
            ),
            (
                "loss is of a minute",
                &[
                    (0, traffic(0, 0, Some((0, 0))), none),
                    (
                        1000,
                        traffic(0, 0, Some((1000, 10))),
                        rates(0, 0, Some(10_000)),
                    ),
                    (
                        50_000,
                        traffic(0, 0, Some((2000, 10))),
                        rates(0, 0, Some(5000)),
                    ),
                    (
                        61_000,
                        traffic(0, 0, Some((3000, 12))),
                        rates(0, 0, Some(1000)),
                    ),
                ],
            ),
            (
                "nothing sent is nothing measured",
                &[
                    (0, traffic(0, 0, Some((7, 0))), none),
                    (1000, traffic(0, 0, Some((7, 0))), none),
                ],
            ),
        ];
        for (what, looks) in table {
            let mut bench = Bench::new();
            for (ms, traffic, wanted) in *looks {
                assert_eq!(bench.at(*ms, *traffic), *wanted, "{what}, at {ms} ms");
            }
        }
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_is_there_is_bounded() {
        let mut bench = Bench::new();
        let start = bench.1;
        for tenth in 0..3000_u64 {
            bench.at(tenth * 100, traffic(tenth, 0, None));
        }
        let steps = bench
            .0
            .0
            .values()
            .map(|track| track.steps.len())
            .sum::<usize>();
        assert!((50..=60).contains(&steps), "{steps}");
        let end = start + Duration::from_secs(299);
        let other = path("rdma:10.0.0.1:4420");
        bench.0.rates("a", other, Traffic::default(), end);
        bench.0.rates("b", other, Traffic::default(), end);
        bench.0.forget(end + LOSS);
        assert_eq!(bench.0.0.len(), 3, "a path is one of an attachment");
        bench.0.rates("b", other, Traffic::default(), end + LOSS);
        bench.0.forget(end + LOSS + STEP_MIN);
        let left: Vec<_> = bench.0.0.keys().cloned().collect();
        assert_eq!(left, [("b".to_owned(), other)]);
    }
}
