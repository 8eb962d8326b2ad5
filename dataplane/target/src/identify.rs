//! Identify.

use roadstead_nvme::command::NSID_ALL;
use roadstead_nvme::identify::{
    CONTROLLERS_MAX, IdentifyController, IdentifyControllerNvm, IdentifyIndependentNamespace,
    IdentifyNamespace, LbaFormat, NamespaceDescriptor, cns, controller_type,
};
use roadstead_nvme::property::VERSION_2_0;
use roadstead_nvme::reservation;
use roadstead_nvme::wire::{CQE_BYTES, SQE_BYTES};
use roadstead_nvme::{Status, Transport, name};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use crate::controller::{Controller, Kind};
use crate::features;
use crate::limits;
use crate::registry::Registry;
use crate::table::{NAMESPACE_ID_MAX, Namespace, Namespaces};

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct What {
    pub(crate) cns: u8,
    pub(crate) cntlid: u16,
    pub(crate) nsid: u32,
    pub(crate) command_set: u8,
}

/// The I/O command set that exists here.
const NVM: u8 = 0;

/// Several ports, several controllers, ANA.
const MULTIPATH: u8 = 0b1011;
/// Every ANA state is reported, and no group is fixed to a namespace.
const ANA_CAPABILITIES: u8 = 0b1_1111;
/// One firmware slot, read only.
const ONE_FIRMWARE_SLOT: u8 = 0b11;
/// A write cache that Flush empties, for one namespace at a time.
const WRITE_CACHE: u8 = 0b101;
/// Temperatures that are never reached, K.
const TEMPERATURE_WARNING: u16 = 343;
const TEMPERATURE_CRITICAL: u16 = 353;
/// Deallocated blocks read as zeros; Write Zeroes deallocates.
const DEALLOCATION: u8 = 0b1001;
/// The hints for writes are valid.
const WRITE_HINTS: u8 = 1 << 4;
/// What drives like to write, bytes.
const WRITE_GRANULARITY_BYTES: u64 = 4096;
/// More than one controller may attach a namespace.
const SHARED: u8 = 1;

/// The 4096 bytes of an answer.
pub(crate) fn identify(
    registry: &Registry,
    controller: &Controller,
    what: What,
) -> Result<Vec<u8>, Status> {
    let controller_data = || identify_controller(controller, registry);
    if controller.identity().kind == Kind::Discovery {
        return match what.cns {
            cns::CONTROLLER => Ok(controller_data().as_bytes().to_vec()),
            _ => Err(Status::INVALID_FIELD.dnr()),
        };
    }
    let view = controller.lock().view.clone();
    let namespaces = &view.namespaces;
    let only_nvm = || {
        if what.command_set == NVM {
            Ok(())
        } else {
            Err(Status::INVALID_FIELD.dnr())
        }
    };
    match what.cns {
        cns::CONTROLLER => Ok(controller_data().as_bytes().to_vec()),
        cns::NAMESPACE | cns::ALLOCATED_NAMESPACE => match namespace(namespaces, what.nsid)? {
            Some(namespace) => {
                let is_lost = view.state(namespace).refusal().is_some();
                Ok(identify_namespace(namespace, is_lost).as_bytes().to_vec())
            }
            None => Ok(IdentifyNamespace::zeroed().as_bytes().to_vec()),
        },
        // Every namespace is attached to every controller: what is allocated is active.
        cns::ACTIVE_NAMESPACES | cns::ALLOCATED_NAMESPACES => active(namespaces, what.nsid),
        cns::NAMESPACE_DESCRIPTORS => {
            let namespace = existing(namespaces, what.nsid)?;
            let mut list = Vec::new();
            NamespaceDescriptor::Uuid(namespace.uuid.into_bytes()).write(&mut list);
            NamespaceDescriptor::CommandSet(NVM).write(&mut list);
            Ok(page(list))
        }
        cns::COMMAND_SET_NAMESPACE | cns::COMMAND_SET_ALLOCATED_NAMESPACE => {
            only_nvm()?;
            existing(namespaces, what.nsid)?;
            Ok(page(Vec::new()))
        }
        cns::COMMAND_SET_CONTROLLER => {
            only_nvm()?;
            let mut data = IdentifyControllerNvm::new_zeroed();
            data.write_zeroes_max = limits::WRITE_ZEROES_MAX_SHIFT;
            data.verify_max = limits::VERIFY_MAX_SHIFT;
            Ok(data.as_bytes().to_vec())
        }
        cns::COMMAND_SET_ACTIVE_NAMESPACES | cns::COMMAND_SET_ALLOCATED_NAMESPACES => {
            only_nvm()?;
            active(namespaces, what.nsid)
        }
        cns::INDEPENDENT_NAMESPACE => {
            let mut data = IdentifyIndependentNamespace::new_zeroed();
            let namespace = existing(namespaces, what.nsid)?;
            data.sharing = SHARED;
            data.ana_group = U32::new(namespace.ana_group);
            data.reservations = reservation::CAPABILITIES;
            data.attributes = u8::from(namespace.read_only);
            data.status = 1;
            Ok(data.as_bytes().to_vec())
        }
        cns::CONTROLLERS_OF_NAMESPACE => {
            existing(namespaces, what.nsid)?;
            Ok(controllers(registry, controller, what.cntlid))
        }
        cns::CONTROLLERS => Ok(controllers(registry, controller, what.cntlid)),
        cns::COMMAND_SETS => Ok(page(vec![1 << NVM])),
        _ => Err(Status::INVALID_FIELD.dnr()),
    }
}

/// The subsystem's controllers from an identifier on: their number, then their identifiers.
fn controllers(registry: &Registry, controller: &Controller, first: u16) -> Vec<u8> {
    let mut list = registry.cntlids(&controller.identity().subsystem, first);
    list.truncate(CONTROLLERS_MAX);
    let count = u16::try_from(list.len()).unwrap_or(u16::MAX);
    let numbers = std::iter::once(count).chain(list);
    page(numbers.flat_map(u16::to_le_bytes).collect())
}

/// Pads to what Identify returns.
fn page(mut data: Vec<u8>) -> Vec<u8> {
    data.resize(4096, 0);
    data
}

/// A namespace whose identifier is possible, if it exists.
fn namespace(namespaces: &Namespaces, nsid: u32) -> Result<Option<&Namespace>, Status> {
    if (1..=NAMESPACE_ID_MAX).contains(&nsid) {
        Ok(namespaces.get(&nsid))
    } else {
        Err(Status::INVALID_NAMESPACE.dnr())
    }
}

fn existing(namespaces: &Namespaces, nsid: u32) -> Result<&Namespace, Status> {
    namespace(namespaces, nsid)?.ok_or(Status::INVALID_NAMESPACE.dnr())
}

/// Identifiers above this one.
fn active(namespaces: &Namespaces, nsid: u32) -> Result<Vec<u8>, Status> {
    // The two highest identifiers are reserved.
    if nsid >= NSID_ALL - 1 {
        return Err(Status::INVALID_NAMESPACE.dnr());
    }
    let above = namespaces.range(nsid + 1..).take(1024);
    Ok(page(
        above.flat_map(|(nsid, _)| nsid.to_le_bytes()).collect(),
    ))
}

/// Through a path that does not work now the blocks in use are not known (section 8.1.3).
fn identify_namespace(namespace: &Namespace, is_lost: bool) -> IdentifyNamespace {
    let mut data = IdentifyNamespace::zeroed();
    let blocks = U64::new(namespace.blocks);
    data.size = blocks;
    data.capacity = blocks;
    data.used = if is_lost { U64::ZERO } else { blocks };
    data.ana_group = U32::new(namespace.ana_group);
    data.features = WRITE_HINTS;
    let granularity = WRITE_GRANULARITY_BYTES >> namespace.block_size.shift();
    let zero_based = U16::new(u16::try_from(granularity.saturating_sub(1)).unwrap_or(0));
    data.write_granularity = zero_based;
    data.write_alignment = zero_based;
    data.sharing = SHARED;
    data.reservations = reservation::CAPABILITIES;
    let in_blocks = |bytes: u32| bytes >> namespace.block_size.shift();
    let range = in_blocks(limits::COPY_RANGE_BYTES_MAX);
    data.copy_range_blocks_max = U16::new(u16::try_from(range).unwrap_or(u16::MAX));
    data.copy_blocks_max = U32::new(in_blocks(limits::COPY_BYTES_MAX));
    data.copy_ranges_max = u8::try_from(limits::COPY_RANGES_MAX - 1).unwrap_or(u8::MAX);
    data.deallocation = DEALLOCATION;
    data.attributes = u8::from(namespace.read_only);
    if let Some(epoch) = namespace.cache_epoch {
        data.cache_mark = IdentifyNamespace::CACHE_MARK;
        data.cache_epoch = epoch.into_bytes();
    }
    let [first, ..] = &mut data.lba_formats;
    *first = LbaFormat {
        metadata_bytes: U16::ZERO,
        data_shift: namespace.block_size.shift(),
        performance: 0,
    };
    data
}

fn identify_controller(controller: &Controller, registry: &Registry) -> IdentifyController {
    let identity = controller.identity();
    let mut data = IdentifyController::zeroed();
    data.serial = name::padded(&controller.lock().serial);
    data.model = name::padded("Roadstead");
    data.firmware = name::padded(env!("CARGO_PKG_VERSION"));
    data.transfer_max = limits::TRANSFER_MAX_SHIFT;
    data.cntlid = U16::new(identity.cntlid);
    data.version = U32::new(VERSION_2_0);
    data.attributes = U32::new(
        IdentifyController::CTRATT_HOST_IDENTIFIER_16
            | IdentifyController::CTRATT_TRAFFIC_KEEP_ALIVE,
    );
    data.events = U32::new(features::events(identity.kind));
    data.abort_limit = 3;
    data.event_limit = limits::EVENT_REQUESTS_MAX - 1;
    data.log_attributes = IdentifyController::LPA_EXTENDED | IdentifyController::LPA_SUPPORTED;
    data.keep_alive_granularity = U16::new(limits::KEEP_ALIVE_GRANULARITY_100MS);
    data.sqe_sizes = 0x66;
    data.cqe_sizes = 0x44;
    data.commands_max = U16::new(registry.limits().queue_entries_16());
    data.sgl = U32::new(
        IdentifyController::SGL_SUPPORTED
            | IdentifyController::SGL_OFFSET
            | match identity.local.transport {
                Transport::Tcp | Transport::Local => IdentifyController::SGL_TRANSPORT,
                Transport::Rdma => IdentifyController::SGL_KEYED,
            },
    );
    data.subsystem_nqn = identity.subsystem.to_field();
    data.sgl_descriptors = 1;
    match identity.kind {
        Kind::Discovery => {
            data.controller_type = controller_type::DISCOVERY;
        }
        Kind::Io => {
            data.instance = identity.instance;
            data.instance_random = U64::new(identity.instance_random);
            io_fields(&mut data, identity.local.transport);
        }
    }
    data
}

fn io_fields(data: &mut IdentifyController, transport: Transport) {
    data.controller_type = controller_type::IO;
    data.multipath = MULTIPATH;
    data.log_attributes |= IdentifyController::LPA_EFFECTS;
    data.error_log_entries = limits::ERROR_ENTRIES_ZERO_BASED;
    data.ana_transition_s = limits::ANA_TRANSITION_S;
    data.ana_capabilities = ANA_CAPABILITIES;
    data.ana_group_max = U32::new(limits::ANA_GROUPS_MAX);
    data.ana_groups = U32::new(limits::ANA_GROUPS_MAX);
    data.firmware_updates = ONE_FIRMWARE_SLOT;
    data.temperature_warning = U16::new(TEMPERATURE_WARNING);
    data.temperature_critical = U16::new(TEMPERATURE_CRITICAL);
    data.namespace_max = U32::new(NAMESPACE_ID_MAX);
    data.namespaces_allowed = U32::new(NAMESPACE_ID_MAX);
    data.io_commands = U16::new(
        IdentifyController::ONCS_COMPARE
            | IdentifyController::ONCS_DATASET_MANAGEMENT
            | IdentifyController::ONCS_WRITE_ZEROES
            | IdentifyController::ONCS_SAVE_AND_SELECT
            | IdentifyController::ONCS_RESERVATIONS
            | IdentifyController::ONCS_VERIFY
            | IdentifyController::ONCS_COPY
            | IdentifyController::ONCS_NAMESPACE_ZEROES,
    );
    // Atomic is one block and no more, which zeroes in the fields of atomicity say.
    data.fused = U16::new(IdentifyController::FUSED_COMPARE_WRITE);
    data.copy_formats = U16::new(1);
    data.write_cache = WRITE_CACHE;
    data.cross_controller_resets = limits::CROSS_CONTROLLER_RESETS_MAX;
    data.fabrics_commands = U16::new(IdentifyController::OFCS_DISCONNECT);
    let in_16_bytes = |bytes: usize| U32::new(u32::try_from(bytes / 16).unwrap_or(u32::MAX));
    let in_capsule = match transport {
        Transport::Tcp | Transport::Local => limits::IN_CAPSULE_BYTES_MAX,
        Transport::Rdma => limits::RDMA_IN_CAPSULE_BYTES_MAX,
    };
    let in_capsule = usize::try_from(in_capsule).unwrap_or(0);
    data.io_command_capsule = in_16_bytes(SQE_BYTES + in_capsule);
    data.io_response_capsule = in_16_bytes(CQE_BYTES);
}
