//! Reservation Report.

use roadstead_nvme::reservation::{EXTENDED_HEADER_BYTES, ExtendedRegistrant, ReportHeader};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::state::State;

/// Controllers are dynamic: entries stand for hosts.
const ANY_CONTROLLER: u16 = 0xffff;

impl State {
    /// The extended report, whole.
    pub(crate) fn report(&self) -> Vec<u8> {
        let header = ReportHeader {
            generation: U32::new(self.generation),
            kind: self.held.map_or(0, |held| held.kind.code()),
            registered: U16::new(u16::try_from(self.registrants.len()).unwrap_or(u16::MAX)),
            reserved7: [0; 2],
            persist: u8::from(self.persist),
            reserved10: [0; 14],
        };
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(EXTENDED_HEADER_BYTES, 0);
        for (host, key) in &self.registrants {
            let entry = ExtendedRegistrant {
                cntlid: U16::new(ANY_CONTROLLER),
                status: u8::from(self.holds(*host)),
                reserved3: [0; 5],
                key: U64::new(*key),
                host_id: *host,
                reserved32: [0; 32],
            };
            bytes.extend_from_slice(entry.as_bytes());
        }
        bytes
    }
}
