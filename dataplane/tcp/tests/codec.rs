//! The codec against itself, against bytes written by hand, and against noise.

use proptest::prelude::*;
use roadstead_nvme::{Cqe, DataPointer, Sqe, Status};
use roadstead_tcp::pdu::{C2hData, H2cData, IcReq, IcResp, R2t, TermReq, alignment_bytes};
use roadstead_tcp::{Event, Fatal, FatalStatus, Pdu, PduReader, PduWriter, Role, Settings};

/// What a reader saw, with data put together.
#[derive(Debug, PartialEq)]
enum Seen {
    Pdu(Pdu),
    Data { bytes: Vec<u8>, intact: bool },
}

fn read_in_chunks(reader: &mut PduReader, bytes: &[u8], chunk: usize) -> Result<Vec<Seen>, Fatal> {
    let mut seen = Vec::new();
    let mut data = Vec::new();
    for mut input in bytes.chunks(chunk.max(1)) {
        while let Some(event) = reader.next(&mut input)? {
            match event {
                Event::Pdu(pdu) => seen.push(Seen::Pdu(pdu)),
                Event::Data(bytes) => data.extend_from_slice(bytes),
                Event::DataEnd { intact } => seen.push(Seen::Data {
                    bytes: std::mem::take(&mut data),
                    intact,
                }),
            }
        }
        assert!(input.is_empty());
    }
    Ok(seen)
}

fn write(writer: &PduWriter, pdu: &Pdu, data: &[u8]) -> Vec<u8> {
    let mut head = [0xee; PduWriter::HEAD_MAX];
    let length = writer.head(pdu, &mut head);
    let mut bytes = head[..length].to_vec();
    if !data.is_empty() {
        bytes.extend_from_slice(data);
        bytes.extend(writer.data_digest(data).into_iter().flatten());
    }
    bytes
}

fn settings() -> impl Strategy<Value = Settings> {
    (any::<bool>(), any::<bool>(), 0_u8..32).prop_map(|(header_digest, data_digest, alignment)| {
        Settings {
            header_digest,
            data_digest,
            alignment_bytes: alignment_bytes(alignment),
            max_in_capsule: 8192,
            max_data: 8192,
        }
    })
}

fn settled(role: Role, settings: Settings) -> PduReader {
    let mut reader = PduReader::new(role);
    reader.settle(settings);
    reader
}

/// PDUs after initialisation, with the end that reads them and their data.
fn pdus() -> impl Strategy<Value = (Role, Pdu, Vec<u8>)> {
    let words = |least: usize| {
        prop::collection::vec(any::<[u8; 4]>(), least..1024).prop_map(|words| words.concat())
    };
    let ids = (any::<u16>(), any::<u16>(), 0_u32..1 << 20);
    prop_oneof![
        (any::<u16>(), any::<u8>(), words(0)).prop_map(|(cid, opcode, data)| {
            let sqe = Sqe::new(opcode, cid, 1);
            let data_length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            (Role::Controller, Pdu::CapsuleCmd { sqe, data_length }, data)
        }),
        (any::<u16>(), any::<u64>()).prop_map(|(cid, result)| {
            (
                Role::Host,
                Pdu::CapsuleResp(Cqe::new(cid, Status::INVALID_FIELD, result)),
                vec![],
            )
        }),
        (ids.clone(), any::<bool>(), words(1)).prop_map(|((cid, tag, offset), last, data)| {
            let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let head = H2cData {
                cid,
                tag,
                offset: offset * 4,
                length,
                last,
            };
            (Role::Controller, Pdu::H2cData(head), data)
        }),
        (ids.clone(), any::<(bool, bool)>(), words(1)).prop_map(
            |((cid, _, offset), (last, success), data)| {
                let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
                let success = last && success;
                let head = C2hData {
                    cid,
                    offset: offset * 4,
                    length,
                    last,
                    success,
                };
                (Role::Host, Pdu::C2hData(head), data)
            }
        ),
        (ids, 1_u32..1 << 20).prop_map(|((cid, tag, offset), length)| {
            let r2t = R2t {
                cid,
                tag,
                offset: offset * 4,
                length: length * 4,
            };
            (Role::Host, Pdu::R2t(r2t), vec![])
        }),
        (any::<(u16, u32)>()).prop_map(|(status, information)| {
            let term = TermReq {
                status: FatalStatus(status),
                information,
            };
            (Role::Controller, Pdu::H2cTermReq(term), vec![])
        }),
        (any::<(u16, u32)>()).prop_map(|(status, information)| {
            let term = TermReq {
                status: FatalStatus(status),
                information,
            };
            (Role::Host, Pdu::C2hTermReq(term), vec![])
        }),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        settings in settings(),
        stream in prop::collection::vec(pdus(), 1..6),
        chunk in prop_oneof![1_usize..80, 1000_usize..100_000],
    ) {
        for role in [Role::Controller, Role::Host] {
            let writer = PduWriter::new(settings);
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for (reads, pdu, data) in &stream {
                if *reads == role {
                    bytes.extend(write(&writer, pdu, data));
                    expected.push(Seen::Pdu(*pdu));
                    if !data.is_empty() {
                        expected.push(Seen::Data { bytes: data.clone(), intact: true });
                    }
                }
            }
            let mut reader = settled(role, settings);
            prop_assert_eq!(read_in_chunks(&mut reader, &bytes, chunk), Ok(expected));
            prop_assert!(reader.is_between_pdus());
        }
    }

    #[test]
    fn initialisation_round_trips(alignment in 0_u8..32, digests in any::<(bool, bool)>(), max_r2t in 1..=1_u64 << 32, max in 1024_u32..1 << 20, chunk in 1_usize..200) {
        let (header_digest, data_digest) = digests;
        let request = Pdu::IcReq(IcReq { version: 0, alignment, header_digest, data_digest, max_r2t });
        let response = Pdu::IcResp(IcResp { version: 0, alignment, header_digest, data_digest, max_data: max * 4 });
        for (role, pdu) in [(Role::Controller, request), (Role::Host, response)] {
            let bytes = write(&PduWriter::new(Settings::default()), &pdu, &[]);
            prop_assert_eq!(bytes.len(), 128);
            prop_assert_eq!(read_in_chunks(&mut PduReader::new(role), &bytes, chunk), Ok(vec![Seen::Pdu(pdu)]));
        }
    }

    /// However bytes are cut, the outcome is the same, and noise never panics.
    #[test]
    fn noise_ends_the_same_however_it_is_cut(
        settings in settings(),
        host in any::<bool>(),
        settle in any::<bool>(),
        kind in 0_u8..11,
        mut bytes in prop::collection::vec(any::<u8>(), 8..600),
        plausible in any::<bool>(),
        chunk in 1_usize..64,
    ) {
        if plausible {
            bytes[0] = kind;
            bytes[2] = [128, 128, 24, 24, 72, 24, 24, 24, 0, 24, 0][usize::from(kind)];
            bytes[5] &= 3;
            bytes[6] = 0;
            bytes[7] = 0;
        }
        let role = if host { Role::Host } else { Role::Controller };
        let fresh = || {
            let mut reader = PduReader::new(role);
            if settle {
                reader.settle(settings);
            }
            reader
        };
        let whole = read_in_chunks(&mut fresh(), &bytes, bytes.len());
        let cut = read_in_chunks(&mut fresh(), &bytes, chunk);
        match (whole, cut) {
            (Ok(whole), Ok(cut)) => prop_assert_eq!(whole, cut),
            (Err(whole), Err(cut)) => prop_assert_eq!((whole.status, whole.information), (cut.status, cut.information)),
            (whole, cut) => prop_assert!(false, "{:?} but in pieces {:?}", whole, cut),
        }
    }

    /// One flipped bit in a head with digest is always found.
    #[test]
    fn header_digest_finds_flipped_bits(bit in 0_usize..(72 + 4) * 8) {
        let settings = Settings { header_digest: true, ..Settings::default() };
        let mut bytes = write(&PduWriter::new(settings), &Pdu::CapsuleCmd { sqe: Sqe::new(2, 9, 1), data_length: 0 }, &[]);
        bytes[bit / 8] ^= 1 << (bit % 8);
        // PDO is reserved without data, so nothing but the digest protects it.
        let seen = read_in_chunks(&mut settled(Role::Controller, settings), &bytes, 500);
        prop_assert!(seen.is_err() || seen == Ok(vec![]), "{:?}", seen);
    }
}

#[test]
fn golden_command_with_data_and_digests() {
    let settings = Settings {
        header_digest: true,
        data_digest: true,
        alignment_bytes: 16,
        ..Settings::default()
    };
    let mut sqe = Sqe::new(1, 0x0201, 1);
    sqe.dptr = DataPointer::InCapsule {
        offset: 0,
        length: 8,
    }
    .encode();
    let bytes = write(
        &PduWriter::new(settings),
        &Pdu::CapsuleCmd {
            sqe,
            data_length: 8,
        },
        b"12345678",
    );
    assert_eq!(bytes.len(), 80 + 8 + 4);
    assert_eq!(
        bytes[..16],
        [0x04, 0x03, 72, 80, 92, 0, 0, 0, 1, 0x40, 1, 2, 1, 0, 0, 0]
    );
    assert_eq!(
        bytes[32..48],
        [0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 1]
    );
    assert_eq!(bytes[72..76], crc32c::crc32c(&bytes[..72]).to_le_bytes());
    assert_eq!(bytes[76..80], [0; 4]);
    assert_eq!(bytes[80..88], *b"12345678");
    // CRC-32C of "12345678".
    assert_eq!(bytes[88..92], 0x6087_809a_u32.to_le_bytes());
}

#[test]
fn golden_small_pdus() {
    let writer = PduWriter::new(Settings::default());
    let data = C2hData {
        cid: 0x0102,
        offset: 0x1000,
        length: 0x2000,
        last: true,
        success: true,
    };
    assert_eq!(
        write(&writer, &Pdu::C2hData(data), &[]),
        [
            7, 0x0c, 24, 24, 0x18, 0x20, 0, 0, 2, 1, 0, 0, 0, 0x10, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0
        ]
    );
    let r2t = R2t {
        cid: 3,
        tag: 0x0405,
        offset: 8,
        length: 12,
    };
    assert_eq!(
        write(&writer, &Pdu::R2t(r2t), &[]),
        [
            9, 0, 24, 0, 24, 0, 0, 0, 3, 0, 5, 4, 8, 0, 0, 0, 12, 0, 0, 0, 0, 0, 0, 0
        ]
    );
    let request = IcReq {
        version: 0,
        alignment: 0,
        header_digest: true,
        data_digest: false,
        max_r2t: 1,
    };
    let bytes = write(&writer, &Pdu::IcReq(request), &[]);
    assert_eq!(
        bytes[..16],
        [0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    );
    assert_eq!(bytes[16..], [0; 112]);
    let response = IcResp {
        version: 0,
        alignment: 0,
        header_digest: false,
        data_digest: true,
        max_data: 0x0002_0000,
    };
    let bytes = write(&writer, &Pdu::IcResp(response), &[]);
    assert_eq!(
        bytes[..16],
        [1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 2, 0, 0, 2, 0]
    );
}

#[test]
fn termination_request_repeats_the_head() {
    let fatal = Fatal::new(FatalStatus::INVALID_HEADER_FIELD, 4, "", &[0xaa; 300]);
    let bytes = PduWriter::term(Role::Controller, &fatal);
    assert_eq!(bytes.len(), Fatal::TERM_MAX);
    assert_eq!(
        bytes[..24],
        [
            3, 0, 24, 0, 152, 0, 0, 0, 1, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0
        ]
    );
    let term = TermReq {
        status: FatalStatus::INVALID_HEADER_FIELD,
        information: 4,
    };
    for chunk in [1, 24, 500] {
        let mut reader = settled(
            Role::Host,
            Settings {
                header_digest: true,
                ..Settings::default()
            },
        );
        assert_eq!(
            read_in_chunks(&mut reader, &bytes, chunk),
            Ok(vec![Seen::Pdu(Pdu::C2hTermReq(term))])
        );
    }
    assert_eq!(PduWriter::term(Role::Host, &fatal)[0], 2);
}

/// Each refusal: bytes of a command capsule (or other head) changed in one place.
#[test]
fn refusals_name_the_field() {
    let digests = Settings {
        header_digest: true,
        data_digest: true,
        max_in_capsule: 64,
        max_data: 64,
        ..Settings::default()
    };
    let plain = Settings {
        max_in_capsule: 64,
        max_data: 64,
        ..Settings::default()
    };
    let command = |settings| {
        write(
            &PduWriter::new(settings),
            &Pdu::CapsuleCmd {
                sqe: Sqe::new(1, 1, 1),
                data_length: 16,
            },
            &[7; 16],
        )
    };
    let data = |settings| {
        let head = H2cData {
            cid: 1,
            tag: 1,
            offset: 0,
            length: 16,
            last: true,
        };
        write(&PduWriter::new(settings), &Pdu::H2cData(head), &[7; 16])
    };
    let field = FatalStatus::INVALID_HEADER_FIELD;
    type Row = (&'static str, Settings, Vec<u8>, usize, u8, FatalStatus, u32);
    let rows: Vec<Row> = vec![
        ("unknown type", plain, command(plain), 0, 0x0b, field, 0),
        (
            "the other end's type",
            plain,
            command(plain),
            0,
            0x05,
            field,
            0,
        ),
        (
            "ICReq again",
            plain,
            command(plain),
            0,
            0x00,
            FatalStatus::SEQUENCE,
            0,
        ),
        ("header length", plain, command(plain), 2, 71, field, 2),
        (
            "data offset inside header",
            plain,
            command(plain),
            3,
            68,
            field,
            3,
        ),
        ("data offset odd", plain, command(plain), 3, 73, field, 3),
        (
            "PDU shorter than header",
            plain,
            command(plain),
            4,
            71,
            field,
            4,
        ),
        (
            "PDU ends before data",
            plain,
            command(plain),
            3,
            88,
            field,
            4,
        ),
        ("too much data", plain, command(plain), 4, 72 + 65, field, 4),
        (
            "too much data by far",
            plain,
            command(plain),
            7,
            0xff,
            field,
            4,
        ),
        (
            "header digest without agreement",
            plain,
            command(plain),
            1,
            1,
            field,
            1,
        ),
        (
            "data digest without agreement",
            plain,
            command(plain),
            1,
            2,
            field,
            1,
        ),
        (
            "no header digest",
            digests,
            command(digests),
            1,
            2,
            field,
            1,
        ),
        ("no data digest", digests, command(digests), 1, 1, field, 1),
        (
            "wrong header digest",
            digests,
            command(digests),
            20,
            0xff,
            FatalStatus::HEADER_DIGEST,
            0,
        ),
        (
            "data length not the PDU's",
            plain,
            data(plain),
            16,
            12,
            field,
            16,
        ),
        ("data length zero", plain, data(plain), 16, 0, field, 16),
        (
            "data offset field odd",
            plain,
            data(plain),
            12,
            2,
            field,
            12,
        ),
        (
            "termination request too long",
            plain,
            PduWriter::term(Role::Host, &Fatal::new(field, 0, "", &[])),
            4,
            153,
            field,
            4,
        ),
        (
            "termination request too short",
            plain,
            PduWriter::term(Role::Host, &Fatal::new(field, 0, "", &[])),
            4,
            23,
            field,
            4,
        ),
    ];
    for (what, settings, mut bytes, at, value, status, information) in rows {
        bytes[at] = value;
        let fatal =
            read_in_chunks(&mut settled(Role::Controller, settings), &bytes, 500).unwrap_err();
        assert_eq!(fatal.status, status, "{what}: {fatal}");
        if status != FatalStatus::HEADER_DIGEST {
            assert_eq!(fatal.information, information, "{what}: {fatal}");
        }
        assert!(bytes.starts_with(&fatal.head), "{what}");
    }
}

#[test]
fn host_refusals_name_the_field() {
    let plain = Settings::default();
    let writer = PduWriter::new(plain);
    let data = C2hData {
        cid: 1,
        offset: 0,
        length: 8,
        last: false,
        success: false,
    };
    let response = IcResp {
        version: 0,
        alignment: 0,
        header_digest: false,
        data_digest: false,
        max_data: 4096,
    };
    let rows = [
        (
            "success before last",
            write(&writer, &Pdu::C2hData(data), &[1; 8]),
            1,
            8,
            true,
            1,
        ),
        (
            "response with data",
            write(
                &writer,
                &Pdu::CapsuleResp(Cqe::new(1, Status::SUCCESS, 0)),
                &[],
            ),
            4,
            28,
            true,
            4,
        ),
        (
            "R2T of nothing",
            write(
                &writer,
                &Pdu::R2t(R2t {
                    cid: 1,
                    tag: 1,
                    offset: 0,
                    length: 4,
                }),
                &[],
            ),
            16,
            0,
            true,
            16,
        ),
        (
            "limit of data too small",
            write(&writer, &Pdu::IcResp(response), &[]),
            13,
            0x0f,
            false,
            12,
        ),
        (
            "alignment too large",
            write(&writer, &Pdu::IcResp(response), &[]),
            10,
            32,
            false,
            10,
        ),
    ];
    for (what, mut bytes, at, value, settle, information) in rows {
        bytes[at] = value;
        let mut reader = if settle {
            settled(Role::Host, plain)
        } else {
            PduReader::new(Role::Host)
        };
        let fatal = read_in_chunks(&mut reader, &bytes, 500).unwrap_err();
        assert_eq!(
            (fatal.status, fatal.information),
            (FatalStatus::INVALID_HEADER_FIELD, information),
            "{what}"
        );
    }
}

#[test]
fn nothing_but_initialisation_comes_first_and_errors_stay() {
    let bytes = write(
        &PduWriter::new(Settings::default()),
        &Pdu::CapsuleCmd {
            sqe: Sqe::new(1, 1, 1),
            data_length: 0,
        },
        &[],
    );
    let mut reader = PduReader::new(Role::Controller);
    for _ in 0..2 {
        let fatal = read_in_chunks(&mut reader, &bytes, 500).unwrap_err();
        assert_eq!(fatal.status, FatalStatus::SEQUENCE);
    }
}

#[test]
fn wrong_data_digest_is_reported_and_the_stream_goes_on() {
    let settings = Settings {
        data_digest: true,
        max_in_capsule: 64,
        ..Settings::default()
    };
    let pdu = Pdu::CapsuleCmd {
        sqe: Sqe::new(1, 1, 1),
        data_length: 16,
    };
    let good = write(&PduWriter::new(settings), &pdu, &[7; 16]);
    let mut bad = good.clone();
    bad[80] ^= 1;
    bad.extend(&good);
    let seen = read_in_chunks(&mut settled(Role::Controller, settings), &bad, 500).unwrap();
    let intact: Vec<bool> = seen
        .iter()
        .filter_map(|seen| match seen {
            Seen::Data { intact, .. } => Some(*intact),
            Seen::Pdu(_) => None,
        })
        .collect();
    assert_eq!(intact, [false, true]);
}
