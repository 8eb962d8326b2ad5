//! The bytes on the medium: put together here by hand, so that no change of them goes unseen.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test")]

use proptest::prelude::*;
use roadstead_pool::format::batch::{self, Log, Stamp};
use roadstead_pool::format::half::{Header, Seal};
use roadstead_pool::format::label::{Found, Label};
use roadstead_pool::format::record::{Record, Run};
use roadstead_pool::format::{Geometry, Half};
use roadstead_pool::{BlockSize, VolumeSpec};
use uuid::Uuid;

const POOL: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
const DRIVE: Uuid = Uuid::from_u128(1);
const CHECKPOINT: Uuid = Uuid::from_u128(2);
const VOLUME: Uuid = Uuid::from_u128(3);

fn le<const N: usize>(parts: [&[u8]; N]) -> Vec<u8> {
    parts.concat()
}

/// A block whose first sector is `content`, zeroes, and the checksum.
fn sector_block(mut content: Vec<u8>) -> Vec<u8> {
    content.resize(508, 0);
    content.extend(crc32c::crc32c(&content).to_le_bytes());
    content.resize(4096, 0);
    content
}

fn label() -> Label {
    Label {
        pool_uuid: POOL,
        drive_uuid: DRIVE,
        owner: "5e1f".to_owned(),
        generation: 7,
        created_unix_s: 1_800_000_000,
        geometry: Geometry::plan(1 << 30, 1 << 20, None).unwrap(),
    }
}

#[test]
fn the_geometry_of_a_gib_is_fixed() {
    let g = label().geometry;
    let expected = Geometry {
        media_bytes: 1 << 30,
        extent_bytes: 1 << 20,
        data_offset: 3 << 20,
        checkpoint_bytes: 925_696,
        journal_bytes: 256 << 10,
        extent_count: 1020,
        max_extents: 16_384,
        max_volumes: 1024,
    };
    assert_eq!(g, expected);
    assert_eq!(g.half_offset(Half::First), 65_536);
    assert_eq!(
        g.half_offset(Half::Second),
        65_536 + 925_696 + 2 * 262_144 + 8192
    );
    assert_eq!(
        g.journal_offsets(Half::First),
        [65_536 + 4096 + 925_696, 65_536 + 4096 + 925_696 + 262_144]
    );
    assert_eq!(
        g.seal_offset(Half::First),
        g.half_offset(Half::Second) - 4096
    );
    assert_eq!(g.label_offsets(), [0, 32_768, (1 << 30) - 4096]);
}

#[test]
fn the_label_has_these_bytes() {
    let expected = sector_block(le([
        b"RDSTPOOL",
        &1u32.to_le_bytes(),
        &2u32.to_le_bytes(),
        POOL.as_bytes(),
        DRIVE.as_bytes(),
        &7u64.to_le_bytes(),
        &1_800_000_000u64.to_le_bytes(),
        &(1u64 << 30).to_le_bytes(),
        &(1u64 << 20).to_le_bytes(),
        &(3u64 << 20).to_le_bytes(),
        &925_696u64.to_le_bytes(),
        &(256u64 << 10).to_le_bytes(),
        &1020u32.to_le_bytes(),
        &16_384u32.to_le_bytes(),
        &1024u32.to_le_bytes(),
        &4u32.to_le_bytes(),
        b"5e1f",
    ]));
    assert_eq!(label().encode(2).as_bytes(), expected);
    assert_eq!(Label::decode(&expected, 2), Found::Label(Box::new(label())));
    assert_eq!(
        Label::decode(&expected, 1),
        Found::Damaged,
        "a copy in another's place"
    );
    for byte in [0, 8, 20, 130, 400, 511] {
        let mut changed = expected.clone();
        changed[byte] ^= 4;
        let found = Label::decode(&changed, 2);
        assert!(
            matches!(found, Found::Damaged | Found::Nothing),
            "byte {byte}: {found:?}"
        );
    }
}

#[test]
fn header_and_seal_have_these_bytes() {
    let header = Header {
        pool_uuid: POOL,
        id: CHECKPOINT,
        generation: 3,
        first_seq: 41,
        batches: 5,
    };
    let expected = sector_block(le([
        b"RDSTHALF",
        &1u32.to_le_bytes(),
        &[0; 4],
        POOL.as_bytes(),
        CHECKPOINT.as_bytes(),
        &3u64.to_le_bytes(),
        &41u64.to_le_bytes(),
        &5u64.to_le_bytes(),
    ]));
    assert_eq!(header.encode().as_bytes(), expected);
    assert_eq!(Header::decode(&expected), Some(header));
    let seal = Seal {
        pool_uuid: POOL,
        id: CHECKPOINT,
        successor: DRIVE,
        final_seq: 40,
    };
    let expected = sector_block(le([
        b"RDSTSEAL",
        &1u32.to_le_bytes(),
        &[0; 4],
        POOL.as_bytes(),
        CHECKPOINT.as_bytes(),
        DRIVE.as_bytes(),
        &40u64.to_le_bytes(),
    ]));
    assert_eq!(seal.encode().as_bytes(), expected);
    assert_eq!(Seal::decode(&expected, CHECKPOINT), Some(seal));
    assert_eq!(Seal::decode(&expected, DRIVE), None);
}

#[test]
fn a_batch_of_every_record_has_these_bytes() {
    let records = [
        Record::Create(VolumeSpec {
            uuid: VOLUME,
            name: "pvc-1".to_owned(),
            size_bytes: 10 << 20,
            block_size: BlockSize::B4096,
            created_unix_s: 9,
        }),
        Record::Grow {
            uuid: VOLUME,
            size_bytes: 20 << 20,
        },
        Record::Map {
            uuid: VOLUME,
            runs: vec![Run {
                first: 4,
                physical: 100,
                count: 2,
            }],
        },
        Record::Unmap {
            uuid: VOLUME,
            first: 4,
            count: 1,
        },
        Record::Note {
            uuid: VOLUME,
            bytes: b"keep".to_vec(),
        },
        Record::Delete { uuid: VOLUME },
    ];
    let payload = le([
        &[1, 0, 41, 0],
        VOLUME.as_bytes(),
        &(10u64 << 20).to_le_bytes(),
        &9u64.to_le_bytes(),
        &4096u32.to_le_bytes(),
        b"pvc-1",
        &[2, 0, 24, 0],
        VOLUME.as_bytes(),
        &(20u64 << 20).to_le_bytes(),
        &[4, 0, 28, 0],
        VOLUME.as_bytes(),
        &[4, 0, 0, 0, 100, 0, 0, 0, 2, 0, 0, 0],
        &[5, 0, 24, 0],
        VOLUME.as_bytes(),
        &[4, 0, 0, 0, 1, 0, 0, 0],
        &[6, 0, 20, 0],
        VOLUME.as_bytes(),
        b"keep",
        &[3, 0, 16, 0],
        VOLUME.as_bytes(),
    ]);
    let mut expected = le([
        b"RDSTBTCH",
        CHECKPOINT.as_bytes(),
        &41u64.to_le_bytes(),
        &39u64.to_le_bytes(),
        &2u32.to_le_bytes(),
        &1u32.to_le_bytes(),
        &(payload.len() as u32).to_le_bytes(),
        &[0; 12],
        &payload,
    ]);
    expected.resize(4096, 0);
    let crc = crc32c::crc32c(&expected);
    expected[60..64].copy_from_slice(&crc.to_le_bytes());

    let mut packed = Vec::new();
    assert_eq!(batch::pack(&records, &mut packed), records.len());
    assert_eq!(packed, payload);
    let stamp = Stamp {
        id: CHECKPOINT,
        log: Log::Journal,
        seq: 41,
        durable_seq: 39,
    };
    assert_eq!(batch::encode(&stamp, &packed).as_bytes(), expected);
    let found = batch::decode(&expected, CHECKPOINT, Log::Journal).unwrap();
    assert_eq!((found.seq, found.durable_seq, found.blocks), (41, 39, 1));
    assert_eq!(found.records().unwrap(), records);
    assert!(batch::decode(&expected, DRIVE, Log::Journal).is_none());
    assert!(batch::decode(&expected, CHECKPOINT, Log::Checkpoint).is_none());
}

fn record() -> impl Strategy<Value = Record> {
    let uuid = any::<u128>().prop_map(Uuid::from_u128);
    let run = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(first, physical, count)| Run {
        first,
        physical,
        count,
    });
    prop_oneof![
        (
            uuid.clone(),
            "\\PC{0,63}",
            any::<u64>(),
            any::<u64>(),
            any::<bool>()
        )
            .prop_map(|(uuid, name, size_bytes, created_unix_s, small)| {
                let block_size = if small {
                    BlockSize::B512
                } else {
                    BlockSize::B4096
                };
                Record::Create(VolumeSpec {
                    uuid,
                    name,
                    size_bytes,
                    block_size,
                    created_unix_s,
                })
            }),
        (uuid.clone(), any::<u64>())
            .prop_map(|(uuid, size_bytes)| Record::Grow { uuid, size_bytes }),
        uuid.clone().prop_map(|uuid| Record::Delete { uuid }),
        (uuid.clone(), proptest::collection::vec(run, 0..256))
            .prop_map(|(uuid, runs)| Record::Map { uuid, runs }),
        (
            uuid.clone(),
            proptest::collection::vec(any::<u8>(), 0..2048)
        )
            .prop_map(|(uuid, bytes)| Record::Note { uuid, bytes }),
        (uuid, any::<u32>(), any::<u32>()).prop_map(|(uuid, first, count)| Record::Unmap {
            uuid,
            first,
            count
        }),
    ]
}

proptest! {
    #[test]
    fn records_come_back_from_batches(records in proptest::collection::vec(record(), 1..40)) {
        let (mut rest, mut back, mut payload) = (&records[..], Vec::new(), Vec::new());
        while !rest.is_empty() {
            let fit = batch::pack(rest, &mut payload);
            prop_assert!(fit > 0, "every record fits a batch");
            let stamp = Stamp { id: POOL, log: Log::Checkpoint, seq: 0, durable_seq: 0 };
            let blocks = batch::encode(&stamp, &payload);
            prop_assert!(blocks.count() <= batch::MAX_BLOCKS);
            back.extend(batch::decode(blocks.as_bytes(), POOL, Log::Checkpoint).unwrap().records().unwrap());
            rest = &rest[fit..];
        }
        prop_assert_eq!(back, records);
    }

    #[test]
    fn random_payloads_are_records_or_errors(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let stamp = Stamp { id: POOL, log: Log::Journal, seq: 0, durable_seq: 0 };
        let blocks = batch::encode(&stamp, &bytes);
        let found = batch::decode(blocks.as_bytes(), POOL, Log::Journal).unwrap();
        let _ = found.records();
    }

    #[test]
    fn any_changed_bit_of_a_batch_is_seen(records in proptest::collection::vec(record(), 1..4), at in any::<usize>(), bit in 0u8..8) {
        let mut payload = Vec::new();
        batch::pack(&records, &mut payload);
        let stamp = Stamp { id: POOL, log: Log::Journal, seq: 5, durable_seq: 4 };
        let mut blocks = batch::encode(&stamp, &payload);
        let len = blocks.as_bytes().len();
        blocks.as_bytes_mut()[at % len] ^= 1 << bit;
        prop_assert!(batch::decode(blocks.as_bytes(), POOL, Log::Journal).is_none());
        prop_assert!(batch::decode(&blocks.as_bytes()[..len - 4096], POOL, Log::Journal).is_none());
    }

    #[test]
    fn every_planned_geometry_passes_its_own_check(media in 0u64..1 << 45, shift in 16u32..=26) {
        match Geometry::plan(media, 1 << shift, None) {
            Ok(geometry) => prop_assert_eq!(geometry.check(media), Ok(())),
            Err(least) => {
                prop_assert!(least > media);
                // The metadata of a larger medium may itself be larger, so the least size is approached in steps.
                let mut size = least;
                while let Err(more) = Geometry::plan(size, 1 << shift, None) {
                    prop_assert!(more > size && more < least * 4);
                    size = more;
                }
            }
        }
    }
}
