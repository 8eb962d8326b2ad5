//! What is read from drives and files.

use roadstead_pool::format::Geometry;
use roadstead_pool::format::batch::{self, Log, Stamp};
use roadstead_pool::format::half::{Header, Seal};
use roadstead_pool::format::label::{Found, Label};
use roadstead_pool::format::record::Record;
use uuid::Uuid;

use crate::{Input, yaml};

/// Labels, headers and journals of a drive that holds anything.
pub fn pool_format(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let copy = u32::from(input.u8());
    let rest = input.rest();
    if let Found::Label(label) = Label::decode(rest, copy) {
        let _ = label.geometry.check(label.geometry.media_bytes);
        let again = label.encode(copy);
        assert_eq!(Label::decode(again.as_bytes(), copy), Found::Label(label));
    }
    let id = Uuid::from_bytes(Input::new(rest).array());
    check_label(rest, copy);
    let _ = (Header::decode(rest), Seal::decode(rest, id));
    for log in [Log::Journal, Log::Checkpoint] {
        let _ = batch::seq_of_any(rest, log);
        let _ = batch::decode(rest, id, log).map(|batch| batch.records());
        // Noise has no right checksum: it gets one.
        let stamp = Stamp {
            id,
            log,
            seq: 1,
            durable_seq: 0,
        };
        let payload = rest.get(..rest.len().min(8192)).unwrap_or_default();
        let blocks = batch::encode(&stamp, payload);
        let found = batch::decode(blocks.as_bytes(), id, log);
        assert!(found.is_some(), "a batch that was written is not found");
        if let Some(Ok(records)) = found.map(|batch| batch.records()) {
            check_records(&records);
        }
    }
}

/// A label with noise in it and a right checksum.
fn check_label(bytes: &[u8], copy: u32) {
    let mut input = Input::new(bytes);
    let label = Label {
        pool_uuid: Uuid::from_bytes(input.array()),
        drive_uuid: Uuid::from_bytes(input.array()),
        owner: "node".to_owned(),
        generation: u64::from(input.u32()),
        created_unix_s: 0,
        geometry: Geometry {
            media_bytes: u64::from_le_bytes(input.array()),
            extent_bytes: u64::from_le_bytes(input.array()),
            data_offset: u64::from_le_bytes(input.array()),
            checkpoint_bytes: u64::from_le_bytes(input.array()),
            journal_bytes: u64::from_le_bytes(input.array()),
            extent_count: input.u32(),
            max_extents: input.u32(),
            max_volumes: input.u32(),
        },
    };
    let _ = label.geometry.check(label.geometry.media_bytes);
    let block = label.encode(copy);
    assert_eq!(
        Label::decode(block.as_bytes(), copy),
        Found::Label(Box::new(label))
    );
}

fn check_records(records: &[Record]) {
    for record in records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let mut rest = bytes.as_slice();
        let again = Record::decode(&mut rest);
        assert!(again.is_ok_and(|again| again == *record) && rest.is_empty());
    }
}

/// A configuration file that says anything.
pub fn config_yaml(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // A carriage return ends a line too.
    let lines = text.split(['\n', '\r']).count();
    match yaml::parse(&text) {
        Ok(node) => assert!(node.line <= lines + 1),
        Err(mistake) => assert!(!mistake.what.is_empty()),
    }
}
