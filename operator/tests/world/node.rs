//! A node of the model: drives, volumes with their data, and the volumes it uses.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_api::v1::{
    AnaState, AttachmentReport, DriveReport, DriveState, ExternalReport, ExternalSubsystem,
    GidEntry, HostReport, LinkState, NodeReport, NodeState, PathReport, PathState, PortalReport,
    RdmaDevice, RoceVersion, Transport, VolumeReport, VolumeState,
};

pub const MIB: u64 = 1 << 20;

/// A volume's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    pub drive: String,
    pub size_bytes: u64,
}

pub struct Node {
    pub name: String,
    pub address: String,
    /// The Kubernetes node exists, and is ready.
    pub exists: bool,
    pub ready: bool,
    pub out_of_service: bool,
    pub daemon_up: bool,
    /// Capacities of the drives that are plugged in.
    pub drives: BTreeMap<String, u64>,
    /// What is on the drives.
    pub volumes: BTreeMap<String, Data>,
    /// The persisted desired state.
    pub desired: NodeState,
    /// The state that was worked on last.
    pub applied: NodeState,
    pub failures: BTreeMap<String, String>,
    /// UUIDs of volumes that the node has a device for.
    pub devices: BTreeSet<String>,
    /// RDMA ports; with one, the dataplane offers RDMA.
    pub rdma: Vec<RdmaDevice>,
    /// It offers volumes of its own without the network.
    pub local_attach: bool,
    /// The paths of its devices, all to node b.
    pub paths: Vec<(Transport, PathState, AnaState)>,
    /// What it sees of every appliance that it is told to look at.
    pub appliance: Vec<ExternalSubsystem>,
}

impl Node {
    pub fn new(name: &str) -> Self {
        Node {
            name: name.into(),
            address: format!("10.0.0.{}", name.bytes().last().unwrap_or_default()),
            exists: true,
            ready: true,
            out_of_service: false,
            daemon_up: true,
            drives: BTreeMap::new(),
            volumes: BTreeMap::new(),
            desired: NodeState::default(),
            applied: NodeState::default(),
            failures: BTreeMap::new(),
            devices: BTreeSet::new(),
            rdma: Vec::new(),
            local_attach: false,
            paths: vec![(Transport::Tcp, PathState::Live, AnaState::Unspecified)],
            appliance: Vec::new(),
        }
    }

    /// Plugs in an RDMA device with RoCE v2.
    pub fn add_rdma(&mut self) {
        self.rdma.push(RdmaDevice {
            name: "mlx5_0".into(),
            port: 1,
            link: LinkState::Up.into(),
            mtu_bytes: 4096,
            gids: vec![GidEntry {
                r#type: RoceVersion::V2.into(),
                address: self.address.clone(),
                prefix_len: 24,
            }],
            ..RdmaDevice::default()
        });
    }

    pub fn host_nqn(&self) -> String {
        format!("nqn.2014-08.org.nvmexpress:uuid:{}", self.name)
    }

    fn drive_is_online(&self, name: &str) -> bool {
        self.drives.contains_key(name) && self.applied.drives.iter().any(|d| d.name == name)
    }

    fn free_bytes(&self, drive: &str) -> u64 {
        let used: u64 = self
            .volumes
            .values()
            .filter(|v| v.drive == drive)
            .map(|v| v.size_bytes)
            .sum();
        self.drives
            .get(drive)
            .copied()
            .unwrap_or_default()
            .saturating_sub(used)
    }

    /// Works on the desired state to its end.
    pub fn work(&mut self) {
        self.applied = self.desired.clone();
        self.failures.clear();
        for volume in self.applied.volumes.clone() {
            if !self.drive_is_online(&volume.drive) {
                continue;
            }
            if volume.absent {
                self.volumes.remove(&volume.uuid);
                continue;
            }
            let has = self.volumes.get(&volume.uuid).map_or(0, |v| v.size_bytes);
            if volume.size_bytes < has {
                self.failures
                    .insert(volume.uuid.clone(), "ShrinkRefused".into());
            } else if volume.size_bytes - has > self.free_bytes(&volume.drive) {
                self.failures.insert(volume.uuid.clone(), "NoRoom".into());
            } else {
                let data = Data {
                    drive: volume.drive.clone(),
                    size_bytes: volume.size_bytes,
                };
                self.volumes.insert(volume.uuid.clone(), data);
            }
        }
    }

    /// The target's side: may this host connect to the volume?
    pub fn lets_in(&self, uuid: &str, host_nqn: &str) -> bool {
        self.applied
            .subsystems
            .iter()
            .filter(|s| s.namespaces.iter().any(|n| n.volume_uuid == uuid))
            .any(|s| s.allowed_hosts.iter().any(|h| h == host_nqn))
    }

    pub fn report(&self) -> NodeReport {
        NodeReport {
            applied_revision: self.applied.revision.clone(),
            host: Some(HostReport {
                host_nqn: self.host_nqn(),
                host_id: "b0a7f8a4-0000-4000-8000-000000000000".into(),
                version: "0.1.0".into(),
                transports: match self.rdma.is_empty() {
                    true => vec![Transport::Tcp.into()],
                    false => vec![Transport::Tcp.into(), Transport::Rdma.into()],
                },
                rdma_devices: self.rdma.clone(),
                local_attach: self.local_attach,
                attach_methods: vec!["fuse".into()],
                unused_drives: Vec::new(),
                kernel: "6.18".into(),
                ..HostReport::default()
            }),
            drives: self
                .applied
                .drives
                .iter()
                .map(|d| self.drive_report(&d.name))
                .collect(),
            volumes: self.volume_reports(),
            portals: self
                .applied
                .portals
                .iter()
                .map(|p| PortalReport {
                    portal: Some(p.clone()),
                    listening: true,
                    roce_versions: vec![RoceVersion::V2.into()],
                    ..PortalReport::default()
                })
                .collect(),
            attachments: self
                .devices
                .iter()
                .map(|uuid| self.attachment_report(uuid))
                .collect(),
            subsystems: Vec::new(),
            externals: self
                .applied
                .externals
                .iter()
                .map(|external| ExternalReport {
                    name: external.name.clone(),
                    looked: true,
                    message: String::new(),
                    subsystems: self.appliance.clone(),
                })
                .collect(),
        }
    }

    fn drive_report(&self, name: &str) -> DriveReport {
        let (state, reason) = match self.drives.contains_key(name) {
            true => (DriveState::Online, ""),
            false => (DriveState::Missing, "NotFound"),
        };
        DriveReport {
            name: name.into(),
            state: state.into(),
            reason: reason.into(),
            message: if reason.is_empty() {
                String::new()
            } else {
                "no such device".into()
            },
            capacity_bytes: self.drives.get(name).copied().unwrap_or_default(),
            free_bytes: self.free_bytes(name),
            ..DriveReport::default()
        }
    }

    fn volume_reports(&self) -> Vec<VolumeReport> {
        let mut reports = Vec::new();
        for wanted in &self.applied.volumes {
            let data = self.volumes.get(&wanted.uuid);
            let failure = self.failures.get(&wanted.uuid);
            let state = match (
                self.drive_is_online(&wanted.drive),
                wanted.absent,
                data,
                failure,
            ) {
                (false, ..) => VolumeState::Unavailable,
                (true, true, None, _) => VolumeState::Absent,
                (true, false, Some(_), None) => VolumeState::Online,
                (true, ..) => VolumeState::Failed,
            };
            reports.push(VolumeReport {
                uuid: wanted.uuid.clone(),
                name: wanted.name.clone(),
                drive: wanted.drive.clone(),
                state: state.into(),
                reason: failure.cloned().unwrap_or_default(),
                size_bytes: data.map_or(0, |d| d.size_bytes),
                ..VolumeReport::default()
            });
        }
        for (uuid, data) in &self.volumes {
            let wanted = self.applied.volumes.iter().any(|v| v.uuid == *uuid);
            if !wanted && self.drive_is_online(&data.drive) {
                reports.push(VolumeReport {
                    uuid: uuid.clone(),
                    drive: data.drive.clone(),
                    state: VolumeState::Orphan.into(),
                    size_bytes: data.size_bytes,
                    ..VolumeReport::default()
                });
            }
        }
        reports
    }

    fn attachment_report(&self, uuid: &str) -> AttachmentReport {
        let path = |(transport, state, ana): &(Transport, PathState, AnaState)| PathReport {
            portal: Some(roadstead_api::v1::Portal {
                transport: (*transport).into(),
                address: "10.0.0.98".into(), // node b
                port: 4420,
                ..Default::default()
            }),
            state: (*state).into(),
            ana_state: (*ana).into(),
            ..PathReport::default()
        };
        AttachmentReport {
            id: uuid.into(),
            volume_uuid: uuid.into(),
            method: "fuse".into(),
            device: "/dev/loop0".into(),
            paths: self.paths.iter().map(path).collect(),
            ..AttachmentReport::default()
        }
    }
}
