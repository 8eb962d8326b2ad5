//! Asking discovery services what there is, and where.
//!
//! One connection for each service, which ends with its answer, on the caller's thread: nothing here is fast, and nothing
//! stays. Referrals are followed, each service is asked once.
//!
//! Left out: connections that stay and hear of changes.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use roadstead_host::{Discovery, DiscoveryEntry, DiscoveryStep, READY_POLL, SetUpError};
use roadstead_nvme::Portal;
use roadstead_nvme::nqn::Nqn;
use roadstead_tcp::Fatal;
use tracing::warn;

use crate::Identity;
use crate::exchange::{Exchange, ExchangeError};

/// Most services that are asked, those that were referred to included.
pub const SERVICES_MAX: usize = 64;

/// Where a subsystem answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The subsystem.
    pub nqn: Nqn,
    /// One of its portals.
    pub portal: Portal,
}

/// Why a discovery service could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// The connection could not be made, or failed.
    #[error("{portal}: {error}")]
    Connection {
        /// The service.
        portal: Portal,
        /// How.
        error: io::Error,
    },
    /// The service violates the protocol.
    #[error("{portal}: {error}")]
    Protocol {
        /// The service.
        portal: Portal,
        /// How.
        error: Fatal,
    },
    /// The service refuses, or what it says makes no sense.
    #[error("{portal}: {error}")]
    Refused {
        /// The service.
        portal: Portal,
        /// What it said.
        error: SetUpError,
    },
}

/// Asks these services, and those that they refer to, what this host may use; each gets `timeout` for its whole answer.
/// Portals are in the order in which they were told, each once.
///
/// # Errors
/// The first service that was given and cannot be asked, when none of those given can. Of others that cannot there is
/// a line in the log.
pub fn discover(
    services: &[Portal],
    identity: &Identity,
    timeout: Duration,
) -> Result<Vec<Found>, DiscoverError> {
    let mut waiting: VecDeque<_> = services.iter().copied().collect();
    let (mut known, mut asked) = (BTreeSet::new(), BTreeSet::new());
    let (mut all, mut failure) = (Vec::new(), None);
    let mut has_answer = false;
    while let Some(service) = waiting.pop_front() {
        if asked.len() >= SERVICES_MAX || !asked.insert(service) {
            continue;
        }
        match ask(service, identity, timeout) {
            Ok(entries) => {
                has_answer = true;
                for entry in entries {
                    match entry {
                        DiscoveryEntry::Subsystem { nqn, portal } => {
                            let found = Found { nqn, portal };
                            if known.insert(found.clone()) {
                                all.push(found);
                            }
                        }
                        DiscoveryEntry::Referral { portal } => waiting.push_back(portal),
                    }
                }
            }
            Err(error) => {
                warn!(%error, "a discovery service cannot be asked");
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) if !has_answer => Err(error),
        _ => Ok(all),
    }
}

/// The portals of one subsystem that this host may use, as [`discover`] finds them. None: no service tells of any.
///
/// # Errors
/// As [`discover`].
pub fn portals(
    services: &[Portal],
    identity: &Identity,
    subsystem: &str,
    timeout: Duration,
) -> Result<Vec<Portal>, DiscoverError> {
    let mut found = discover(services, identity, timeout)?;
    found.retain(|found| found.nqn.to_string() == subsystem);
    Ok(found.into_iter().map(|found| found.portal).collect())
}

/// Asks one service.
fn ask(
    portal: Portal,
    identity: &Identity,
    timeout: Duration,
) -> Result<Vec<DiscoveryEntry>, DiscoverError> {
    let failed = |error| match error {
        ExchangeError::Connection(error) => DiscoverError::Connection { portal, error },
        ExchangeError::Protocol(error) => DiscoverError::Protocol { portal, error },
    };
    let mut exchange = Exchange::open(portal, Instant::now() + timeout).map_err(failed)?;
    let (mut machine, mut command) = Discovery::start(identity);
    loop {
        let (cqe, data) = exchange.run(&command).map_err(failed)?;
        let step = machine.answer(&cqe, &data);
        match step.map_err(|error| DiscoverError::Refused { portal, error })? {
            DiscoveryStep::Send(next) => command = next,
            DiscoveryStep::Later(next) => {
                std::thread::sleep(READY_POLL);
                command = next;
            }
            DiscoveryStep::Done(entries) => return Ok(entries),
        }
    }
}
