//! What one I/O queue's host may do.

use std::collections::BTreeMap;
use std::sync::Arc;

use roadstead_nvme::opcode::io;
use roadstead_nvme::{Sqe, Status};

use super::shared::Reservations;
use super::state::{Access, HostId};
use crate::io::IoOp;

/// What a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Need {
    read: bool,
    write: bool,
}

impl Need {
    const NOTHING: Self = Self {
        read: false,
        write: false,
    };
    const READ: Self = Self {
        read: true,
        write: false,
    };
    const WRITE: Self = Self {
        read: false,
        write: true,
    };
    const BOTH: Self = Self {
        read: true,
        write: true,
    };

    /// Of a command that comes.
    pub(crate) fn of_command(sqe: &Sqe) -> Self {
        match sqe.opcode {
            io::READ | io::COMPARE | io::VERIFY => Self::READ,
            io::WRITE | io::WRITE_ZEROES | io::DATASET_MANAGEMENT | io::FLUSH => Self::WRITE,
            io::COPY => Self::BOTH,
            _ => Self::NOTHING,
        }
    }

    /// Of an I/O that starts.
    pub(crate) fn of_io(op: &IoOp) -> Self {
        match op {
            IoOp::Read | IoOp::Compare | IoOp::Verify => Self::READ,
            IoOp::Write
            | IoOp::WriteZeroes { .. }
            | IoOp::ZeroAll
            | IoOp::Deallocate { .. }
            | IoOp::Flush => Self::WRITE,
            IoOp::CompareAndWrite { .. } | IoOp::Copy { .. } => Self::BOTH,
            IoOp::SaveReservations { .. } => Self::NOTHING,
        }
    }
}

#[derive(Debug)]
struct View {
    reservations: Arc<Reservations>,
    /// The epoch for which `access` is right.
    seen: u64,
    access: Access,
}

/// By namespace identifier.
#[derive(Debug)]
pub(crate) struct Views {
    host: HostId,
    views: BTreeMap<u32, View>,
}

impl Views {
    /// Of nothing yet.
    pub(crate) fn new(host: HostId) -> Self {
        Self {
            host,
            views: BTreeMap::new(),
        }
    }

    /// These are the namespaces from now on.
    pub(crate) fn set(&mut self, namespaces: Vec<(u32, Arc<Reservations>)>) {
        let view = |reservations| View {
            reservations,
            seen: 0,
            access: Access::ALL,
        };
        self.views = namespaces
            .into_iter()
            .map(|(nsid, reservations)| (nsid, view(reservations)))
            .collect();
    }

    /// The reservations of a namespace.
    pub(crate) fn get(&self, nsid: u32) -> Option<&Arc<Reservations>> {
        self.views.get(&nsid).map(|view| &view.reservations)
    }

    /// Whether the host may do now what needs this.
    pub(crate) fn check(&mut self, nsid: u32, need: Need) -> Result<(), Status> {
        let Some(view) = self.views.get_mut(&nsid) else {
            return Ok(());
        };
        if view.reservations.epoch() != view.seen {
            (view.seen, view.access) = view.reservations.access(self.host);
        }
        if (need.read && !view.access.read) || (need.write && !view.access.write) {
            return Err(Status::RESERVATION_CONFLICT.dnr());
        }
        Ok(())
    }
}
