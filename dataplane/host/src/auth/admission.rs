//! The way into a queue: Connect, and the authentication that may have to follow it.

use roadstead_nvme::Cqe;
use roadstead_nvme::dhchap::Required;
use roadstead_nvme::nqn::Nqn;

use super::{AuthError, Authentication, Nonces};
use crate::admin::Control;
use crate::config::Identity;
use crate::setup::{SetUpError, UNKNOWN_COMMAND};

#[derive(Debug)]
enum State {
    Connecting,
    Authenticating(Box<Authentication>),
    In,
}

/// Commands on a fresh connection until its queue can be used.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The name of the first command.
    what: &'static str,
    identity: Identity,
    subsystem: Nqn,
    /// Authentication takes place whether the controller demands it or not.
    insists: bool,
    state: State,
}

impl Admission {
    /// Of an admin queue. A controller whose key is known has to prove itself even if it demands nothing; a discovery
    /// service need not, as what it tells of will.
    pub(crate) fn of_admin_queue(identity: &Identity, subsystem: &Nqn) -> Self {
        let keys = identity.keys.as_ref();
        Self {
            what: "Connect",
            identity: identity.clone(),
            subsystem: subsystem.clone(),
            insists: !subsystem.is_discovery() && keys.is_some_and(|k| k.controller.is_some()),
            state: State::Connecting,
        }
    }

    /// Of an I/O queue of a controller that has let the host in.
    pub(crate) fn of_io_queue(identity: &Identity, subsystem: &Nqn) -> Self {
        Self {
            what: "Connect of an I/O queue",
            insists: false,
            ..Self::of_admin_queue(identity, subsystem)
        }
    }

    /// Takes in the answer to Connect, or to the last command of this. `None`: the queue can be used.
    pub(crate) fn answer(&mut self, cqe: &Cqe, data: &[u8]) -> Result<Option<Control>, SetUpError> {
        let next = match &mut self.state {
            State::Connecting => self.connected(cqe)?,
            State::Authenticating(authentication) => authentication.answer(cqe, data)?,
            State::In => return Err(UNKNOWN_COMMAND),
        };
        if next.is_none() {
            self.state = State::In;
        }
        Ok(next)
    }

    fn connected(&mut self, cqe: &Cqe) -> Result<Option<Control>, SetUpError> {
        let (what, status) = (self.what, cqe.status());
        if !status.is_success() {
            return Err(SetUpError::Refused { what, status });
        }
        let required = Required::parse(cqe.result.get());
        if required.secure_channel {
            return Err(AuthError::SecureChannel.into());
        }
        if !required.transaction && !self.insists {
            return Ok(None);
        }
        let keys = self.identity.keys.clone().ok_or(AuthError::NoKey)?;
        let nonces = Nonces::draw().ok_or(AuthError::NoRandom)?;
        let names = (self.identity.nqn.clone(), self.subsystem.clone());
        let (machine, first) = Authentication::start(keys, names, nonces);
        self.state = State::Authenticating(Box::new(machine));
        Ok(Some(first))
    }
}
