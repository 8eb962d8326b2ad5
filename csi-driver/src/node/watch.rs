//! Looking at a published volume, and growing it.

use std::fs;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use roadstead_api::v1::{AttachmentReport, PathState};

use super::attacher::Attacher;
use super::error::NodeError;
use super::format;
use super::mounts;
use super::{Node, blocking};
use crate::proto::csi;
use crate::proto::csi::VolumeHealthErrorType;
use crate::proto::csi::volume_health::VolumeHealthEntry;
use crate::proto::csi::volume_usage::Unit;
use crate::request::{self, Access, Capability, RequestError};

impl<A: Attacher> Node<A> {
    pub(super) async fn expand(
        &self,
        r: csi::NodeExpandVolumeRequest,
    ) -> Result<csi::NodeExpandVolumeResponse, NodeError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let path = published_path(&r.volume_path)?;
        let capability = r.volume_capability.as_ref();
        let capability = capability.map(|c| Capability::parse(Some(c))).transpose()?;
        let range = r.capacity_range.unwrap_or_default();
        let required_bytes =
            u64::try_from(range.required_bytes).map_err(|_| RequestError::BadRange {
                required_bytes: range.required_bytes,
                limit_bytes: range.limit_bytes,
            })?;
        let _guard = self.begin(&volume)?;
        if self.attacher.find(&volume).await?.is_none() {
            return Err(NodeError::NotAttached(volume));
        }
        let is_block = match capability.map(|c| c.access) {
            Some(access) => access == Access::Block,
            None => !path.is_dir(),
        };
        let size_bytes = self.attacher.rescan(&volume).await?;
        if size_bytes < required_bytes {
            return Err(NodeError::NotGrown {
                volume,
                size_bytes,
                required_bytes,
            });
        }
        if !is_block {
            grow_file_system(volume, path, PathBuf::from(r.staging_target_path)).await?;
        }
        Ok(csi::NodeExpandVolumeResponse {
            capacity_bytes: i64::try_from(size_bytes).unwrap_or(i64::MAX),
        })
    }

    pub(super) async fn stats(
        &self,
        r: csi::NodeGetVolumeStatsRequest,
    ) -> Result<csi::NodeGetVolumeStatsResponse, NodeError> {
        let volume = request::identifier("volume_id", &r.volume_id)?;
        let path = published_path(&r.volume_path)?;
        let usage = blocking(move || usage(volume, &path)).await?;
        Ok(csi::NodeGetVolumeStatsResponse { usage })
    }

    pub(super) async fn health(
        &self,
        r: csi::NodeGetVolumeHealthRequest,
    ) -> Result<csi::NodeGetVolumeHealthResponse, NodeError> {
        let volume_id = request::identifier("volume_id", &r.volume_id)?;
        let attached = self.attacher.find(&volume_id).await?;
        Ok(csi::NodeGetVolumeHealthResponse {
            volume_health: Some(csi::VolumeHealth {
                volume_id,
                health_statuses: adverse(attached.as_ref()).into_iter().collect(),
            }),
        })
    }
}

/// The path of a published volume. Where no volume can be, none is found; that is no mistake of the request.
fn published_path(raw: &str) -> Result<PathBuf, RequestError> {
    if raw.is_empty() {
        return Err(RequestError::Missing("volume_path"));
    }
    Ok(PathBuf::from(raw))
}

/// Grows the file system mounted at `path`, or else at `staging`; a read-only one stays as it is.
async fn grow_file_system(
    volume: String,
    path: PathBuf,
    staging: PathBuf,
) -> Result<(), NodeError> {
    let found = {
        let path = path.clone();
        blocking(move || match mounts::at(&path)? {
            Some(mount) => Ok(Some(mount)),
            None => mounts::at(&staging),
        })
        .await?
    };
    let mount = found.ok_or(NodeError::NoSuchPath { volume, path })?;
    if mount.super_read_only {
        return Ok(());
    }
    format::grow(&mount.fs_type, &mount.source, &mount.point).await
}

fn usage(volume: String, path: &Path) -> Result<Vec<csi::VolumeUsage>, NodeError> {
    let doing = || format!("look at {}", path.display());
    let absent = || NodeError::NoSuchPath {
        volume,
        path: path.to_owned(),
    };
    match fs::metadata(path) {
        Ok(meta) if meta.file_type().is_block_device() => {
            let size = fs::File::open(path).and_then(|mut device| device.seek(SeekFrom::End(0)));
            let total = size.map_err(NodeError::system(doing()))?;
            return Ok(vec![csi::VolumeUsage {
                total: signed(total),
                unit: Unit::Bytes.into(),
                ..Default::default()
            }]);
        }
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(absent()),
        Err(error) => return Err(NodeError::system(doing())(error)),
    }
    if mounts::at(path)?.is_none() {
        return Err(absent());
    }
    let stat = rustix::fs::statvfs(path).map_err(NodeError::system(doing()))?;
    let bytes = |blocks: u64| signed(blocks.saturating_mul(stat.f_frsize));
    Ok(vec![
        csi::VolumeUsage {
            available: bytes(stat.f_bavail),
            total: bytes(stat.f_blocks),
            used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
            unit: Unit::Bytes.into(),
        },
        csi::VolumeUsage {
            available: signed(stat.f_favail),
            total: signed(stat.f_files),
            used: signed(stat.f_files.saturating_sub(stat.f_ffree)),
            unit: Unit::Inodes.into(),
        },
    ])
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What is wrong with an attachment, if anything.
fn adverse(attached: Option<&AttachmentReport>) -> Option<VolumeHealthEntry> {
    let entry = |status: VolumeHealthErrorType, reason: &str, message: String| {
        Some(VolumeHealthEntry {
            status: status.into(),
            reason: reason.to_owned(),
            message,
        })
    };
    let Some(attached) = attached else {
        return entry(
            VolumeHealthErrorType::Inaccessible,
            "NotAttached",
            "the volume has no device on this node".into(),
        );
    };
    let down: Vec<_> = attached
        .paths
        .iter()
        .filter(|path| path.state() != PathState::Live)
        .collect();
    let why = down
        .iter()
        .find_map(|p| (!p.message.is_empty()).then_some(p.message.as_str()));
    let why = why.unwrap_or("no connection");
    match down.len() {
        0 => None,
        n if n == attached.paths.len() => entry(
            VolumeHealthErrorType::Inaccessible,
            "NoPath",
            format!("no path to the target works, I/O waits: {why}"),
        ),
        n => entry(
            VolumeHealthErrorType::Degraded,
            "PathDown",
            format!(
                "{n} of {} paths to the target do not work: {why}",
                attached.paths.len()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roadstead_api::v1::PathReport;

    #[test]
    fn health_of_paths() {
        use PathState::{Connecting, Live};
        use VolumeHealthErrorType::{Degraded, Inaccessible};
        let with = |states: &[PathState]| AttachmentReport {
            paths: states
                .iter()
                .map(|state| PathReport {
                    state: (*state).into(),
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        };
        for (attached, expected) in [
            (None, Some(Inaccessible)),
            (Some(with(&[Live])), None),
            (Some(with(&[Live, Live])), None),
            (Some(with(&[Live, Connecting])), Some(Degraded)),
            (Some(with(&[Connecting])), Some(Inaccessible)),
        ] {
            assert_eq!(
                adverse(attached.as_ref()).map(|e| e.status()),
                expected,
                "{attached:?}"
            );
        }
    }
}
