//! Log pages (section 5.16) and the discovery log (section 5.16.1.23).

use zerocopy::little_endian::{U16, U32, U64, U128};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::AnaState;
use crate::nqn::{NQN_FIELD_BYTES, Nqn};
use crate::portal::{Portal, Transport};

/// Log page identifiers.
pub mod id {
    /// Supported log pages, 1024 bytes.
    pub const SUPPORTED: u8 = 0x00;
    /// Errors, 64 bytes an entry.
    pub const ERRORS: u8 = 0x01;
    /// Health, 512 bytes.
    pub const HEALTH: u8 = 0x02;
    /// Firmware slots, 512 bytes.
    pub const FIRMWARE_SLOTS: u8 = 0x03;
    /// Changed namespaces, 4096 bytes.
    pub const CHANGED_NAMESPACES: u8 = 0x04;
    /// Commands supported and their effects, 4096 bytes.
    pub const EFFECTS: u8 = 0x05;
    /// Features supported and the effects of setting them, 1024 bytes.
    pub const FEATURES: u8 = 0x12;
    /// Management commands supported, 4096 bytes.
    pub const MANAGEMENT: u8 = 0x13;
    /// ANA groups.
    pub const ANA: u8 = 0x0c;
    /// Discovery.
    pub const DISCOVERY: u8 = 0x70;
    /// Reservation notifications, 64 bytes, one at a time.
    pub const RESERVATION_NOTIFICATION: u8 = 0x80;
}

/// Bits of an entry of the log of supported log pages.
pub mod supported {
    /// The log page is supported.
    pub const LOG: u32 = 1;
    /// Offsets may be indices.
    pub const INDEX_OFFSET: u32 = 1 << 1;
    /// Discovery log: the parameter [`super::discovery_parameter::PORT_LOCAL`] is supported.
    pub const PORT_LOCAL: u32 = 1 << 17;
}

/// Bits of an entry of the log of features.
pub mod feature_effect {
    /// The feature is supported.
    pub const SUPPORTED: u32 = 1;
    /// Setting it changes blocks.
    pub const CHANGES_BLOCKS: u32 = 1 << 1;
    /// Setting it changes what a controller can do.
    pub const CHANGES_CONTROLLER: u32 = 1 << 4;
    /// It belongs to a namespace.
    pub const NAMESPACE: u32 = 1 << 20;
    /// It belongs to a controller.
    pub const CONTROLLER: u32 = 1 << 21;
}

/// Bits of an entry of the effects log.
pub mod effect {
    /// It concerns a namespace.
    pub const NAMESPACE: u32 = 1 << 20;
    /// It concerns a controller.
    pub const CONTROLLER: u32 = 1 << 21;
    /// It concerns the subsystem.
    pub const SUBSYSTEM: u32 = 1 << 25;
    /// The command is supported.
    pub const SUPPORTED: u32 = 1;
    /// It changes blocks.
    pub const CHANGES_BLOCKS: u32 = 1 << 1;
}

/// Most entries of the list of changed namespaces; when there are more, its first entry is 0xffffffff.
pub const CHANGED_NAMESPACES_MAX: usize = 1024;

/// Health (SMART) of the controller.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct HealthLog {
    /// Warnings.
    pub warnings: u8,
    /// Temperature, K.
    pub temperature: U16,
    /// Spare left, per cent.
    pub spare: u8,
    /// Warning threshold of it, per cent.
    pub spare_threshold: u8,
    /// Life used, per cent.
    pub used: u8,
    /// Endurance groups that are in danger.
    pub endurance_warnings: u8,
    /// Reserved.
    pub reserved7: [u8; 25],
    /// Read by hosts, in units of 1000 times 512 bytes, rounded up.
    pub units_read: U128,
    /// Written by hosts, in the same units.
    pub units_written: U128,
    /// Read commands.
    pub reads: U128,
    /// Write commands.
    pub writes: U128,
    /// Time with I/O under way, minutes.
    pub busy_minutes: U128,
    /// Times that the power was switched on.
    pub power_cycles: U128,
    /// Time with power, hours.
    pub power_on_hours: U128,
    /// Times that power went without a shutdown.
    pub unsafe_shutdowns: U128,
    /// Times that a medium lost data.
    pub media_errors: U128,
    /// Entries that the error log had, those that it forgot included.
    pub errors: U128,
    /// Times of high temperature, temperatures of sensors, reserved.
    pub reserved192: [u8; 320],
}

const _: () = assert!(size_of::<HealthLog>() == 512);

/// An entry of the error log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ErrorEntry {
    /// Which error it is since the controller was made, from 1; 0 in an empty entry.
    pub count: U64,
    /// Queue of the command.
    pub sqid: U16,
    /// The command.
    pub cid: U16,
    /// Status of its completion, as it stands there.
    pub status: U16,
    /// Where in the command the error is; [`Self::NOWHERE`] for no single place.
    pub location: U16,
    /// First block of the command.
    pub lba: U64,
    /// Its namespace.
    pub nsid: U32,
    /// Log page with more about it; 0 for none.
    pub vendor_log: u8,
    /// See [`transport`].
    pub transport: u8,
    /// I/O command set of the command.
    pub command_set: u8,
    /// Its opcode.
    pub opcode: u8,
    /// Command specific.
    pub command_specific: U64,
    /// Transport specific.
    pub transport_specific: U16,
    /// Reserved.
    pub reserved42: [u8; 21],
    /// Version of this layout: 1.
    pub version: u8,
}

const _: () = assert!(size_of::<ErrorEntry>() == 64);

impl ErrorEntry {
    /// `location`: the error has no single place.
    pub const NOWHERE: u16 = 0xffff;
}

/// Firmware slots.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct FirmwareLog {
    /// The slot in use, 1 to 7.
    pub active: u8,
    /// Reserved.
    pub reserved1: [u8; 7],
    /// Revisions, padded with blanks.
    pub revisions: [[u8; 8]; 7],
    /// Reserved.
    pub reserved64: [u8; 448],
}

const _: () = assert!(size_of::<FirmwareLog>() == 512);

/// Commands supported and their effects.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct EffectsLog {
    /// By opcode.
    pub admin: [U32; 256],
    /// By opcode.
    pub io: [U32; 256],
    /// Reserved.
    pub reserved: [u8; 2048],
}

const _: () = assert!(size_of::<EffectsLog>() == 4096);

impl EffectsLog {
    /// Nothing is supported.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }

    /// Marks a command.
    pub fn set(table: &mut [U32; 256], opcode: u8, effects: u32) {
        if let Some(entry) = table.get_mut(usize::from(opcode)) {
            *entry = U32::new(effects);
        }
    }
}

/// ANA states.
pub mod ana {
    /// Use this path.
    pub const OPTIMIZED: u8 = 0x01;
    /// Use this path if there is no better one.
    pub const NON_OPTIMIZED: u8 = 0x02;
    /// This path does not work now.
    pub const INACCESSIBLE: u8 = 0x03;
    /// This path will not work again.
    pub const PERSISTENT_LOSS: u8 = 0x04;
    /// The state is changing.
    pub const CHANGE: u8 = 0x0f;
}

/// Start of the ANA log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct AnaHeader {
    /// Counts changes.
    pub change_count: U64,
    /// Groups that follow.
    pub groups: U16,
    /// Reserved.
    pub reserved: [u8; 6],
}

const _: () = assert!(size_of::<AnaHeader>() == 16);

/// A group of the ANA log; the identifiers of its namespaces follow.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct AnaGroup {
    /// Group identifier.
    pub id: U32,
    /// Namespace identifiers that follow.
    pub namespaces: U32,
    /// Counts changes of this group.
    pub change_count: U64,
    /// See [`ana`].
    pub state: u8,
    /// Reserved.
    pub reserved: [u8; 15],
}

const _: () = assert!(size_of::<AnaGroup>() == 32);

impl AnaHeader {
    /// Log specific parameter: groups without the identifiers of their namespaces.
    pub const GROUPS_ONLY: u8 = 1;

    /// A header.
    #[must_use]
    pub fn new(change_count: u64, groups: u16) -> Self {
        Self {
            change_count: U64::new(change_count),
            groups: U16::new(groups),
            reserved: [0; 6],
        }
    }
}

impl AnaGroup {
    /// A group with this many namespace identifiers behind it.
    #[must_use]
    pub fn new(id: u32, namespaces: u32, change_count: u64, state: AnaState) -> Self {
        Self {
            id: U32::new(id),
            namespaces: U32::new(namespaces),
            change_count: U64::new(change_count),
            state: state.code(),
            reserved: [0; 15],
        }
    }
}

/// Start of the discovery log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct DiscoveryHeader {
    /// Counts changes.
    pub generation: U64,
    /// Records that follow.
    pub records: U64,
    /// Format of the records; 0.
    pub format: U16,
    /// Reserved.
    pub reserved: [u8; 1006],
}

const _: () = assert!(size_of::<DiscoveryHeader>() == 1024);

impl DiscoveryHeader {
    /// A header.
    #[must_use]
    pub fn new(generation: u64, records: u64) -> Self {
        Self {
            generation: U64::new(generation),
            records: U64::new(records),
            format: U16::ZERO,
            reserved: [0; 1006],
        }
    }
}

/// Transport types of discovery records.
pub mod transport {
    /// RDMA.
    pub const RDMA: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 3;
    /// Intra-host: no network.
    pub const LOCAL: u8 = 254;
}

/// The first three bytes of what RDMA says in discovery records (NVMe/RDMA transport specification, section 3.1).
pub mod rdma {
    /// Byte 0: reliable connected queue pairs.
    pub const CONNECTED: u8 = 1;
    /// Byte 1: any provider.
    pub const PROVIDER_UNSPECIFIED: u8 = 1;
    /// Byte 2: connections are made by RDMA_CM.
    pub const CONNECTION_MANAGER: u8 = 1;
}

/// Address families of discovery records.
pub mod family {
    /// IPv4.
    pub const IPV4: u8 = 1;
    /// IPv6.
    pub const IPV6: u8 = 2;
}

/// Subsystem types of discovery records.
pub mod subsystem_type {
    /// Another discovery service.
    pub const REFERRAL: u8 = 1;
    /// A subsystem with namespaces.
    pub const NVM: u8 = 2;
    /// The discovery service that answers.
    pub const CURRENT_DISCOVERY: u8 = 3;
}

/// Log specific parameters of the discovery log.
pub mod discovery_parameter {
    /// Only what is behind the port that the host reached.
    pub const PORT_LOCAL: u8 = 1 << 1;
}

/// A record of the discovery log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct DiscoveryRecord {
    /// See [`transport`].
    pub transport: u8,
    /// See [`family`].
    pub family: u8,
    /// See [`subsystem_type`].
    pub subsystem_type: u8,
    /// Requirements: bits 1:0 = 1 secure channel required, 2 not required; bit 2 flow control may be off.
    pub requirements: u8,
    /// Port of the subsystem.
    pub port: U16,
    /// 0xffff: the target chooses the controller.
    pub cntlid: U16,
    /// Most entries of the admin queue.
    pub admin_queue_entries: U16,
    /// Flags.
    pub flags: U16,
    /// Reserved.
    pub reserved12: [u8; 20],
    /// Port number in digits, padded with zeros.
    pub service: [u8; 32],
    /// Reserved.
    pub reserved64: [u8; 192],
    /// The subsystem's name.
    pub subsystem_nqn: [u8; NQN_FIELD_BYTES],
    /// Address in text, padded with zeros.
    pub address: [u8; 256],
    /// Of the transport; TCP: byte 0 is 0 for no security, 2 for TLS 1.3; RDMA: see [`rdma`].
    pub transport_specific: [u8; 256],
}

const _: () = assert!(size_of::<DiscoveryRecord>() == 1024);

impl DiscoveryRecord {
    /// `requirements`: flow control may be off.
    pub const NO_FLOW_CONTROL: u8 = 4;

    /// `flags`: this discovery service returns what the one returns that was asked.
    pub const SAME_INFORMATION: u16 = 1 << 0;
    /// `flags`: hosts may keep connections to this discovery service.
    pub const PERSISTENT: u16 = 1 << 1;

    /// A record for a portal without TLS.
    #[must_use]
    pub fn new(
        subsystem_type: u8,
        subsystem: &Nqn,
        portal: Portal,
        port_id: u16,
        queue_entries: u16,
    ) -> Self {
        let address = portal.address;
        let (transport, specific) = match portal.transport {
            // Security: none.
            Transport::Tcp => (transport::TCP, [0; 3]),
            Transport::Rdma => (
                transport::RDMA,
                [
                    rdma::CONNECTED,
                    rdma::PROVIDER_UNSPECIFIED,
                    rdma::CONNECTION_MANAGER,
                ],
            ),
            Transport::Local => (transport::LOCAL, [0; 3]),
        };
        let mut transport_specific = [0; 256];
        if let Some(start) = transport_specific.first_chunk_mut() {
            *start = specific;
        }
        Self {
            transport,
            family: if address.is_ipv4() {
                family::IPV4
            } else {
                family::IPV6
            },
            subsystem_type,
            // That TLS is not required would be the better word, but some hosts (libnvme 1.3) take it for TLS: nothing is
            // said here, and that there is none in `transport_specific`.
            requirements: Self::NO_FLOW_CONTROL,
            port: U16::new(port_id),
            cntlid: U16::new(crate::fabrics::CNTLID_DYNAMIC),
            admin_queue_entries: U16::new(queue_entries),
            flags: U16::ZERO,
            reserved12: [0; 20],
            service: crate::name::zero_padded(&address.port().to_string()),
            reserved64: [0; 192],
            subsystem_nqn: subsystem.to_field(),
            address: crate::name::zero_padded(&address.ip().to_string()),
            transport_specific,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn discovery_record() {
        let record = |portal: &str| {
            let nqn = Nqn::new("nqn.2026-11.io.roadstead:a").unwrap();
            DiscoveryRecord::new(subsystem_type::NVM, &nqn, portal.parse().unwrap(), 1, 32)
        };
        let over_rdma = record("rdma:10.1.2.3:4420");
        assert_eq!(over_rdma.as_bytes()[..4], [1, 1, 2, 4]);
        assert_eq!(over_rdma.transport_specific[..4], [1, 1, 1, 0]);
        let record = record("10.1.2.3:4420");
        let bytes = record.as_bytes();
        assert_eq!(bytes[..12], [3, 1, 2, 4, 1, 0, 0xff, 0xff, 32, 0, 0, 0]);
        assert_eq!(bytes[32..37], *b"4420\0");
        assert_eq!(bytes[256..266], *b"nqn.2026-1");
        assert_eq!(bytes[512..521], *b"10.1.2.3\0");
        assert_eq!(offset_of!(DiscoveryRecord, transport_specific), 768);
    }

    #[test]
    fn ana() {
        let header = AnaHeader::new(5, 1);
        assert_eq!(
            header.as_bytes(),
            [5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
        );
        let group = AnaGroup::new(3, 2, 7, AnaState::Change);
        assert_eq!(
            group.as_bytes()[..20],
            [
                3, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0x0f, 0, 0, 0
            ]
        );
    }

    #[test]
    fn fields_stand_where_the_specification_says() {
        assert_eq!(offset_of!(HealthLog, units_read), 32);
        assert_eq!(offset_of!(HealthLog, busy_minutes), 96);
        assert_eq!(offset_of!(HealthLog, power_on_hours), 128);
        assert_eq!(offset_of!(HealthLog, media_errors), 160);
        assert_eq!(offset_of!(HealthLog, errors), 176);
        assert_eq!(offset_of!(ErrorEntry, location), 14);
        assert_eq!(offset_of!(ErrorEntry, nsid), 24);
        assert_eq!(offset_of!(ErrorEntry, transport), 29);
        assert_eq!(offset_of!(ErrorEntry, opcode), 31);
        assert_eq!(offset_of!(ErrorEntry, transport_specific), 40);
        assert_eq!(offset_of!(ErrorEntry, version), 63);
    }

    #[test]
    fn effects() {
        let mut log = EffectsLog::zeroed();
        EffectsLog::set(&mut log.io, 1, effect::SUPPORTED | effect::CHANGES_BLOCKS);
        assert_eq!(log.as_bytes()[1028], 3);
    }
}
