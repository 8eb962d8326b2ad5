//! Places on the drive: asking for them and giving them back.

use std::ops::Range;

use roadstead_pool::{Command, PoolError, Rejected, Reply, Volume};
use roadstead_ring::Io;
use uuid::Uuid;

use super::super::worker::Message;
use super::{JobId, Jobs, Stage, errors};

/// What to ask the drive's thread for.
type Ask = fn(Uuid, Range<u32>, Reply<()>) -> Command;

impl Jobs {
    /// Asks for places for the job's range.
    pub(super) fn ask_for_space(&mut self, id: JobId) {
        let Some(job) = self.get(id) else { return };
        let (offset, len) = (job.offset, job.len);
        self.ask(id, Command::Allocate, |volume| {
            volume.extents_of(offset, len)
        });
    }

    /// Gives back the whole extents in the job's range. False when there are none.
    pub(super) fn free_whole_extents(&mut self, id: JobId) -> bool {
        let Some(job) = self.get(id) else {
            return false;
        };
        let Some(namespace) = &job.namespace else {
            return false;
        };
        let extents = namespace.reader.volume().whole_extents(job.offset, job.len);
        let is_some = !extents.is_empty();
        if is_some {
            self.ask(id, Command::Deallocate, |_| extents);
        }
        is_some
    }

    /// Deallocates the next of the job's ranges that holds whole extents.
    pub(super) fn next_range(&mut self, id: JobId) {
        let Some(job) = self.get(id) else { return };
        let Some(namespace) = &job.namespace else {
            return;
        };
        let volume = namespace.reader.volume();
        let extents = loop {
            let Some(range) = job.ranges.pop() else {
                return self.end(id);
            };
            let extents = volume.whole_extents(range.offset, range.length);
            if !extents.is_empty() {
                (job.offset, job.len) = (range.offset, range.length);
                break extents;
            }
        };
        self.ask(id, Command::Deallocate, |_| extents);
    }

    fn ask(&mut self, id: JobId, command: Ask, extents: impl FnOnce(&Volume) -> Range<u32>) {
        let mailbox = self.mailbox.clone();
        let Some(job) = self.get(id) else { return };
        let Some(namespace) = &job.namespace else {
            return;
        };
        let volume = namespace.reader.volume();
        let reply = Reply::new(move |result| {
            // A reactor that has ended needs no answer.
            let _ = mailbox.send(Message::Space { job: id, result });
        });
        let command = command(volume.uuid(), extents(volume), reply);
        job.stage = Stage::Space;
        self.submit(id, command);
    }

    pub(super) fn submit(&mut self, id: JobId, command: Command) {
        let Some(drive) = self.drive_of(id) else {
            return;
        };
        match drive.handle.try_submit(command) {
            Ok(()) => {}
            Err(Rejected::Full(command)) => self.refused.push_back((id, command)),
            // Dropped, it answers that the drive has stopped.
            Err(Rejected::Closed(command)) => drop(command),
        }
    }

    /// The drive's thread has answered.
    pub(in super::super) fn space(
        &mut self,
        io: &mut Io,
        id: JobId,
        result: Result<(), PoolError>,
    ) {
        let Some(job) = self.get(id) else { return };
        if job.stage != Stage::Space {
            return;
        }
        job.stage = Stage::Place;
        match result {
            Ok(()) => self.step(io, id),
            Err(error) => self.end_with(id, errors::of_pool(&error)),
        }
    }
}
