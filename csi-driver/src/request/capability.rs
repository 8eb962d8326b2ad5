//! How a volume is used: as a file system or a raw block device, by whom at once.

use super::RequestError;
use crate::proto::csi::VolumeCapability;
use crate::proto::csi::volume_capability::{AccessType, access_mode};

/// The file systems that the node can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileSystem {
    /// The default.
    Ext4,
    /// Needs a volume of at least 300 MiB.
    Xfs,
}

impl FileSystem {
    /// Its name for mount and blkid.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// The file system of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Ext4, Self::Xfs]
            .into_iter()
            .find(|fs| fs.name() == name)
    }
}

/// How the volume appears to the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// A raw block device.
    Block,
    /// A mounted file system.
    Mount {
        /// Which one.
        fs: FileSystem,
        /// Options of mount(8).
        flags: Vec<String>,
    },
}

/// Who uses the volume at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One node, read and write.
    SingleNodeWriter,
    /// One node, one pod, read and write.
    SingleNodeSingleWriter,
    /// One node, several pods, read and write.
    SingleNodeMultiWriter,
    /// One node, read.
    SingleNodeReader,
    /// Several nodes, read.
    MultiNodeReader,
}

impl Mode {
    /// Nobody writes.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::SingleNodeReader | Self::MultiNodeReader)
    }

    /// At most one node may have the volume.
    pub fn is_exclusive(self) -> bool {
        self != Self::MultiNodeReader
    }
}

/// A volume capability that the driver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// How the volume appears.
    pub access: Access,
    /// Who uses it.
    pub mode: Mode,
}

impl Capability {
    /// Parses one capability.
    ///
    /// # Errors
    /// [`RequestError::Missing`] or [`RequestError::Unsupported`].
    pub fn parse(raw: Option<&VolumeCapability>) -> Result<Self, RequestError> {
        let raw = raw.ok_or(RequestError::Missing("volume_capability"))?;
        let mode = raw
            .access_mode
            .ok_or(RequestError::Missing("volume_capability.access_mode"))?;
        let access = match raw.access_type.as_ref() {
            None => return Err(RequestError::Missing("volume_capability.access_type")),
            Some(AccessType::Block(_)) => Access::Block,
            Some(AccessType::Mount(mount)) => {
                if !mount.volume_mount_group.is_empty() {
                    return Err(RequestError::Unsupported(
                        "volume_mount_group is not supported: the kubelet applies fsGroup itself"
                            .into(),
                    ));
                }
                Access::Mount {
                    fs: file_system(&mount.fs_type)?,
                    flags: mount.mount_flags.clone(),
                }
            }
        };
        Ok(Self {
            access,
            mode: parse_mode(mode.mode())?,
        })
    }

    /// Parses a list of at least one.
    ///
    /// # Errors
    /// As [`Capability::parse`].
    pub fn parse_all(raw: &[VolumeCapability]) -> Result<Vec<Self>, RequestError> {
        if raw.is_empty() {
            return Err(RequestError::Missing("volume_capabilities"));
        }
        raw.iter().map(|one| Self::parse(Some(one))).collect()
    }

    /// The file system asked for, if any.
    pub fn file_system(&self) -> Option<FileSystem> {
        match &self.access {
            Access::Block => None,
            Access::Mount { fs, .. } => Some(*fs),
        }
    }
}

fn file_system(name: &str) -> Result<FileSystem, RequestError> {
    if name.is_empty() {
        return Ok(FileSystem::Ext4);
    }
    FileSystem::parse(name).ok_or_else(|| {
        RequestError::Unsupported(format!(
            "file system '{name}' is not supported: use ext4 or xfs"
        ))
    })
}

fn parse_mode(mode: access_mode::Mode) -> Result<Mode, RequestError> {
    use access_mode::Mode as Raw;
    match mode {
        Raw::SingleNodeWriter => Ok(Mode::SingleNodeWriter),
        Raw::SingleNodeSingleWriter => Ok(Mode::SingleNodeSingleWriter),
        Raw::SingleNodeMultiWriter => Ok(Mode::SingleNodeMultiWriter),
        Raw::SingleNodeReaderOnly => Ok(Mode::SingleNodeReader),
        Raw::MultiNodeReaderOnly => Ok(Mode::MultiNodeReader),
        Raw::MultiNodeSingleWriter | Raw::MultiNodeMultiWriter => {
            Err(RequestError::Unsupported(format!(
                "access mode {} is not supported: a volume is written on one node at a time; \
                 use ReadWriteOnce, ReadWriteOncePod or ReadOnlyMany",
                mode.as_str_name()
            )))
        }
        Raw::Unknown => Err(RequestError::Missing("volume_capability.access_mode.mode")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::csi::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn mount(fs: &str, mode: access_mode::Mode) -> VolumeCapability {
        VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: fs.into(),
                mount_flags: vec!["noatime".into()],
                volume_mount_group: String::new(),
            })),
            access_mode: Some(AccessMode { mode: mode.into() }),
        }
    }

    #[test]
    fn file_systems() {
        for (name, expected) in [
            ("", Some(FileSystem::Ext4)),
            ("ext4", Some(FileSystem::Ext4)),
            ("xfs", Some(FileSystem::Xfs)),
            ("btrfs", None),
            ("EXT4", None),
        ] {
            let parsed =
                Capability::parse(Some(&mount(name, access_mode::Mode::SingleNodeWriter))).ok();
            assert_eq!(parsed.and_then(|c| c.file_system()), expected, "{name}");
        }
    }

    #[test]
    fn modes() {
        use access_mode::Mode as Raw;
        for (raw, expected, read_only, exclusive) in [
            (
                Raw::SingleNodeWriter,
                Some(Mode::SingleNodeWriter),
                false,
                true,
            ),
            (
                Raw::SingleNodeReaderOnly,
                Some(Mode::SingleNodeReader),
                true,
                true,
            ),
            (
                Raw::MultiNodeReaderOnly,
                Some(Mode::MultiNodeReader),
                true,
                false,
            ),
            (
                Raw::SingleNodeSingleWriter,
                Some(Mode::SingleNodeSingleWriter),
                false,
                true,
            ),
            (
                Raw::SingleNodeMultiWriter,
                Some(Mode::SingleNodeMultiWriter),
                false,
                true,
            ),
            (Raw::MultiNodeSingleWriter, None, false, false),
            (Raw::MultiNodeMultiWriter, None, false, false),
            (Raw::Unknown, None, false, false),
        ] {
            let mode = Capability::parse(Some(&mount("", raw)))
                .ok()
                .map(|c| c.mode);
            assert_eq!(mode, expected, "{raw:?}");
            if let Some(mode) = mode {
                assert_eq!(
                    (mode.is_read_only(), mode.is_exclusive()),
                    (read_only, exclusive)
                );
            }
        }
    }

    #[test]
    fn incomplete_ones_are_refused() {
        let mode = Some(AccessMode {
            mode: access_mode::Mode::SingleNodeWriter.into(),
        });
        let block = Some(AccessType::Block(BlockVolume {}));
        let missing = |what| Err(RequestError::Missing(what));
        assert_eq!(Capability::parse(None), missing("volume_capability"));
        let no_type = VolumeCapability {
            access_type: None,
            access_mode: mode,
        };
        assert_eq!(
            Capability::parse(Some(&no_type)),
            missing("volume_capability.access_type")
        );
        let no_mode = VolumeCapability {
            access_type: block,
            access_mode: None,
        };
        assert_eq!(
            Capability::parse(Some(&no_mode)),
            missing("volume_capability.access_mode")
        );
        assert_eq!(
            Capability::parse_all(&[]),
            Err(RequestError::Missing("volume_capabilities"))
        );
        let mut group = mount("", access_mode::Mode::SingleNodeWriter);
        if let Some(AccessType::Mount(m)) = group.access_type.as_mut() {
            m.volume_mount_group = "7".into();
        }
        assert!(matches!(
            Capability::parse(Some(&group)),
            Err(RequestError::Unsupported(_))
        ));
    }
}
