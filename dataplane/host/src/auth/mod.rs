//! In-band authentication of a queue by DH-HMAC-CHAP (section 8.13): the host's side of a transaction.
//!
//! [`Admission`] is the way into a queue, Connect included; [`Authentication`] is the transaction. Both are machines: an
//! answer in, the next command out. The one thing that they take from elsewhere are random numbers ([`Nonces`]).
//!
//! Guaranteed: no message of a controller makes it panic or takes more than a bounded time. With a controller key the admin queue of
//! a subsystem, and every queue that the controller demands authentication of, is used only once the controller has proved, by a
//! challenge that was never used before, that it has the key.
//!
//! Assumed: without a controller key whoever answers at the portal is believed; and nobody changes what goes over a connection
//! after its authentication, as there is no secure channel.
//!
//! Left out: secure channels (TLS) made by it, and authenticating anew while connected.

mod admission;
mod group;
mod hmac;
mod nonces;
mod transaction;

#[cfg(test)]
mod tests;

pub(crate) use admission::Admission;
pub(crate) use nonces::Nonces;
pub(crate) use transaction::Authentication;

use roadstead_nvme::dhchap::message::Failure;

/// Why a queue could not be authenticated. No key is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// The controller demands it, and there is no key.
    #[error("the subsystem demands authentication by DH-HMAC-CHAP, and there is no key for it")]
    NoKey,
    /// The controller demands TLS after it.
    #[error(
        "the subsystem demands a secure channel made by authentication, which is not supported"
    )]
    SecureChannel,
    /// The controller has ended the transaction.
    #[error("the subsystem refuses DH-HMAC-CHAP: {0}")]
    Refused(Failure),
    /// A message of the controller makes no sense; it was told so.
    #[error("the subsystem sends a message of DH-HMAC-CHAP that cannot be used: {0}")]
    Message(Failure),
    /// The controller's proof is wrong.
    #[error("authentication failed: the subsystem does not have the controller key")]
    WrongProof,
    /// The controller has let the host in without the proof that it was asked for.
    #[error("authentication failed: the subsystem does not prove that it has the controller key")]
    NoProof,
    /// The operating system has none.
    #[error("there are no random numbers")]
    NoRandom,
}
