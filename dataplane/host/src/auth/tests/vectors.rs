//! Whole transactions against what Python's own hashes and integers say: `vectors.py` prints these values.

use ring::digest;
use roadstead_nvme::dhchap::{Group, HashFunction};

use super::*;
use crate::auth::group::prime;

struct Vector {
    hash: HashFunction,
    group: Group,
    host: &'static str,
    controller: Option<&'static str>,
    /// SHA-256 of the reply.
    reply: &'static str,
    /// The controller's.
    proof: &'static str,
}

#[rustfmt::skip]
const VECTORS: [Vector; 6] = [
    Vector {
        hash: HashFunction::Sha256,
        group: Group::Null,
        host: "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
        controller: None,
        reply: "0e52ca17941eada9ec97109f689672f99e7f89f5ad67dee7e0deaca79f1f70e0",
        proof: "",
    },
    Vector {
        hash: HashFunction::Sha256,
        group: Group::Ffdhe2048,
        host: "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
        controller: Some("DHHC-1:00:CQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4sOyxYQ==:"),
        reply: "12283779b3c174dff124c2ff45bed8889ca94b4596a69cc2e0692a5c4a39188a",
        proof: "e5b081e6f9c705927cf96a4d7ac019aa534f3dacb28be491ce936afbfd21c549",
    },
    Vector {
        hash: HashFunction::Sha384,
        group: Group::Ffdhe3072,
        host: "DHHC-1:02:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vcSEgBQ==:",
        controller: Some("DHHC-1:03:CQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0BBQkNERUZHSEXuNSo=:"),
        reply: "d79ec2459a9a4a009e389377b7bf006a34aa40690dd76681d4943aa8bef86b8b",
        proof: "c71637e3e25ceffc14e3f2ce2e85bb604151095782e644a1711a06ac996c83c87274caae79a93f72e9ea24b1e32e2f6d",
    },
    Vector {
        hash: HashFunction::Sha512,
        group: Group::Ffdhe4096,
        host: "DHHC-1:03:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P4zODhA=:",
        controller: Some("DHHC-1:01:CQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJyg+WyJc:"),
        reply: "943e12f9b8417d7f0398146713959a651700143006e75fbeb89eb25733e5a480",
        proof: "ee5f8ce922994484677a53943cb5e2e277430d386ba9f8f0bcd9d4dfa61fb83c18072a2124ad9ea1a7b6c06e81e61b40ecda15cb41bf241aa8f3c1d23dbb4495",
    },
    Vector {
        hash: HashFunction::Sha384,
        group: Group::Ffdhe6144,
        host: "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P4zODhA=:",
        controller: Some("DHHC-1:02:CQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4sOyxYQ==:"),
        reply: "6376e4d0c90554e0b2a9f12402d931322935c705531733f0b65a26a5f365cb65",
        proof: "38b02e8f21cd7b514c9e166f1442844f761f0bbc71790229bf25035293b55ff7029b13bf15b6e3bf641bf825f8765bc3",
    },
    Vector {
        hash: HashFunction::Sha512,
        group: Group::Ffdhe8192,
        host: "DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
        controller: Some("DHHC-1:01:CQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJyg+WyJc:"),
        reply: "1edc28886cb17803d8d9b315a4355d23f52fbcdd77ce15717ef38e84b407ebfa",
        proof: "ec84d08fe664adf71df893f081c277a5f1411a7431be659dbbd0c775732853b25e0d471f39d591ef5dce78af37bb15c2561e945bbffb1e80b1a1c6ae8bc34f7c",
    },
];

const PRIMES: [(Group, &str); 5] = [
    (
        Group::Ffdhe2048,
        "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966",
    ),
    (
        Group::Ffdhe3072,
        "0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17",
    ),
    (
        Group::Ffdhe4096,
        "4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e",
    ),
    (
        Group::Ffdhe6144,
        "227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7",
    ),
    (
        Group::Ffdhe8192,
        "770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833",
    ),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

#[test]
fn primes_are_those_of_the_standard() {
    for (group, wanted) in PRIMES {
        let prime = prime(group).unwrap();
        assert_eq!(prime.len() * 8, group.bits() as usize);
        assert_eq!(sha256(&prime), wanted, "{group:?}");
    }
    assert_eq!(prime(Group::Null), None);
}

#[test]
fn replies_and_proofs_are_those_of_the_standard() {
    for vector in VECTORS {
        let keys = Keys {
            host: secret(vector.host),
            controller: vector.controller.map(secret),
        };
        let controller = Controller {
            hash: vector.hash,
            group: vector.group,
            ..Controller::default()
        };
        let (mut machine, _) = start(&keys);
        machine.answer(&ok(), &[]).unwrap();
        let reply = machine.answer(&ok(), &controller.challenge()).unwrap();
        assert_eq!(
            sha256(&reply.unwrap().data_out),
            vector.reply,
            "{:?}",
            vector.group
        );
        machine.answer(&ok(), &[]).unwrap();
        let digits = vector.proof.as_bytes().chunks(2);
        let proof = digits.map(|d| u8::from_str_radix(std::str::from_utf8(d).unwrap(), 16));
        let proof: Vec<u8> = proof.map(Result::unwrap).collect();
        let has_proof = !proof.is_empty();
        let end = machine.answer(
            &ok(),
            &success1(TRANSACTION, has_proof.then_some(&proof[..])),
        );
        let success2 = end.unwrap().map(|command| command.data_out);
        let wanted = has_proof.then(|| roadstead_nvme::dhchap::message::success2(TRANSACTION));
        assert_eq!(success2, wanted);
        if has_proof {
            assert_eq!(machine.answer(&ok(), &[]), Ok(None));
        }
    }
}
