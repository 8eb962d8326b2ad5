//! The acceptor's portals, brought to what is wanted.

use std::sync::mpsc::Sender;

use roadstead_nvme::{Portal, Transport};
use roadstead_ring::{Io, ListenerId};

use super::rdma::Fabric;
use super::server::PortalResult;

struct Listening {
    wanted: Portal,
    id: Id,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Id {
    Tcp(ListenerId),
    /// The fabric knows it by its portal.
    Rdma,
}

/// A change that waits until the addresses it may need are free.
struct Change {
    portals: Vec<Portal>,
    done: Sender<Vec<PortalResult>>,
}

/// All listening sockets, of both transports.
#[derive(Default)]
pub(super) struct Portals {
    open: Vec<Listening>,
    closing: usize,
    change: Option<Change>,
}

impl Portals {
    /// Makes these the ones that are open; answers as soon as that is so.
    pub(super) fn set(
        &mut self,
        io: &mut Io,
        fabric: &mut Fabric,
        portals: Vec<Portal>,
        done: Sender<Vec<PortalResult>>,
    ) {
        let (keep, close) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|l| portals.contains(&l.wanted));
        self.open = keep;
        self.close(io, fabric, close);
        // A change that was waiting is answered by the drop of its sender: it was overtaken.
        self.change = Some(Change { portals, done });
        self.go_on(io, fabric);
    }

    /// Stops listening everywhere.
    pub(super) fn close_all(&mut self, io: &mut Io, fabric: &mut Fabric) {
        let all = std::mem::take(&mut self.open);
        self.close(io, fabric, all);
    }

    fn close(&mut self, io: &mut Io, fabric: &mut Fabric, listening: Vec<Listening>) {
        for one in listening {
            match one.id {
                Id::Tcp(id) => {
                    self.closing += 1;
                    io.close_listener(id);
                }
                Id::Rdma => fabric.unlisten(one.wanted.address),
            }
        }
    }

    /// A listener that was to be closed is closed.
    pub(super) fn closed(&mut self, io: &mut Io, fabric: &mut Fabric) {
        self.closing = self.closing.saturating_sub(1);
        self.go_on(io, fabric);
    }

    fn go_on(&mut self, io: &mut Io, fabric: &mut Fabric) {
        if self.closing > 0 {
            return;
        }
        let Some(change) = self.change.take() else {
            return;
        };
        let results = change
            .portals
            .iter()
            .map(|&portal| self.listen(io, fabric, portal))
            .collect();
        // The caller may have given up.
        let _ = change.done.send(results);
    }

    fn listen(&mut self, io: &mut Io, fabric: &mut Fabric, portal: Portal) -> PortalResult {
        let known = self.open.iter().find(|l| l.wanted == portal).map(|l| l.id);
        let opened = match (known, portal.transport) {
            (Some(id), _) => Ok(id),
            (None, Transport::Tcp) => io
                .listen(portal.address, 0)
                .map(Id::Tcp)
                .map_err(|error| error.to_string()),
            (None, Transport::Local) => Err("nothing listens for the host in this process".into()),
            (None, Transport::Rdma) => fabric
                .listen(io, portal.address)
                .map(|()| Id::Rdma)
                .map_err(|error| error.to_string()),
        };
        if let (None, Ok(id)) = (known, &opened) {
            self.open.push(Listening {
                wanted: portal,
                id: *id,
            });
        }
        let listening = opened.map(|id| match id {
            Id::Tcp(id) => portal.at(io.listener_address(id).unwrap_or(portal.address)),
            Id::Rdma => portal,
        });
        PortalResult { portal, listening }
    }
}
