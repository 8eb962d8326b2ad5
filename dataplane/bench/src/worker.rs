//! One thread: a reactor, a connection, requests always in flight.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use roadstead_host::{Limits, Wanted};
use roadstead_initiator::{Client, Completed, Nqn, Op, Spec};
use roadstead_ring::{Event, Handler, Io, Reactor, ReactorConfig, mailbox, pin_current_thread};

use crate::histogram::Histogram;
use crate::is_interrupted;
use crate::options::Options;
use crate::pattern::{Chooser, Content, fill, inspect};

/// Tokens above the client's.
const TOKEN_MEASURE: u64 = 1 << 20;
const TOKEN_END: u64 = TOKEN_MEASURE + 1;
/// How long a polling reactor polls without a break.
const POLL: Duration = Duration::from_secs(3600);

/// What a thread found.
pub(crate) struct Outcome {
    pub(crate) reads: Histogram,
    pub(crate) writes: Histogram,
    pub(crate) measured: Duration,
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) verified: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Ramp,
    Measuring,
    /// What is in flight is awaited.
    Draining,
    /// All that was written is read, from this place on.
    ReadBack(u64),
    Done,
}

/// A request in flight, by its token.
#[derive(Clone, Copy, Debug)]
struct Slot {
    unit: u64,
    is_read: bool,
    started: Instant,
    generation: u64,
}

struct Worker<'a> {
    options: &'a Options,
    number: usize,
    client: Client,
    phase: Phase,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    spare: Vec<Vec<u8>>,
    chooser: Option<Chooser>,
    /// First block of this thread's part, blocks of a request, requests in the part.
    first_lba: u64,
    unit_blocks: u32,
    units: u64,
    /// What was written last, by place; 0: not by us.
    generations: Vec<u64>,
    generation: u64,
    measure_from: Instant,
    outcome: Outcome,
    failure: Option<anyhow::Error>,
}

pub(crate) fn run(options: &Options, number: usize) -> anyhow::Result<Outcome> {
    if let Some(core) = options.cores.get(number) {
        pin_current_thread(*core).with_context(|| format!("pin to core {core}"))?;
    }
    let (_mailbox, inbox) = mailbox::<()>()?;
    let config = ReactorConfig {
        spin: if options.sleep { Duration::ZERO } else { POLL },
        ..ReactorConfig::default()
    };
    let mut reactor = Reactor::new(&config, inbox)?;
    let now = Instant::now();
    let depth = usize::try_from(options.depth)?;
    let mut worker = Worker {
        client: Client::new(spec(options)?, 0, now),
        options,
        number,
        phase: Phase::Connecting,
        slots: vec![None; depth],
        free: (0..depth).collect(),
        spare: Vec::new(),
        chooser: None,
        first_lba: 0,
        unit_blocks: 1,
        units: 0,
        generations: Vec::new(),
        generation: 0,
        measure_from: now,
        outcome: Outcome {
            reads: Histogram::new(),
            writes: Histogram::new(),
            measured: Duration::ZERO,
            errors: 0,
            first_error: None,
            verified: 0,
        },
        failure: None,
    };
    worker.client.pump(reactor.io());
    reactor.run(&mut worker)?;
    match worker.failure {
        Some(error) => Err(error),
        None => Ok(worker.outcome),
    }
}

fn spec(options: &Options) -> anyhow::Result<Spec> {
    Ok(Spec {
        identity: options.identity()?,
        subsystem_nqn: Nqn::new(&options.nqn).context("--nqn")?,
        namespace: options.nsid.map_or(Wanted::First, Wanted::Nsid),
        paths: options.connect.clone(),
        limits: Limits {
            io_queues: options.queues,
            queue_depth: u16::try_from(options.depth)?.max(1),
            ctrl_loss: Duration::from_secs(options.ctrl_loss),
            policy: options.policy.into(),
            ..Limits::default()
        },
        header_digest: options.digest,
        data_digest: options.digest,
    })
}

impl Worker<'_> {
    fn fail(&mut self, io: &mut Io, error: anyhow::Error) {
        self.failure.get_or_insert(error);
        io.stop();
    }

    /// Lays out the namespace and starts.
    fn begin(&mut self, io: &mut Io) -> anyhow::Result<()> {
        let info = *self.client.info().context("no namespace")?;
        let block = u64::from(info.block_bytes);
        ensure!(
            self.options.block_size.is_multiple_of(block),
            "--block-size must be a multiple of the namespace's blocks of {block} bytes"
        );
        self.unit_blocks = u32::try_from(self.options.block_size / block)?;
        let bytes = self.options.size.unwrap_or(u64::MAX);
        let all = (info.blocks.min(bytes / block)) / u64::from(self.unit_blocks);
        self.units = all / self.options.threads as u64;
        ensure!(self.units > 0, "the namespace is too small");
        self.first_lba = self.units * self.number as u64 * u64::from(self.unit_blocks);
        let seed = self.options.seed + self.number as u64;
        self.chooser = Some(Chooser::new(
            self.options.rw,
            self.options.mix,
            self.units,
            seed,
            self.options.verify,
        ));
        if self.options.verify {
            self.generations = vec![0; usize::try_from(self.units)?];
            self.generation = seed << 40;
        }
        self.phase = Phase::Ramp;
        io.set_timer(Duration::from_secs_f64(self.options.ramp), TOKEN_MEASURE)?;
        Ok(())
    }

    /// Keeps as many requests in flight as asked for.
    fn submit(&mut self) {
        while matches!(
            self.phase,
            Phase::Ramp | Phase::Measuring | Phase::ReadBack(_)
        ) && let Some(index) = self.free.pop()
        {
            let Some((unit, is_read)) = self.choose() else {
                self.free.push(index);
                return;
            };
            let size = usize::try_from(self.options.block_size).unwrap_or(0);
            let mut bytes = self.spare.pop().unwrap_or_else(|| vec![0x5a; size]);
            let mut generation = 0;
            if self.options.verify && !is_read {
                self.generation += 1;
                generation = self.generation;
                fill(&mut bytes, self.place(unit), generation);
            }
            let op = match is_read {
                true => Op::Read,
                false => Op::Write { durable: false },
            };
            let lba = self.place(unit);
            let slot = Slot {
                unit,
                is_read,
                started: Instant::now(),
                generation,
            };
            if let Some(place) = self.slots.get_mut(index) {
                *place = Some(slot);
            }
            let submitted = self
                .client
                .submit(op, lba, self.unit_blocks, (bytes, 0), index as u64);
            if let Err((refused, _)) = submitted {
                self.error(refused.to_string());
                return;
            }
        }
    }

    fn place(&self, unit: u64) -> u64 {
        self.first_lba + unit * u64::from(self.unit_blocks)
    }

    fn choose(&mut self) -> Option<(u64, bool)> {
        if let Phase::ReadBack(next) = &mut self.phase {
            let from = usize::try_from(*next).ok()?;
            let rest = self.generations.get(from..)?;
            let skip = rest.iter().position(|generation| *generation != 0)?;
            let unit = *next + skip as u64;
            *next = unit + 1;
            return Some((unit, true));
        }
        self.chooser.as_mut()?.choose()
    }

    fn done(&mut self, mut done: Completed) {
        let index = usize::try_from(done.token).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.free.push(index);
        if let Some(chooser) = &mut self.chooser {
            chooser.release(slot.unit);
        }
        if let Err(error) = done.result {
            self.error(format!("block {}: {error}", self.place(slot.unit)));
        } else {
            if self.phase == Phase::Measuring {
                let elapsed = slot.started.elapsed().as_nanos();
                let histogram = match slot.is_read {
                    true => &mut self.outcome.reads,
                    false => &mut self.outcome.writes,
                };
                histogram.add(u64::try_from(elapsed).unwrap_or(u64::MAX));
            }
            if self.options.verify {
                self.check(&slot, &mut done.bytes);
            }
        }
        self.spare.push(done.bytes);
    }

    fn check(&mut self, slot: &Slot, bytes: &mut [u8]) {
        let at = usize::try_from(slot.unit).unwrap_or(usize::MAX);
        let Some(last) = self.generations.get_mut(at) else {
            return;
        };
        if !slot.is_read {
            *last = slot.generation;
            return;
        }
        let last = *last;
        if last == 0 && self.options.rw.reads(self.options.mix) < 100 {
            return; // Whatever it was before, perhaps in blocks of another size.
        }
        let place = self.place(slot.unit);
        let found = inspect(bytes);
        let right = match found {
            Content::Zeroes => last == 0,
            Content::Written {
                place: p,
                generation,
            } => p == place && (last == 0 || generation == last),
            Content::Damaged => false,
        };
        self.outcome.verified += 1;
        if !right {
            self.error(format!(
                "block {place}: generation {last:#x} was written, {found:x?} was read"
            ));
        }
    }

    fn error(&mut self, text: String) {
        self.outcome.errors += 1;
        self.outcome.first_error.get_or_insert(text);
    }

    /// What follows when nothing is in flight.
    fn drained(&mut self, io: &mut Io) {
        let wrote = self.generations.iter().any(|generation| *generation != 0);
        match self.phase {
            Phase::Draining if wrote => self.phase = Phase::ReadBack(0),
            Phase::Draining => self.phase = Phase::Done,
            Phase::ReadBack(_) if self.client.outstanding() == 0 => self.phase = Phase::Done,
            _ => {}
        }
        if self.phase == Phase::Done {
            self.client.close(io);
            io.stop();
        }
    }

    fn end_measuring(&mut self) {
        if self.phase == Phase::Measuring {
            self.phase = Phase::Draining;
            self.outcome.measured = self.measure_from.elapsed();
        }
    }

    fn work(&mut self, io: &mut Io) {
        self.client.pump(io);
        if is_interrupted() {
            self.end_measuring();
        }
        if self.phase == Phase::Connecting {
            if self.client.info().is_some() && self.client.next_change().is_some() {
                if let Err(error) = self.begin(io) {
                    return self.fail(io, error);
                }
            } else if let Some(errors) = self.client.first_failure() {
                let error = anyhow::anyhow!("cannot connect: {}", errors.join("; "));
                return self.fail(io, error);
            }
        }
        while let Some(done) = self.client.next_done() {
            self.done(done);
        }
        if matches!(self.phase, Phase::Draining) && self.client.outstanding() == 0 {
            self.drained(io);
        }
        self.submit();
        if matches!(self.phase, Phase::ReadBack(_)) {
            self.drained(io);
        }
        self.client.pump(io);
    }
}

impl Handler for Worker<'_> {
    type Message = ();

    fn event(&mut self, io: &mut Io, event: Event<'_>) {
        match event {
            Event::Timer {
                token: TOKEN_MEASURE,
                ..
            } => {
                self.phase = Phase::Measuring;
                self.measure_from = io.now();
                let time = Duration::from_secs_f64(self.options.time);
                if let Err(error) = io.set_timer(time, TOKEN_END) {
                    self.fail(io, error.into());
                }
            }
            Event::Timer {
                token: TOKEN_END, ..
            } => self.end_measuring(),
            event => {
                let is_last = matches!(event, Event::Closed { .. });
                self.client.event(io, event);
                if is_last {
                    self.work(io);
                }
            }
        }
    }

    fn message(&mut self, _: &mut Io, (): ()) {}

    fn poll(&mut self, io: &mut Io) -> bool {
        self.client.poll(io)
    }

    fn may_sleep(&mut self, io: &mut Io) -> bool {
        if self.client.may_sleep(io) {
            return true;
        }
        self.work(io);
        false
    }

    fn turn_end(&mut self, io: &mut Io) {
        self.work(io);
    }
}
