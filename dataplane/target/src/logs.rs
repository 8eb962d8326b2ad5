//! Get Log Page (section 5.16).

use roadstead_nvme::command::{GetLogPage, NSID_ALL};
use roadstead_nvme::event::mask;
use roadstead_nvme::feature::id::NUMBER_OF_QUEUES;
use roadstead_nvme::log::{
    AnaHeader, EffectsLog, FirmwareLog, HealthLog, effect, feature_effect, id, supported,
};
use roadstead_nvme::{Status, name, opcode};
use zerocopy::little_endian::{U16, U32, U128};
use zerocopy::{FromZeros, IntoBytes};

use crate::controller::{Controller, Kind};
use crate::events::RESERVATION_LOG;
use crate::features;
use crate::limits;
use crate::registry::Registry;
use crate::reservation_features;

/// 300 K.
const TEMPERATURE: u16 = 300;
/// The unit of data read and written in the health log.
const HEALTH_UNIT_BYTES: u64 = 512 * 1000;
const HOUR_MS: u64 = 3_600_000;

/// The log pages that a kind of controller has.
fn known(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Discovery => &[id::SUPPORTED, id::FEATURES, id::DISCOVERY],
        Kind::Io => &[
            id::SUPPORTED,
            id::ERRORS,
            id::HEALTH,
            id::FIRMWARE_SLOTS,
            id::CHANGED_NAMESPACES,
            id::EFFECTS,
            id::ANA,
            id::RESERVATION_NOTIFICATION,
            id::FEATURES,
            id::MANAGEMENT,
        ],
    }
}

/// A log page, whole.
pub(crate) fn page(
    registry: &Registry,
    controller: &Controller,
    page: GetLogPage,
    now_ms: u64,
) -> Result<Vec<u8>, Status> {
    let kind = controller.identity().kind;
    if !known(kind).contains(&page.id) {
        return Err(Status::INVALID_LOG_PAGE.dnr());
    }
    if page.nsid != 0 && page.nsid != NSID_ALL {
        return Err(Status::INVALID_FIELD.dnr());
    }
    let rearm = |event| {
        if !page.retain_event {
            controller.lock().events.rearm(event);
        }
    };
    Ok(match page.id {
        id::SUPPORTED => supported_logs(kind),
        id::FEATURES => supported_features(kind),
        id::DISCOVERY => {
            rearm(mask::DISCOVERY_LOG);
            registry.discovery_log(controller, page.parameter)
        }
        id::ERRORS => controller.lock().errors.page(),
        id::HEALTH => health(registry, controller, now_ms).as_bytes().to_vec(),
        id::FIRMWARE_SLOTS => {
            let mut log = FirmwareLog::new_zeroed();
            log.active = 1;
            let [first, ..] = &mut log.revisions;
            *first = name::padded(env!("CARGO_PKG_VERSION"));
            log.as_bytes().to_vec()
        }
        id::CHANGED_NAMESPACES => {
            rearm(mask::NAMESPACE_ATTRIBUTES);
            let changed = controller.lock().events.changed(page.retain_event);
            let mut list: Vec<u8> = changed.into_iter().flat_map(u32::to_le_bytes).collect();
            list.resize(4096, 0);
            list
        }
        id::ANA => {
            rearm(mask::ANA_CHANGE);
            let state = controller.lock();
            let groups_only = page.parameter & AnaHeader::GROUPS_ONLY != 0;
            state.ana_counts.log(&state.view, groups_only)
        }
        id::RESERVATION_NOTIFICATION => {
            rearm(RESERVATION_LOG);
            let log = controller.lock().notices.log(page.retain_event);
            log.as_bytes().to_vec()
        }
        id::EFFECTS => effects().as_bytes().to_vec(),
        // There is no management endpoint.
        id::MANAGEMENT => vec![0; 4096],
        _ => return Err(Status::INVALID_LOG_PAGE.dnr()),
    })
}

/// The bytes of a log that are asked for, padded with zeros.
pub(crate) fn part(log: Vec<u8>, page: GetLogPage) -> Result<Vec<u8>, Status> {
    let offset = usize::try_from(page.offset).map_err(|_| Status::INVALID_FIELD.dnr())?;
    let length = u32::try_from(page.length)
        .ok()
        .filter(|length| *length <= limits::TRANSFER_BYTES_MAX);
    let length = length
        .and_then(|length| usize::try_from(length).ok())
        .ok_or(Status::INVALID_FIELD.dnr())?;
    let rest = log.get(offset..).ok_or(Status::INVALID_FIELD.dnr())?;
    let mut part = rest.get(..length).unwrap_or(rest).to_vec();
    part.resize(length, 0);
    Ok(part)
}

/// Entries of 4 bytes, by number.
fn table(entries: impl IntoIterator<Item = (u8, u32)>) -> Vec<u8> {
    let mut table = [U32::ZERO; 256];
    for (number, bits) in entries {
        EffectsLog::set(&mut table, number, bits);
    }
    table.as_bytes().to_vec()
}

fn supported_logs(kind: Kind) -> Vec<u8> {
    table(known(kind).iter().map(|&log| {
        let own = match log {
            id::DISCOVERY => supported::PORT_LOCAL,
            _ => 0,
        };
        (log, supported::LOG | own)
    }))
}

fn supported_features(kind: Kind) -> Vec<u8> {
    let bits = |feature| {
        let own = match feature {
            NUMBER_OF_QUEUES => feature_effect::CHANGES_CONTROLLER,
            _ => 0,
        };
        let scope = if reservation_features::has(feature) {
            feature_effect::NAMESPACE
        } else {
            feature_effect::CONTROLLER
        };
        feature_effect::SUPPORTED | scope | own
    };
    table(features::supported(kind).iter().map(|&id| (id, bits(id))))
}

/// The health of the subsystem: what all its controllers did since the target's start.
fn health(registry: &Registry, controller: &Controller, now_ms: u64) -> HealthLog {
    let totals = registry.totals(&controller.identity().subsystem);
    let units = |bytes: u64| U128::new(u128::from(bytes.div_ceil(HEALTH_UNIT_BYTES)));
    let count = |count: u64| U128::new(u128::from(count));
    let mut log = HealthLog::new_zeroed();
    log.temperature = U16::new(TEMPERATURE);
    log.spare = 100;
    log.units_read = units(totals.read_bytes);
    log.units_written = units(totals.written_bytes);
    log.reads = count(totals.reads);
    log.writes = count(totals.writes);
    log.power_cycles = count(1);
    log.power_on_hours = count(now_ms / HOUR_MS);
    let state = controller.lock();
    log.media_errors = count(state.errors.media_errors);
    log.errors = count(state.errors.count);
    log
}

fn effects() -> EffectsLog {
    let mut log = EffectsLog::zeroed();
    for opcode in [
        opcode::admin::GET_LOG_PAGE,
        opcode::admin::IDENTIFY,
        opcode::admin::ABORT,
        opcode::admin::SET_FEATURES,
        opcode::admin::GET_FEATURES,
        opcode::admin::ASYNC_EVENT,
        opcode::admin::KEEP_ALIVE,
        opcode::admin::CROSS_CONTROLLER_RESET,
    ] {
        let effects = effect::SUPPORTED | effect::CONTROLLER;
        EffectsLog::set(&mut log.admin, opcode, effects);
    }
    for opcode in [
        opcode::io::READ,
        opcode::io::FLUSH,
        opcode::io::COMPARE,
        opcode::io::VERIFY,
        opcode::io::RESERVATION_REGISTER,
        opcode::io::RESERVATION_REPORT,
        opcode::io::RESERVATION_ACQUIRE,
        opcode::io::RESERVATION_RELEASE,
    ] {
        let effects = effect::SUPPORTED | effect::NAMESPACE;
        EffectsLog::set(&mut log.io, opcode, effects);
    }
    for opcode in [
        opcode::io::WRITE,
        opcode::io::WRITE_ZEROES,
        opcode::io::DATASET_MANAGEMENT,
        opcode::io::COPY,
    ] {
        let effects = effect::SUPPORTED | effect::NAMESPACE | effect::CHANGES_BLOCKS;
        EffectsLog::set(&mut log.io, opcode, effects);
    }
    log
}
