//! Data structures of Identify (section 5.17 and the NVM Command Set specification section 4.1.5).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of every structure of Identify.
pub const IDENTIFY_BYTES: u32 = 4096;

/// What Identify asks for (CNS).
pub mod cns {
    /// A namespace.
    pub const NAMESPACE: u8 = 0x00;
    /// The controller.
    pub const CONTROLLER: u8 = 0x01;
    /// Active namespaces.
    pub const ACTIVE_NAMESPACES: u8 = 0x02;
    /// Names of a namespace.
    pub const NAMESPACE_DESCRIPTORS: u8 = 0x03;
    /// A namespace, for one command set.
    pub const COMMAND_SET_NAMESPACE: u8 = 0x05;
    /// The controller, for one command set.
    pub const COMMAND_SET_CONTROLLER: u8 = 0x06;
    /// Active namespaces of one command set.
    pub const COMMAND_SET_ACTIVE_NAMESPACES: u8 = 0x07;
    /// A namespace, whatever its command set.
    pub const INDEPENDENT_NAMESPACE: u8 = 0x08;
    /// Allocated namespaces.
    pub const ALLOCATED_NAMESPACES: u8 = 0x10;
    /// An allocated namespace.
    pub const ALLOCATED_NAMESPACE: u8 = 0x11;
    /// Controllers that have a namespace.
    pub const CONTROLLERS_OF_NAMESPACE: u8 = 0x12;
    /// Controllers of the subsystem.
    pub const CONTROLLERS: u8 = 0x13;
    /// Allocated namespaces of one command set.
    pub const COMMAND_SET_ALLOCATED_NAMESPACES: u8 = 0x1a;
    /// An allocated namespace, for one command set.
    pub const COMMAND_SET_ALLOCATED_NAMESPACE: u8 = 0x1b;
    /// Command sets.
    pub const COMMAND_SETS: u8 = 0x1c;
}

/// Controller types.
pub mod controller_type {
    /// An I/O controller.
    pub const IO: u8 = 1;
    /// A discovery controller.
    pub const DISCOVERY: u8 = 2;
}

/// Most entries of a list of controllers, which begins with their number.
pub const CONTROLLERS_MAX: usize = 2047;

/// Identify Controller. Fields that fabrics controllers of this project never use are reserved here.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI vendor.
    pub vendor: U16,
    /// PCI subsystem vendor.
    pub subsystem_vendor: U16,
    /// Serial number, padded with blanks.
    pub serial: [u8; 20],
    /// Model, padded with blanks.
    pub model: [u8; 40],
    /// Firmware revision, padded with blanks.
    pub firmware: [u8; 8],
    /// Recommended arbitration burst.
    pub arbitration_burst: u8,
    /// IEEE OUI.
    pub oui: [u8; 3],
    /// Multipath: bit 0 several ports, bit 1 several controllers, bit 3 ANA.
    pub multipath: u8,
    /// Most bytes of a data transfer: a power of two of the smallest page; 0 for no limit.
    pub transfer_max: u8,
    /// Controller identifier.
    pub cntlid: U16,
    /// Version.
    pub version: U32,
    /// Time to resume, us.
    pub resume_us: U32,
    /// Time to enter, us.
    pub entry_us: U32,
    /// Asynchronous events supported, see [`crate::event::mask`].
    pub events: U32,
    /// Controller attributes: bit 0 host identifiers of 16 bytes, bit 6 keep alive by traffic.
    pub attributes: U32,
    /// Reserved.
    pub reserved100: [u8; 11],
    /// See [`controller_type`].
    pub controller_type: u8,
    /// Reserved.
    pub reserved112: [u8; 23],
    /// Tells this controller from earlier ones with its identifier; 0: not told (base specification 2.3).
    pub instance: u8,
    /// A random number, for the same.
    pub instance_random: U64,
    /// Reserved.
    pub reserved144: [u8; 112],
    /// Optional admin commands.
    pub admin_commands: U16,
    /// Aborts in flight, zero's based.
    pub abort_limit: u8,
    /// Asynchronous Event Requests held, zero's based.
    pub event_limit: u8,
    /// Firmware updates: bit 0 first slot read only, bits 3:1 number of slots.
    pub firmware_updates: u8,
    /// Log page attributes: bit 1 effects log, bit 2 extended data.
    pub log_attributes: u8,
    /// Entries of the error log, zero's based.
    pub error_log_entries: u8,
    /// Power states, zero's based.
    pub power_states: u8,
    /// Reserved.
    pub reserved264: [u8; 2],
    /// Warning temperature, K.
    pub temperature_warning: U16,
    /// Critical temperature, K.
    pub temperature_critical: U16,
    /// Reserved.
    pub reserved270: [u8; 50],
    /// Granularity of the keep alive timer, 100 ms.
    pub keep_alive_granularity: U16,
    /// Reserved.
    pub reserved322: [u8; 20],
    /// ANA transition time, s.
    pub ana_transition_s: u8,
    /// ANA capabilities.
    pub ana_capabilities: u8,
    /// Largest ANA group identifier.
    pub ana_group_max: U32,
    /// Number of ANA groups.
    pub ana_groups: U32,
    /// Reserved.
    pub reserved352: [u8; 160],
    /// Submission queue entry sizes: 0x66 for 64 bytes.
    pub sqe_sizes: u8,
    /// Completion queue entry sizes: 0x44 for 16 bytes.
    pub cqe_sizes: u8,
    /// Commands that may be outstanding on a queue.
    pub commands_max: U16,
    /// Largest namespace identifier.
    pub namespace_max: U32,
    /// Optional I/O commands, see the constants.
    pub io_commands: U16,
    /// Fused operations: bit 0 Compare and Write.
    pub fused: U16,
    /// Format attributes.
    pub format: u8,
    /// Volatile write cache: bit 0 present, bits 2:1 = 3 Flush takes the broadcast identifier, 2 it does not.
    pub write_cache: u8,
    /// Atomic write unit, blocks, zero's based.
    pub atomic_write: U16,
    /// Atomic write unit at a power failure, blocks, zero's based.
    pub atomic_write_power_fail: U16,
    /// Reserved.
    pub reserved530: [u8; 2],
    /// Atomic unit of Compare and Write, blocks, zero's based.
    pub atomic_compare_write: U16,
    /// Formats of the source ranges of Copy, by bit.
    pub copy_formats: U16,
    /// Scatter gather list support, see the constants.
    pub sgl: U32,
    /// Most namespaces allowed.
    pub namespaces_allowed: U32,
    /// Reserved.
    pub reserved544: [u8; 224],
    /// The subsystem's name, padded with zeros.
    pub subsystem_nqn: [u8; 256],
    /// Reserved.
    pub reserved1024: [u8; 768],
    /// Command capsule of I/O queues, 16 bytes.
    pub io_command_capsule: U32,
    /// Response capsule of I/O queues, 16 bytes.
    pub io_response_capsule: U32,
    /// Offset of in-capsule data, 16 bytes.
    pub in_capsule_offset: U16,
    /// Fabrics controller attributes: bit 0 static controllers.
    pub fabrics_attributes: u8,
    /// Most SGL data block descriptors in a capsule.
    pub sgl_descriptors: u8,
    /// Optional fabrics commands: bit 0 Disconnect.
    pub fabrics_commands: U16,
    /// Reserved: type of a discovery controller.
    pub reserved1806: u8,
    /// Cross-Controller Resets that may be in progress; 0: there are none (base specification 2.3).
    pub cross_controller_resets: u8,
    /// Reserved.
    pub reserved1808: [u8; 240],
    /// Power state descriptors, then vendor specific bytes.
    pub reserved2048: [u8; 2048],
}

const _: () = assert!(size_of::<IdentifyController>() == 4096);

impl IdentifyController {
    /// `io_commands`: Compare.
    pub const ONCS_COMPARE: u16 = 1 << 0;
    /// `io_commands`: Dataset Management.
    pub const ONCS_DATASET_MANAGEMENT: u16 = 1 << 2;
    /// `io_commands`: Write Zeroes.
    pub const ONCS_WRITE_ZEROES: u16 = 1 << 3;
    /// `io_commands`: Get Features can select, Set Features can save.
    pub const ONCS_SAVE_AND_SELECT: u16 = 1 << 4;
    /// `attributes`: host identifiers of 16 bytes.
    pub const CTRATT_HOST_IDENTIFIER_16: u32 = 1 << 0;
    /// `attributes`: every command keeps the controller alive.
    pub const CTRATT_TRAFFIC_KEEP_ALIVE: u32 = 1 << 6;
    /// `log_attributes`: the effects log.
    pub const LPA_EFFECTS: u8 = 1 << 1;
    /// `log_attributes`: lengths of 32 and offsets of 64 bits.
    pub const LPA_EXTENDED: u8 = 1 << 2;
    /// `log_attributes`: the logs of supported log pages, of features and of management commands, and scopes in the
    /// effects log.
    pub const LPA_SUPPORTED: u8 = 1 << 5;
    /// `fabrics_commands`: Disconnect.
    pub const OFCS_DISCONNECT: u16 = 1 << 0;
    /// `io_commands`: Reservations.
    pub const ONCS_RESERVATIONS: u16 = 1 << 5;
    /// `io_commands`: Verify.
    pub const ONCS_VERIFY: u16 = 1 << 7;
    /// `io_commands`: Copy.
    pub const ONCS_COPY: u16 = 1 << 8;
    /// `io_commands`: Write Zeroes of a whole namespace.
    pub const ONCS_NAMESPACE_ZEROES: u16 = 1 << 11;
    /// `fused`: Compare and Write.
    pub const FUSED_COMPARE_WRITE: u16 = 1 << 0;
    /// `sgl`: supported, without alignment.
    pub const SGL_SUPPORTED: u32 = 1;
    /// `sgl`: keyed data blocks.
    pub const SGL_KEYED: u32 = 1 << 2;
    /// `sgl`: offset addresses in the capsule.
    pub const SGL_OFFSET: u32 = 1 << 20;
    /// `sgl`: the transport's data block.
    pub const SGL_TRANSPORT: u32 = 1 << 21;

    /// All zeros.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }
}

/// Identify Namespace of the NVM command set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Size, blocks.
    pub size: U64,
    /// Capacity, blocks.
    pub capacity: U64,
    /// Blocks in use.
    pub used: U64,
    /// Features: bit 0 thin, bit 4 the hints of write sizes are valid.
    pub features: u8,
    /// Formats, zero's based.
    pub formats: u8,
    /// The format in use.
    pub format: u8,
    /// Metadata capabilities.
    pub metadata: u8,
    /// Protection capabilities.
    pub protection: u8,
    /// Protection in use.
    pub protection_settings: u8,
    /// Bit 0: more than one controller may attach it.
    pub sharing: u8,
    /// Reservation capabilities, see [`crate::reservation::CAPABILITIES`].
    pub reservations: u8,
    /// Format progress.
    pub format_progress: u8,
    /// Deallocation: bits 2:0 = 1 deallocated blocks read as zeros, bit 3 Write Zeroes may deallocate.
    pub deallocation: u8,
    /// Atomicity of single blocks and boundaries.
    pub atomicity: [u8; 12],
    /// Optimal I/O boundary, blocks.
    pub optimal_boundary: U16,
    /// Size of all media, bytes.
    pub media_bytes: [u8; 16],
    /// Preferred write granularity, blocks, zero's based.
    pub write_granularity: U16,
    /// Preferred write alignment, blocks, zero's based.
    pub write_alignment: U16,
    /// Preferred deallocation granularity, blocks, zero's based.
    pub deallocate_granularity: U16,
    /// Preferred deallocation alignment, blocks, zero's based.
    pub deallocate_alignment: U16,
    /// Optimal write size, blocks, zero's based.
    pub optimal_write: U16,
    /// Most blocks of a source range of Copy.
    pub copy_range_blocks_max: U16,
    /// Most blocks of a Copy.
    pub copy_blocks_max: U32,
    /// Most source ranges of a Copy, zero's based.
    pub copy_ranges_max: u8,
    /// Reserved.
    pub reserved81: [u8; 11],
    /// ANA group.
    pub ana_group: U32,
    /// Reserved.
    pub reserved96: [u8; 3],
    /// Bit 0: write protected.
    pub attributes: u8,
    /// NVM set.
    pub nvm_set: U16,
    /// Endurance group.
    pub endurance_group: U16,
    /// Globally unique identifier.
    pub nguid: [u8; 16],
    /// IEEE identifier.
    pub eui64: [u8; 8],
    /// Formats.
    pub lba_formats: [LbaFormat; 64],
    /// Vendor specific; with [`Self::CACHE_MARK`], [`Self::cache_epoch`] is valid.
    pub cache_mark: [u8; 8],
    /// Vendor specific, ours: see [`Self::cache_epoch`].
    pub cache_epoch: [u8; 16],
    /// Vendor specific.
    pub vendor: [u8; 3688],
}

const _: () = assert!(size_of::<IdentifyNamespace>() == 4096);

impl IdentifyNamespace {
    /// Says that the bytes behind it are ours, and no other vendor's.
    pub const CACHE_MARK: [u8; 8] = *b"RSTDCACH";

    /// A value that changes whenever data that was acknowledged, and that no flush has covered, may have been lost with a
    /// volatile cache; `None` from targets of others. No specification has it; NFS knows the same as the write verifier
    /// (RFC 1813, section 3.3.7).
    #[must_use]
    pub fn cache_epoch(&self) -> Option<[u8; 16]> {
        (self.cache_mark == Self::CACHE_MARK).then_some(self.cache_epoch)
    }
}

/// A format of blocks.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct LbaFormat {
    /// Metadata bytes of a block.
    pub metadata_bytes: U16,
    /// Data bytes of a block, as power of two.
    pub data_shift: u8,
    /// Relative performance; 0 is best.
    pub performance: u8,
}

impl IdentifyNamespace {
    /// All zeros: what an inactive namespace looks like.
    #[must_use]
    pub fn zeroed() -> Self {
        Self::new_zeroed()
    }

    /// The exponent of the block size in use; none when the format in use does not exist or has metadata.
    #[must_use]
    pub fn block_shift(&self) -> Option<u32> {
        let index = usize::from(self.format & 0xf) | usize::from(self.format >> 1 & 0x30);
        let format = self.lba_formats.get(index)?;
        let usable = format.metadata_bytes.get() == 0 && (9..=16).contains(&format.data_shift);
        usable.then_some(u32::from(format.data_shift))
    }
}

/// Identify Controller for the NVM command set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct IdentifyControllerNvm {
    /// Verify size limit, power of two of the smallest page.
    pub verify_max: u8,
    /// Write Zeroes size limit, power of two of the smallest page; 0 for none.
    pub write_zeroes_max: u8,
    /// Write Uncorrectable size limit.
    pub write_uncorrectable_max: u8,
    /// Ranges of Dataset Management; 0 for 256.
    pub ranges_max: u8,
    /// Blocks of one range; 0 for no limit.
    pub range_blocks_max: U32,
    /// Blocks of all ranges; 0 for no limit.
    pub ranges_blocks_max: U64,
    /// Reserved.
    pub reserved16: [u8; 4080],
}

const _: () = assert!(size_of::<IdentifyControllerNvm>() == 4096);

/// Identify Namespace, independent of the command set.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct IdentifyIndependentNamespace {
    /// Features.
    pub features: u8,
    /// Bit 0: more than one controller may attach it.
    pub sharing: u8,
    /// Reservation capabilities.
    pub reservations: u8,
    /// Format progress.
    pub format_progress: u8,
    /// ANA group.
    pub ana_group: U32,
    /// Bit 0: write protected.
    pub attributes: u8,
    /// Reserved.
    pub reserved9: u8,
    /// NVM set.
    pub nvm_set: U16,
    /// Endurance group.
    pub endurance_group: U16,
    /// Bit 0: ready.
    pub status: u8,
    /// Reserved.
    pub reserved15: [u8; 4081],
}

const _: () = assert!(size_of::<IdentifyIndependentNamespace>() == 4096);

/// A name of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamespaceDescriptor {
    /// IEEE extended unique identifier.
    Eui64([u8; 8]),
    /// Globally unique identifier.
    Nguid([u8; 16]),
    /// UUID, in the order in which it is written.
    Uuid([u8; 16]),
    /// I/O command set; 0 is NVM.
    CommandSet(u8),
}

impl NamespaceDescriptor {
    /// Appends the descriptor to a list.
    pub fn write(&self, list: &mut Vec<u8>) {
        let (kind, name): (u8, &[u8]) = match self {
            Self::Eui64(name) => (1, name),
            Self::Nguid(name) => (2, name),
            Self::Uuid(name) => (3, name),
            Self::CommandSet(set) => (4, core::slice::from_ref(set)),
        };
        let length = u8::try_from(name.len()).unwrap_or(u8::MAX);
        list.extend_from_slice(&[kind, length, 0, 0]);
        list.extend_from_slice(name);
    }

    /// The descriptors in a list; unknown ones are skipped, and what is cut off ends the list.
    #[must_use]
    pub fn read_list(mut list: &[u8]) -> Vec<Self> {
        let mut found = Vec::new();
        while let Some((&[kind, length, _, _], rest)) = list.split_first_chunk() {
            let Some((name, rest)) = rest.split_at_checked(usize::from(length)) else {
                break;
            };
            if length == 0 {
                break;
            }
            let descriptor = match kind {
                1 => name.try_into().ok().map(Self::Eui64),
                2 => name.try_into().ok().map(Self::Nguid),
                3 => name.try_into().ok().map(Self::Uuid),
                4 => name.first().copied().map(Self::CommandSet),
                _ => None,
            };
            found.extend(descriptor);
            list = rest;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_stand_where_the_specification_says() {
        assert_eq!(offset_of!(IdentifyController, transfer_max), 77);
        assert_eq!(offset_of!(IdentifyController, controller_type), 111);
        assert_eq!(offset_of!(IdentifyController, admin_commands), 256);
        assert_eq!(offset_of!(IdentifyController, temperature_warning), 266);
        assert_eq!(offset_of!(IdentifyController, keep_alive_granularity), 320);
        assert_eq!(offset_of!(IdentifyController, ana_transition_s), 342);
        assert_eq!(offset_of!(IdentifyController, ana_groups), 348);
        assert_eq!(offset_of!(IdentifyController, sqe_sizes), 512);
        assert_eq!(offset_of!(IdentifyController, io_commands), 520);
        assert_eq!(offset_of!(IdentifyController, write_cache), 525);
        assert_eq!(offset_of!(IdentifyController, sgl), 536);
        assert_eq!(offset_of!(IdentifyController, namespaces_allowed), 540);
        assert_eq!(offset_of!(IdentifyController, subsystem_nqn), 768);
        assert_eq!(offset_of!(IdentifyController, io_command_capsule), 1792);
        assert_eq!(offset_of!(IdentifyController, fabrics_commands), 1804);
        assert_eq!(offset_of!(IdentifyNamespace, deallocation), 33);
        assert_eq!(offset_of!(IdentifyNamespace, optimal_boundary), 46);
        assert_eq!(offset_of!(IdentifyNamespace, write_granularity), 64);
        assert_eq!(offset_of!(IdentifyNamespace, ana_group), 92);
        assert_eq!(offset_of!(IdentifyNamespace, attributes), 99);
        assert_eq!(offset_of!(IdentifyNamespace, nguid), 104);
        assert_eq!(offset_of!(IdentifyNamespace, lba_formats), 128);
        assert_eq!(offset_of!(IdentifyControllerNvm, ranges_blocks_max), 8);
        assert_eq!(offset_of!(IdentifyIndependentNamespace, status), 14);
        assert_eq!(offset_of!(IdentifyController, atomic_compare_write), 532);
        assert_eq!(offset_of!(IdentifyController, copy_formats), 534);
        assert_eq!(offset_of!(IdentifyNamespace, copy_range_blocks_max), 74);
        assert_eq!(offset_of!(IdentifyNamespace, copy_ranges_max), 80);
        assert_eq!(offset_of!(IdentifyNamespace, ana_group), 92);
    }

    #[test]
    fn descriptors_round_trip() {
        let all = vec![
            NamespaceDescriptor::Uuid([3; 16]),
            NamespaceDescriptor::Eui64([1; 8]),
            NamespaceDescriptor::Nguid([2; 16]),
            NamespaceDescriptor::CommandSet(0),
        ];
        let mut list = Vec::new();
        for descriptor in &all {
            descriptor.write(&mut list);
        }
        list.resize(4096, 0);
        assert_eq!(NamespaceDescriptor::read_list(&list), all);
        assert_eq!(NamespaceDescriptor::read_list(&list[..30]), all[..1]);
        assert_eq!(
            NamespaceDescriptor::read_list(&[9, 2, 0, 0, 1, 1, 4, 1, 0, 0, 7]),
            [NamespaceDescriptor::CommandSet(7)]
        );
    }

    #[test]
    fn block_sizes() {
        let mut namespace = IdentifyNamespace::zeroed();
        assert_eq!(namespace.block_shift(), None);
        namespace.lba_formats[1].data_shift = 12;
        namespace.format = 1;
        assert_eq!(namespace.block_shift(), Some(12));
        namespace.lba_formats[1].metadata_bytes = U16::new(8);
        assert_eq!(namespace.block_shift(), None);
    }
}
