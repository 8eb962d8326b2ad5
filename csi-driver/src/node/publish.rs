//! Publishing: from what is staged to where a pod sees it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::attacher::Attacher;
use super::error::NodeError;
use super::mounts::{self, DeviceNumber};
use super::{Node, blocking};
use crate::proto::csi;
use crate::request::{self, Access, Capability, FileSystem, Mode};

/// What a pod asked for.
struct Wanted {
    volume: String,
    target: PathBuf,
    mode: Mode,
    read_only: bool,
}

impl<A: Attacher> Node<A> {
    pub(super) async fn publish(
        &self,
        r: csi::NodePublishVolumeRequest,
    ) -> Result<csi::NodePublishVolumeResponse, NodeError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let target = request::path("target_path", &r.target_path)?;
        let capability = Capability::parse(r.volume_capability.as_ref())?;
        let staging = request::path("staging_target_path", &r.staging_target_path)?;
        let _guard = self.begin(&volume)?;
        let wanted = Wanted {
            volume: volume.clone(),
            target,
            mode: capability.mode,
            read_only: r.readonly || capability.mode.is_read_only(),
        };
        match capability.access {
            Access::Mount { fs, .. } => {
                blocking(move || publish_file_system(&wanted, &staging, fs)).await?;
            }
            Access::Block => {
                let attached = self.attacher.find(&volume).await?;
                let device = attached.map(|a| PathBuf::from(a.device));
                blocking(move || publish_device(&wanted, device.as_deref(), staging)).await?;
            }
        }
        Ok(csi::NodePublishVolumeResponse {})
    }

    pub(super) async fn unpublish(
        &self,
        r: csi::NodeUnpublishVolumeRequest,
    ) -> Result<csi::NodeUnpublishVolumeResponse, NodeError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let target = request::path("target_path", &r.target_path)?;
        let _guard = self.begin(&volume)?;
        blocking(move || {
            mounts::unmount_all(&target)?;
            remove_empty(&target)
        })
        .await?;
        Ok(csi::NodeUnpublishVolumeResponse {})
    }
}

fn publish_file_system(wanted: &Wanted, staging: &Path, fs: FileSystem) -> Result<(), NodeError> {
    let staged = mounts::at(staging)?.ok_or_else(|| NodeError::NotStaged {
        volume: wanted.volume.clone(),
        path: staging.to_owned(),
    })?;
    // Two claims of one volume share its staging: the kubelet stages for the first of them only.
    if staged.fs_type != fs.name() {
        return Err(NodeError::OtherContent {
            volume: wanted.volume.clone(),
            device: staged.source,
            found: format!("a file system {}", staged.fs_type),
            asked: fs.name(),
        });
    }
    let same = match mounts::at(&wanted.target)? {
        Some(mount) if mount.device == staged.device && mount.root == staged.root => Some(mount),
        Some(other) => return Err(taken(wanted, &other.source)),
        None => None,
    };
    if let Some(mount) = same {
        let is_read_only = mount.read_only || mount.super_read_only;
        return match (wanted.read_only, is_read_only) {
            // An earlier call may have been killed before it made the mount read-only.
            (true, false) => mounts::make_read_only(&wanted.target),
            (false, true) if !staged.super_read_only => Err(taken(wanted, Path::new("read-only"))),
            _ => Ok(()),
        };
    }
    check_single_writer(wanted, &staged.source, staged.device, staging)?;
    let doing = format!("make the folder {}", wanted.target.display());
    std::fs::create_dir_all(&wanted.target).map_err(NodeError::system(doing))?;
    bind(staging, wanted)
}

fn publish_device(
    wanted: &Wanted,
    device: Option<&Path>,
    staging: PathBuf,
) -> Result<(), NodeError> {
    let not_staged = || NodeError::NotStaged {
        volume: wanted.volume.clone(),
        path: staging,
    };
    let Some(device) = device else {
        return Err(not_staged());
    };
    let Some(number) = mounts::device_number(device)? else {
        return Err(not_staged());
    };
    if mounts::at(&wanted.target)?.is_some() {
        return if mounts::device_number(&wanted.target)? == Some(number) {
            Ok(())
        } else {
            Err(taken(wanted, Path::new("another device")))
        };
    }
    check_single_writer(wanted, device, number, Path::new(""))?;
    let doing = format!("make the file {}", wanted.target.display());
    if let Some(folder) = wanted.target.parent() {
        fs::create_dir_all(folder).map_err(NodeError::system(doing.clone()))?;
    }
    let made = fs::File::options()
        .create(true)
        .append(true)
        .open(&wanted.target);
    made.map_err(NodeError::system(doing))?;
    bind(device, wanted)
}

fn bind(source: &Path, wanted: &Wanted) -> Result<(), NodeError> {
    mounts::bind(source, &wanted.target)?;
    if wanted.read_only {
        mounts::make_read_only(&wanted.target)?;
    }
    Ok(())
}

/// In mode SINGLE_NODE_SINGLE_WRITER the volume is at no other path than where it is staged.
fn check_single_writer(
    wanted: &Wanted,
    device: &Path,
    number: DeviceNumber,
    staging: &Path,
) -> Result<(), NodeError> {
    if wanted.mode != Mode::SingleNodeSingleWriter {
        return Ok(());
    }
    let staged_at = mounts::at(staging)?.map(|m| m.point);
    let all = mounts::read()?;
    let elsewhere = mounts::users(&all, device, number).find(|at| Some(at) != staged_at.as_ref());
    match elsewhere {
        Some(path) => Err(NodeError::SingleWriter {
            volume: wanted.volume.clone(),
            path,
        }),
        None => Ok(()),
    }
}

fn taken(wanted: &Wanted, found: &Path) -> NodeError {
    NodeError::PathTaken {
        path: wanted.target.clone(),
        found: found.display().to_string(),
    }
}

/// Removes the folder or file that the mount was on; one that holds something is an error.
fn remove_empty(path: &Path) -> Result<(), NodeError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir(path),
        Ok(meta) if meta.len() == 0 => fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is not empty",
        )),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(NodeError::System {
            doing: format!("remove {}", path.display()),
            source: error,
        }),
        _ => Ok(()),
    }
}
