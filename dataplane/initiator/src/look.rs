//! Looking at a foreign subsystem: by which portals it lets this host in, and which namespaces it has.
//!
//! As with discovery, connections end with their answers, and nothing here is fast. Portals are tried side by side, so a
//! silent one costs its time-out once. Over RDMA nothing is tried.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use roadstead_host::{Listed, Listing, ListingStep, READY_POLL};
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::{Portal, Transport};

use crate::Identity;
use crate::discovery::{DiscoverError, Line};

/// Most portals of a subsystem that are tried.
pub const LOOK_PORTALS_MAX: usize = 16;

/// What was seen of a portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The subsystem lets this host in there.
    Reached,
    /// It does not, or nobody answers; why.
    Failed(String),
    /// Not tried: only an attachment tells.
    Unknown,
}

/// What was seen of a subsystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Every portal that was given, in that order, up to [`LOOK_PORTALS_MAX`].
    pub portals: Vec<(Portal, Reach)>,
    /// Namespaces, by the first portal at which they could be listed.
    pub namespaces: Vec<Listed>,
    /// There may be more namespaces.
    pub is_cut_off: bool,
}

/// Looks at a subsystem; each connection gets `timeout` for all it does. Blocks for at most twice that.
pub fn look(nqn: &Nqn, portals: &[Portal], identity: &Identity, timeout: Duration) -> Seen {
    let portals = portals.get(..LOOK_PORTALS_MAX).unwrap_or(portals);
    let mut portals: Vec<(Portal, Reach)> = thread::scope(|scope| {
        let tries: Vec<_> = portals
            .iter()
            .map(|portal| (*portal, scope.spawn(|| reach(nqn, *portal, identity, timeout))))
            .collect();
        let ended = |(portal, tried): (Portal, thread::ScopedJoinHandle<'_, Reach>)| {
            let died = |_| Reach::Failed("looking at it ended early".into());
            (portal, tried.join().unwrap_or_else(died))
        };
        tries.into_iter().map(ended).collect()
    });
    let deadline = Instant::now() + timeout;
    for (portal, reach) in &mut portals {
        if *reach != Reach::Reached {
            continue;
        }
        match list(nqn, portal.address, identity, deadline) {
            Ok((namespaces, is_cut_off)) => {
                return Seen {
                    portals,
                    namespaces,
                    is_cut_off,
                };
            }
            Err(error) => *reach = Reach::Failed(error.to_string()),
        }
    }
    Seen {
        portals,
        namespaces: Vec::new(),
        is_cut_off: false,
    }
}

/// Whether the subsystem lets the host in at the portal.
fn reach(nqn: &Nqn, portal: Portal, identity: &Identity, timeout: Duration) -> Reach {
    if portal.transport == Transport::Rdma {
        return Reach::Unknown;
    }
    match knock(nqn, portal.address, identity, Instant::now() + timeout) {
        Ok(()) => Reach::Reached,
        Err(error) => Reach::Failed(error.to_string()),
    }
}

/// Connects, and does no more.
fn knock(
    nqn: &Nqn,
    address: SocketAddr,
    identity: &Identity,
    deadline: Instant,
) -> Result<(), DiscoverError> {
    let mut line = Line::open(address, deadline)?;
    let (mut machine, command) = Listing::start(identity, nqn);
    let (cqe, data) = line.run(&command)?;
    let step = machine.answer(&cqe, &data);
    step.map(|_| ())
        .map_err(|error| DiscoverError::Refused { address, error })
}

/// The namespaces, and whether there may be more.
fn list(
    nqn: &Nqn,
    address: SocketAddr,
    identity: &Identity,
    deadline: Instant,
) -> Result<(Vec<Listed>, bool), DiscoverError> {
    let mut line = Line::open(address, deadline)?;
    let (mut machine, mut command) = Listing::start(identity, nqn);
    loop {
        let (cqe, data) = line.run(&command)?;
        let step = machine.answer(&cqe, &data);
        match step.map_err(|error| DiscoverError::Refused { address, error })? {
            ListingStep::Send(next) => command = next,
            ListingStep::Later(next) => {
                thread::sleep(READY_POLL);
                command = next;
            }
            ListingStep::Done(namespaces, is_cut_off) => return Ok((namespaces, is_cut_off)),
        }
    }
}
