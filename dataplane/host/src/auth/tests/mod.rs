//! The machine against a scripted controller, right and wrong.

mod vectors;

use proptest::prelude::*;
use roadstead_nvme::dhchap::message::{Failure, RECEIVE_BYTES};
use roadstead_nvme::dhchap::{Group, HashFunction, Keys, Secret};
use roadstead_nvme::nqn::Nqn;
use roadstead_nvme::{Cqe, Status, opcode};
use zeroize::Zeroizing;

use super::hmac::{Speaker, Statement};
use super::{Admission, AuthError, Authentication, Nonces, group};
use crate::admin::Control;
use crate::config::Identity;
use crate::setup::SetUpError;

const TRANSACTION: u16 = 0x1234;
const SEQUENCE: u32 = 0x0a0b_0c0d;
const HOST_KEY: &str = "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
const CONTROLLER_KEY: &str = "DHHC-1:01:CQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJyg+WyJc:";

fn secret(text: &str) -> Secret {
    Secret::parse(text).unwrap()
}

fn both_keys() -> Keys {
    Keys {
        host: secret(HOST_KEY),
        controller: Some(secret(CONTROLLER_KEY)),
    }
}

fn one_key() -> Keys {
    Keys {
        controller: None,
        ..both_keys()
    }
}

fn names() -> (Nqn, Nqn) {
    let host = "nqn.2014-08.org.nvmexpress:uuid:6f1c2b4e-8a55-4f0e-9a57-0d6e2d6f4f20";
    let subsystem = "nqn.2014-08.com.example:array";
    (Nqn::new(host).unwrap(), Nqn::new(subsystem).unwrap())
}

fn exponent(first: u8) -> [u8; 64] {
    std::array::from_fn(|i| u8::try_from(i * 7 % 251).unwrap() + first)
}

fn start(keys: &Keys) -> (Authentication, Control) {
    let nonces = Nonces {
        transaction: TRANSACTION,
        sequence: SEQUENCE,
        challenge: std::array::from_fn(|i| u8::try_from(i).unwrap()),
        exponent: Zeroizing::new(exponent(1)),
    };
    Authentication::start(keys.clone(), names(), nonces)
}

fn ok() -> Cqe {
    Cqe::new(0, Status::SUCCESS, 0)
}

/// What a controller says.
struct Controller {
    hash: HashFunction,
    group: Group,
    transaction: u16,
    /// Instead of its own DH value.
    value: Option<Vec<u8>>,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            hash: HashFunction::Sha256,
            group: Group::Null,
            transaction: TRANSACTION,
            value: None,
        }
    }
}

impl Controller {
    fn challenge(&self) -> Vec<u8> {
        let bytes = u8::try_from(self.hash.bytes()).unwrap();
        let own = || group::exchange(self.group, &exponent(2), &[4]).map(|e| e.value);
        let value = self.value.clone().or_else(own).unwrap_or_default();
        let [low, high] = u16::try_from(value.len()).unwrap().to_le_bytes();
        let [a, b] = self.transaction.to_le_bytes();
        let (hash, group) = (self.hash.id(), self.group.id());
        let head = [
            1, 1, 0, 0, a, b, bytes, 0, hash, group, low, high, 4, 3, 2, 1,
        ];
        let challenge: Vec<u8> = (0..bytes).map(|i| 255 - i).collect();
        [&head[..], &challenge, &value].concat()
    }
}

fn success1(transaction: u16, proof: Option<&[u8]>) -> Vec<u8> {
    let [a, b] = transaction.to_le_bytes();
    let bytes = u8::try_from(proof.map_or(32, <[u8]>::len)).unwrap();
    let head = [1, 3, 0, 0, a, b, bytes, 0, u8::from(proof.is_some())];
    [&head[..], &[0; 7], proof.unwrap_or_default()].concat()
}

fn failure1(failure: Failure) -> Vec<u8> {
    vec![0, 0xf1, 0, 0, 0x34, 0x12, 1, failure.0]
}

/// The proof that a controller with this key gives of this, without a group.
fn proof_of(key: &str, sequence: u32, transaction: u16, speaker: Speaker) -> Vec<u8> {
    let challenge: Vec<u8> = (0..32).collect();
    let (host, subsystem) = names();
    let statement = Statement::new(
        HashFunction::Sha256,
        (&challenge, sequence),
        transaction,
        speaker,
        (&host, &subsystem),
    );
    statement.prove(&secret(key), &subsystem)
}

fn proof() -> Vec<u8> {
    proof_of(CONTROLLER_KEY, SEQUENCE, TRANSACTION, Speaker::Controller)
}

/// Answers every Authentication Receive with the next of these. Returns the end, and all messages that were sent.
fn run(keys: &Keys, answers: &[Vec<u8>]) -> (Result<(), SetUpError>, Vec<Vec<u8>>) {
    let (mut machine, mut command) = start(keys);
    let (mut answers, mut sent) = (answers.iter(), Vec::new());
    for _ in 0..10 {
        let data = match command.sqe.nsid.to_bytes()[0] {
            opcode::fabrics::AUTH_SEND => {
                sent.push(std::mem::take(&mut command.data_out));
                Vec::new()
            }
            _ => {
                assert_eq!((command.sqe.cdw11.get(), command.data_in), (4096, 4096));
                answers.next().unwrap().clone()
            }
        };
        match machine.answer(&ok(), &data) {
            Ok(Some(next)) => command = next,
            Ok(None) => return (Ok(()), sent),
            Err(error) => return (Err(error), sent),
        }
    }
    panic!("it does not end");
}

/// The identifiers of messages.
fn ids(sent: &[Vec<u8>]) -> Vec<u8> {
    sent.iter().map(|message| message[1]).collect()
}

#[test]
fn a_host_with_one_key_asks_for_no_proof() {
    let challenge = Controller::default().challenge();
    let (end, sent) = run(
        &one_key(),
        &[challenge.clone(), success1(TRANSACTION, None)],
    );
    assert_eq!((end, ids(&sent)), (Ok(()), vec![0, 2]));
    assert_eq!((sent[1][8], &sent[1][12..16]), (0, &[0; 4][..]));
    // One that comes unasked does not count.
    let proof = success1(TRANSACTION, Some(&[1; 32]));
    let (end, sent) = run(&one_key(), &[challenge, proof]);
    assert_eq!((end, ids(&sent)), (Ok(()), vec![0, 2]));
}

#[test]
fn a_host_with_both_keys_wants_the_right_proof() {
    let challenge = Controller::default().challenge();
    let right = success1(TRANSACTION, Some(&proof()));
    let (end, sent) = run(&both_keys(), &[challenge.clone(), right]);
    assert_eq!((end, ids(&sent)), (Ok(()), vec![0, 2, 4]));
    let mut flipped = proof();
    flipped[31] ^= 1;
    let response_of_host = sent[1][16..48].to_vec();
    let speaks = Speaker::Controller;
    let wrong: [Vec<u8>; 8] = [
        flipped,
        proof()[..31].to_vec(),
        Vec::new(),
        vec![0; 64],
        // Of another key, another challenge (a replay), another transaction, and of the other end (a reflection).
        proof_of(HOST_KEY, SEQUENCE, TRANSACTION, speaks),
        proof_of(CONTROLLER_KEY, SEQUENCE - 1, TRANSACTION, speaks),
        proof_of(CONTROLLER_KEY, SEQUENCE, TRANSACTION + 1, speaks),
        response_of_host,
    ];
    for wrong in &wrong {
        let answer = success1(TRANSACTION, Some(wrong));
        let (end, sent) = run(&both_keys(), &[challenge.clone(), answer]);
        assert_eq!(end, Err(AuthError::WrongProof.into()));
        assert_eq!(sent[2], [0, 0xf0, 0, 0, 0x34, 0x12, 1, 1]);
    }
    let (end, sent) = run(&both_keys(), &[challenge, success1(TRANSACTION, None)]);
    assert_eq!(end, Err(AuthError::NoProof.into()));
    assert_eq!(ids(&sent), [0, 2, 0xf0]);
}

#[test]
fn challenges_that_cannot_be_used_end_it_and_the_controller_hears_why() {
    let good = Controller::default().challenge();
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let with_value = |value: Vec<u8>| {
        let controller = Controller {
            group: Group::Ffdhe2048,
            value: Some(value),
            ..Controller::default()
        };
        controller.challenge()
    };
    let prime = group::prime(Group::Ffdhe2048).unwrap();
    let mut less_one = prime.clone();
    less_one[255] -= 1;
    let table = [
        (changed(4, 0x35), Failure::MESSAGE),
        (changed(0, 0), Failure::MESSAGE),
        (changed(0, 7), Failure::MESSAGE),
        (changed(1, 2), Failure::MESSAGE),
        (success1(TRANSACTION, None), Failure::MESSAGE),
        (changed(6, 31), Failure::HASH),
        (changed(8, 9), Failure::HASH),
        (changed(9, 9), Failure::GROUP),
        (changed(9, 1), Failure::PAYLOAD),
        (changed(10, 4), Failure::PAYLOAD),
        (good[..47].to_vec(), Failure::PAYLOAD),
        (good[..5].to_vec(), Failure::PAYLOAD),
        (Vec::new(), Failure::PAYLOAD),
        (with_value(vec![0; 256]), Failure::PAYLOAD),
        (with_value(vec![1]), Failure::PAYLOAD),
        (with_value(less_one), Failure::PAYLOAD),
        (with_value(prime), Failure::PAYLOAD),
        (with_value(vec![255; 256]), Failure::PAYLOAD),
        (with_value(vec![2; 257]), Failure::PAYLOAD),
    ];
    for (challenge, failure) in table {
        let (end, sent) = run(&both_keys(), std::slice::from_ref(&challenge));
        assert_eq!(
            end,
            Err(AuthError::Message(failure).into()),
            "{challenge:x?}"
        );
        let told = [0, 0xf0, 0, 0, 0x34, 0x12, 1, failure.0];
        assert_eq!((ids(&sent), &sent[1]), (vec![0, 0xf0], &told.to_vec()));
    }
}

#[test]
fn ends_that_cannot_be_used_end_it_and_the_controller_hears_why() {
    let challenge = Controller::default().challenge();
    let proof = success1(TRANSACTION, Some(&proof()));
    for (end, failure) in [
        (success1(TRANSACTION + 1, None), Failure::MESSAGE),
        (challenge.clone(), Failure::MESSAGE),
        (proof[..47].to_vec(), Failure::PAYLOAD),
        (proof[..15].to_vec(), Failure::PAYLOAD),
    ] {
        let (end, sent) = run(&both_keys(), &[challenge.clone(), end]);
        assert_eq!(end, Err(AuthError::Message(failure).into()));
        assert_eq!((ids(&sent), sent[2][7]), (vec![0, 2, 0xf0], failure.0));
    }
}

#[test]
fn a_controller_that_ends_it_is_told_nothing() {
    let challenge = Controller::default().challenge();
    let (end, sent) = run(&one_key(), &[failure1(Failure::HASH)]);
    assert_eq!(end, Err(AuthError::Refused(Failure::HASH).into()));
    assert_eq!(ids(&sent), [0]);
    let (end, sent) = run(&one_key(), &[challenge, failure1(Failure::FAILED)]);
    let words = end.unwrap_err().to_string();
    assert_eq!(
        words,
        "the subsystem refuses DH-HMAC-CHAP: authentication failed"
    );
    assert_eq!(ids(&sent), [0, 2]);
}

#[test]
fn a_command_that_fails_ends_it() {
    let answers = [vec![], Controller::default().challenge(), vec![]];
    let answers = [
        &answers[..],
        &[success1(TRANSACTION, Some(&proof())), vec![]],
    ]
    .concat();
    for failing in 0..answers.len() {
        let (mut machine, _) = start(&both_keys());
        for answer in &answers[..failing] {
            machine.answer(&ok(), answer).unwrap();
        }
        let refused = Cqe::new(0, Status::INVALID_FIELD.dnr(), 0);
        let error = machine.answer(&refused, &answers[failing]).unwrap_err();
        assert!(matches!(error, SetUpError::Refused { .. }), "{error}");
    }
    // It fails while the controller is told of a failure: the failure is what counts.
    let (mut machine, _) = start(&both_keys());
    machine.answer(&ok(), &[]).unwrap();
    machine.answer(&ok(), &[]).unwrap();
    let refused = Cqe::new(0, Status::INVALID_FIELD.dnr(), 0);
    let error = machine.answer(&refused, &[]).unwrap_err();
    assert_eq!(error, AuthError::Message(Failure::PAYLOAD).into());
}

#[test]
fn both_ends_of_an_exchange_know_the_same() {
    for group in Group::ALL.into_iter().filter(|group| *group != Group::Null) {
        let (one, other) = (exponent(1), exponent(2));
        let value = |exponent| group::exchange(group, exponent, &[4]).unwrap().value;
        let (a, b) = (value(&one), value(&other));
        let known = group::exchange(group, &one, &b).unwrap();
        assert_eq!(known.value, a);
        assert_eq!(
            known.shared,
            group::exchange(group, &other, &a).unwrap().shared
        );
        assert_eq!(known.shared.len() * 8, group.bits() as usize);
    }
    assert!(group::exchange(Group::Null, &exponent(1), &[4]).is_none());
}

/// The first command after Connect was answered with this result.
fn admitted(
    keys: Option<Keys>,
    subsystem: &str,
    is_admin: bool,
    result: u64,
) -> Result<Option<Control>, SetUpError> {
    let identity = Identity {
        keys,
        ..Identity::named(names().0)
    };
    let subsystem = Nqn::new(subsystem).unwrap();
    let mut admission = match is_admin {
        true => Admission::of_admin_queue(&identity, &subsystem),
        false => Admission::of_io_queue(&identity, &subsystem),
    };
    let first = admission.answer(&Cqe::new(0, Status::SUCCESS, result), &[]);
    if first == Ok(None) {
        let again = admission.answer(&ok(), &[]).unwrap_err();
        assert!(matches!(again, SetUpError::Invalid(_)), "{again}");
    }
    first
}

#[test]
fn connect_decides_whether_authentication_follows() {
    const ATR: u64 = 1 << 17 | 7;
    const ASCR: u64 = 1 << 18 | 7;
    let (array, service) = (
        "nqn.2014-08.com.example:array",
        roadstead_nvme::nqn::DISCOVERY,
    );
    let table = [
        (None, array, true, 7, Ok(false)),
        (Some(one_key()), array, true, 7, Ok(false)),
        (Some(one_key()), array, true, ATR, Ok(true)),
        (Some(one_key()), array, false, ATR, Ok(true)),
        // Who has a controller key wants the proof, asked or not; discovery services and further queues follow.
        (Some(both_keys()), array, true, 7, Ok(true)),
        (Some(both_keys()), array, false, 7, Ok(false)),
        (Some(both_keys()), service, true, 7, Ok(false)),
        (Some(both_keys()), service, true, ATR, Ok(true)),
        (None, array, true, ATR, Err(AuthError::NoKey)),
        (None, array, true, ASCR, Err(AuthError::SecureChannel)),
        (
            Some(one_key()),
            array,
            true,
            ASCR | ATR,
            Err(AuthError::SecureChannel),
        ),
    ];
    for (keys, subsystem, is_admin, result, wanted) in table {
        let got = admitted(keys, subsystem, is_admin, result);
        let got = got.map(|first| first.is_some_and(|first| first.data_out.len() == 72));
        assert_eq!(got, wanted.map_err(SetUpError::from));
    }
}

#[test]
fn numbers_differ_and_are_not_shown() {
    let (a, b) = (Nonces::draw().unwrap(), Nonces::draw().unwrap());
    assert!(a.challenge != b.challenge && a.exponent != b.exponent && a.sequence != 0);
    assert_eq!(format!("{a:?}"), "Nonces");
    let (machine, _) = start(&both_keys());
    let shown = format!("{machine:?}");
    assert!(
        shown.contains("host: Secret") && !shown.contains("DHHC"),
        "{shown}"
    );
}

proptest! {
    /// Nobody is let in by noise, and the machine ends.
    #[test]
    fn noise_ends_it(
        answers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..1200), 8),
        statuses in prop::collection::vec(0_u16..3, 8),
    ) {
        let (mut machine, _) = start(&both_keys());
        let mut end = None;
        for (data, status) in answers.iter().zip(statuses) {
            let status = if status == 2 { Status::INTERNAL } else { Status::SUCCESS };
            match machine.answer(&Cqe::new(0, status, 0), data) {
                Ok(Some(command)) => prop_assert!(command.data_out.len() <= RECEIVE_BYTES as usize),
                other => { end = Some(other); break; }
            }
        }
        prop_assert!(matches!(end, Some(Err(_))));
    }

    /// A message with some bytes changed, or cut, does no harm; one whose proof has changed lets nobody in.
    #[test]
    fn damaged_messages_do_no_harm(
        changes in prop::collection::vec((0_usize..48, 1_u8..), 1..4),
        length in 0_usize..=48,
        in_challenge: bool,
    ) {
        let mut messages = [
            Controller::default().challenge(),
            success1(TRANSACTION, Some(&proof())),
        ];
        let message = &mut messages[usize::from(!in_challenge)];
        for (at, change) in &changes {
            message[*at] ^= change;
        }
        let is_harmed = *message != [Controller::default().challenge(), success1(TRANSACTION, Some(&proof()))]
            [usize::from(!in_challenge)];
        let harms_proof = !in_challenge && is_harmed && message[16..] != proof();
        message.truncate(length);
        let (end, _) = run(&both_keys(), &messages);
        if length < 48 || harms_proof {
            prop_assert!(end.is_err());
        }
    }
}
