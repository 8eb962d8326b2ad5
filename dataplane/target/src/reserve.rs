//! Reservation commands.

use std::sync::Arc;

use roadstead_nvme::Status;
use roadstead_nvme::command::{AcquireAction, ReservationCommand};
use roadstead_nvme::reservation::{AcquireData, RegisterData, ReleaseData};
use zerocopy::FromBytes;

use crate::io::{IoOp, IoRequest, SharedReservations};
use crate::limits;
use crate::queue::Decision;
use crate::reservation::{Changed, HostId, Reservations};
use crate::table::VolumeKey;

/// A change that was made by a command.
pub(crate) struct Made {
    pub(crate) changed: Changed,
    /// The command completes when no I/O of the preempted hosts is in flight any more.
    pub(crate) must_drain: bool,
}

/// Takes a command; `reservations` are those of its namespace, if that exists.
pub(crate) fn begin(
    reservations: Option<&Arc<Reservations>>,
    command: ReservationCommand,
    data_length: u32,
) -> Result<Decision, Status> {
    let reservations = reservations.ok_or(Status::INVALID_NAMESPACE.dnr())?;
    let keys = match command {
        ReservationCommand::Register { .. } | ReservationCommand::Acquire { .. } => 16,
        ReservationCommand::Release { .. } => 8,
        ReservationCommand::Report { length, extended } => {
            let length = u32::try_from(length)
                .ok()
                .filter(|length| *length <= limits::TRANSFER_BYTES_MAX)
                .ok_or(Status::INVALID_FIELD.dnr())?;
            // All host identifiers have 16 bytes here, which the short form has no room for.
            if !extended {
                return Err(Status::HOST_ID_INCONSISTENT.dnr());
            }
            if length != data_length {
                return Err(Status::SGL_LENGTH_INVALID.dnr());
            }
            let mut data = reservations.read(|state| state.report());
            data.resize(usize::try_from(length).unwrap_or(0), 0);
            return Ok(Decision::Reply { data, result: 0 });
        }
    };
    if data_length == keys {
        Ok(Decision::Control { length: keys })
    } else {
        Err(Status::SGL_LENGTH_INVALID.dnr())
    }
}

/// Does a command whose keys came.
pub(crate) fn change(
    reservations: &Reservations,
    host: HostId,
    command: ReservationCommand,
    data: &[u8],
) -> Result<Made, Status> {
    let length = Status::SGL_LENGTH_INVALID.dnr();
    let mut must_drain = false;
    let changed = match command {
        ReservationCommand::Register {
            action,
            ignore_key,
            persist,
        } => {
            let data = RegisterData::ref_from_bytes(data).map_err(|_| length)?;
            reservations.change(|state| state.register(host, action, ignore_key, persist, data))
        }
        ReservationCommand::Acquire { action, kind } => {
            let data = AcquireData::ref_from_bytes(data).map_err(|_| length)?;
            must_drain = action == AcquireAction::PreemptAndAbort;
            reservations.change(|state| state.acquire(host, action, kind, data))
        }
        ReservationCommand::Release { action } => {
            let data = ReleaseData::ref_from_bytes(data).map_err(|_| length)?;
            reservations.change(|state| state.release(host, action, data.current_key.get()))
        }
        ReservationCommand::Report { .. } => Err(Status::INTERNAL),
    }?;
    Ok(Made {
        changed,
        must_drain,
    })
}

/// The request that keeps reservations with their volume.
pub(crate) fn save(volume: VolumeKey, nsid: u32, reservations: &Arc<Reservations>) -> IoRequest {
    IoRequest {
        volume,
        nsid,
        op: IoOp::SaveReservations {
            reservations: SharedReservations(Arc::clone(reservations)),
        },
        offset: 0,
        length: 0,
        fua: false,
    }
}
