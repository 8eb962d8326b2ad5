//! What is hashed in a transaction (section 8.13.5).

use ring::{digest, hmac};
use roadstead_nvme::dhchap::{HashFunction, Secret};
use roadstead_nvme::nqn::Nqn;
use zeroize::Zeroizing;

fn hmac_of(hash: HashFunction) -> hmac::Algorithm {
    match hash {
        HashFunction::Sha256 => hmac::HMAC_SHA256,
        HashFunction::Sha384 => hmac::HMAC_SHA384,
        HashFunction::Sha512 => hmac::HMAC_SHA512,
    }
}

fn digest_of(hash: HashFunction) -> &'static digest::Algorithm {
    match hash {
        HashFunction::Sha256 => &digest::SHA256,
        HashFunction::Sha384 => &digest::SHA384,
        HashFunction::Sha512 => &digest::SHA512,
    }
}

/// The key that a secret stands for, bound to the name of whom it is of if it says so.
fn key(hash: HashFunction, secret: &Secret, owner: &Nqn) -> hmac::Key {
    let bound = match secret.transformation() {
        None => Zeroizing::new(secret.key().to_vec()),
        Some(by) => {
            let key = hmac::Key::new(hmac_of(by), secret.key());
            let message = [owner.as_str().as_bytes(), b"NVMe-over-Fabrics"].concat();
            Zeroizing::new(hmac::sign(&key, &message).as_ref().to_vec())
        }
    };
    hmac::Key::new(hmac_of(hash), &bound)
}

/// The challenge as it is used after a Diffie-Hellman exchange with this result.
pub(super) fn augmented(hash: HashFunction, shared: &[u8], challenge: &[u8]) -> Vec<u8> {
    let session = digest::digest(digest_of(hash), shared);
    let key = hmac::Key::new(hmac_of(hash), session.as_ref());
    hmac::sign(&key, challenge).as_ref().to_vec()
}

/// What one end has to say to the other, of which only who has the key knows the HMAC.
#[derive(Debug)]
pub(super) struct Statement {
    hash: HashFunction,
    message: Vec<u8>,
}

/// Whose statement it is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Speaker {
    Host,
    Controller,
}

impl Statement {
    /// `challenge` is the other's, augmented if there was an exchange, with its sequence number.
    pub(super) fn new(
        hash: HashFunction,
        (challenge, sequence): (&[u8], u32),
        transaction: u16,
        speaker: Speaker,
        (host, subsystem): (&Nqn, &Nqn),
    ) -> Self {
        const NO_SECURE_CHANNEL: u8 = 0;
        let (host, subsystem) = (host.as_str().as_bytes(), subsystem.as_str().as_bytes());
        let (role, first, second) = match speaker {
            Speaker::Host => (&b"HostHost"[..], host, subsystem),
            Speaker::Controller => (&b"Controller"[..], subsystem, host),
        };
        let message = [
            challenge,
            &sequence.to_le_bytes(),
            &transaction.to_le_bytes(),
            &[NO_SECURE_CHANNEL],
            role,
            first,
            &[0],
            second,
        ]
        .concat();
        Self { hash, message }
    }

    /// Its proof by the one who has the secret.
    pub(super) fn prove(&self, secret: &Secret, owner: &Nqn) -> Vec<u8> {
        let key = key(self.hash, secret, owner);
        hmac::sign(&key, &self.message).as_ref().to_vec()
    }

    /// Whether the proof is of one who has the secret. Takes as long for a wrong one.
    pub(super) fn is_proved(&self, secret: &Secret, owner: &Nqn, proof: &[u8]) -> bool {
        let key = key(self.hash, secret, owner);
        hmac::verify(&key, &self.message, proof).is_ok()
    }
}
