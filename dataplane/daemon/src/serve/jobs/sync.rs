//! Flush, and what Force Unit Access needs beyond a durable write.

use std::io;
use std::rc::Rc;

use roadstead_pool::Fault;
use roadstead_ring::Io;
use roadstead_target::IoError;

use super::super::drives::{Drive, Path};
use super::{JobId, Jobs, SYNC, Stage};

impl Jobs {
    /// Makes everything on the job's drive durable that was acknowledged before now. Syncs are shared: one runs
    /// at a time, and all who come while it runs take part in the next.
    pub(super) fn sync(&mut self, io: &mut Io, id: JobId) {
        let Some(drive) = self.drive_of(id) else {
            return;
        };
        if drive.handle.fault().is_some() {
            return self.end_with(id, IoError::Unavailable);
        }
        if let Path::Memory(_) = drive.path {
            drive.handle.synced(drive.handle.sync_ticket());
            return self.end(id);
        }
        if let Some(job) = self.get(id) {
            job.stage = Stage::Syncing;
        }
        drive.sync.borrow_mut().next.push(id);
        self.start_sync(io, &drive);
    }

    /// Starts a sync for those who wait for one, unless one is running.
    fn start_sync(&mut self, io: &mut Io, drive: &Rc<Drive>) {
        let mut sync = drive.sync.borrow_mut();
        let (Path::File { file, .. }, None) = (&drive.path, sync.running) else {
            return;
        };
        let Some(&first) = sync.next.first() else {
            return;
        };
        let ticket = drive.handle.sync_ticket();
        if io.sync_data(*file, first.token() | SYNC).is_ok() {
            sync.running = Some(ticket);
            let sync = &mut *sync;
            std::mem::swap(&mut sync.covered, &mut sync.next);
            return;
        }
        let waiting = std::mem::take(&mut sync.next);
        drop(sync);
        for id in waiting {
            self.end_with(id, IoError::Unavailable);
        }
    }

    /// The sync that `first` started has ended.
    pub(super) fn sync_done(&mut self, io: &mut Io, first: JobId, result: io::Result<usize>) {
        let Some(drive) = self.drive_of(first) else {
            return;
        };
        let (ticket, mut covered) = {
            let mut sync = drive.sync.borrow_mut();
            (sync.running.take(), std::mem::take(&mut sync.covered))
        };
        match (&result, ticket) {
            (Ok(_), Some(ticket)) => drive.handle.synced(ticket),
            // What was not synced may be lost although a later sync would succeed.
            (Err(error), _) => {
                tracing::error!(%error, "a sync failed: the drive takes no more writes");
                drive.handle.report_fault(Fault::io("syncing", error));
            }
            (Ok(_), None) => {}
        }
        for id in covered.drain(..) {
            match &result {
                Ok(_) => self.end(id),
                Err(_) => self.end_with(id, IoError::Write),
            }
        }
        // Keeps the vector's memory: flushes of a busy database allocate nothing.
        drive.sync.borrow_mut().covered = covered;
        self.start_sync(io, &drive);
    }
}
