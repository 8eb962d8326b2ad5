//! An I/O queue: what its commands may do, and pairs and reservations along the way.

use std::sync::Arc;

use roadstead_nvme::{IoCommand, Sqe, Status};

use crate::ana::View;
use crate::check;
use crate::connect::Connected;
use crate::controller::{Controller, Ended};
use crate::fuse::{Arrived, Fuse, Part};
use crate::io::{IoRequest, IoResult};
use crate::limits;
use crate::queue::{Completion, Decision, Tag};
use crate::registry::Registry;
use crate::reservation::{Need, Views};
use crate::reserve;
use crate::work::Drain;

/// An I/O queue.
#[derive(Debug)]
pub(crate) struct IoQueue {
    registry: Arc<Registry>,
    controller: Arc<Controller>,
    qid: u16,
    /// The enable of the controller that this queue belongs to.
    enable: u64,
    view: View,
    views: Views,
    seen_epoch: u64,
    /// Its host ended it; the answer to that is on its way.
    is_disconnected: bool,
    fuse: Fuse,
    /// Preemptions that wait for others' I/O, and what comes then.
    draining: Vec<(Tag, Drain, Decision)>,
}

impl IoQueue {
    pub(crate) fn new(registry: Arc<Registry>, connected: Connected) -> Self {
        let Connected {
            controller,
            request,
            enable,
            view,
        } = connected;
        let mut views = Views::new(controller.identity().host_id);
        views.set(registry.reservations(&view.namespaces));
        // Anything that changed since Connect looked is seen by the first refresh.
        let seen_epoch = controller.epoch().wrapping_sub(1);
        Self {
            registry,
            controller,
            qid: request.qid,
            enable,
            view,
            views,
            seen_epoch,
            is_disconnected: false,
            fuse: Fuse::default(),
            draining: Vec::new(),
        }
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    pub(crate) fn qid(&self) -> u16 {
        self.qid
    }

    /// Its host ends it.
    pub(crate) fn disconnect(&mut self) {
        self.is_disconnected = true;
    }

    pub(crate) fn refresh(&mut self) -> Result<(), Ended> {
        if self.is_disconnected {
            return Err(Ended::Disconnected);
        }
        let epoch = self.controller.epoch();
        if epoch == self.seen_epoch {
            return Ok(());
        }
        let state = self.controller.lock();
        if let Some(ended) = state.ended {
            return Err(ended);
        }
        if state.enables != self.enable || !state.is_ready() {
            return Err(Ended::ControllerReset);
        }
        let view = state.view.clone();
        drop(state);
        if !Arc::ptr_eq(&self.view.namespaces, &view.namespaces) {
            self.views.set(self.registry.reservations(&view.namespaces));
        }
        self.view = view;
        self.seen_epoch = epoch;
        Ok(())
    }

    /// Takes a command.
    pub(crate) fn begin(&mut self, tag: Tag, sqe: &Sqe, data_length: u32) -> Decision {
        let part = Part::of(sqe);
        let checked = match part {
            Part::Alone => self.check(sqe, data_length),
            Part::First | Part::Second => self.check_half(sqe, data_length),
        };
        let half = match &checked {
            Ok(Decision::Io(request)) if part != Part::Alone => Ok(Some(request)),
            Ok(_) => Ok(None),
            Err(status) => Err(*status),
        };
        if let Err(status) = self.fuse.enter(tag, part, half) {
            return Decision::from(status);
        }
        match checked {
            Ok(Decision::Io(request)) if part != Part::Alone => Decision::Control {
                length: request.length,
            },
            Ok(decision) => decision,
            Err(status) => Decision::from(status),
        }
    }

    fn check(&mut self, sqe: &Sqe, data_length: u32) -> Result<Decision, Status> {
        let decision = match IoCommand::parse(sqe)? {
            IoCommand::Reservation { nsid, command } => {
                self.view.find(nsid)?;
                let reservations = self.views.get(nsid);
                return reserve::begin(reservations, command, data_length);
            }
            command => check::begin(&self.view, command, data_length)?,
        };
        self.views.check(sqe.nsid.get(), Need::of_command(sqe))?;
        Ok(decision)
    }

    fn check_half(&mut self, sqe: &Sqe, data_length: u32) -> Result<Decision, Status> {
        let command = IoCommand::parse(sqe)?;
        let (IoCommand::Compare { blocks, .. } | IoCommand::Write { blocks, .. }) = command else {
            return Err(Status::INVALID_FIELD.dnr());
        };
        if blocks.count > limits::COMPARE_WRITE_BLOCKS_MAX {
            return Err(Status::ATOMIC_WRITE_UNIT_EXCEEDED.dnr());
        }
        let request = check::request(&self.view, command, data_length)?;
        self.views.check(sqe.nsid.get(), Need::of_command(sqe))?;
        Ok(Decision::Io(request))
    }

    /// A command was refused before it was looked at.
    pub(crate) fn skip(&mut self, tag: Tag, sqe: &Sqe, status: Status) -> Status {
        let entered = self.fuse.enter(tag, Part::of(sqe), Err(status));
        entered.err().unwrap_or(status)
    }

    /// Goes on with a command whose data came.
    pub(crate) fn control(&mut self, tag: Tag, sqe: &Sqe, data: &[u8]) -> Decision {
        match self.fuse.arrive(tag, data) {
            Arrived::Wait => Decision::Hold,
            Arrived::Failed(status) => Decision::from(status),
            Arrived::Whole(request) => Decision::Io(request),
            Arrived::Foreign => self
                .control_alone(tag, sqe, data)
                .unwrap_or_else(Decision::from),
        }
    }

    fn control_alone(&mut self, tag: Tag, sqe: &Sqe, data: &[u8]) -> Result<Decision, Status> {
        let (nsid, command) = match IoCommand::parse(sqe)? {
            IoCommand::Reservation { nsid, command } => (nsid, command),
            command => return check::with_list(&self.view, command, data),
        };
        let host = self.controller.identity().host_id;
        let namespace = self.view.namespaces.get(&nsid);
        let (Some(namespace), Some(reservations)) = (namespace, self.views.get(nsid)) else {
            return Err(Status::INVALID_NAMESPACE.dnr());
        };
        let made = reserve::change(reservations, host, command, data)?;
        self.registry.tell(namespace.uuid, &made.changed.effects);
        let next = if made.changed.must_save {
            Decision::Io(reserve::save(namespace.volume, nsid, reservations))
        } else {
            Decision::Complete(Completion::SUCCESS)
        };
        let mut drain = if made.must_drain {
            self.registry.drain(&made.changed.effects.preempted, host)
        } else {
            Drain::default()
        };
        if drain.is_over() {
            return Ok(next);
        }
        self.draining.push((tag, drain, next));
        Ok(Decision::Hold)
    }

    /// The data of a command came damaged.
    pub(crate) fn lose(&mut self, tag: Tag) {
        self.fuse.lose(tag);
    }

    /// Whether an I/O that was let in earlier may start now.
    pub(crate) fn may_start(&mut self, request: &IoRequest) -> Result<(), Status> {
        self.views.check(request.nsid, Need::of_io(&request.op))
    }

    /// How the halves of a pair end whose I/O ended; none for other I/O.
    pub(crate) fn pair_end(&mut self, tag: Tag, status: Status) -> Option<[(Tag, Status); 2]> {
        self.fuse.end(tag, status)
    }

    /// Whether a preemption waits for others' I/O.
    pub(crate) fn is_draining(&self) -> bool {
        !self.draining.is_empty()
    }

    /// The next held command that goes on.
    pub(crate) fn next_event(&mut self) -> Option<(Tag, Decision)> {
        if let Some((tag, status)) = self.fuse.next_failed() {
            return Some((tag, Decision::from(status)));
        }
        let index = self
            .draining
            .iter_mut()
            .position(|(_, drain, _)| drain.is_over())?;
        let (tag, _, next) = self.draining.swap_remove(index);
        Some((tag, next))
    }
}

impl Drop for IoQueue {
    fn drop(&mut self) {
        let mut state = self.controller.lock();
        if state.enables == self.enable {
            state.io_queues.remove(&self.qid);
        }
    }
}

/// The status of an I/O's end.
pub(crate) fn status(result: IoResult) -> Status {
    result.map_or_else(|error| error.status(), |()| Status::SUCCESS)
}
