//! What the host's state machine wants done.

use roadstead_host::{Action, Epoch, SetUpError};
use roadstead_nvme::{Sqe, Transport};
use roadstead_ring::SocketId;
use tracing::{debug, error, info, warn};

use super::{Client, PATH_TOKENS};
use crate::line::Line;
use crate::rim::Rim;
use crate::tcp::Connection;

/// A command that is no request.
struct ControlCommand {
    sqe: Box<Sqe>,
    data_out: Vec<u8>,
    data_in: u32,
}

impl Client {
    /// Sends a command that is no request.
    fn send_control(&mut self, io: &mut impl Rim, epoch: Epoch, qid: u16, control: ControlCommand) {
        let ControlCommand {
            sqe,
            data_out,
            data_in,
        } = control;
        let (path, queue) = (usize::from(epoch.path), usize::from(qid));
        let line = self.lines.get_mut(path, queue);
        match line.filter(|line| line.epoch() == epoch) {
            Some(Line::Tcp(connection)) => {
                if let Some(out) = io.output(connection.socket) {
                    connection.send_control(&sqe, &data_out, data_in, out);
                }
            }
            Some(Line::Rdma(queue)) => {
                if let Some(adapter) = self.fabric.adapter_of(queue)
                    && let Err(error) =
                        queue.send_control(sqe, data_out, data_in, adapter, &self.buffers)
                {
                    self.host.lost(epoch, error.to_string(), io.now());
                }
            }
            None => {}
        }
    }

    pub(super) fn act(&mut self, io: &mut impl Rim, action: Action) {
        let nqn = &self.spec.subsystem_nqn;
        self.paths_changed |= !matches!(action, Action::Send { .. });
        match action {
            Action::Open {
                epoch,
                qid,
                entries,
            } => self.open(io, epoch, qid, entries),
            Action::Send {
                epoch,
                qid,
                sqe,
                data_out,
                data_in,
            } => {
                let control = ControlCommand {
                    sqe,
                    data_out,
                    data_in,
                };
                self.send_control(io, epoch, qid, control);
            }
            Action::Close { epoch } => {
                let path = usize::from(epoch.path);
                for line in self.lines.take(path, |line| line.epoch() == epoch) {
                    match line {
                        Line::Tcp(connection) if self.ending == Some(connection.socket) => {}
                        Line::Tcp(connection) => io.close(connection.socket),
                        Line::Rdma(queue) => self.fabric.end(*queue),
                    }
                }
            }
            Action::Up { path, info } => {
                if let Some(up) = self.up.get_mut(path) {
                    *up = true;
                }
                let path = self.portals.get(path).copied().flatten();
                info!(%nqn, ?path, nsid = info.nsid, blocks = info.blocks, "connected");
                self.first = None;
                self.changes.push_back(info);
            }
            Action::Changed(info) => {
                info!(%nqn, blocks = info.blocks, "the namespace has changed");
                self.changes.push_back(info);
            }
            Action::Down { path, error } => self.down(path, &error),
            Action::CacheLost => {
                error!(%nqn, "the target has lost acknowledged writes that were not flushed: flushes fail");
            }
            Action::Removed { path } => {
                let portal = self.portals.get_mut(path).and_then(Option::take);
                if let Some(up) = self.up.get_mut(path) {
                    *up = false;
                }
                let first = self.first.as_mut();
                if let Some(last) = first.and_then(|errors| errors.get_mut(path)) {
                    last.get_or_insert_with(|| "the path is not wanted any more".into());
                }
                info!(%nqn, ?portal, "a path that is not wanted any more has ended");
            }
            Action::PathChanged { path } => {
                let report = self.host.paths().into_iter().find(|p| p.path == path);
                debug!(%nqn, ?report, "a path has changed");
            }
            Action::GivenUp => warn!(%nqn, "no path has worked for too long: requests fail"),
        }
    }

    fn down(&mut self, path: usize, error: &SetUpError) {
        let nqn = &self.spec.subsystem_nqn;
        let address = self.portals.get(path).copied().flatten();
        let was_up = self.up.get_mut(path).is_some_and(std::mem::take);
        match &mut self.first {
            Some(errors) => {
                debug!(%nqn, ?address, %error, "cannot connect");
                let address = address.map(|portal| portal.to_string()).unwrap_or_default();
                if let Some(last) = errors.get_mut(path) {
                    *last = Some(format!("{address}: {error}"));
                }
            }
            None if was_up => warn!(%nqn, ?address, %error, "connection lost"),
            None => debug!(%nqn, ?address, %error, "cannot connect"),
        }
    }

    fn open(&mut self, io: &mut impl Rim, epoch: Epoch, qid: u16, entries: u16) {
        let (path, queue) = (usize::from(epoch.path), usize::from(qid));
        let Some(portal) = self.portal(path) else {
            self.host.lost(epoch, "no such path".into(), io.now());
            return;
        };
        let address = portal.address;
        let token = self.token + u64::from(epoch.path) * PATH_TOKENS + u64::from(qid);
        let connection = |socket| Connection::new(socket, epoch, qid);
        let line = match portal.transport {
            Transport::Tcp => {
                let socket = io.connect(address, token);
                let line = |socket| Line::Tcp(Box::new(connection(socket)));
                socket.map(line).map_err(|error| error.to_string())
            }
            Transport::Local => self.dial(io, token).map(|socket| {
                let connection = connection(socket);
                // Nothing will say that it is connected: it is.
                if let Some(out) = io.output(socket) {
                    connection.request(&self.spec, out);
                }
                Line::Tcp(Box::new(connection))
            }),
            Transport::Rdma => {
                let queue = self.fabric.open(io, address, epoch, qid, entries);
                let queue = queue.map(|queue| Line::Rdma(Box::new(queue)));
                queue.map_err(|error| error.to_string())
            }
        };
        let put = line.and_then(|line| {
            let put = self.lines.put(path, queue, line);
            put.map_err(|_| "no such queue".into())
        });
        if let Err(reason) = put {
            self.host.lost(epoch, reason, io.now());
        }
    }

    /// A connection to the target of this process.
    fn dial(&self, io: &mut impl Rim, token: u64) -> Result<SocketId, String> {
        let Some(dial) = &self.dial else {
            return Err("this process has no target".into());
        };
        let stream = dial().map_err(|error| error.to_string())?;
        io.adopt(stream, token).map_err(|error| error.to_string())
    }
}
