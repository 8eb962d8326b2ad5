//! The acceptor's listening sockets, brought to what is wanted.

use std::net::SocketAddr;
use std::sync::mpsc::Sender;

use roadstead_ring::{Io, ListenerId};

use super::server::PortalResult;

struct Listening {
    wanted: SocketAddr,
    id: ListenerId,
}

/// A change that waits until the addresses it may need are free.
struct Change {
    addresses: Vec<SocketAddr>,
    done: Sender<Vec<PortalResult>>,
}

/// All listening sockets.
#[derive(Default)]
pub(super) struct Portals {
    open: Vec<Listening>,
    closing: usize,
    change: Option<Change>,
}

impl Portals {
    /// Makes the addresses the ones listened at; answers as soon as that is so.
    pub(super) fn set(
        &mut self,
        io: &mut Io,
        addresses: Vec<SocketAddr>,
        done: Sender<Vec<PortalResult>>,
    ) {
        let (keep, close) = std::mem::take(&mut self.open)
            .into_iter()
            .partition(|l| addresses.contains(&l.wanted));
        self.open = keep;
        self.close(io, close);
        // A change that was waiting is answered by the drop of its sender: it was overtaken.
        self.change = Some(Change { addresses, done });
        self.go_on(io);
    }

    /// Stops listening everywhere.
    pub(super) fn close_all(&mut self, io: &mut Io) {
        let all = std::mem::take(&mut self.open);
        self.close(io, all);
    }

    fn close(&mut self, io: &mut Io, listening: Vec<Listening>) {
        for one in listening {
            self.closing += 1;
            io.close_listener(one.id);
        }
    }

    /// A listener that was to be closed is closed.
    pub(super) fn closed(&mut self, io: &mut Io) {
        self.closing = self.closing.saturating_sub(1);
        self.go_on(io);
    }

    fn go_on(&mut self, io: &mut Io) {
        if self.closing > 0 {
            return;
        }
        let Some(change) = self.change.take() else {
            return;
        };
        let results = change
            .addresses
            .iter()
            .map(|&address| self.listen(io, address))
            .collect();
        // The caller may have given up.
        let _ = change.done.send(results);
    }

    fn listen(&mut self, io: &mut Io, address: SocketAddr) -> PortalResult {
        let known = self.open.iter().find(|l| l.wanted == address).map(|l| l.id);
        let id = match known {
            Some(id) => Ok(id),
            None => io.listen(address, 0).inspect(|&id| {
                self.open.push(Listening {
                    wanted: address,
                    id,
                })
            }),
        };
        let listening = id
            .map(|id| io.listener_address(id).unwrap_or(address))
            .map_err(|error| error.to_string());
        PortalResult { address, listening }
    }
}
