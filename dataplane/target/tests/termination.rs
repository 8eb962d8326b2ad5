//! Every fatal error of the transport: the bytes of the termination request that it gets.
//!
//! Fatal error status and information as in the NVMe/TCP transport specification, section 3.6.2.4: the information is
//! the offset of the wrong field (1 and 6), the digest that came (3), and nothing for the others.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{Host, Options, registry};
use roadstead_nvme::IoCommand;
use roadstead_nvme::command::Blocks;
use roadstead_target::tcp::Close;
use zerocopy::IntoBytes;

/// What the connection has seen before.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Fresh,
    Initialised,
    HeaderDigest,
    DataDigest,
    /// An I/O queue that asked for the 1024 bytes of a write.
    Asked,
    /// An I/O queue of 2 entries with 2 commands in flight.
    Full,
}

/// A PDU: type, flags, header length, data offset, whole length, and what follows the common header.
fn pdu(kind: u8, flags: u8, hlen: u8, pdo: u8, plen: u32, rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind, flags, hlen, pdo];
    bytes.extend(plen.to_le_bytes());
    bytes.extend(rest);
    bytes.resize(bytes.len().max(usize::from(hlen.max(8))), 0);
    bytes
}

fn ic(version: u16, alignment: u8, hlen: u8, plen: u32) -> Vec<u8> {
    let mut rest = version.to_le_bytes().to_vec();
    rest.push(alignment);
    rest.resize(120, 0);
    pdu(0, 0, hlen, 0, plen, &rest)
}

fn capsule(flags: u8, hlen: u8, pdo: u8, plen: u32) -> Vec<u8> {
    let sqe = IoCommand::Flush { nsid: 1 }.encode(1);
    pdu(4, flags, hlen, pdo, plen, sqe.as_bytes())
}

/// H2CData for the transfer of [`Stage::Asked`], each field with what is added to the right value.
fn data(cid: u16, tag: u16, offset: u32, length: u32, flags: u8, plen: u32) -> Vec<u8> {
    let mut rest = (FIRST_CID + cid).to_le_bytes().to_vec();
    rest.extend(tag.to_le_bytes());
    rest.extend(offset.to_le_bytes());
    rest.extend(length.to_le_bytes());
    pdu(6, flags, 24, 24, plen, &rest)
}

/// The identifier of the write that was asked for its data.
const FIRST_CID: u16 = 101;
const MAX_DATA: u32 = 1 << 20;
const IN_CAPSULE: u32 = 16 << 10;

fn rows() -> Vec<(&'static str, Stage, Vec<u8>, u16, u32)> {
    use Stage::{Asked, DataDigest, Fresh, Full, HeaderDigest, Initialised};
    let mut wrong_digest = capsule(1, 72, 0, 76);
    wrong_digest.extend([0x11, 0x22, 0x33, 0x44]);
    let mut rows = vec![
        ("version", Fresh, ic(1, 0, 128, 128), 6, 8),
        ("alignment", Fresh, ic(0, 32, 128, 128), 1, 10),
        ("IC header length", Fresh, ic(0, 0, 127, 128), 1, 2),
        ("IC too short", Fresh, ic(0, 0, 128, 127), 1, 4),
        ("IC too long", Fresh, ic(0, 0, 128, 132), 1, 4),
        ("command before IC", Fresh, capsule(0, 72, 0, 72), 2, 0),
        ("data before IC", Fresh, data(0, 0, 0, 4, 0, 28), 2, 0),
        ("IC twice", Initialised, ic(0, 0, 128, 128), 2, 0),
        ("header length", Initialised, capsule(0, 71, 0, 72), 1, 2),
        (
            "shorter than its header",
            Initialised,
            capsule(0, 72, 0, 71),
            1,
            4,
        ),
        (
            "data in the header",
            Initialised,
            capsule(0, 72, 68, 80),
            1,
            3,
        ),
        (
            "data not aligned",
            Initialised,
            capsule(0, 72, 74, 80),
            1,
            3,
        ),
        (
            "data behind the end",
            Initialised,
            capsule(0, 72, 80, 76),
            1,
            4,
        ),
        (
            "more than fits the capsule",
            Initialised,
            capsule(0, 72, 72, 72 + IN_CAPSULE + 4),
            1,
            4,
        ),
        ("header digest", Initialised, capsule(1, 72, 0, 76), 1, 1),
        ("data digest", Initialised, capsule(2, 72, 72, 80), 1, 1),
        (
            "no header digest",
            HeaderDigest,
            capsule(0, 72, 0, 72),
            1,
            1,
        ),
        ("no data digest", DataDigest, capsule(0, 72, 72, 76), 1, 1),
        (
            "no room for the digest",
            DataDigest,
            capsule(2, 72, 72, 76),
            1,
            4,
        ),
        ("wrong digest", HeaderDigest, wrong_digest, 3, 0x4433_2211),
        (
            "no such transfer",
            Initialised,
            data(0, 0, 0, 4, 0, 28),
            1,
            10,
        ),
        ("tag", Asked, data(0, 1, 0, 1024, 4, 1048), 1, 10),
        ("command", Asked, data(1, 0, 0, 1024, 4, 1048), 1, 8),
        (
            "data before its start",
            Asked,
            data(0, 0, 4, 1020, 4, 1044),
            4,
            0,
        ),
        ("too much data", Asked, data(0, 0, 0, 1028, 4, 1052), 4, 0),
        ("end too early", Asked, data(0, 0, 0, 512, 4, 536), 1, 1),
        ("no data", Asked, data(0, 0, 0, 0, 4, 24), 1, 16),
        ("odd length", Asked, data(0, 0, 0, 1022, 4, 1046), 1, 16),
        (
            "length is not the PDU's",
            Asked,
            data(0, 0, 0, 512, 0, 1048),
            1,
            16,
        ),
        ("odd offset", Asked, data(0, 0, 2, 512, 0, 536), 1, 12),
        (
            "offset overflows",
            Asked,
            data(0, 0, u32::MAX - 3, 512, 0, 536),
            1,
            12,
        ),
        (
            "more than an H2CData may have",
            Asked,
            data(0, 0, 0, MAX_DATA + 4, 4, MAX_DATA + 28),
            5,
            0,
        ),
        ("too many commands", Full, capsule(0, 72, 0, 72), 2, 0),
        (
            "termination too short",
            Initialised,
            pdu(2, 0, 24, 0, 23, &[0; 16]),
            1,
            4,
        ),
        (
            "termination too long",
            Initialised,
            pdu(2, 0, 24, 0, 153, &[0; 16]),
            1,
            4,
        ),
    ];
    // Those that only a controller sends, and those that nobody does.
    for kind in [1, 3, 5, 7, 8, 9, 10, 0xff] {
        rows.push(("type", Initialised, pdu(kind, 0, 24, 0, 24, &[0; 16]), 1, 0));
    }
    rows
}

fn host(stage: Stage) -> (Option<Host>, Host) {
    let options = Options {
        header_digest: stage == Stage::HeaderDigest,
        data_digest: stage == Stage::DataDigest,
        in_capsule: 0,
        entries: 2,
        ..Options::default()
    };
    let registry = registry();
    match stage {
        Stage::Fresh => (None, Host::raw(&registry, options)),
        Stage::Initialised | Stage::HeaderDigest | Stage::DataDigest => {
            (None, Host::initialised(&registry, options))
        }
        Stage::Asked => {
            let (admin, mut io) = Host::pair(&registry, options);
            io.deaf = true;
            let write = IoCommand::Write {
                nsid: 1,
                blocks: Blocks { start: 0, count: 2 },
                fua: false,
            };
            assert_eq!(io.start(write.encode(0), &[1; 1024]), FIRST_CID);
            assert_eq!(io.wire.bytes[..2], [9, 0], "R2T");
            assert_eq!(io.wire.bytes[10..12], [0, 0], "its tag");
            (Some(admin), io)
        }
        Stage::Full => {
            let (admin, mut io) = Host::pair(&registry, options);
            for _ in 0..2 {
                io.start(IoCommand::Flush { nsid: 1 }.encode(0), &[]);
            }
            (Some(admin), io)
        }
    }
}

#[test]
fn each_fatal_error_has_its_termination_request() {
    for (what, stage, bytes, status, information) in rows() {
        for chunk in [usize::MAX, 1] {
            let (_admin, mut host) = host(stage);
            host.options.chunk = chunk;
            host.deaf = true;
            host.wire.bytes.clear();
            host.send_bytes(&bytes);
            let Some(Close::Protocol(fatal)) = &host.closed else {
                panic!("{what}, {stage:?}: {:?}", host.closed);
            };
            let sent = std::mem::take(&mut host.wire.bytes);
            let head = fatal.head.clone();
            let mut expected = vec![3, 0, 24, 0];
            expected.extend(u32::try_from(24 + head.len()).unwrap().to_le_bytes());
            expected.extend(status.to_le_bytes());
            expected.extend(information.to_le_bytes());
            expected.extend([0; 10]);
            expected.extend(&head);
            assert_eq!(sent, expected, "{what}, {stage:?}");
            // It repeats the start of what was wrong, no more than 128 bytes of it.
            assert!(!head.is_empty() && head.len() <= 128, "{what}");
            assert!(bytes.starts_with(&head), "{what}: {head:?}");
            assert!(host.memory.requests.is_empty() || stage == Stage::Full);
            // Nothing is taken or sent any more.
            host.closed = None;
            host.send_bytes(&capsule(0, 72, 0, 72));
            assert_eq!(host.closed, Some(Close::Closed), "{what}");
            assert!(host.wire.bytes.is_empty(), "{what}");
        }
    }
}
