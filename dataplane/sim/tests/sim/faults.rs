//! The target's drive at work, and everything that goes wrong.

use std::net::SocketAddr;

use roadstead_initiator::Rim;
use roadstead_nvme::{AnaState, Portal};
use roadstead_target::{IoError, IoOp};

use crate::node::{Outcome, PORTALS};
use crate::plan::{Broken, SECOND};
use crate::world::{Event, World};

/// The longest that an I/O takes: longer than hosts wait.
const SLOW_IO_MAX: u64 = 40 * SECOND;

impl World {
    /// The drive begins with what the target has handed out.
    pub fn start_jobs(&mut self) {
        for mut job in self.node.storage.take_ready() {
            let number = self.next_job;
            self.next_job += 1;
            let slow = self.has_trouble && self.rng.permille(self.plan.slow_io);
            let longest = if slow {
                SLOW_IO_MAX
            } else {
                self.plan.drive_us
            };
            let first = self.rng.range(1, longest);
            let second = first + self.rng.range(1, longest);
            let blocks = self.node.storage.drive.count(&job.request);
            if self.node.storage.has_lost(&job) {
                self.after(1, Event::Finish { job: number });
                self.jobs.insert(number, job);
                continue;
            }
            if self.has_trouble && self.rng.permille(self.plan.failing_io) {
                let errors = [
                    IoError::Read,
                    IoError::Write,
                    IoError::NoSpace,
                    IoError::Unavailable,
                ];
                job.error = Some(self.rng.pick(&errors));
            }
            // Some I/O that fails was done in part or in whole.
            if job.error.is_none() || self.rng.permille(500) {
                if blocks > 1 && self.rng.permille(300) {
                    let middle = self.rng.index(blocks) + 1;
                    self.after(
                        first,
                        Event::Apply {
                            job: number,
                            blocks: middle,
                        },
                    );
                }
                self.after(
                    second,
                    Event::Apply {
                        job: number,
                        blocks,
                    },
                );
            }
            let end = second + self.rng.below(longest);
            if self.plan.broken != Broken::LosesIo || !self.rng.permille(20) {
                self.after(end, Event::Finish { job: number });
            }
            self.jobs.insert(number, job);
        }
    }

    /// A part of an I/O is done.
    pub fn apply(&mut self, job: u64, blocks: usize) {
        let Some(job) = self.jobs.get_mut(&job) else {
            return;
        };
        let is_late = !self.links.get(&job.link).is_some_and(|link| link.is_open());
        let is_write = job.request.op == IoOp::Write;
        self.stats.late_writes += u64::from(is_late && is_write);
        let mut none = [];
        let bytes = job.buffer.as_mut().map_or(&mut none[..], AsMut::as_mut);
        let from = std::mem::replace(&mut job.done, blocks);
        if let Err(error) = self
            .node
            .storage
            .drive
            .perform(&job.request, bytes, from, blocks)
        {
            job.error = Some(error);
        }
        self.check_landed();
    }

    /// Nothing that lands at the drive is older than what its host knows to be there.
    pub fn check_landed(&mut self) {
        for (block, stamp) in std::mem::take(&mut self.node.storage.drive.landed) {
            let now = self.moment();
            self.note(|| format!("drive: block {block} is {stamp:#x}"));
            if let Err(error) = self.model.lands(block, stamp, now) {
                panic!("{error}");
            }
        }
    }

    pub fn finish(&mut self, number: u64) {
        let Some(job) = self.jobs.remove(&number) else {
            return;
        };
        let link = job.link;
        let result = job.error.map_or(Ok(()), Err);
        if result.is_err() {
            self.excuse = self.moment();
        }
        let again = (self.plan.broken == Broken::WritesTwice && job.request.op == IoOp::Write)
            .then(|| {
                (
                    job.request.clone(),
                    job.buffer.as_ref().map(|b| b.as_ref().to_vec()),
                )
            });
        self.node.complete(job, result, self.now_ms());
        self.settle(link, Outcome::Open);
        self.resume_waiting();
        if let Some((request, Some(mut bytes))) = again
            && self.rng.permille(100)
        {
            // As if the drive had taken its time with a copy.
            let count = self.node.storage.drive.count(&request);
            self.copies
                .push((request, std::mem::take(&mut bytes), count));
        }
        if self.rng.permille(100)
            && let Some((request, mut bytes, count)) = self.copies.pop()
        {
            let _ = self
                .node
                .storage
                .drive
                .perform(&request, &mut bytes, 0, count);
            self.check_landed();
        }
    }

    /// Buffers came free.
    pub fn resume_waiting(&mut self) {
        for link in self.node.waiting() {
            let outcome = self.node.sent(link, self.now_ms());
            self.settle(link, outcome);
        }
    }

    pub fn tick_all(&mut self) {
        for link in self.node.links() {
            let outcome = self.node.tick(link, self.now_ms());
            self.settle(link, outcome);
        }
    }

    pub fn trouble(&mut self) {
        if !self.has_trouble {
            return;
        }
        let next = self.rng.range(1, self.plan.trouble_us);
        self.after(next, Event::Trouble);
        let host = self.rng.index(self.plan.hosts);
        let duration = self.rng.pick(&[1000, 100_000, SECOND, 8 * SECOND]);
        let duration = self.rng.range(1, duration);
        match self.rng.below(25) {
            0..8 => {
                let open: Vec<u64> = self
                    .links
                    .iter()
                    .filter(|(_, l)| l.is_open())
                    .map(|(id, _)| *id)
                    .collect();
                if !open.is_empty() {
                    let link = self.rng.pick(&open);
                    self.cut(link);
                }
            }
            8 => {
                let own = self
                    .links
                    .iter()
                    .filter(|(_, l)| l.is_open() && l.host == host);
                for link in own.map(|(id, _)| *id).collect::<Vec<_>>() {
                    self.cut(link);
                }
            }
            9..12 => {
                self.stats.stalls += 1;
                self.note(|| format!("host {host}: nothing moves for {duration} us"));
                self.guests[host].stalled_until = self.now_us + duration;
            }
            12 => self.down_until = self.now_us + duration,
            13 => self.restart(false, duration),
            14 => self.restart(true, duration),
            15 => self.grow(),
            20..23 => self.switch_paths(duration),
            23.. => self.change_paths(host),
            what => self.change_table(what, host, duration),
        }
    }

    /// The target's process dies, or the whole node.
    fn restart(&mut self, loses_power: bool, duration: u64) {
        self.note(|| format!("target: restarts, loses power: {loses_power}"));
        self.down_until = self.now_us + duration;
        // The kernel ends what the process had at the drive before another process can open it.
        for (_, mut job) in std::mem::take(&mut self.jobs) {
            if self.rng.permille(500) {
                let mut none = [];
                let count = self.node.storage.drive.count(&job.request);
                let bytes = job.buffer.as_mut().map_or(&mut none[..], AsMut::as_mut);
                let _ = self
                    .node
                    .storage
                    .drive
                    .perform(&job.request, bytes, job.done, count);
            }
        }
        self.check_landed();
        self.reset_all();
        self.node.restart();
        self.stats.restarts += 1;
        if loses_power {
            self.stats.power_losses += 1;
            self.node.storage.drive.lose_power(&mut self.rng);
            self.model.power_lost();
            if self.plan.broken != Broken::HidesLoss {
                self.node.cache_epoch += 1;
                self.node.apply();
            }
            let now = self.moment();
            for guest in &mut self.guests {
                guest.power_lost(now);
            }
        }
    }

    fn grow(&mut self) {
        if self.node.blocks < self.plan.hosts as u64 * self.plan.blocks + 60 {
            self.node.blocks += self.rng.range(1, 4);
            self.stats.grown += 1;
            self.apply_table();
        }
    }

    fn change_table(&mut self, what: u64, host: usize, duration: u64) {
        match what {
            16 => self.node.is_present = false,
            17 => self.node.has_namespace = false,
            _ => {
                self.node.refused.insert(host);
            }
        }
        self.apply_table();
        self.after(duration, Event::Mend);
    }

    fn apply_table(&mut self) {
        self.stats.tables += 1;
        self.note(|| "target: another table".into());
        self.excuse = self.moment();
        self.node.apply();
        self.tick_all();
    }

    /// Other ANA states; hosts hear of them, and some are to wait.
    fn switch_paths(&mut self, duration: u64) {
        let states = [
            AnaState::Optimized,
            AnaState::NonOptimized,
            AnaState::NonOptimized,
            AnaState::Inaccessible,
            AnaState::PersistentLoss,
            AnaState::Change,
        ];
        self.node.ana = [self.rng.pick(&states), self.rng.pick(&states)];
        self.stats.switches += 1;
        let ana = self.node.ana;
        self.note(|| format!("target: ANA states {ana:?}"));
        self.node.apply();
        self.tick_all();
        self.after(duration, Event::Mend);
    }

    /// A host is to use other portals from now on.
    fn change_paths(&mut self, host: usize) {
        let [one, other] = PORTALS;
        let sets: [&[SocketAddr]; 4] = [&[one], &[other], &[one, other], &[other, one]];
        let portals = self.rng.pick(&sets);
        self.stats.moves += 1;
        self.reach_over(host, portals);
    }

    fn reach_over(&mut self, host: usize, portals: &[SocketAddr]) {
        self.note(|| format!("host {host}: is to use {portals:?}"));
        let portals: Vec<_> = portals.iter().copied().map(Portal::tcp).collect();
        self.with_client(host, |client, rim| client.follow(&portals, rim.now()));
    }

    /// What was taken away is served again.
    pub fn mend(&mut self) {
        self.node.is_present = true;
        self.node.has_namespace = true;
        self.node.refused.clear();
        self.node.ana = Default::default();
        self.apply_table();
    }

    /// No more trouble.
    pub fn heal(&mut self) {
        self.note(|| "no more trouble".into());
        self.has_trouble = false;
        self.down_until = self.now_us;
        for guest in &mut self.guests {
            guest.ops_left = 0;
            guest.stalled_until = self.now_us;
        }
        for host in 0..self.plan.hosts {
            self.reach_over(host, &PORTALS);
        }
        self.mend();
    }
}
