//! Time and what happens in it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use roadstead_target::IoRequest;

use crate::guest::Guest;
use crate::model::{Model, Moment};
use crate::net::Link;
use crate::node::{Job, Node};
use crate::plan::{Plan, SECOND};
use crate::rng::Rng;

/// How long the troubled part of a run may take, and what comes after it.
const RUN_MAX: u64 = 30 * SECOND;
/// After the last trouble everything must be done within this time: slow I/O, time-outs and pauses of both ends added.
const HEAL_MAX: u64 = 240 * SECOND;
/// Far more than any run has.
const EVENTS_MAX: u64 = 3_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Deliver { link: u64, to_target: bool },
    Arrive { link: u64 },
    Connected { link: u64 },
    TargetReset { link: u64 },
    HostClosed { link: u64, failed: bool },
    TargetSent { link: u64 },
    FarewellOver { link: u64 },
    Timer { host: usize, timer: u64 },
    Apply { job: u64, blocks: usize },
    Finish { job: u64 },
    Tick,
    Submit { host: usize },
    Trouble,
    Mend,
}

/// How often what happened: a run in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub events: u64,
    pub requests: u64,
    pub connections: u64,
    pub cuts: u64,
    pub stalls: u64,
    pub restarts: u64,
    pub power_losses: u64,
    pub tables: u64,
    pub grown: u64,
    pub switches: u64,
    pub moves: u64,
    /// Flushes that failed because the target lost its cache.
    pub caches_lost: u64,
    pub io_errors: u64,
    pub path_lost: u64,
    /// Writes that landed although their connection was gone.
    pub late_writes: u64,
}

pub struct World {
    pub plan: Plan,
    pub rng: Rng,
    base: Instant,
    /// Microseconds since `base`.
    pub now_us: u64,
    moment: Moment,
    sequence: u64,
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    pub links: BTreeMap<u64, Link>,
    pub next_link: u64,
    pub timers: BTreeMap<u64, u64>,
    pub node: Node,
    pub jobs: BTreeMap<u64, Job>,
    pub next_job: u64,
    /// Writes that a broken drive does again.
    pub copies: Vec<(IoRequest, Vec<u8>, usize)>,
    pub guests: Vec<Guest>,
    pub model: Model,
    pub has_trouble: bool,
    /// The target takes no connections until then.
    pub down_until: u64,
    /// The last moment at which a request may have met an error that it is allowed to end with.
    pub excuse: Moment,
    pub stats: Stats,
    pub trace: Option<Vec<String>>,
}

impl World {
    pub fn new(plan: Plan, mut rng: Rng, with_trace: bool) -> Self {
        let blocks = plan.blocks * plan.hosts as u64;
        let node = Node::new(&plan, &mut rng, blocks, blocks + 64);
        let base = Instant::now();
        let guests = (0..plan.hosts)
            .map(|host| Guest::new(host, &plan, base))
            .collect();
        Self {
            rng,
            base,
            now_us: 0,
            moment: 1,
            sequence: 0,
            heap: BinaryHeap::new(),
            links: BTreeMap::new(),
            next_link: 1,
            timers: BTreeMap::new(),
            node,
            jobs: BTreeMap::new(),
            next_job: 1,
            copies: Vec::new(),
            guests,
            model: Model::default(),
            has_trouble: plan.trouble_us > 0,
            down_until: 0,
            excuse: 0,
            stats: Stats::default(),
            trace: with_trace.then(Vec::new),
            plan,
        }
    }

    pub fn instant(&self) -> Instant {
        self.base + Duration::from_micros(self.now_us)
    }

    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// The next point in the order of things.
    pub fn moment(&mut self) -> Moment {
        self.moment += 1;
        self.moment
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now_us = self.now_us;
        if let Some(trace) = &mut self.trace {
            trace.push(format!(
                "{:>11.6} {}",
                Duration::from_micros(now_us).as_secs_f64(),
                text()
            ));
        }
    }

    pub fn at(&mut self, time_us: u64, event: Event) {
        self.sequence += 1;
        self.heap
            .push(Reverse((time_us.max(self.now_us), self.sequence, event)));
    }

    pub fn after(&mut self, delay_us: u64, event: Event) {
        self.at(self.now_us + delay_us, event);
    }

    /// A delay of the network.
    pub fn delay(&mut self) -> u64 {
        self.rng.range(1, self.plan.net_us)
    }

    /// One step; false when nothing is left to happen.
    fn step(&mut self) -> bool {
        let Some(Reverse((time, _, event))) = self.heap.pop() else {
            return false;
        };
        self.now_us = time;
        self.stats.events += 1;
        assert!(self.stats.events < EVENTS_MAX, "this does not end");
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver { link, to_target } => self.deliver(link, to_target),
            Event::Arrive { link } => self.arrive(link),
            Event::Connected { link } => self.connected(link),
            Event::TargetReset { link } => self.target_reset(link),
            Event::HostClosed { link, failed } => self.host_closed(link, failed),
            Event::TargetSent { link } => self.target_sent(link),
            Event::FarewellOver { link } => self.farewell_over(link),
            Event::Timer { host, timer } => self.timer(host, timer),
            Event::Apply { job, blocks } => self.apply(job, blocks),
            Event::Finish { job } => self.finish(job),
            Event::Tick => {
                self.tick_all();
                self.after(SECOND, Event::Tick);
            }
            Event::Submit { host } => self.submit(host),
            Event::Trouble => self.trouble(),
            Event::Mend => self.mend(),
        }
    }

    /// Runs until this is so, which must not take longer than given.
    fn until(&mut self, what: &str, limit_us: u64, is_so: impl Fn(&Self) -> bool) {
        let end = self.now_us + limit_us;
        while !is_so(self) {
            assert!(
                self.step() && self.now_us <= end,
                "{what}: not within {limit_us} us"
            );
        }
    }

    /// The whole run.
    pub fn run(&mut self) {
        for host in 0..self.plan.hosts {
            self.pump(host);
            self.after(0, Event::Submit { host });
        }
        self.after(SECOND, Event::Tick);
        if self.has_trouble {
            self.after(self.plan.trouble_us, Event::Trouble);
        }
        let end = self.now_us + RUN_MAX;
        let busy = |guest: &Guest| guest.ops_left > 0 || !guest.requests.is_empty();
        while self.now_us < end && self.guests.iter().any(busy) {
            assert!(self.step(), "nothing happens any more");
        }
        self.heal();
        let what = "every host has connected after the last trouble";
        self.until(what, HEAL_MAX, |world| {
            world.guests.iter().all(|guest| guest.is_live)
        });
        let what = "all requests end after the last trouble";
        self.until(what, HEAL_MAX, |world| {
            world.guests.iter().all(|guest| guest.requests.is_empty())
        });
        let what = "hosts see the namespace as it is";
        self.until(what, HEAL_MAX, |world| {
            let blocks = Some(world.node.blocks);
            world.guests.iter().all(|guest| guest.blocks() == blocks)
        });
        self.read_all();
        self.until("all reads end", HEAL_MAX, |world| {
            world.guests.iter().all(|guest| guest.requests.is_empty())
        });
        for host in 0..self.plan.hosts {
            self.close(host);
        }
        self.until("all connections end", HEAL_MAX, |world| {
            world.links.is_empty() && world.jobs.is_empty()
        });
        self.node.assert_empty();
    }
}
