//! Looking at a foreign subsystem: by which portals it lets this host in, and which namespaces it has.
//!
//! As with discovery, connections end with their answers, and nothing here is fast. Portals are tried side by side, so a
//! silent one costs its time-out once.

use std::thread;
use std::time::{Duration, Instant};

use roadstead_host::{Listed, Listing, ListingStep, READY_POLL};
use roadstead_nvme::Portal;
use roadstead_nvme::nqn::Nqn;

use crate::Identity;
use crate::exchange::{Exchange, ExchangeError};

/// Most portals of a subsystem that are tried.
pub const LOOK_PORTALS_MAX: usize = 16;

/// What was seen of a portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The subsystem lets this host in there.
    Reached,
    /// It does not, or nobody answers; why.
    Failed(String),
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
            .map(|portal| {
                (
                    *portal,
                    scope.spawn(|| reach(nqn, *portal, identity, timeout)),
                )
            })
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
        match list(nqn, *portal, identity, deadline) {
            Ok((namespaces, is_cut_off)) => {
                return Seen {
                    portals,
                    namespaces,
                    is_cut_off,
                };
            }
            Err(why) => *reach = Reach::Failed(why),
        }
    }
    Seen {
        portals,
        namespaces: Vec::new(),
        is_cut_off: false,
    }
}

/// Whether the subsystem lets the host in at the portal: connects, and does no more.
fn reach(nqn: &Nqn, portal: Portal, identity: &Identity, timeout: Duration) -> Reach {
    match enter(nqn, portal, identity, Instant::now() + timeout) {
        Ok(_) => Reach::Reached,
        Err(why) => Reach::Failed(why),
    }
}

/// Connects, and authenticates this host if that is demanded: the connection, and what is to be sent next.
fn enter(
    nqn: &Nqn,
    portal: Portal,
    identity: &Identity,
    deadline: Instant,
) -> Result<(Exchange, Listing, ListingStep), String> {
    let said = |error: ExchangeError| error.to_string();
    let mut exchange = Exchange::open(portal, deadline).map_err(said)?;
    let (mut machine, command) = Listing::start(identity, nqn);
    let mut step = ListingStep::Send(command);
    while let (false, ListingStep::Send(command)) = (machine.is_let_in(), &step) {
        let (cqe, data) = exchange.run(command).map_err(said)?;
        let answer = machine.answer(&cqe, &data);
        step = answer.map_err(|error| error.to_string())?;
    }
    Ok((exchange, machine, step))
}

/// The namespaces, and whether there may be more.
fn list(
    nqn: &Nqn,
    portal: Portal,
    identity: &Identity,
    deadline: Instant,
) -> Result<(Vec<Listed>, bool), String> {
    let said = |error: ExchangeError| error.to_string();
    let (mut exchange, mut machine, mut step) = enter(nqn, portal, identity, deadline)?;
    loop {
        let command = match step {
            ListingStep::Send(next) => next,
            ListingStep::Later(next) => {
                thread::sleep(READY_POLL);
                next
            }
            ListingStep::Done(namespaces, is_cut_off) => return Ok((namespaces, is_cut_off)),
        };
        let (cqe, data) = exchange.run(&command).map_err(said)?;
        let answer = machine.answer(&cqe, &data);
        step = answer.map_err(|error| error.to_string())?;
    }
}
