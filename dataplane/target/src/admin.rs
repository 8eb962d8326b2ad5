//! The admin queue.

use std::sync::Arc;

use roadstead_nvme::property::{self, Capabilities, Configuration, VERSION_2_0};
use roadstead_nvme::{AdminCommand, FabricsCommand, Sqe, Status, opcode};

use crate::controller::{Controller, Ended, Kind};
use crate::queue::{Completion, Decision, Tag};
use crate::registry::Registry;
use crate::work::Drain;
use crate::{features, identify, limits, logs, reservation_features};

/// How long a controller may need to become ready, 500 ms.
const READY_500MS: u8 = 10;

/// A Cross-Controller Reset is done: immediately, as far as its host is concerned.
const RESET_DONE: Completion = Completion {
    status: Status::SUCCESS,
    result: 1,
};

#[derive(Debug)]
pub(crate) struct AdminQueue {
    registry: Arc<Registry>,
    controller: Arc<Controller>,
    /// Asynchronous Event Requests, oldest first: at most [`limits::EVENT_REQUESTS_MAX`].
    held: Vec<Held>,
    /// Held commands that were aborted.
    aborted: Vec<Tag>,
    /// Resets of other controllers that wait for these controllers' I/O: at most [`limits::CROSS_CONTROLLER_RESETS_MAX`].
    resets: Vec<(Tag, Drain)>,
    seen_epoch: u64,
    /// There may be an event for a held command.
    look: bool,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    tag: Tag,
    cid: u16,
}

impl AdminQueue {
    pub(crate) fn new(registry: Arc<Registry>, controller: Arc<Controller>) -> Self {
        let seen_epoch = controller.epoch().wrapping_sub(1);
        Self {
            registry,
            controller,
            held: Vec::new(),
            aborted: Vec::new(),
            resets: Vec::new(),
            seen_epoch,
            look: true,
        }
    }

    pub(crate) fn controller(&self) -> &Controller {
        &self.controller
    }

    pub(crate) fn refresh(&mut self) -> Result<(), Ended> {
        let epoch = self.controller.epoch();
        if epoch != self.seen_epoch {
            self.seen_epoch = epoch;
            self.look = true;
        }
        if self.look
            && let Some(ended) = self.controller.lock().ended
        {
            return Err(ended);
        }
        Ok(())
    }

    /// Looks at what time does: keep alive, and the rest of a path.
    pub(crate) fn tick(&self, now_ms: u64) -> Result<(), Ended> {
        self.controller.rest(now_ms);
        let is_expired = self
            .controller
            .lock()
            .is_expired(self.controller.identity().kind, now_ms);
        if is_expired {
            self.controller.end(Ended::KeepAliveExpired);
            return Err(Ended::KeepAliveExpired);
        }
        Ok(())
    }

    pub(crate) fn next_event(&mut self) -> Option<(Tag, Completion)> {
        if let Some(tag) = self.aborted.pop() {
            return Some((tag, Status::ABORT_REQUESTED.into()));
        }
        let over = self.resets.iter_mut().position(|(_, io)| io.is_over());
        if let Some(index) = over {
            let (tag, _) = self.resets.swap_remove(index);
            return Some((tag, RESET_DONE));
        }
        if !self.look {
            return None;
        }
        let first = self.held.first().copied();
        let event = first.and_then(|held| Some((held.tag, self.controller.lock().events.take()?)));
        let Some((tag, event)) = event else {
            self.look = false;
            return None;
        };
        self.held.remove(0);
        Some((tag, Completion::result(u64::from(event.encode()))))
    }

    pub(crate) fn begin(&mut self, tag: Tag, sqe: &Sqe, data_length: u32, now_ms: u64) -> Decision {
        let mut state = self.controller.lock();
        state.last_seen_ms = now_ms;
        let is_ready = state.is_ready();
        drop(state);
        let decided = if sqe.opcode == opcode::FABRICS {
            FabricsCommand::parse(sqe).and_then(|command| self.fabrics(command))
        } else if is_ready {
            AdminCommand::parse(sqe)
                .and_then(|command| self.admin(tag, sqe, command, data_length, now_ms))
        } else {
            Err(Status::COMMAND_SEQUENCE.dnr())
        };
        decided.unwrap_or_else(Decision::from)
    }

    fn fabrics(&mut self, command: FabricsCommand) -> Result<Decision, Status> {
        let is_io = self.controller.identity().kind == Kind::Io;
        match command {
            FabricsCommand::PropertyGet { offset, wide } => {
                let value = match (offset, wide) {
                    (property::CAP, true) => self.capabilities().0,
                    (property::VS, false) => u64::from(VERSION_2_0),
                    (property::NSSR, false) if is_io => 0,
                    (property::CRTO, false) => u64::from(READY_500MS),
                    (property::CC, false) => u64::from(self.controller.lock().configuration.0),
                    (property::CSTS, false) => u64::from(self.controller.lock().status().0),
                    // Tools that show all properties look for this status as it is, without flags.
                    _ => return Err(Status::INVALID_FIELD),
                };
                Ok(Decision::Complete(Completion::result(value)))
            }
            FabricsCommand::PropertySet {
                offset: property::CC,
                wide: false,
                value,
            } => {
                let [a, b, c, d, ..] = value.to_le_bytes();
                self.configure(Configuration(u32::from_le_bytes([a, b, c, d])))
            }
            FabricsCommand::PropertySet {
                offset: property::NSSR,
                wide: false,
                value,
            } if is_io => {
                if value == u64::from(property::SUBSYSTEM_RESET) {
                    self.registry.reset(&self.controller.identity().subsystem);
                }
                Ok(Decision::Complete(Completion::SUCCESS))
            }
            FabricsCommand::PropertySet { .. } => Err(Status::INVALID_FIELD.dnr()),
            FabricsCommand::Connect(_) => Err(Status::COMMAND_SEQUENCE.dnr()),
            FabricsCommand::Disconnect => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let queue_entries = self.registry.limits().queue_entries();
        let capabilities = Capabilities::new(queue_entries, READY_500MS).version_2();
        match self.controller.identity().kind {
            Kind::Io => capabilities.with_subsystem_reset(),
            Kind::Discovery => capabilities,
        }
    }

    fn configure(&mut self, new: Configuration) -> Result<Decision, Status> {
        let mut state = self.controller.lock();
        if new.is_enabled() {
            let old = state.configuration;
            let command_sets = [Configuration::NVM, Configuration::ALL_COMMAND_SETS];
            let is_possible = command_sets.contains(&new.command_set())
                && new.page_bytes() == 4096
                && new.arbitration() == 0
                && new.entry_sizes() == (6, 4);
            let is_changed = old.is_enabled() && old.command_set() != new.command_set();
            if !is_possible || is_changed {
                return Err(Status::INVALID_FIELD.dnr());
            }
        }
        if state.configure(new) {
            self.controller.touch();
            if !new.is_enabled() {
                self.aborted
                    .extend(self.held.drain(..).map(|held| held.tag));
            }
        }
        Ok(Decision::Complete(Completion::SUCCESS))
    }

    fn admin(
        &mut self,
        tag: Tag,
        sqe: &Sqe,
        command: AdminCommand,
        data_length: u32,
        now_ms: u64,
    ) -> Result<Decision, Status> {
        let is_io = self.controller.identity().kind == Kind::Io;
        match command {
            AdminCommand::Identify {
                cns,
                cntlid,
                nsid,
                command_set,
            } => {
                let what = identify::What {
                    cns,
                    cntlid,
                    nsid,
                    command_set,
                };
                let data = identify::identify(&self.registry, &self.controller, what)?;
                reply(data, data_length)
            }
            AdminCommand::GetLogPage(page) => {
                let log = logs::page(&self.registry, &self.controller, page, now_ms)?;
                self.look = true;
                reply(logs::part(log, page)?, data_length)
            }
            AdminCommand::GetFeatures {
                id, select, nsid, ..
            } if is_io && reservation_features::has(id) => {
                reservation_features::get(&self.registry, &self.controller, id, select, nsid)
            }
            AdminCommand::SetFeatures {
                id,
                save,
                nsid,
                value,
            } if is_io && reservation_features::has(id) => {
                let (registry, controller) = (&self.registry, &self.controller);
                reservation_features::set(registry, controller, id, save, nsid, value)
            }
            AdminCommand::GetFeatures {
                id, select, value, ..
            } => features::get(&self.controller, id, select, value, data_length),
            AdminCommand::SetFeatures {
                id,
                save,
                nsid,
                value,
            } => {
                let result = features::set(&self.controller, id, save, nsid, value)?;
                self.look = true;
                Ok(Decision::Complete(Completion::result(result)))
            }
            AdminCommand::KeepAlive => Ok(Decision::Complete(Completion::SUCCESS)),
            AdminCommand::AsyncEventRequest => {
                if self.held.len() >= usize::from(limits::EVENT_REQUESTS_MAX) {
                    return Err(Status::AER_LIMIT.dnr());
                }
                self.held.push(Held {
                    tag,
                    cid: sqe.cid.get(),
                });
                self.look = true;
                Ok(Decision::Hold)
            }
            AdminCommand::Abort { qid, cid } => Ok(Decision::Complete(self.abort(qid, cid))),
            AdminCommand::CrossControllerReset { .. } if !is_io => {
                Err(Status::INVALID_OPCODE.dnr())
            }
            AdminCommand::CrossControllerReset {
                cntlid,
                instance,
                instance_random,
            } => self.reset_other(tag, cntlid, instance, instance_random),
        }
    }

    /// Ends a controller that the host cannot reach. The command completes when nothing of it is in flight any more, so
    /// it is always an immediate reset, of which no log needs to tell.
    fn reset_other(
        &mut self,
        tag: Tag,
        cntlid: u16,
        instance: u8,
        instance_random: u64,
    ) -> Result<Decision, Status> {
        let identity = self.controller.identity();
        if cntlid == identity.cntlid {
            return Err(Status::INVALID_FIELD.dnr());
        }
        if self.resets.len() >= usize::from(limits::CROSS_CONTROLLER_RESETS_MAX) {
            return Err(Status::CROSS_CONTROLLER_RESET_LIMIT);
        }
        let mut io = self
            .registry
            .reset_other(identity, cntlid, instance, instance_random);
        if io.is_over() {
            return Ok(Decision::Complete(RESET_DONE));
        }
        self.resets.push((tag, io));
        Ok(Decision::Hold)
    }

    /// Whether a reset waits for I/O of another controller.
    pub(crate) fn is_draining(&self) -> bool {
        !self.resets.is_empty()
    }

    /// Aborts a held request. Every other command is on its way to completion and is left alone, which a host must
    /// expect.
    fn abort(&mut self, qid: u16, cid: u16) -> Completion {
        const NOT_ABORTED: u64 = 1;
        let found = self
            .held
            .iter()
            .position(|held| qid == 0 && held.cid == cid);
        let Some(index) = found else {
            return Completion::result(NOT_ABORTED);
        };
        let held = self.held.remove(index);
        self.aborted.push(held.tag);
        Completion::SUCCESS
    }
}

impl Drop for AdminQueue {
    fn drop(&mut self) {
        self.registry.remove(&self.controller);
    }
}

/// Data that must be exactly what the data pointer asks for.
pub(crate) fn reply(data: Vec<u8>, data_length: u32) -> Result<Decision, Status> {
    if u32::try_from(data.len()) != Ok(data_length) {
        return Err(Status::SGL_LENGTH_INVALID.dnr());
    }
    Ok(Decision::Reply { data, result: 0 })
}
