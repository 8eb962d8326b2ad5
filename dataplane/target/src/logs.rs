//! Get Log Page.

use roadstead_nvme::command::{GetLogPage, NSID_ALL};
use roadstead_nvme::event::mask;
use roadstead_nvme::log::{AnaHeader, EffectsLog, FirmwareLog, HealthLog, effect, id};
use roadstead_nvme::{Status, name, opcode};
use zerocopy::little_endian::U16;
use zerocopy::{FromZeros, IntoBytes};

use crate::controller::Controller;
use crate::limits;
use crate::registry::Registry;

/// An error log without errors: one empty entry.
const ERROR_LOG_BYTES: usize = 64;
/// 300 K.
const TEMPERATURE: u16 = 300;

/// A log page of an I/O controller, whole.
pub(crate) fn io(controller: &Controller, page: GetLogPage) -> Result<Vec<u8>, Status> {
    if page.nsid != 0 && page.nsid != NSID_ALL {
        return Err(Status::INVALID_FIELD.dnr());
    }
    match page.id {
        id::ERRORS => Ok(vec![0; ERROR_LOG_BYTES]),
        id::HEALTH => {
            let mut log = HealthLog::new_zeroed();
            log.temperature = U16::new(TEMPERATURE);
            log.spare = 100;
            Ok(log.as_bytes().to_vec())
        }
        id::FIRMWARE_SLOTS => {
            let mut log = FirmwareLog::new_zeroed();
            log.active = 1;
            let [first, ..] = &mut log.revisions;
            *first = name::padded(env!("CARGO_PKG_VERSION"));
            Ok(log.as_bytes().to_vec())
        }
        id::CHANGED_NAMESPACES => {
            let mut state = controller.lock();
            if !page.retain_event {
                state.events.rearm(mask::NAMESPACE_ATTRIBUTES);
            }
            let changed = state.events.changed(page.retain_event);
            let mut list: Vec<u8> = changed.into_iter().flat_map(u32::to_le_bytes).collect();
            list.resize(4096, 0);
            Ok(list)
        }
        id::ANA => {
            let mut state = controller.lock();
            if !page.retain_event {
                state.events.rearm(mask::ANA_CHANGE);
            }
            let groups_only = page.parameter & AnaHeader::GROUPS_ONLY != 0;
            Ok(state.ana_counts.log(&state.view, groups_only))
        }
        id::EFFECTS => Ok(effects().as_bytes().to_vec()),
        _ => Err(Status::INVALID_LOG_PAGE.dnr()),
    }
}

/// A log page of a discovery controller, whole.
pub(crate) fn discovery(
    registry: &Registry,
    controller: &Controller,
    page: GetLogPage,
) -> Result<Vec<u8>, Status> {
    if page.id != id::DISCOVERY {
        return Err(Status::INVALID_LOG_PAGE.dnr());
    }
    if !page.retain_event {
        controller.lock().events.rearm(mask::DISCOVERY_LOG);
    }
    Ok(registry.discovery_log(controller, page.parameter))
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
    ] {
        EffectsLog::set(&mut log.admin, opcode, effect::SUPPORTED);
    }
    for opcode in [opcode::io::READ, opcode::io::FLUSH] {
        EffectsLog::set(&mut log.io, opcode, effect::SUPPORTED);
    }
    for opcode in [
        opcode::io::WRITE,
        opcode::io::WRITE_ZEROES,
        opcode::io::DATASET_MANAGEMENT,
    ] {
        EffectsLog::set(
            &mut log.io,
            opcode,
            effect::SUPPORTED | effect::CHANGES_BLOCKS,
        );
    }
    log
}
