//! A node whose volumes are files behind loop devices.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use roadstead_api::v1::{AttachmentReport, PathReport, PathState};
use roadstead_csi::node::{Attacher, Node, NodeError};
use roadstead_csi::proto::csi;
use roadstead_csi::proto::csi::node_server::Node as _;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::proto::csi::volume_capability::{
    AccessMode, AccessType, BlockVolume, MountVolume,
};
use roadstead_csi::request::{PathSpec, PublishContext};
use roadstead_csi::rpc::Rpc;
use tempfile::TempDir;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Status};

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Where something is mounted, the last mount first.
fn mount_points() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|point| point.replace("\\040", " ").into());
    let mut points: Vec<PathBuf> = points.collect();
    points.reverse();
    points
}

/// Whether something is mounted at `path`.
pub(crate) fn is_mounted(path: &Path) -> bool {
    mount_points().iter().any(|point| point == path)
}

/// Whether the kernel lets this process grow a mounted ext4: that takes CAP_SYS_RESOURCE.
pub(crate) fn can_grow_ext4() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & CAP_SYS_RESOURCE != 0
}

/// Stands for the dataplane: a volume is a file in a folder, its device a loop device.
pub(crate) struct Loops {
    folder: PathBuf,
    devices: Mutex<BTreeMap<String, PathBuf>>,
    gate: Arc<Semaphore>,
}

impl Loops {
    /// Attaching waits until this is dropped.
    pub(crate) fn hold(&self) -> OwnedSemaphorePermit {
        self.gate.clone().try_acquire_owned().unwrap()
    }

    /// Returns once somebody waits to attach.
    pub(crate) async fn until_waiting(&self) {
        while !self.folder.join("waiting").exists() {
            tokio::task::yield_now().await;
        }
    }

    /// Forgets an attachment; its device stays.
    pub(crate) fn forget(&self, volume: &str) -> PathBuf {
        self.devices.lock().unwrap().remove(volume).unwrap()
    }

    fn report(&self, volume: &str) -> Option<AttachmentReport> {
        let devices = self.devices.lock().unwrap();
        let device = devices.get(volume)?.display().to_string();
        Some(AttachmentReport {
            id: volume.to_owned(),
            device,
            paths: vec![PathReport {
                state: PathState::Live.into(),
                ..Default::default()
            }],
            ..Default::default()
        })
    }
}

#[tonic::async_trait]
impl Attacher for Loops {
    async fn attach(
        &self,
        volume: &str,
        _: &PublishContext,
        read_only: bool,
    ) -> Result<AttachmentReport, NodeError> {
        if self.gate.available_permits() == 0 {
            fs::write(self.folder.join("waiting"), "").unwrap();
        }
        let _permit = self.gate.acquire().await.unwrap();
        if let Some(report) = self.report(volume) {
            return Ok(report);
        }
        let mut losetup = Command::new("losetup");
        losetup
            .args(["--find", "--show"])
            .arg(self.folder.join(volume));
        if read_only {
            losetup.arg("--read-only");
        }
        let device = PathBuf::from(run(&mut losetup));
        self.devices
            .lock()
            .unwrap()
            .insert(volume.to_owned(), device);
        Ok(self.report(volume).unwrap())
    }

    async fn detach(&self, volume: &str) -> Result<(), NodeError> {
        if let Some(device) = self.devices.lock().unwrap().remove(volume) {
            run(Command::new("losetup").arg("-d").arg(device));
        }
        Ok(())
    }

    async fn rescan(&self, volume: &str) -> Result<u64, NodeError> {
        let device = self.devices.lock().unwrap()[volume].clone();
        run(Command::new("losetup").arg("-c").arg(device));
        Ok(fs::metadata(self.folder.join(volume)).unwrap().len())
    }

    async fn find(&self, volume: &str) -> Result<Option<AttachmentReport>, NodeError> {
        Ok(self.report(volume))
    }
}

/// The attacher as the node and the test share it.
pub(crate) struct Shared(Arc<Loops>);

#[tonic::async_trait]
impl Attacher for Shared {
    async fn attach(
        &self,
        volume: &str,
        context: &PublishContext,
        read_only: bool,
    ) -> Result<AttachmentReport, NodeError> {
        self.0.attach(volume, context, read_only).await
    }
    async fn detach(&self, volume: &str) -> Result<(), NodeError> {
        self.0.detach(volume).await
    }
    async fn rescan(&self, volume: &str) -> Result<u64, NodeError> {
        self.0.rescan(volume).await
    }
    async fn find(&self, volume: &str) -> Result<Option<AttachmentReport>, NodeError> {
        self.0.find(volume).await
    }
}

/// A node and its folders; everything is unmounted and detached at the end.
pub(crate) struct Bench {
    pub(crate) node: Node<Shared>,
    pub(crate) loops: Arc<Loops>,
    folder: PathBuf,
    _folder: TempDir,
}

/// A bench, or a sentence why there is none.
pub(crate) fn bench() -> Option<Bench> {
    let is_root = run(Command::new("id").arg("-u")) == "0";
    if !is_root || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: needs root and loop devices");
        return None;
    }
    let temporary = tempfile::tempdir().unwrap();
    let folder = temporary.path().canonicalize().unwrap();
    fs::create_dir(folder.join("images")).unwrap();
    let loops = Arc::new(Loops {
        folder: folder.join("images"),
        devices: Mutex::default(),
        gate: Arc::new(Semaphore::new(1)),
    });
    Some(Bench {
        node: Node::new("node1".into(), 8, Shared(loops.clone()), Rpc::default()),
        loops,
        folder,
        _folder: temporary,
    })
}

impl Drop for Bench {
    fn drop(&mut self) {
        for point in mount_points() {
            if point.starts_with(&self.folder) {
                let _ = Command::new("umount").arg(point).status();
            }
        }
        for device in self.loops.devices.lock().unwrap().values() {
            let _ = Command::new("losetup").arg("-d").arg(device).status();
        }
    }
}

impl Bench {
    /// Makes or grows a volume.
    pub(crate) fn image(&self, volume: &str, size_bytes: u64) -> PathBuf {
        let path = self.folder.join("images").join(volume);
        let file = fs::File::options()
            .create(true)
            .append(true)
            .open(&path)
            .unwrap();
        file.set_len(size_bytes).unwrap();
        path
    }

    pub(crate) fn device(&self, volume: &str) -> Option<PathBuf> {
        self.loops.devices.lock().unwrap().get(volume).cloned()
    }

    pub(crate) fn staging(&self, volume: &str) -> PathBuf {
        self.folder.join("staging of").join(volume)
    }

    pub(crate) fn target(&self, pod: &str) -> PathBuf {
        self.folder.join("pods").join(pod).join("mount")
    }

    pub(crate) fn stage_request(
        &self,
        volume: &str,
        fs_type: &str,
        mode: Mode,
    ) -> csi::NodeStageVolumeRequest {
        let context = PublishContext {
            nqn: "nqn".into(),
            uuid: "uuid".into(),
            nguid: String::new(),
            nsid: 0,
            external: String::new(),
            read_only: false,
            paths: vec![PathSpec {
                transport: "tcp".into(),
                address: "127.0.0.1".into(),
                port: 4420,
                preference: 0,
            }],
            method: String::new(),
        };
        csi::NodeStageVolumeRequest {
            volume_id: volume.into(),
            staging_target_path: self.staging(volume).display().to_string(),
            publish_context: context.to_map().unwrap(),
            volume_capability: Some(capability(fs_type, mode)),
            ..Default::default()
        }
    }

    pub(crate) async fn stage(&self, volume: &str, fs_type: &str) -> Result<(), Status> {
        self.stage_as(volume, fs_type, Mode::SingleNodeWriter).await
    }

    pub(crate) async fn stage_as(
        &self,
        volume: &str,
        fs_type: &str,
        mode: Mode,
    ) -> Result<(), Status> {
        let request = self.stage_request(volume, fs_type, mode);
        self.node
            .node_stage_volume(Request::new(request))
            .await
            .map(|_| ())
    }

    pub(crate) async fn unstage(&self, volume: &str) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: volume.into(),
            staging_target_path: self.staging(volume).display().to_string(),
        };
        self.node
            .node_unstage_volume(Request::new(request))
            .await
            .map(|_| ())
    }

    pub(crate) async fn publish(
        &self,
        volume: &str,
        pod: &str,
        fs_type: &str,
        read_only: bool,
    ) -> Result<(), Status> {
        self.publish_as(volume, pod, fs_type, read_only, Mode::SingleNodeWriter)
            .await
    }

    pub(crate) async fn publish_as(
        &self,
        volume: &str,
        pod: &str,
        fs_type: &str,
        readonly: bool,
        mode: Mode,
    ) -> Result<(), Status> {
        let request = csi::NodePublishVolumeRequest {
            volume_id: volume.into(),
            staging_target_path: self.staging(volume).display().to_string(),
            target_path: self.target(pod).display().to_string(),
            volume_capability: Some(capability(fs_type, mode)),
            readonly,
            ..Default::default()
        };
        self.node
            .node_publish_volume(Request::new(request))
            .await
            .map(|_| ())
    }

    pub(crate) async fn unpublish(&self, volume: &str, pod: &str) -> Result<(), Status> {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: volume.into(),
            target_path: self.target(pod).display().to_string(),
        };
        self.node
            .node_unpublish_volume(Request::new(request))
            .await
            .map(|_| ())
    }

    pub(crate) async fn stats(
        &self,
        volume: &str,
        pod: &str,
    ) -> Result<Vec<csi::VolumeUsage>, Status> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: volume.into(),
            volume_path: self.target(pod).display().to_string(),
            ..Default::default()
        };
        let response = self
            .node
            .node_get_volume_stats(Request::new(request))
            .await?;
        Ok(response.into_inner().usage)
    }
}

/// An empty file system type means a raw block volume.
fn capability(fs_type: &str, mode: Mode) -> csi::VolumeCapability {
    let access = if fs_type.is_empty() {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume {
            fs_type: fs_type.into(),
            mount_flags: vec!["noatime".into()],
            ..Default::default()
        })
    };
    csi::VolumeCapability {
        access_type: Some(access),
        access_mode: Some(AccessMode { mode: mode.into() }),
    }
}
