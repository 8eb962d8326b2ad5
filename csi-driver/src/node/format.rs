//! Finding out what a device holds, and making a file system on one that holds nothing.
//!
//! A device is formatted only when there is proof that it holds nothing: no signature of anything known, and its first
//! 2 KiB, where the file systems we make have their super block, are zero. mkfs.ext4 writes the super block last, after
//! all else is on the device; mkfs.xfs marks it unfinished until then. So what a killed mkfs left is told from a file
//! system, and is formatted again. A damaged super block is not zero, and is refused.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::error::NodeError;
use super::program;
use crate::request::FileSystem;

/// How much of the device's beginning must be zero, in bytes: the end of ext4's super block.
const HEAD_LEN: usize = 2048;

/// What an XFS super block begins with.
const XFS_MAGIC: &[u8] = b"XFSB";

/// Offset of the flag in an XFS super block that mkfs clears when it is done (sb_inprogress).
const XFS_IN_PROGRESS: usize = 126;

/// Offsets in the head of ext4's s_blocks_count_lo, s_log_block_size and s_blocks_count_hi.
const EXT4_BLOCKS_LOW: usize = 1024 + 0x4;
const EXT4_LOG_BLOCK_SIZE: usize = 1024 + 0x18;
const EXT4_BLOCKS_HIGH: usize = 1024 + 0x150;

/// Room at the end of a device that is left alone: mkfs and resize2fs do not use a last block group that has hardly
/// more room than its own tables need, which are less than 8 MiB. Without this, every staging would check such a volume.
const EXT4_GROW_MIN_BYTES: u64 = 16 << 20;

/// Exit status of e2fsck: errors were mended.
const E2FSCK_MENDED: i32 = 1;

/// Exit status of blkid: nothing found.
const BLKID_NOTHING: i32 = 2;

/// Exit status of blkid: several signatures that exclude each other.
const BLKID_AMBIVALENT: i32 = 8;

/// What a device holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing, or what a killed mkfs left.
    Nothing,
    /// A file system of this type.
    FileSystem(String),
    /// Something else; words for people.
    Other(String),
}

/// What to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Make the file system, then mount it.
    Format,
    /// Mount it.
    Mount,
}

/// Decides what to do with what the device holds. `Err` says what is in the way.
pub(super) fn decide(content: &Content, asked: FileSystem) -> Result<Action, String> {
    match content {
        Content::Nothing => Ok(Action::Format),
        Content::FileSystem(name) if name == asked.name() => Ok(Action::Mount),
        Content::FileSystem(name) => Err(format!("a file system {name}")),
        Content::Other(what) => Err(what.clone()),
    }
}

/// Finds out what the device holds.
pub(super) async fn probe(device: &Path) -> Result<Content, NodeError> {
    let doing = format!("find out what {} holds", device.display());
    let head = {
        let (device, doing) = (device.to_owned(), doing.clone());
        super::blocking(move || read_head(&device).map_err(NodeError::system(doing))).await?
    };
    let name = device.to_string_lossy();
    let args = ["--probe", "--output", "export", name.as_ref()];
    let ended = program::run(&doing, "blkid", &args).await?;
    match ended.code {
        Some(0) => Ok(judge(Some(&ended.stdout), &head)),
        Some(BLKID_NOTHING) => Ok(judge(None, &head)),
        Some(BLKID_AMBIVALENT) => Ok(Content::Other(
            "signatures of several things at once".into(),
        )),
        _ => Err(ended.failed(doing, "blkid")),
    }
}

fn read_head(device: &Path) -> Result<Vec<u8>, std::io::Error> {
    let mut head = vec![0; HEAD_LEN];
    File::open(device)?.read_exact(&mut head)?;
    Ok(head)
}

/// Judges what blkid printed and how the device begins.
fn judge(blkid: Option<&str>, head: &[u8]) -> Content {
    let value = |key: &str| {
        let lines = blkid.unwrap_or_default().lines();
        lines
            .filter_map(|line| line.split_once('='))
            .find(|(k, _)| *k == key)
            .map(|(_, v)| v)
    };
    let unfinished_xfs =
        head.starts_with(XFS_MAGIC) && head.get(XFS_IN_PROGRESS).is_some_and(|flag| *flag != 0);
    match (value("TYPE"), value("PTTYPE")) {
        (Some("xfs"), _) if unfinished_xfs => Content::Nothing,
        (Some(name), _) if value("USAGE").is_none_or(|usage| usage == "filesystem") => {
            Content::FileSystem(name.to_owned())
        }
        (Some(name), _) => Content::Other(format!("a member of {name}")),
        (None, Some(table)) => Content::Other(format!("a partition table ({table})")),
        (None, None) if head.iter().all(|byte| *byte == 0) => Content::Nothing,
        (None, None) => Content::Other("data of no known kind, or a damaged file system".into()),
    }
}

/// Makes the file system. The volume is thin and reads as zeros, so nothing is discarded or zeroed beforehand.
pub(super) async fn make(device: &Path, fs: FileSystem) -> Result<(), NodeError> {
    let name = device.to_string_lossy();
    let doing = format!("make a file system {} on {name}", fs.name());
    match fs {
        FileSystem::Ext4 => {
            let extended = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
            let args = ["-q", "-F", "-m", "0", "-E", extended, name.as_ref()];
            program::succeed(&doing, "mkfs.ext4", &args).await
        }
        FileSystem::Xfs => {
            let args = ["-q", "-f", "-K", name.as_ref()];
            program::succeed(&doing, "mkfs.xfs", &args).await
        }
    }
}

/// Gives an ext4 file system that is not mounted the whole device, if it is clearly smaller: the volume grew while it was
/// not in use, or it could not be grown in use (which needs CAP_SYS_RESOURCE). XFS grows mounted only, and always can.
pub(super) async fn catch_up(device: &Path, fs: FileSystem) -> Result<(), NodeError> {
    if fs != FileSystem::Ext4 {
        return Ok(());
    }
    let doing = format!("grow the file system on {}", device.display());
    let (used, size) = {
        let (device, doing) = (device.to_owned(), doing.clone());
        super::blocking(move || sizes(&device).map_err(NodeError::system(doing))).await?
    };
    if size.saturating_sub(used) < EXT4_GROW_MIN_BYTES {
        return Ok(());
    }
    let name = device.to_string_lossy();
    // resize2fs insists on a check; what replaying the journal mends counts as success.
    let checked = program::run(&doing, "e2fsck", &["-f", "-p", name.as_ref()]).await?;
    if !matches!(checked.code, Some(0 | E2FSCK_MENDED)) {
        return Err(checked.failed(doing, "e2fsck"));
    }
    program::succeed(&doing, "resize2fs", &[name.as_ref()]).await
}

/// Bytes that the ext4 file system on the device knows of, and bytes of the device.
fn sizes(device: &Path) -> Result<(u64, u64), std::io::Error> {
    let head = read_head(device)?;
    let size = File::open(device)?.seek(SeekFrom::End(0))?;
    Ok((ext4_bytes(&head), size))
}

/// The size of the ext4 file system that begins with `head`; 0 if it makes no sense.
fn ext4_bytes(head: &[u8]) -> u64 {
    let word = |at: usize| {
        let bytes = head.get(at..at + 4).and_then(|b| b.try_into().ok());
        u64::from(u32::from_le_bytes(bytes.unwrap_or_default()))
    };
    let blocks = word(EXT4_BLOCKS_HIGH) << 32 | word(EXT4_BLOCKS_LOW);
    let shift = u32::try_from(10 + word(EXT4_LOG_BLOCK_SIZE)).unwrap_or(u32::MAX);
    blocks.checked_shl(shift).unwrap_or(0)
}

/// Gives the mounted file system the whole device.
pub(super) async fn grow(fs_type: &str, device: &Path, point: &Path) -> Result<(), NodeError> {
    let doing = format!("grow the file system at {}", point.display());
    match FileSystem::parse(fs_type) {
        Some(FileSystem::Ext4) => {
            program::succeed(&doing, "resize2fs", &[device.to_string_lossy().as_ref()]).await
        }
        Some(FileSystem::Xfs) => {
            program::succeed(&doing, "xfs_growfs", &[point.to_string_lossy().as_ref()]).await
        }
        None => Err(NodeError::PathTaken {
            path: point.to_owned(),
            found: format!("a file system {fs_type}, which was not made here"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut head = vec![0; HEAD_LEN];
        head[at..at + bytes.len()].copy_from_slice(bytes);
        head
    }

    #[test]
    fn the_size_of_ext4() {
        let mut head = vec![0; HEAD_LEN];
        assert_eq!(ext4_bytes(&head), 0);
        head[EXT4_BLOCKS_LOW..][..4].copy_from_slice(&65536_u32.to_le_bytes());
        head[EXT4_LOG_BLOCK_SIZE..][..4].copy_from_slice(&2_u32.to_le_bytes());
        assert_eq!(ext4_bytes(&head), 256 << 20);
        head[EXT4_BLOCKS_HIGH..][..4].copy_from_slice(&1_u32.to_le_bytes());
        assert_eq!(ext4_bytes(&head), (256 << 20) + (1 << 44));
        head[EXT4_LOG_BLOCK_SIZE..][..4].fill(0xff);
        assert_eq!(ext4_bytes(&head), 0);
    }

    fn xfs_head(in_progress: u8) -> Vec<u8> {
        let mut head = head(0, XFS_MAGIC);
        head[XFS_IN_PROGRESS] = in_progress;
        head
    }

    #[test]
    fn content() {
        let fs = |name: &str| Content::FileSystem(name.into());
        let other = |what: &str| Content::Other(what.into());
        for (blkid, head, expected) in [
            (None, vec![0; HEAD_LEN], Content::Nothing),
            (
                None,
                head(2047, &[1]),
                other("data of no known kind, or a damaged file system"),
            ),
            (
                None,
                xfs_head(0),
                other("data of no known kind, or a damaged file system"),
            ),
            (
                Some("DEVNAME=/dev/loop3\nUUID=1\nBLOCK_SIZE=4096\nTYPE=ext4\nUSAGE=filesystem\n"),
                head(1080, &[0x53, 0xef]),
                fs("ext4"),
            ),
            (Some("TYPE=xfs\nUSAGE=filesystem"), xfs_head(0), fs("xfs")),
            (
                Some("TYPE=xfs\nUSAGE=filesystem"),
                xfs_head(1),
                Content::Nothing,
            ),
            (
                Some("TYPE=btrfs\nUSAGE=filesystem"),
                vec![0; HEAD_LEN],
                fs("btrfs"),
            ),
            (
                Some("TYPE=LVM2_member\nUSAGE=raid"),
                vec![0; HEAD_LEN],
                other("a member of LVM2_member"),
            ),
            (
                Some("PTUUID=1\nPTTYPE=gpt"),
                vec![0; HEAD_LEN],
                other("a partition table (gpt)"),
            ),
        ] {
            assert_eq!(judge(blkid, &head), expected, "{blkid:?}");
        }
    }

    #[test]
    fn nothing_but_nothing_is_formatted() {
        let fs = |name: &str| Content::FileSystem(name.into());
        for (content, asked, expected) in [
            (Content::Nothing, FileSystem::Ext4, Ok(Action::Format)),
            (fs("ext4"), FileSystem::Ext4, Ok(Action::Mount)),
            (fs("xfs"), FileSystem::Xfs, Ok(Action::Mount)),
            (
                fs("xfs"),
                FileSystem::Ext4,
                Err("a file system xfs".to_owned()),
            ),
            (
                fs("ext3"),
                FileSystem::Ext4,
                Err("a file system ext3".to_owned()),
            ),
            (
                Content::Other("x".into()),
                FileSystem::Ext4,
                Err("x".to_owned()),
            ),
        ] {
            assert_eq!(decide(&content, asked), expected, "{content:?}");
        }
    }
}
