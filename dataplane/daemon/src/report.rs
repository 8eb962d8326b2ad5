//! The node's report: the reconciler's status joined with numbers that live elsewhere.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use roadstead_api::v1;
use roadstead_attach::{Attachment, ForeignName, Manager, PathState, PathStatus};
use roadstead_initiator::nguid_text;
use roadstead_nvme::Transport;
use tokio::sync::watch;

use crate::capability::{Capabilities, Probe};
use crate::desired;
use crate::external::Looker;
use crate::identity::Identity;
use crate::meter::{Meter, Rates};
use crate::netdev;
use crate::serve::{ControllerInfo, IoCounters, Server};
use crate::status::{DriveStatus, Status, VolumeStatus};

/// Everything that a report is made of.
pub(crate) struct Reporter {
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) server: Arc<Server>,
    pub(crate) attachments: Arc<Manager>,
    pub(crate) looker: Arc<Looker>,
    pub(crate) identity: Identity,
    pub(crate) probe: Probe,
    pub(crate) meter: Mutex<Meter>,
}

impl Reporter {
    /// The report of this moment.
    pub(crate) fn report(&self) -> v1::NodeReport {
        self.report_of(&self.attachments.attachments())
    }

    /// An attachment of this moment in the API's words.
    pub(crate) fn attachment(&self, of: &Attachment) -> v1::AttachmentReport {
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        attachment(of, &mut meter, Instant::now())
    }

    /// The report of this moment with these attachments.
    pub(crate) fn report_of(&self, attachments: &[Attachment]) -> v1::NodeReport {
        let status = Arc::clone(&self.status.borrow());
        let uname = rustix::system::uname();
        let kernel = uname.release().to_string_lossy();
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.forget(Instant::now());
        drop(meter);
        let capabilities = self.probe.capabilities(&kernel);
        let mut portals = status.portals.clone();
        for portal in &mut portals {
            netdev::place(portal, &capabilities.netdevs, &capabilities.rdma_devices);
        }
        v1::NodeReport {
            applied_revision: status.applied_revision.clone(),
            host: Some(self.host(&status, &kernel, capabilities)),
            drives: status.drives.iter().map(drive).collect(),
            volumes: status
                .volumes
                .iter()
                .map(|volume| self.volume(volume))
                .collect(),
            portals,
            attachments: attachments.iter().map(|a| self.attachment(a)).collect(),
            subsystems: subsystems(&status.subsystems, self.server.controllers()),
            externals: self.looker.reports(),
        }
    }

    fn host(&self, status: &Status, kernel: &str, capabilities: Capabilities) -> v1::HostReport {
        let methods = self.attachments.available_methods();
        let transports = capabilities.transports(&methods);
        v1::HostReport {
            host_nqn: self.identity.nqn.clone(),
            host_id: self.identity.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            transports: transports.into_iter().map(Into::into).collect(),
            local_attach: self.attachments.carries(Transport::Local),
            attach_methods: methods.into_iter().map(str::to_owned).collect(),
            unused_drives: status.unused.clone(),
            kernel: kernel.to_owned(),
            rdma_devices: capabilities.rdma_devices,
            kernel_modules: capabilities.kernel_modules,
            netdevs: capabilities.netdevs,
        }
    }

    fn volume(&self, status: &VolumeStatus) -> v1::VolumeReport {
        let volume = status.volume.as_ref();
        v1::VolumeReport {
            uuid: status.uuid.to_string(),
            name: status.name.clone(),
            drive: status.drive.clone(),
            state: status.state.into(),
            reason: status.reason.clone(),
            message: status.message.clone(),
            size_bytes: volume.map_or(0, |volume| volume.size_bytes()),
            allocated_bytes: volume.map_or(0, |volume| volume.allocated_bytes()),
            counters: Some(counters(&self.server.counters(status.uuid))),
        }
    }
}

fn drive(status: &DriveStatus) -> v1::DriveReport {
    let stats = status.handle.as_ref().map(|handle| handle.stats());
    let about = status.about.clone();
    v1::DriveReport {
        name: status.name.clone(),
        state: status.state.into(),
        reason: status.reason.clone(),
        message: status.message.clone(),
        path: about.path,
        serial: about.serial,
        model: about.model,
        capacity_bytes: stats.as_ref().map_or(0, |stats| stats.capacity_bytes),
        free_bytes: stats.as_ref().map_or(0, |stats| stats.free_bytes),
        allocated_bytes: stats.as_ref().map_or(0, |stats| stats.allocated_bytes),
        pool_uuid: stats.map_or_else(String::new, |stats| stats.pool_uuid.to_string()),
    }
}

fn counters(counted: &IoCounters) -> v1::IoCounters {
    v1::IoCounters {
        reads: counted.reads,
        writes: counted.writes,
        flushes: counted.flushes,
        read_bytes: counted.read_bytes,
        written_bytes: counted.written_bytes,
        errors: counted.errors,
    }
}

/// Every exported subsystem, also those that nobody is connected to.
fn subsystems(nqns: &[String], controllers: Vec<ControllerInfo>) -> Vec<v1::SubsystemReport> {
    let mut found: BTreeMap<String, Vec<v1::ControllerReport>> =
        nqns.iter().map(|nqn| (nqn.clone(), Vec::new())).collect();
    for controller in controllers {
        let Some(of_subsystem) = found.get_mut(&controller.subsystem_nqn) else {
            continue;
        };
        of_subsystem.push(v1::ControllerReport {
            cntlid: u32::from(controller.cntlid),
            host_nqn: controller.host_nqn,
            io_queues: controller.io_queues,
        });
    }
    for controllers in found.values_mut() {
        controllers.sort_by_key(|controller| controller.cntlid);
    }
    let report = |(nqn, controllers)| v1::SubsystemReport { nqn, controllers };
    found.into_iter().map(report).collect()
}

fn attachment(attachment: &Attachment, meter: &mut Meter, now: Instant) -> v1::AttachmentReport {
    let Attachment {
        spec,
        device,
        paths,
        error,
    } = attachment;
    let mut rates = |path: &PathStatus| match path.traffic {
        Some(traffic) => meter.rates(&spec.id, path.path, traffic, now),
        None => Rates::default(),
    };
    let mut paths: Vec<_> = paths.iter().map(|p| path(p, rates(p))).collect();
    if let Some(error) = error {
        for path in paths.iter_mut().filter(|path| path.message.is_empty()) {
            path.message.clone_from(error);
        }
    }
    v1::AttachmentReport {
        id: spec.id.clone(),
        subsystem_nqn: spec.subsystem_nqn.clone(),
        volume_uuid: match spec.foreign_name() {
            None => spec.volume_uuid.to_string(),
            Some(_) => String::new(),
        },
        nguid: match spec.foreign_name() {
            Some(ForeignName::Nguid(nguid)) => nguid_text(&nguid),
            _ => String::new(),
        },
        nsid: match spec.foreign_name() {
            Some(ForeignName::Nsid(nsid)) => nsid,
            _ => 0,
        },
        method: spec.method.clone().unwrap_or_default(),
        device: device
            .as_ref()
            .map_or_else(String::new, |device| device.path.display().to_string()),
        size_bytes: device.as_ref().map_or(0, |device| device.size_bytes),
        paths,
        read_only: spec.read_only,
    }
}

fn path(status: &PathStatus, rates: Rates) -> v1::PathReport {
    let state = match status.state {
        PathState::Live => v1::PathState::Live,
        PathState::Connecting => v1::PathState::Connecting,
        PathState::Failed => v1::PathState::Failed,
    };
    let ana_state = status.ana_state.map(desired::ana_state_message);
    // Not measured is zero, so what was is more.
    let round_trip_us = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
    v1::PathReport {
        portal: Some(desired::portal_message(status.path.portal())),
        state: state.into(),
        message: status.message.clone(),
        ana_state: ana_state.unwrap_or_default().into(),
        round_trip_us: status.round_trip.map_or(0, round_trip_us),
        loss_ppm: rates.loss_ppm.unwrap_or(0),
        loss_measured: rates.loss_ppm.is_some(),
        read_iops: rates.read_iops,
        write_iops: rates.write_iops,
        read_bytes_per_s: rates.read_bytes_per_s,
        write_bytes_per_s: rates.write_bytes_per_s,
        failures: status.losses.count,
        failed_at_s: status.losses.last_s,
    }
}

/// The report without what changes by mere use: two that are equal then differ in counters alone.
pub(crate) fn without_counters(mut report: v1::NodeReport) -> v1::NodeReport {
    for drive in &mut report.drives {
        drive.allocated_bytes = 0;
    }
    for volume in &mut report.volumes {
        volume.allocated_bytes = 0;
        volume.counters = None;
    }
    let attachments = report.attachments.iter_mut();
    for path in attachments.flat_map(|attachment| &mut attachment.paths) {
        path.round_trip_us = 0;
        path.loss_ppm = 0;
        path.loss_measured = false;
        path.read_iops = 0;
        path.write_iops = 0;
        path.read_bytes_per_s = 0;
        path.write_bytes_per_s = 0;
    }
    report
}

#[cfg(test)]
mod tests {
    use roadstead_attach::{CommandCounts, Losses, PathSpec, Segments, Traffic};
    use roadstead_nvme::{AnaState, Portal};

    use super::*;

    #[test]
    fn a_path_is_reported_with_all_that_is_measured_on_it() {
        let portal: PathSpec = "10.0.0.1:4420".parse::<Portal>().unwrap().into();
        let mut status = PathStatus {
            state: PathState::Live,
            ana_state: Some(AnaState::NonOptimized),
            losses: Losses {
                count: 2,
                last_s: 1_800_000_000,
            },
            round_trip: Some(Duration::from_nanos(1)),
            traffic: Some(Traffic::default()),
            ..PathStatus::failed(portal, "")
        };
        let now = Instant::now();
        let mut meter = Meter::default();
        let mut report = |status: &PathStatus, at: Duration| {
            let traffic = status.traffic.unwrap();
            path(status, meter.rates("a", portal, traffic, now + at))
        };
        let before = report(&status, Duration::ZERO);
        assert_eq!(before.round_trip_us, 1, "measured");
        assert_eq!((before.failures, before.failed_at_s), (2, 1_800_000_000));
        assert_eq!(before.ana_state(), v1::AnaState::NonOptimized);
        assert_eq!((before.read_iops, before.loss_measured), (0, false));
        status.round_trip = Some(Duration::from_micros(90));
        status.traffic = Some(Traffic {
            commands: CommandCounts {
                reads: 200,
                writes: 100,
                read_bytes: 819_200,
                written_bytes: 51_200,
            },
            segments: Some(Segments::default()),
        });
        report(&status, Duration::from_secs(1));
        let traffic = status.traffic.as_mut().unwrap();
        traffic.segments = Some(Segments {
            sent: 1000,
            sent_again: 3,
        });
        let after = report(&status, Duration::from_secs(2));
        let rates = (after.read_iops, after.write_iops);
        let bytes = (after.read_bytes_per_s, after.write_bytes_per_s);
        assert_eq!((rates, bytes), ((100, 50), (409_600, 25_600)));
        assert_eq!((after.loss_ppm, after.loss_measured), (3000, true));
        assert_eq!(after.round_trip_us, 90);

        let of = |path: &v1::PathReport| v1::NodeReport {
            attachments: vec![v1::AttachmentReport {
                paths: vec![path.clone()],
                ..Default::default()
            }],
            ..Default::default()
        };
        let (mut lost, before, after) = (of(&after), of(&before), of(&after));
        assert_eq!(without_counters(before), without_counters(after.clone()));
        lost.attachments[0].paths[0].failures += 1;
        assert_ne!(without_counters(lost), without_counters(after));
    }
}
