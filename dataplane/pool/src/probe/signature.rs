//! What is on a medium, told by the marks that file systems, volume managers and partition tables leave.

use std::fmt;
use std::io;

use crate::blocks::{BLOCK, Blocks, index};
use crate::media::Media;

/// Looked at from the start and from the end, bytes.
const HEAD_BYTES: u64 = 1 << 20;
const TAIL_BYTES: u64 = 128 << 10;

/// Something that was found on a medium.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// A file system, a volume manager, a partition table, by its common name.
    Known(&'static str),
    /// Bytes other than zero that nothing known explains.
    UnknownData,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(name) => f.write_str(name),
            Self::UnknownData => f.write_str("unknown data (bytes other than zero)"),
        }
    }
}

/// What is on `media`; none if its beginning and end are blank. Reads only.
pub fn identify(media: &dyn Media) -> io::Result<Option<Signature>> {
    let (head, tail, size_bytes) = ends(media)?;
    Ok(recognise(&head, &tail, size_bytes)
        .map(Signature::Known)
        .or_else(|| {
            let blank = head.iter().chain(&tail).all(|byte| *byte == 0);
            (!blank).then_some(Signature::UnknownData)
        }))
}

/// Like [`identify`], without unknown data.
pub(crate) fn identify_known(media: &dyn Media) -> io::Result<Option<Signature>> {
    let (head, tail, size_bytes) = ends(media)?;
    Ok(recognise(&head, &tail, size_bytes).map(Signature::Known))
}

fn ends(media: &dyn Media) -> io::Result<(Vec<u8>, Vec<u8>, u64)> {
    let size = media.size_bytes()?;
    let whole = size - size % 512;
    let start = whole.saturating_sub(TAIL_BYTES) / BLOCK * BLOCK;
    Ok((
        read(media, 0, HEAD_BYTES.min(whole))?,
        read(media, start, whole - start)?,
        size,
    ))
}

fn read(media: &dyn Media, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut blocks = Blocks::for_bytes(index(len));
    if let Some(buffer) = blocks.as_bytes_mut().get_mut(..index(len)) {
        media.read_at(offset, buffer)?;
    }
    Ok(blocks
        .as_bytes()
        .get(..index(len))
        .unwrap_or_default()
        .to_vec())
}

/// Marks at fixed places of the beginning. Those that say more come first.
const MARKS: &[(&str, usize, &[u8])] = &[
    ("a LUKS volume", 0, b"LUKS\xba\xbe"),
    ("a LUKS volume", 16 << 10, b"SKUL\xba\xbe"),
    ("an LVM2 physical volume", 24, b"LVM2 001"),
    ("an LVM2 physical volume", 512 + 24, b"LVM2 001"),
    ("an LVM2 physical volume", 1024 + 24, b"LVM2 001"),
    ("an LVM2 physical volume", 1536 + 24, b"LVM2 001"),
    ("a member of a Linux RAID (md)", 0, b"\xfc\x4e\x2b\xa9"),
    ("a member of a Linux RAID (md)", 4096, b"\xfc\x4e\x2b\xa9"),
    ("an xfs file system", 0, b"XFSB"),
    ("a btrfs file system", (64 << 10) + 64, b"_BHRfS_M"),
    ("swap space", 4086, b"SWAPSPACE2"),
    ("swap space", 4086, b"SWAP-SPACE"),
    ("swap space", (64 << 10) - 10, b"SWAPSPACE2"),
    (
        "a bcache device",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca",
    ),
    (
        "a bcachefs file system",
        4096 + 24,
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9",
    ),
    ("a Ceph BlueStore device", 0, b"bluestore block device"),
    ("an Oracle ASM disk", 32, b"ORCLDISK"),
    ("an f2fs file system", 1024, b"\x10\x20\xf5\xf2"),
    ("an erofs file system", 1024, b"\xe2\xe1\xf5\xe0"),
    ("a squashfs file system", 0, b"hsqs"),
    ("a jfs file system", 32 << 10, b"JFS1"),
    ("a reiserfs file system", (64 << 10) + 52, b"ReIsEr"),
    ("an APFS container", 32, b"NXSB"),
    ("an HFS+ file system", 1024, b"H+"),
    ("an ISO 9660 image", (32 << 10) + 1, b"CD001"),
    ("a UDF file system", (32 << 10) + 1, b"BEA01"),
    ("a UDF file system", (32 << 10) + 1, b"NSR0"),
    ("a GPT partition table", 512, b"EFI PART"),
    ("a GPT partition table", 4096, b"EFI PART"),
    ("an NTFS file system", 3, b"NTFS    "),
    ("an exFAT file system", 3, b"EXFAT   "),
    ("a FAT file system", 54, b"FAT1"),
    ("a FAT file system", 82, b"FAT32   "),
];

/// What the first MiB (`head`) and the last 128 KiB (`tail`) of a medium of `size_bytes` show.
pub fn recognise(head: &[u8], tail: &[u8], size_bytes: u64) -> Option<&'static str> {
    let marked =
        |(_, at, mark): &&(&str, usize, &[u8])| head.get(*at..*at + mark.len()) == Some(*mark);
    if let Some((name, ..)) = MARKS.iter().find(marked) {
        return Some(name);
    }
    ext(head)
        .or_else(|| zfs(head))
        .or_else(|| at_the_end(tail, size_bytes))
        .or_else(|| (head.get(510..512) == Some(&[0x55, 0xaa])).then_some("an MBR partition table"))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_le_bytes)
}

/// The ext family: the magic is two bytes only, so the block size must make sense as well.
fn ext(head: &[u8]) -> Option<&'static str> {
    const SUPERBLOCK: usize = 1024;
    const COMPAT_HAS_JOURNAL: u32 = 0x4;
    const INCOMPAT_EXT4: u32 = 0x40 | 0x80 | 0x200; // extents, 64 bit, flexible groups
    if head.get(SUPERBLOCK + 0x38..SUPERBLOCK + 0x3a) != Some(&[0x53, 0xef]) {
        return None;
    }
    if u32_at(head, SUPERBLOCK + 0x18)? > 6 {
        return None;
    }
    if u32_at(head, SUPERBLOCK + 0x60)? & INCOMPAT_EXT4 != 0 {
        Some("an ext4 file system")
    } else if u32_at(head, SUPERBLOCK + 0x5c)? & COMPAT_HAS_JOURNAL != 0 {
        Some("an ext3 file system")
    } else {
        Some("an ext2 file system")
    }
}

/// ZFS: an uberblock in the first label, of either byte order.
fn zfs(head: &[u8]) -> Option<&'static str> {
    const UBERBLOCKS: usize = 128 << 10;
    const MAGIC: u64 = 0x00ba_b10c;
    let found = head
        .get(UBERBLOCKS..2 * UBERBLOCKS)?
        .chunks(1024)
        .any(|slot| {
            slot.first_chunk()
                .is_some_and(|m| *m == MAGIC.to_le_bytes() || *m == MAGIC.to_be_bytes())
        });
    found.then_some("a ZFS pool")
}

/// Marks that lie at the end: md's formats 0.90 and 1.0, and GPT's second table.
fn at_the_end(tail: &[u8], size_bytes: u64) -> Option<&'static str> {
    const MD: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
    const KIB64: u64 = 64 << 10;
    let whole = size_bytes - size_bytes % 512;
    let start = whole.checked_sub(tail.len() as u64)?;
    let shows = |offset: Option<u64>, mark: &[u8]| {
        let at = offset.and_then(|o| o.checked_sub(start)).map(index);
        at.and_then(|at| tail.get(at..at.checked_add(mark.len())?)) == Some(mark)
    };
    let md_1_0 = whole.checked_sub(8 << 10).map(|o| o / 4096 * 4096);
    let md_0_90 = (whole / KIB64 * KIB64).checked_sub(KIB64);
    if shows(md_1_0, &MD) || shows(md_0_90, &MD) {
        return Some("a member of a Linux RAID (md)");
    }
    let gpt = [512, 4096]
        .into_iter()
        .any(|sector| shows(whole.checked_sub(sector), b"EFI PART"));
    gpt.then_some("a GPT partition table")
}
