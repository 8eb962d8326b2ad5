//! Get Features and Set Features.

use roadstead_nvme::Status;
use roadstead_nvme::event::mask;
use roadstead_nvme::feature::{CAPABILITY_CHANGEABLE, NumberOfQueues, Select, id};

use crate::admin::reply;
use crate::controller::{Controller, Kind};
use crate::limits;
use crate::queue::{Completion, Decision};

/// The bit of Get Features that asks for a host identifier of 16 bytes.
const EXTENDED_HOST_IDENTIFIER: u32 = 1;
/// The write cache is on.
const WRITE_CACHE_ENABLED: u32 = 1;
/// A temperature that is never reached.
const TEMPERATURE_THRESHOLD: u32 = 0xffff;

/// Whether a controller has a feature.
fn exists(kind: Kind, feature: u8) -> bool {
    match feature {
        id::ASYNC_EVENT_CONFIGURATION | id::KEEP_ALIVE_TIMER | id::HOST_IDENTIFIER => true,
        id::ARBITRATION
        | id::POWER_MANAGEMENT
        | id::TEMPERATURE_THRESHOLD
        | id::ERROR_RECOVERY
        | id::VOLATILE_WRITE_CACHE
        | id::NUMBER_OF_QUEUES
        | id::WRITE_ATOMICITY => kind == Kind::Io,
        _ => false,
    }
}

pub(crate) fn get(
    controller: &Controller,
    feature: u8,
    select: Select,
    value: u32,
    data_length: u32,
) -> Result<Decision, Status> {
    if !exists(controller.identity().kind, feature) {
        return Err(Status::INVALID_FIELD.dnr());
    }
    if select == Select::Capabilities {
        let is_changeable = matches!(
            feature,
            id::NUMBER_OF_QUEUES | id::ASYNC_EVENT_CONFIGURATION | id::KEEP_ALIVE_TIMER
        );
        let capabilities = if is_changeable {
            CAPABILITY_CHANGEABLE
        } else {
            0
        };
        return Ok(Decision::Complete(Completion::result(u64::from(
            capabilities,
        ))));
    }
    let state = controller.lock();
    let current = match feature {
        id::HOST_IDENTIFIER => {
            if value & EXTENDED_HOST_IDENTIFIER == 0 {
                return Err(Status::HOST_ID_INCONSISTENT.dnr());
            }
            return reply(controller.identity().host_id.to_vec(), data_length);
        }
        id::NUMBER_OF_QUEUES => number_of_queues(state.io_queues_granted),
        id::ASYNC_EVENT_CONFIGURATION => state.events.enabled,
        id::KEEP_ALIVE_TIMER => state.kato_ms,
        id::VOLATILE_WRITE_CACHE => WRITE_CACHE_ENABLED,
        id::TEMPERATURE_THRESHOLD => TEMPERATURE_THRESHOLD,
        _ => 0,
    };
    Ok(Decision::Complete(Completion::result(u64::from(current))))
}

/// Sets a feature; returns the command's result.
pub(crate) fn set(
    controller: &Controller,
    feature: u8,
    save: bool,
    value: u32,
) -> Result<u64, Status> {
    let kind = controller.identity().kind;
    if !exists(kind, feature) {
        return Err(Status::INVALID_FIELD.dnr());
    }
    if save {
        return Err(Status::FEATURE_NOT_SAVEABLE.dnr());
    }
    let mut state = controller.lock();
    match feature {
        id::NUMBER_OF_QUEUES => {
            let asked = NumberOfQueues::parse(value).ok_or(Status::INVALID_FIELD.dnr())?;
            if !state.io_queues.is_empty() {
                return Err(Status::COMMAND_SEQUENCE.dnr());
            }
            let count = asked.submission.max(asked.completion);
            let count = u16::try_from(count)
                .unwrap_or(u16::MAX)
                .min(limits::IO_QUEUES_MAX);
            state.io_queues_granted = count;
            Ok(u64::from(number_of_queues(count)))
        }
        id::ASYNC_EVENT_CONFIGURATION => {
            state.events.enabled = value
                & match kind {
                    Kind::Io => mask::NAMESPACE_ATTRIBUTES | mask::ANA_CHANGE,
                    Kind::Discovery => mask::DISCOVERY_LOG,
                };
            Ok(0)
        }
        id::KEEP_ALIVE_TIMER => {
            state.kato_ms = value;
            Ok(0)
        }
        id::HOST_IDENTIFIER => Err(Status::COMMAND_SEQUENCE.dnr()),
        id::VOLATILE_WRITE_CACHE if value & 1 == WRITE_CACHE_ENABLED => Ok(0),
        _ => Err(Status::FEATURE_NOT_CHANGEABLE.dnr()),
    }
}

fn number_of_queues(count: u16) -> u32 {
    let count = u32::from(count);
    NumberOfQueues {
        submission: count,
        completion: count,
    }
    .encode()
}
