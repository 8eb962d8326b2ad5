//! What the connections of a reactor share, whatever transport they have.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use roadstead_ring::Io;
use roadstead_target::{Abandoned, Registry};

use super::jobs::{Jobs, Life, Owner, Place};
use super::rim::Storage;

/// Lines in the log about ended connections between two ticks.
const LOG_LINES_MAX: u32 = 10;

/// Storage, the jobs at it, and the registry that says what is served.
pub(super) struct Backend {
    pub(super) registry: Arc<Registry>,
    pub(super) storage: Storage,
    pub(super) jobs: Jobs,
    started: Instant,
    log_lines: u32,
    /// Connections that count as load. The acceptor, which fills it in advance, looks at it.
    load: Arc<Load>,
}

/// How many connections of a reactor are at work, more or less.
#[derive(Debug, Default)]
pub(super) struct Load(AtomicUsize);

impl Load {
    pub(super) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub(super) fn remove(&self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Whether a connection counts as load of its reactor: it has done I/O, or is too young to tell.
#[derive(Debug)]
pub(super) struct Weight {
    is_load: bool,
    did_io: bool,
    ticks: u8,
}

impl Weight {
    /// Of a new connection, which was counted already.
    pub(super) fn counted() -> Self {
        Self {
            is_load: true,
            did_io: false,
            ticks: 0,
        }
    }

    /// It has done I/O.
    pub(super) fn works(&mut self, load: &Load) {
        self.did_io = true;
        if !std::mem::replace(&mut self.is_load, true) {
            load.add();
        }
    }

    /// A second has passed: a connection that has done no I/O by its second tick is taken for an admin queue.
    pub(super) fn tick(&mut self, load: &Load) {
        self.ticks = self.ticks.saturating_add(1);
        if self.ticks == 2 && !self.did_io {
            self.remove(load);
        }
    }

    /// The connection has ended.
    pub(super) fn remove(&mut self, load: &Load) {
        if std::mem::take(&mut self.is_load) {
            load.remove();
        }
    }
}

impl Backend {
    pub(super) fn new(
        registry: Arc<Registry>,
        storage: Storage,
        jobs: Jobs,
        load: Arc<Load>,
    ) -> Self {
        Self {
            registry,
            storage,
            jobs,
            started: Instant::now(),
            log_lines: 0,
            load,
        }
    }

    /// The reactor's load.
    pub(super) fn load(&self) -> &Load {
        &self.load
    }

    /// The clock of the connections.
    pub(super) fn now_ms(&self, io: &Io) -> u64 {
        let elapsed = io.now().saturating_duration_since(self.started);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    /// Starts the I/O that a connection has handed out, and says whether there was any I/O.
    pub(super) fn start_submitted(&mut self, io: &mut Io, place: Place, life: &Rc<Life>) -> bool {
        let mut submitted = std::mem::take(&mut self.storage.submitted);
        for one in submitted.drain(..) {
            let namespace = self.storage.find(one.request.volume).cloned();
            let owner = Owner {
                place,
                life: Rc::clone(life),
                tag: one.tag,
            };
            self.jobs.start(io, owner, namespace, one.request, one.buf);
        }
        self.storage.submitted = submitted;
        std::mem::take(&mut self.storage.did_io)
    }

    /// A connection has ended, with what its core left behind, if it still had one; its I/O at drives goes on.
    pub(super) fn ended(&mut self, life: &Rc<Life>, abandoned: Option<Abandoned>) {
        if let Some(abandoned) = &abandoned {
            self.jobs.fence(life);
            abandoned.keep_order();
        }
        life.end(abandoned);
    }

    /// Whether there is room in the log for the end of a connection; there is again after [`Self::tick`].
    pub(super) fn may_log(&mut self) -> bool {
        self.log_lines += 1;
        self.log_lines <= LOG_LINES_MAX
    }

    /// A second has passed.
    pub(super) fn tick(&mut self) {
        self.log_lines = 0;
    }
}
