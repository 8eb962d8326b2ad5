//! One reactor's view of the drives and namespaces that are served.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use roadstead_pool::{DriveHandle, SyncTicket, VolumeReader};
use roadstead_ring::{FileId, Io, SharedMemory};

use super::counters::{Counters, VolumeCounters};
use super::exports::{DriveIo, ExportedNamespace};
use super::jobs::JobId;

/// How this reactor reaches a drive's bytes.
pub(super) enum Path {
    Memory(Arc<SharedMemory>),
    File { file: FileId, fd: Arc<OwnedFd> },
}

/// A drive, shared by all namespaces on it.
pub(super) struct Drive {
    pub(super) handle: DriveHandle,
    pub(super) path: Path,
    pub(super) sync: RefCell<Sync>,
}

/// Syncs of a file drive: one is in flight at most, and whoever comes meanwhile shares the next.
#[derive(Default)]
pub(super) struct Sync {
    /// Taken before the sync in flight was started.
    pub(super) running: Option<SyncTicket>,
    /// Waiting for the sync in flight.
    pub(super) covered: Vec<JobId>,
    /// Waiting for the next.
    pub(super) next: Vec<JobId>,
}

/// A namespace, as this reactor serves it.
pub(super) struct Namespace {
    pub(super) reader: VolumeReader,
    /// For what is sent from where it lies: hosts may take their time.
    pub(super) lender: VolumeReader,
    pub(super) drive: Rc<Drive>,
    counters: VolumeCounters,
    reactor: usize,
}

impl Namespace {
    /// This reactor's counters.
    pub(super) fn count(&self, with: impl FnOnce(&Counters)) {
        if let Some(counters) = self.counters.get(self.reactor) {
            with(counters);
        }
    }
}

impl Drive {
    fn is(&self, io: &DriveIo) -> bool {
        match (&self.path, io) {
            (Path::Memory(a), DriveIo::Memory(b)) => Arc::ptr_eq(a, b),
            (Path::File { fd: a, .. }, DriveIo::File { fd: b, .. }) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// All drives that this reactor has open.
#[derive(Default)]
pub(super) struct Drives(Vec<Rc<Drive>>);

impl Drives {
    /// The namespace on its drive, which is opened if it is not. `None` when the reactor has no room for
    /// another file.
    pub(super) fn open(
        &mut self,
        io: &mut Io,
        namespace: &ExportedNamespace,
        counters: VolumeCounters,
        reactor: usize,
    ) -> Option<Rc<Namespace>> {
        let known = self.0.iter().find(|drive| drive.is(&namespace.io)).cloned();
        let drive = match known {
            Some(drive) => drive,
            None => {
                let path = match &namespace.io {
                    DriveIo::Memory(memory) => Path::Memory(Arc::clone(memory)),
                    DriveIo::File { fd } => Path::File {
                        file: io.add_file(Arc::clone(fd))?,
                        fd: Arc::clone(fd),
                    },
                };
                let handle = namespace.drive.clone();
                let drive = Rc::new(Drive {
                    handle,
                    path,
                    sync: RefCell::default(),
                });
                self.0.push(Rc::clone(&drive));
                drive
            }
        };
        Some(Rc::new(Namespace {
            reader: namespace.volume.reader(),
            lender: namespace.volume.lender(),
            drive,
            counters,
            reactor,
        }))
    }

    /// Closes the drives that nobody but this table uses.
    pub(super) fn close_unused(&mut self, io: &mut Io) {
        self.0.retain(|drive| {
            let is_used = Rc::strong_count(drive) > 1;
            if let (false, Path::File { file, .. }) = (is_used, &drive.path) {
                io.remove_file(*file);
            }
            is_used
        });
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
