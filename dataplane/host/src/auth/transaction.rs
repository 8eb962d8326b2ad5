//! A transaction, from AUTH_Negotiate to its end.

use roadstead_nvme::dhchap::message::{self, Challenge, Failure, RECEIVE_BYTES, Received, Reply};
use roadstead_nvme::dhchap::{Group, Keys};
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::{Cqe, Sqe};

use super::hmac::{Speaker, Statement, augmented};
use super::{AuthError, Nonces, group};
use crate::admin::Control;
use crate::setup::SetUpError;

/// The command that is not answered.
#[derive(Debug)]
enum Step {
    /// Sends AUTH_Negotiate.
    Negotiate,
    /// Asks for the challenge.
    Challenge,
    /// Sends the reply. What the controller has to prove, if anything.
    Reply(Option<Statement>),
    /// Asks for the end of it.
    Success1(Option<Statement>),
    /// Says that the controller has proved itself.
    Success2,
    /// Says that it has failed, and why it did.
    Failure2(AuthError),
}

impl Step {
    fn name(&self) -> &'static str {
        match self {
            Self::Negotiate => "Authentication Send (AUTH_Negotiate)",
            Self::Challenge => "Authentication Receive (challenge)",
            Self::Reply(_) => "Authentication Send (reply)",
            Self::Success1(_) => "Authentication Receive (success)",
            Self::Success2 => "Authentication Send (success)",
            Self::Failure2(_) => "Authentication Send (failure)",
        }
    }
}

/// What ends a transaction before its time.
enum Trouble {
    /// The controller has ended it.
    Refused(Failure),
    /// The host does, which the controller is told.
    Ours(AuthError, Failure),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Ours(AuthError::Message(failure), failure)
    }
}

/// A transaction on one queue.
#[derive(Debug)]
pub(crate) struct Authentication {
    keys: Keys,
    host: Nqn,
    subsystem: Nqn,
    nonces: Nonces,
    step: Step,
}

impl Authentication {
    /// The machine and its first command. `names` are those of the host and of the subsystem.
    pub(crate) fn start(keys: Keys, names: (Nqn, Nqn), nonces: Nonces) -> (Self, Control) {
        let (host, subsystem) = names;
        let first = send(message::negotiate(nonces.transaction));
        let this = Self {
            keys,
            host,
            subsystem,
            nonces,
            step: Step::Negotiate,
        };
        (this, first)
    }

    /// Takes in the answer to the last command. `None`: it has succeeded.
    pub(crate) fn answer(&mut self, cqe: &Cqe, data: &[u8]) -> Result<Option<Control>, SetUpError> {
        if let Step::Failure2(error) = self.step {
            // Whether the controller has taken note is all the same.
            return Err(error.into());
        }
        let (what, status) = (self.step.name(), cqe.status());
        if !status.is_success() {
            return Err(SetUpError::Refused { what, status });
        }
        match self.next(data) {
            Ok(next) => Ok(next),
            Err(Trouble::Refused(failure)) => Err(AuthError::Refused(failure).into()),
            Err(Trouble::Ours(error, failure)) => {
                self.step = Step::Failure2(error);
                let message = message::failure2(self.nonces.transaction, failure);
                Ok(Some(send(message)))
            }
        }
    }

    fn next(&mut self, data: &[u8]) -> Result<Option<Control>, Trouble> {
        let (step, command) = match &mut self.step {
            Step::Negotiate => (Step::Challenge, receive()),
            Step::Challenge => {
                let Received::Challenge(challenge) = self.received(data)? else {
                    return Err(Failure::MESSAGE.into());
                };
                let (reply, proof) = self.reply(&challenge)?;
                (Step::Reply(proof), send(reply))
            }
            Step::Reply(proof) => (Step::Success1(proof.take()), receive()),
            Step::Success1(proof) => {
                let proof = proof.take();
                let Received::Success1(response) = self.received(data)? else {
                    return Err(Failure::MESSAGE.into());
                };
                let (Some(proof), Some(key)) = (&proof, &self.keys.controller) else {
                    return Ok(None);
                };
                let is_proved = |response| proof.is_proved(key, &self.subsystem, response);
                match response.map(is_proved) {
                    Some(true) => {}
                    Some(false) => {
                        return Err(Trouble::Ours(AuthError::WrongProof, Failure::FAILED));
                    }
                    None => return Err(Trouble::Ours(AuthError::NoProof, Failure::FAILED)),
                }
                let message = message::success2(self.nonces.transaction);
                (Step::Success2, send(message))
            }
            Step::Success2 | Step::Failure2(_) => return Ok(None),
        };
        self.step = step;
        Ok(Some(command))
    }

    /// A message of the controller that is of this transaction and does not end it.
    fn received<'a>(&self, data: &'a [u8]) -> Result<Received<'a>, Trouble> {
        match Received::parse(data)? {
            (_, Received::Failure1(failure)) => Err(Trouble::Refused(failure)),
            (transaction, received) if transaction == self.nonces.transaction => Ok(received),
            _ => Err(Failure::MESSAGE.into()),
        }
    }

    /// The reply to a challenge, and what the controller has to prove.
    fn reply(&self, asked: &Challenge<'_>) -> Result<(Vec<u8>, Option<Statement>), Failure> {
        let hash = asked.hash;
        let exchange = match asked.group {
            Group::Null => None,
            of => {
                let exchange = group::exchange(of, &self.nonces.exponent, asked.value);
                Some(exchange.ok_or(Failure::PAYLOAD)?)
            }
        };
        let used = |challenge: &[u8]| match &exchange {
            None => challenge.to_vec(),
            Some(exchange) => augmented(hash, &exchange.shared, challenge),
        };
        let statement = |challenge: &[u8], sequence, speaker| {
            let (transaction, names) = (self.nonces.transaction, (&self.host, &self.subsystem));
            let challenge = used(challenge);
            Statement::new(hash, (&challenge, sequence), transaction, speaker, names)
        };
        let ours = statement(asked.challenge, asked.sequence, Speaker::Host);
        // It is as long as the longest.
        let challenge = self
            .nonces
            .challenge
            .get(..hash.bytes())
            .unwrap_or_default();
        let sequence = self.nonces.sequence;
        let has_key = self.keys.controller.is_some();
        let reply = Reply {
            response: &ours.prove(&self.keys.host, &self.host),
            challenge: has_key.then_some((challenge, sequence)),
            value: exchange.as_ref().map_or(&[], |exchange| &exchange.value),
        };
        let theirs = has_key.then(|| statement(challenge, sequence, Speaker::Controller));
        Ok((reply.encode(self.nonces.transaction), theirs))
    }
}

fn send(message: Vec<u8>) -> Control {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    control(message::send(length), message, 0)
}

fn receive() -> Control {
    control(message::receive(RECEIVE_BYTES), Vec::new(), RECEIVE_BYTES)
}

fn control(sqe: Sqe, data_out: Vec<u8>, data_in: u32) -> Control {
    Control {
        sqe,
        data_out,
        data_in,
    }
}
