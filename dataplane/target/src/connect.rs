//! Connect: every check, each with the status that the Fabrics specification gives it (section 6.3).

use std::sync::Arc;

use roadstead_nvme::fabrics::{
    CNTLID_DYNAMIC, CONNECT_DATA_BYTES, Connect, ConnectData, InvalidParameter,
};
use roadstead_nvme::{FabricsCommand, Nqn, Portal, Sqe, Status};
use zerocopy::FromBytes;

use crate::ana::View;
use crate::controller::{Controller, Kind};
use crate::queue::{Completion, Decision};
use crate::registry::{NoController, Registry};

/// A queue that may start.
pub(crate) struct Connected {
    pub(crate) controller: Arc<Controller>,
    pub(crate) request: Connect,
    /// The controller's enable, for I/O queues.
    pub(crate) enable: u64,
    pub(crate) view: View,
}

/// Who connects to what.
struct Names {
    subsystem: Nqn,
    host: Nqn,
    host_id: [u8; 16],
    cntlid: u16,
}

pub(crate) fn begin(data_length: u32) -> Decision {
    if data_length == CONNECT_DATA_BYTES {
        Decision::Control {
            length: data_length,
        }
    } else {
        Decision::from(Status::SGL_LENGTH_INVALID.dnr())
    }
}

/// Refused because of a parameter.
fn invalid(offset: u16, in_data: bool) -> Completion {
    Completion {
        status: Status::CONNECT_INVALID_PARAMETERS.dnr(),
        result: InvalidParameter { offset, in_data }.encode(),
    }
}

pub(crate) fn connect(
    registry: &Registry,
    sqe: &Sqe,
    data: &[u8],
    local: Portal,
    now_ms: u64,
) -> Result<Connected, Completion> {
    let FabricsCommand::Connect(request) = FabricsCommand::parse(sqe)? else {
        return Err(Status::COMMAND_SEQUENCE.dnr().into());
    };
    let entries = u32::from(request.sqsize) + 1;
    if request.sqsize == 0 || entries > registry.limits().queue_entries() {
        return Err(invalid(Connect::OFFSET_SQSIZE, false));
    }
    let names = names(data)?;
    if request.qid == 0 {
        connect_admin(registry, request, names, local, now_ms)
    } else {
        connect_io(registry, request, &names)
    }
}

fn names(data: &[u8]) -> Result<Names, Completion> {
    let data = ConnectData::ref_from_bytes(data).map_err(|_| Status::SGL_LENGTH_INVALID.dnr())?;
    let subsystem = Nqn::from_field(&data.subsystem_nqn)
        .map_err(|_| invalid(ConnectData::OFFSET_SUBSYSTEM_NQN, true))?;
    let host =
        Nqn::from_field(&data.host_nqn).map_err(|_| invalid(ConnectData::OFFSET_HOST_NQN, true))?;
    Ok(Names {
        subsystem,
        host,
        host_id: data.host_id,
        cntlid: data.cntlid.get(),
    })
}

fn connect_admin(
    registry: &Registry,
    request: Connect,
    names: Names,
    local: Portal,
    now_ms: u64,
) -> Result<Connected, Completion> {
    if names.cntlid != CNTLID_DYNAMIC {
        return Err(invalid(ConnectData::OFFSET_CNTLID, true));
    }
    // What is not served, or not allowed, may be so in a moment: a table on its way must not cost the host its
    // volume. So it may retry.
    let controller = registry
        .admit(
            names.subsystem,
            names.host,
            names.host_id,
            local,
            request.kato_ms,
            now_ms,
        )
        .map_err(|refusal| match refusal {
            NoController::UnknownSubsystem => Completion {
                status: Status::CONNECT_INVALID_PARAMETERS,
                ..invalid(ConnectData::OFFSET_SUBSYSTEM_NQN, true)
            },
            NoController::DiscoveryOnly => invalid(ConnectData::OFFSET_SUBSYSTEM_NQN, true),
            NoController::HostNotAllowed => Status::CONNECT_INVALID_HOST.into(),
            NoController::Busy => Status::CONNECT_CONTROLLER_BUSY.into(),
        })?;
    let view = controller.lock().view.clone();
    Ok(Connected {
        controller,
        request,
        enable: 0,
        view,
    })
}

fn connect_io(
    registry: &Registry,
    request: Connect,
    names: &Names,
) -> Result<Connected, Completion> {
    let controller = registry
        .find(names.cntlid)
        .ok_or(invalid(ConnectData::OFFSET_CNTLID, true))?;
    let identity = controller.identity();
    if identity.subsystem != names.subsystem {
        return Err(invalid(ConnectData::OFFSET_SUBSYSTEM_NQN, true));
    }
    if identity.host != names.host {
        return Err(invalid(ConnectData::OFFSET_HOST_NQN, true));
    }
    if identity.host_id != names.host_id {
        return Err(invalid(ConnectData::OFFSET_HOST_ID, true));
    }
    // Looked at here too: the admin queue may have been let in a moment before an old queue's last command.
    let must_wait = registry.must_wait(&controller);
    let mut state = controller.lock();
    if !state.is_ready() {
        return Err(Status::COMMAND_SEQUENCE.dnr().into());
    }
    if identity.kind == Kind::Discovery || request.qid > state.io_queues_granted {
        return Err(invalid(Connect::OFFSET_QID, false));
    }
    if must_wait || state.must_wait(request.qid) {
        return Err(Status::CONNECT_CONTROLLER_BUSY.into());
    }
    if !state.io_queues.insert(request.qid) {
        return Err(Status::COMMAND_SEQUENCE.dnr().into());
    }
    let enable = state.enables;
    let view = state.view.clone();
    drop(state);
    Ok(Connected {
        controller,
        request,
        enable,
        view,
    })
}
