//! The initiator against a controller that demands DH-HMAC-CHAP on every queue, over sockets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test")]

#[path = "common/script.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod script;

use std::net::SocketAddr;
use std::sync::mpsc::channel;
use std::time::Duration;

use ring::hmac;
use roadstead_initiator::{
    Identity, Initiator, Keys, Limits, NamespaceRequest, Nqn, Op, Portal, Reach, Secret, Seen,
    Spec, Wanted, look,
};
use roadstead_nvme::{Sqe, Status, opcode};
use roadstead_ring::ReactorConfig;
use script::{BLOCK, Peer, Script, UUID, start};

const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:test";
const SUBSYSTEM: &str = "nqn.2014-08.com.example:array";
/// Of bytes counted from 0, and from 9; used as they are.
const HOST_KEY: &str = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
const CONTROLLER_KEY: &str = "DHHC-1:00:CQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJyg+WyJc:";
const CHALLENGE: [u8; 32] = [0xc1; 32];
const SEQUENCE: [u8; 4] = [9, 8, 7, 6];
/// In the result of Connect.
const DEMANDED: u64 = 1 << 17 | 1;

/// What who has the key that counts from `first` says to a challenge.
fn said(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let key: Vec<u8> = (first..).take(32).collect();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    hmac::sign(&key, &parts.concat()).as_ref().to_vec()
}

/// The answer to Authentication Receive.
fn message(notes: &[Vec<u8>]) -> Vec<u8> {
    let last = notes.last().unwrap();
    let transaction = &last[4..6];
    let head = |kind, id| [&[kind, id, 0, 0][..], transaction].concat();
    if last[..2] == [0, 0] {
        let rest = [&[32, 0, 1, 0, 0, 0][..], &SEQUENCE, &CHALLENGE].concat();
        return [head(1, 1), rest].concat();
    }
    assert_eq!(last[..2], [1, 2]);
    let (host, subsystem) = (HOST.as_bytes(), SUBSYSTEM.as_bytes());
    let asked = [&CHALLENGE[..], &SEQUENCE, transaction, &[0]].concat();
    let wanted = said(0, &[&asked, b"HostHost", host, &[0], subsystem]);
    if last[16..48] != wanted {
        return [head(0, 0xf1), vec![1, 1]].concat();
    }
    let asked = [&last[48..80], &last[12..16], transaction, &[0]].concat();
    let proof = said(9, &[&asked, b"Controller", subsystem, &[0], host]);
    let rest = [&[32, 0, last[8], 0, 0, 0, 0, 0, 0, 0][..], &proof].concat();
    [head(1, 3), rest].concat()
}

/// Lets nobody past who has not authenticated itself on this connection.
fn gate(peer: &mut Peer, sqe: &Sqe, data: &[u8]) -> bool {
    let is_fabrics = sqe.opcode == opcode::FABRICS;
    match sqe.nsid.to_bytes()[0] {
        opcode::fabrics::CONNECT if is_fabrics => {
            peer.connected = DEMANDED;
            return false;
        }
        opcode::fabrics::AUTH_SEND if is_fabrics => {
            assert_eq!(sqe.cdw11.get() as usize, data.len());
            peer.notes.push(data.to_vec());
            peer.complete(sqe, Status::SUCCESS, 0);
        }
        opcode::fabrics::AUTH_RECEIVE if is_fabrics => {
            let mut message = message(&peer.notes);
            // As Linux' target: all that there is room for.
            message.resize(sqe.cdw11.get() as usize, 0xff);
            peer.data(sqe, 0, &message, true, false);
            peer.complete(sqe, Status::SUCCESS, 0);
        }
        // Success2 of a host that wanted proof, or the reply of one that did not.
        _ if peer
            .notes
            .last()
            .is_some_and(|last| last[1] == 4 || last[1] == 2) =>
        {
            return false;
        }
        _ => peer.complete(sqe, Status::AUTHENTICATION_REQUIRED.dnr(), 0),
    }
    true
}

fn target() -> SocketAddr {
    let script = Script {
        gate,
        ..Script::default()
    };
    start(script).0
}

fn identity(host: Option<&str>, controller: Option<&str>) -> Identity {
    let secret = |text| Secret::parse(text).unwrap();
    Identity {
        keys: host.map(|host| Keys {
            host: secret(host),
            controller: controller.map(secret),
        }),
        ..Identity::named(Nqn::new(HOST).unwrap())
    }
}

fn seen(identity: &Identity) -> Seen {
    let nqn = Nqn::new(SUBSYSTEM).unwrap();
    let portals = [Portal::tcp(target())];
    look(&nqn, &portals, identity, Duration::from_secs(20))
}

#[test]
fn who_has_the_keys_sees_the_namespaces() {
    for controller in [None, Some(CONTROLLER_KEY)] {
        let seen = seen(&identity(Some(HOST_KEY), controller));
        assert_eq!(seen.portals[0].1, Reach::Reached);
        assert_eq!(seen.namespaces.len(), 1);
    }
}

#[test]
fn who_has_not_hears_why_and_no_key() {
    let table = [
        (None, None, "there is no key for it"),
        (Some(CONTROLLER_KEY), None, "authentication failed"),
        (
            Some(HOST_KEY),
            Some(HOST_KEY),
            "does not have the controller key",
        ),
    ];
    for (host, controller, words) in table {
        let seen = seen(&identity(host, controller));
        let Reach::Failed(why) = &seen.portals[0].1 else {
            panic!("{seen:?}");
        };
        assert!(why.contains(words) && !why.contains("DHHC"), "{why}");
        assert_eq!(seen.namespaces, []);
    }
}

#[test]
fn every_queue_of_a_namespace_is_authenticated() {
    let initiator = Initiator::start(ReactorConfig::default()).unwrap();
    let spec = Spec {
        identity: identity(Some(HOST_KEY), Some(CONTROLLER_KEY)),
        subsystem_nqn: Nqn::new(SUBSYSTEM).unwrap(),
        namespace: Wanted::Uuid(UUID),
        paths: vec![target().into()],
        limits: Limits {
            io_queues: 3,
            ..Limits::default()
        },
        header_digest: false,
        data_digest: false,
    };
    let wrong = Spec {
        identity: identity(Some(CONTROLLER_KEY), None),
        ..spec.clone()
    };
    let error = initiator.connect(wrong).err().unwrap().to_string();
    assert!(error.contains("authentication failed"), "{error}");
    let namespace = initiator.connect(spec).unwrap();
    let (sender, receiver) = channel();
    for (op, byte) in [(Op::Write { durable: false }, 7), (Op::Read, 0)] {
        // More than there are queues: each has some.
        for lba in 0..12 {
            let sender = sender.clone();
            let request = NamespaceRequest {
                op,
                lba,
                blocks: 1,
                bytes: vec![byte; BLOCK],
                start: 0,
                done: Box::new(move |result, bytes| drop(sender.send(result.map(|()| bytes)))),
            };
            assert!(namespace.submit(request).is_ok());
        }
        for _ in 0..12 {
            let bytes = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
            assert_eq!(bytes.unwrap(), vec![7; BLOCK]);
        }
    }
    namespace.close();
}
