//! Staging: from a volume to a device, and to a file system mounted once for the whole node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tracing::{info, warn};

use super::attacher::Attacher;
use super::error::NodeError;
use super::format::{self, Action};
use super::mounts;
use super::program;
use super::{Node, blocking};
use crate::proto::csi;
use crate::request::{self, Access, Capability, FileSystem, PublishContext};

/// A file system to stage.
struct Wanted<'a> {
    volume: &'a str,
    device: PathBuf,
    staging: PathBuf,
    fs: FileSystem,
    flags: &'a [String],
    read_only: bool,
}

impl<A: Attacher> Node<A> {
    pub(super) async fn stage(
        &self,
        r: csi::NodeStageVolumeRequest,
    ) -> Result<csi::NodeStageVolumeResponse, NodeError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let staging = request::path("staging_target_path", &r.staging_target_path)?;
        let capability = Capability::parse(r.volume_capability.as_ref())?;
        let context = PublishContext::from_map(&r.publish_context)?;
        let _guard = self.begin(&volume)?;

        let read_only = context.read_only || capability.mode.is_read_only();
        let attached = self.attacher.attach(&volume, &context, read_only).await?;
        if let Access::Mount { fs, flags } = &capability.access {
            let wanted = Wanted {
                volume: &volume,
                device: PathBuf::from(attached.device),
                staging,
                fs: *fs,
                flags,
                read_only,
            };
            if let Err(error) = stage_file_system(&wanted).await {
                self.let_go(&volume, wanted.device).await;
                return Err(error);
            }
        }
        Ok(csi::NodeStageVolumeResponse {})
    }

    /// Detaches a device that could not be staged, unless something uses it. The kubelet does not unstage what was refused
    /// for good, so nobody else would, and no other node could have the volume.
    async fn let_go(&self, volume: &str, device: PathBuf) {
        let name = volume.to_owned();
        if blocking(move || check_unused(&name, &device))
            .await
            .is_err()
        {
            return;
        }
        if let Err(error) = self.attacher.detach(volume).await {
            warn!(volume, %error, "cannot detach what could not be staged");
        }
    }

    pub(super) async fn unstage(
        &self,
        r: csi::NodeUnstageVolumeRequest,
    ) -> Result<csi::NodeUnstageVolumeResponse, NodeError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let staging = request::path("staging_target_path", &r.staging_target_path)?;
        let _guard = self.begin(&volume)?;
        blocking(move || mounts::unmount_all(&staging)).await?;
        if let Some(attached) = self.attacher.find(&volume).await? {
            let device = PathBuf::from(attached.device);
            let volume = volume.clone();
            blocking(move || check_unused(&volume, &device)).await?;
        }
        self.attacher.detach(&volume).await?;
        Ok(csi::NodeUnstageVolumeResponse {})
    }
}

async fn stage_file_system(wanted: &Wanted<'_>) -> Result<(), NodeError> {
    if already_staged(wanted).await? {
        return Ok(());
    }
    let content = format::probe(&wanted.device).await?;
    let action = format::decide(&content, wanted.fs).map_err(|found| NodeError::OtherContent {
        volume: wanted.volume.to_owned(),
        device: wanted.device.clone(),
        found,
        asked: wanted.fs.name(),
    })?;
    if action == Action::Format {
        if wanted.read_only {
            return Err(NodeError::EmptyReadOnly(wanted.volume.to_owned()));
        }
        info!(
            volume = wanted.volume,
            device = %wanted.device.display(),
            fs = wanted.fs.name(),
            "empty: making a file system"
        );
        format::make(&wanted.device, wanted.fs).await?;
    } else if !wanted.read_only {
        format::catch_up(&wanted.device, wanted.fs).await?;
    }
    mount(wanted).await
}

/// Whether the device is mounted at the staging path. A mount of another device there is of an attachment that ended
/// without its unstaging; it is taken away, which fails while somebody uses it.
async fn already_staged(wanted: &Wanted<'_>) -> Result<bool, NodeError> {
    let (staging, device) = (wanted.staging.clone(), wanted.device.clone());
    let mounted = blocking(move || {
        let doing = format!("make the folder {}", staging.display());
        let mounted = mounts::at(&staging)?;
        let number = mounts::device_number(&device)?.ok_or_else(|| NodeError::System {
            doing: format!("use {}", device.display()),
            source: io::Error::new(io::ErrorKind::NotFound, "it is no block device here"),
        })?;
        match mounted {
            Some(mount) if mount.device == number => Ok(Some(mount)),
            Some(_) => mounts::unmount_all(&staging).map(|()| None),
            None => fs::create_dir_all(&staging)
                .map(|()| None)
                .map_err(NodeError::system(doing)),
        }
    })
    .await?;
    match mounted {
        Some(mount) if mount.fs_type != wanted.fs.name() => Err(NodeError::OtherContent {
            volume: wanted.volume.to_owned(),
            device: wanted.device.clone(),
            found: format!("a file system {}", mount.fs_type),
            asked: wanted.fs.name(),
        }),
        mounted => Ok(mounted.is_some()),
    }
}

async fn mount(wanted: &Wanted<'_>) -> Result<(), NodeError> {
    let device = wanted.device.to_string_lossy();
    let staging = wanted.staging.to_string_lossy();
    let doing = format!("mount {device} at {staging}");
    let mut options: Vec<&str> = wanted.flags.iter().map(String::as_str).collect();
    if wanted.read_only {
        options.push("ro");
    }
    let options = options.join(",");
    let mut args = vec!["-t", wanted.fs.name()];
    if !options.is_empty() {
        args.extend(["-o", &options]);
    }
    args.extend([device.as_ref(), staging.as_ref()]);
    program::succeed(&doing, "mount", &args).await
}

/// Nobody uses the device: neither a mount that can be seen from here, nor one in another container.
fn check_unused(volume: &str, device: &Path) -> Result<(), NodeError> {
    let Some(number) = mounts::device_number(device)? else {
        return Ok(());
    };
    let in_use = |at: String| NodeError::StillInUse {
        volume: volume.to_owned(),
        device: device.to_owned(),
        at,
    };
    let mounts = mounts::read()?;
    let at = mounts::users(&mounts, device, number).next();
    if let Some(at) = at {
        return Err(in_use(format!(" at {}", at.display())));
    }
    // The kernel gives a block device to one exclusive user; a mounted file system is one.
    let flags = OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC;
    match rustix::fs::open(device, flags, Mode::empty()) {
        Err(rustix::io::Errno::BUSY) => Err(in_use(String::new())),
        _ => Ok(()),
    }
}
