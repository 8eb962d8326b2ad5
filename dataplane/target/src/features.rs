//! Get Features and Set Features (section 5.27). A controller lives as long as its association, so nothing can be
//! saved: the saved value is the default.

use roadstead_nvme::Status;
use roadstead_nvme::command::NSID_ALL;
use roadstead_nvme::event::mask;
use roadstead_nvme::feature::{CAPABILITY_CHANGEABLE, NumberOfQueues, Select, id};

use crate::admin::reply;
use crate::controller::{Controller, Kind, State, keep_alive_ms};
use crate::queue::{Completion, Decision};

/// The bit of Get Features that asks for a host identifier of 16 bytes.
const EXTENDED_HOST_IDENTIFIER: u32 = 1;
/// The write cache is on.
const WRITE_CACHE_ENABLED: u32 = 1;
/// The bits of a power state; there is but state 0.
const POWER_STATE_MASK: u32 = 0x1f;
/// Arbitration bursts without limit.
const ARBITRATION: u32 = 7;

/// Temperatures that are reached by none: over, under, K.
pub(crate) const TEMPERATURE_THRESHOLDS: [u32; 2] = [343, 0];

/// Values of the features that the host may change and that change nothing here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hints {
    arbitration: u32,
    temperatures: [u32; 2],
    atomicity: u32,
}

impl Default for Hints {
    fn default() -> Self {
        Self {
            arbitration: ARBITRATION,
            temperatures: TEMPERATURE_THRESHOLDS,
            atomicity: 0,
        }
    }
}

/// The features that a kind of controller has.
pub(crate) fn supported(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Discovery => &[
            id::ASYNC_EVENT_CONFIGURATION,
            id::KEEP_ALIVE_TIMER,
            id::HOST_IDENTIFIER,
        ],
        Kind::Io => &[
            id::ARBITRATION,
            id::POWER_MANAGEMENT,
            id::TEMPERATURE_THRESHOLD,
            id::ERROR_RECOVERY,
            id::VOLATILE_WRITE_CACHE,
            id::NUMBER_OF_QUEUES,
            id::WRITE_ATOMICITY,
            id::ASYNC_EVENT_CONFIGURATION,
            id::KEEP_ALIVE_TIMER,
            id::HOST_IDENTIFIER,
            id::RESERVATION_MASK,
            id::RESERVATION_PERSISTENCE,
        ],
    }
}

/// Whether Set Features can change it.
pub(crate) fn is_changeable(feature: u8) -> bool {
    matches!(
        feature,
        id::ARBITRATION
            | id::TEMPERATURE_THRESHOLD
            | id::NUMBER_OF_QUEUES
            | id::WRITE_ATOMICITY
            | id::ASYNC_EVENT_CONFIGURATION
            | id::KEEP_ALIVE_TIMER
            | id::RESERVATION_MASK
            | id::RESERVATION_PERSISTENCE
    )
}

/// Which temperature threshold is meant; only that of the composite temperature exists.
fn threshold(value: u32) -> Result<usize, Status> {
    let (sensor, kind) = (value >> 16 & 0xf, value >> 20 & 3);
    match (sensor, kind) {
        (0, 0) => Ok(0),
        (0, 1) => Ok(1),
        _ => Err(Status::INVALID_FIELD.dnr()),
    }
}

pub(crate) fn get(
    controller: &Controller,
    feature: u8,
    select: Select,
    value: u32,
    data_length: u32,
) -> Result<Decision, Status> {
    if !supported(controller.identity().kind).contains(&feature) {
        return Err(Status::INVALID_FIELD.dnr());
    }
    let state = controller.lock();
    let result = match select {
        Select::Capabilities if is_changeable(feature) => CAPABILITY_CHANGEABLE,
        Select::Capabilities => 0,
        Select::Current | Select::Default | Select::Saved if feature == id::HOST_IDENTIFIER => {
            if value & EXTENDED_HOST_IDENTIFIER == 0 {
                return Err(Status::HOST_ID_INCONSISTENT.dnr());
            }
            return reply(controller.identity().host_id.to_vec(), data_length);
        }
        Select::Current => current(&state, feature, value)?,
        Select::Default | Select::Saved => default(&state, feature, value)?,
    };
    Ok(Decision::Complete(Completion::result(u64::from(result))))
}

fn current(state: &State, feature: u8, value: u32) -> Result<u32, Status> {
    Ok(match feature {
        id::ARBITRATION => state.hints.arbitration,
        id::TEMPERATURE_THRESHOLD => pick(state.hints.temperatures, value)?,
        id::WRITE_ATOMICITY => state.hints.atomicity,
        id::NUMBER_OF_QUEUES => number_of_queues(state.io_queues_granted),
        id::ASYNC_EVENT_CONFIGURATION => state.events.enabled,
        id::KEEP_ALIVE_TIMER => state.kato_ms,
        _ => default(state, feature, value)?,
    })
}

/// The value after a reset.
fn default(state: &State, feature: u8, value: u32) -> Result<u32, Status> {
    let hints = Hints::default();
    Ok(match feature {
        id::ARBITRATION => hints.arbitration,
        id::TEMPERATURE_THRESHOLD => pick(hints.temperatures, value)?,
        id::NUMBER_OF_QUEUES => number_of_queues(state.io_queues_max),
        id::VOLATILE_WRITE_CACHE => WRITE_CACHE_ENABLED,
        _ => 0,
    })
}

fn pick(temperatures: [u32; 2], value: u32) -> Result<u32, Status> {
    let [over, under] = temperatures;
    Ok(if threshold(value)? == 0 { over } else { under })
}

/// Sets a feature; returns the command's result.
pub(crate) fn set(
    controller: &Controller,
    feature: u8,
    save: bool,
    nsid: u32,
    value: u32,
) -> Result<u64, Status> {
    let kind = controller.identity().kind;
    if !supported(kind).contains(&feature) {
        return Err(Status::INVALID_FIELD.dnr());
    }
    if save {
        return Err(Status::FEATURE_NOT_SAVEABLE.dnr());
    }
    if nsid != 0 && nsid != NSID_ALL {
        return Err(Status::FEATURE_NOT_NAMESPACE_SPECIFIC.dnr());
    }
    let mut state = controller.lock();
    match feature {
        id::ARBITRATION => state.hints.arbitration = value,
        id::TEMPERATURE_THRESHOLD => {
            let kind = threshold(value)?;
            if let Some(place) = state.hints.temperatures.get_mut(kind) {
                *place = value & 0xffff;
            }
        }
        id::WRITE_ATOMICITY => state.hints.atomicity = value & 1,
        id::NUMBER_OF_QUEUES => return set_number_of_queues(&mut state, value),
        id::ASYNC_EVENT_CONFIGURATION => state.events.enabled = value & events(kind),
        id::KEEP_ALIVE_TIMER => state.kato_ms = keep_alive_ms(value),
        id::HOST_IDENTIFIER => return Err(Status::COMMAND_SEQUENCE.dnr()),
        id::POWER_MANAGEMENT if value & POWER_STATE_MASK == 0 => {}
        id::POWER_MANAGEMENT => return Err(Status::INVALID_FIELD.dnr()),
        // No limit to error recovery, the write cache: what they are already may be set.
        _ if value == default(&state, feature, value)? => {}
        _ => return Err(Status::FEATURE_NOT_CHANGEABLE.dnr()),
    }
    Ok(0)
}

/// The events that a kind of controller reports.
pub(crate) fn events(kind: Kind) -> u32 {
    match kind {
        Kind::Io => mask::NAMESPACE_ATTRIBUTES | mask::ANA_CHANGE,
        Kind::Discovery => mask::DISCOVERY_LOG,
    }
}

fn set_number_of_queues(state: &mut State, value: u32) -> Result<u64, Status> {
    let asked = NumberOfQueues::parse(value).ok_or(Status::INVALID_FIELD.dnr())?;
    if !state.io_queues.is_empty() {
        return Err(Status::COMMAND_SEQUENCE.dnr());
    }
    let count = asked.submission.max(asked.completion);
    let count = u16::try_from(count).unwrap_or(u16::MAX);
    state.io_queues_granted = count.min(state.io_queues_max);
    Ok(u64::from(number_of_queues(state.io_queues_granted)))
}

fn number_of_queues(count: u16) -> u32 {
    let count = u32::from(count);
    NumberOfQueues {
        submission: count,
        completion: count,
    }
    .encode()
}
