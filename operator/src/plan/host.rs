//! Decisions about NVMeHosts: one for each node that ever reported.

use roadstead_api::v1::HostReport;
use roadstead_crds::condition::{self, READY, Status, reason};
use roadstead_crds::{NVMeHost, NVMeHostStatus, UnusedDrive};

use super::reach::{Reach, reach};
use super::target::transport_word;
use super::version;
use super::write::{Change, Kind, ObjectVersion, Write};
use crate::snapshot::Snapshot;

/// The object of a node that reported and has none.
pub(super) fn create(snapshot: &Snapshot, node: &str) -> Option<Write> {
    snapshot.live_report(node)?.host.as_ref()?;
    Some(Write {
        object: ObjectVersion {
            kind: Kind::Host,
            name: node.into(),
            uid: String::new(),
            resource_version: String::new(),
        },
        change: Change::CreateHost {
            node_uid: snapshot.nodes.get(node).map(|n| n.uid.clone()),
        },
        notes: Vec::new(),
    })
}

/// The write that a host needs, if any.
pub(super) fn decide(snapshot: &Snapshot, node: &str, host: &NVMeHost) -> Option<Write> {
    if host.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let old = host.status.clone().unwrap_or_default();
    let (mut new, verdict) = match reach(snapshot, node) {
        Reach::Unsettled => return None,
        Reach::Away { reason, message } => (old.clone(), (Status::Unknown, reason, message)),
        Reach::Up(report) => {
            let host = report.host.as_ref()?;
            let verdict = (
                Status::True,
                reason::CONNECTED,
                "its daemon is connected".into(),
            );
            (described(snapshot, node, host), verdict)
        }
    };
    let (status, reason, message) = verdict;
    let now = snapshot.time();
    new.conditions = vec![condition::next(
        &old.conditions,
        READY,
        status,
        reason,
        message,
        host.metadata.generation,
        &now,
    )];
    let conditions = (old.conditions.clone(), new.conditions.clone());
    let object = version(Kind::Host, &host.metadata);
    (host.status.as_ref() != Some(&new))
        .then(|| Write::status(object, Change::HostStatus(new), conditions))
}

fn described(snapshot: &Snapshot, node: &str, host: &HostReport) -> NVMeHostStatus {
    let address = snapshot.nodes.get(node).and_then(|n| n.internal_ip.clone());
    NVMeHostStatus {
        conditions: Vec::new(),
        host_nqn: host.host_nqn.clone(),
        host_id: host.host_id.clone(),
        address: address.unwrap_or_default(),
        transports: host
            .transports()
            .filter_map(transport_word)
            .map(Into::into)
            .collect(),
        attach_methods: host.attach_methods.clone(),
        unused_drives: host
            .unused_drives
            .iter()
            .map(|d| UnusedDrive {
                path: d.path.clone(),
                serial: d.serial.clone(),
                model: d.model.clone(),
                size_bytes: d.size_bytes,
            })
            .collect(),
        version: host.version.clone(),
        kernel: host.kernel.clone(),
    }
}
