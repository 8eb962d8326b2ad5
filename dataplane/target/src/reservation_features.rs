//! The features of reservations: notification mask and persistence (section 5.27.1.24 and 5.27.1.25).

use std::sync::Arc;

use roadstead_nvme::Status;
use roadstead_nvme::command::NSID_ALL;
use roadstead_nvme::feature::{CAPABILITY_CHANGEABLE, CAPABILITY_NAMESPACE, Select, id};

use crate::controller::Controller;
use crate::queue::{Completion, Decision};
use crate::registry::Registry;
use crate::reservation::{Effects, Reservations};
use crate::reserve;
use crate::table::Namespace;

/// The bit of Reservation Persistence.
const PERSIST: u32 = 1;

/// Whether a feature is one of these.
pub(crate) fn has(feature: u8) -> bool {
    matches!(feature, id::RESERVATION_MASK | id::RESERVATION_PERSISTENCE)
}

fn find(
    registry: &Registry,
    controller: &Controller,
    nsid: u32,
) -> Result<(Namespace, Arc<Reservations>), Status> {
    let found = controller.lock().view.namespaces.get(&nsid).copied();
    let namespace = found.ok_or(Status::INVALID_NAMESPACE.dnr())?;
    Ok((namespace, registry.reservations_of(namespace.uuid)))
}

pub(crate) fn get(
    registry: &Registry,
    controller: &Controller,
    feature: u8,
    select: Select,
    nsid: u32,
) -> Result<Decision, Status> {
    let result = |value: u32| Ok(Decision::Complete(Completion::result(u64::from(value))));
    if select == Select::Capabilities {
        return result(CAPABILITY_CHANGEABLE | CAPABILITY_NAMESPACE);
    }
    if nsid == NSID_ALL {
        return Err(Status::INVALID_FIELD.dnr());
    }
    let (_, reservations) = find(registry, controller, nsid)?;
    match (feature, select) {
        (_, Select::Default) => result(0),
        (id::RESERVATION_MASK, _) => result(controller.lock().notices.mask(nsid)),
        _ => result(u32::from(reservations.read(|state| state.persists()))),
    }
}

pub(crate) fn set(
    registry: &Registry,
    controller: &Controller,
    feature: u8,
    save: bool,
    nsid: u32,
    value: u32,
) -> Result<Decision, Status> {
    if save {
        return Err(Status::FEATURE_NOT_SAVEABLE.dnr());
    }
    if feature == id::RESERVATION_MASK && nsid == NSID_ALL {
        let mut state = controller.lock();
        let all: Vec<u32> = state.view.namespaces.keys().copied().collect();
        for nsid in all {
            state.notices.set_mask(nsid, value);
        }
        return Ok(Decision::Complete(Completion::SUCCESS));
    }
    let (namespace, reservations) = find(registry, controller, nsid)?;
    if feature == id::RESERVATION_MASK {
        controller.lock().notices.set_mask(nsid, value);
        return Ok(Decision::Complete(Completion::SUCCESS));
    }
    let changed = reservations.change(|state| {
        state.set_persist(value & PERSIST != 0);
        Ok(Effects::default())
    })?;
    if changed.must_save {
        Ok(Decision::Io(reserve::save(
            namespace.volume,
            nsid,
            &reservations,
        )))
    } else {
        Ok(Decision::Complete(Completion::SUCCESS))
    }
}
