//! Finding devices, in directories made for the purpose, and marks that real tools leave.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "test"
)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use roadstead_pool::media::{FileMedia, MemoryMedia};
use roadstead_pool::probe::mounts::Numbers;
use roadstead_pool::probe::signature::{Signature, identify, recognise};
use roadstead_pool::probe::{Claim, Machine, Wanted};
use roadstead_pool::{Media, OpenOptions, Pool};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
const CLAIM: Claim<'static> = Claim {
    owner: "target-1",
    known: None,
    force: false,
};

/// Directories that look like a machine's.
struct Fake {
    dir: TempDir,
    machine: Machine,
}

/// The numbers that belong to a file of the fake `/dev` are in a file beside it.
fn numbers_of(path: &Path) -> io::Result<Option<Numbers>> {
    fs::metadata(path)?;
    let beside = path.with_extension("numbers");
    Ok(fs::read_to_string(beside)
        .ok()
        .and_then(|text| text.parse().ok()))
}

impl Fake {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let machine = Machine {
            sys: at("sys"),
            proc: at("proc"),
            dev: at("dev"),
            numbers_of,
        };
        let fake = Self { dir, machine };
        fake.file(
            "proc/self/mountinfo",
            "27 1 254:0 / / rw - ext4 /dev/vda rw\n",
        );
        fake.file("proc/swaps", "Filename Type Size Used Priority\n");
        fs::create_dir_all(fake.dir.path().join("sys/block")).unwrap();
        fake
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn node(&self, dir: &str, name: &str, numbers: &str) -> PathBuf {
        self.file(&format!("sys/block/{dir}/dev"), &format!("{numbers}\n"));
        self.file(&format!("sys/block/{dir}/size"), "131072\n");
        self.file(&format!("dev/{name}.numbers"), numbers);
        let path = self.dir.path().join("dev").join(name);
        fs::File::create(&path).unwrap().set_len(64 * MIB).unwrap();
        path
    }

    fn nvme(&self, name: &str, numbers: &str, model: &str, serial: &str) -> PathBuf {
        let path = self.node(name, name, numbers);
        self.file(
            &format!("sys/block/{name}/device/model"),
            &format!("{model:<40}\n"),
        );
        self.file(
            &format!("sys/block/{name}/device/serial"),
            &format!("{serial:<20}\n"),
        );
        self.file(&format!("sys/block/{name}/device/transport"), "pcie\n");
        path
    }

    fn partition(&self, of: &str, name: &str, numbers: &str) -> PathBuf {
        self.file(&format!("sys/block/{of}/{name}/partition"), "1\n");
        self.node(&format!("{of}/{name}"), name, numbers)
    }

    fn find(&self, wanted: Wanted) -> Result<PathBuf, String> {
        let found = self.machine.find(&wanted, &CLAIM);
        found
            .map(|device| device.path)
            .map_err(|error| format!("{}: {error}", error.reason()))
    }

    fn refused(&self, wanted: Wanted) -> String {
        self.find(wanted)
            .unwrap_err()
            .split_once(':')
            .unwrap()
            .0
            .to_owned()
    }
}

#[test]
fn devices_are_found_by_path_serial_and_model() {
    let fake = Fake::new();
    let first = fake.nvme("nvme0n1", "259:0", "Fast 1T", "S-1");
    let second = fake.nvme("nvme1n1", "259:1", "Fast 1T", "S-2");
    let part = fake.partition("nvme1n1", "nvme1n1p1", "259:2");
    let disk = fake.node("sda", "sda", "8:0");
    fake.file("sys/block/sda/device/model", "Slow 4T\n");
    fake.file("sys/block/sda/device/vpd_pg80", "\0\u{7f}\0\u{8}  WD-7   ");
    let link = fake.dir.path().join("dev/by-id");
    std::os::unix::fs::symlink(&first, &link).unwrap();
    fs::copy(
        first.with_extension("numbers"),
        link.with_extension("numbers"),
    )
    .unwrap();
    assert_eq!(fake.find(Wanted::Path(link.clone())), Ok(link));
    assert_eq!(fake.find(Wanted::Path(part.clone())), Ok(part));
    assert_eq!(fake.find(Wanted::Serial("S-2".into())), Ok(second));
    assert_eq!(fake.find(Wanted::Serial("WD-7".into())), Ok(disk));
    assert_eq!(fake.find(Wanted::Model("Fast 1T".into())), Ok(first));
    let device = fake
        .machine
        .find(&Wanted::Serial("S-1".into()), &CLAIM)
        .unwrap();
    assert_eq!(
        (device.model.as_str(), device.size_bytes),
        ("Fast 1T", 64 * MIB)
    );
    assert_eq!(fake.refused(Wanted::Serial("S-3".into())), "NotFound");
    assert_eq!(fake.refused(Wanted::Model("None".into())), "NotFound");
    assert_eq!(fake.refused(Wanted::Path("/nowhere".into())), "NotFound");
    fake.file("dev/plain", "");
    assert_eq!(
        fake.refused(Wanted::Path(fake.dir.path().join("dev/plain"))),
        "BadOption"
    );
    fake.nvme("nvme1n2", "259:9", "Fast 1T", "S-2");
    assert_eq!(fake.refused(Wanted::Serial("S-2".into())), "BadOption");
}

#[test]
fn used_devices_are_refused() {
    let fake = Fake::new();
    let names = [
        "mounted",
        "partly",
        "btrfs",
        "elsewhere",
        "swap",
        "held",
        "partheld",
        "free",
    ];
    for (n, name) in names.into_iter().enumerate() {
        fake.nvme(name, &format!("259:{n}"), "Fast 1T", name);
    }
    fake.partition("partly", "partlyp1", "259:100");
    fake.partition("partheld", "partheldp1", "259:101");
    fake.file(
        "proc/self/mountinfo",
        "1 1 259:0 / /data rw - xfs /dev/mounted rw\n\
         2 1 259:100 / /boot\\040old rw - ext4 /dev/partlyp1 rw\n\
         3 1 0:50 / /srv rw - btrfs /dev/btrfs rw\n",
    );
    fake.file(
        "proc/77/mountinfo",
        "1 1 259:3 / /in/a/pod rw - ext4 /dev/elsewhere rw\n",
    );
    fake.file("proc/swaps", "Filename Type\n/dev/swap partition 1 0 -2\n");
    fake.file("sys/block/held/holders/dm-0/dm/name", "vg-data\n");
    fake.file("sys/block/partheld/partheldp1/holders/md0/x", "");
    for (name, reason, says) in [
        ("mounted", "Mounted", "/data"),
        ("partly", "Mounted", "/boot old"),
        ("btrfs", "Mounted", "/srv"),
        ("elsewhere", "Mounted", "/in/a/pod"),
        ("swap", "InUse", "swap"),
        ("held", "InUse", "vg-data"),
        ("partheld", "InUse", "md0"),
    ] {
        let path = fake.dir.path().join("dev").join(name);
        for wanted in [Wanted::Path(path), Wanted::Serial(name.into())] {
            let error = fake.find(wanted).unwrap_err();
            assert!(error.starts_with(reason) && error.contains(says), "{error}");
        }
    }
    let free = fake.dir.path().join("dev/free");
    assert_eq!(fake.find(Wanted::Model("Fast 1T".into())), Ok(free.clone()));
    let unused: Vec<_> = fake
        .machine
        .unused_drives()
        .into_iter()
        .map(|d| d.path)
        .collect();
    assert_eq!(unused, [free]);
}

#[test]
fn what_is_no_free_local_drive_is_not_listed() {
    let fake = Fake::new();
    fake.nvme("hidden", "259:0", "Fast", "1");
    fake.file("sys/block/hidden/hidden", "1\n");
    fake.nvme("remote", "259:1", "Fast", "2");
    fake.file("sys/block/remote/device/transport", "tcp\n");
    fake.nvme("multipath", "259:2", "Fast", "3");
    fs::remove_file(fake.dir.path().join("sys/block/multipath/device/transport")).unwrap();
    fake.file("sys/block/multipath/device/nvme7/transport", "rdma\n");
    fake.nvme("cdrom", "11:0", "Fast", "4");
    fake.file("sys/block/cdrom/removable", "1\n");
    fake.nvme("locked", "259:3", "Fast", "5");
    fake.file("sys/block/locked/ro", "1\n");
    fake.node("loop0", "loop0", "7:0");
    let full = fake.nvme("full", "259:4", "Fast", "6");
    fs::write(&full, vec![1; MIB as usize]).unwrap();
    assert!(fake.machine.unused_drives().is_empty());
    let model = || Wanted::Model("Fast".into());
    assert_eq!(fake.refused(model()), "ForeignFilesystem");
    let force = Claim {
        force: true,
        ..CLAIM
    };
    assert_eq!(fake.machine.find(&model(), &force).unwrap().path, full);
}

#[test]
fn a_model_leads_to_the_known_pool_then_to_an_own_one_then_to_a_blank_drive() {
    let fake = Fake::new();
    let pools = ["target-2", "target-1", "", "target-1"].map(|owner| {
        let n = fs::read_dir(fake.dir.path().join("sys/block"))
            .unwrap()
            .count();
        let path = fake.nvme(
            &format!("nvme{n}n1"),
            &format!("259:{n}"),
            "Fast",
            &n.to_string(),
        );
        let pool = (!owner.is_empty()).then(|| {
            let media = Arc::new(FileMedia::open_file(&path, 0).unwrap());
            Pool::open_or_format(media, &OpenOptions::new(owner))
                .unwrap()
                .stats()
                .pool_uuid
        });
        (path, pool)
    });
    let find = |known, force| {
        let claim = Claim {
            known,
            force,
            ..CLAIM
        };
        fake.machine
            .find(&Wanted::Model("Fast".into()), &claim)
            .map(|device| device.path)
    };
    assert_eq!(find(pools[3].1, false).unwrap(), pools[3].0);
    assert_eq!(find(None, false).unwrap(), pools[1].0);
    let gone = Some(uuid::Uuid::from_u128(1));
    assert!(
        find(gone, false).is_err(),
        "a drive with data is not replaced by a blank one"
    );
    assert_eq!(find(gone, true).unwrap(), pools[2].0);
}

#[test]
fn marks_are_told_apart() {
    let head = |at: usize, mark: &[u8]| {
        let mut head = vec![0; MIB as usize];
        head[at..at + mark.len()].copy_from_slice(mark);
        head
    };
    let tail_len = 128 << 10;
    let blank = vec![0; tail_len];
    let size = 64 * MIB + 512;
    for (at, mark, kind) in [
        (0, &b"LUKS\xba\xbe"[..], Some("a LUKS volume")),
        (512 + 24, b"LVM2 001", Some("an LVM2 physical volume")),
        (
            4096,
            b"\xfc\x4e\x2b\xa9",
            Some("a member of a Linux RAID (md)"),
        ),
        (0, b"XFSB", Some("an xfs file system")),
        (65_600, b"_BHRfS_M", Some("a btrfs file system")),
        (4086, b"SWAPSPACE2", Some("swap space")),
        (
            131_072 + 5 * 1024,
            b"\x0c\xb1\xba\0\0\0\0\0",
            Some("a ZFS pool"),
        ),
        (512, b"EFI PART", Some("a GPT partition table")),
        (510, b"\x55\xaa", Some("an MBR partition table")),
        (32_769, b"CD001", Some("an ISO 9660 image")),
        (82, b"FAT32   ", Some("a FAT file system")),
        (3, b"NTFS    ", Some("an NTFS file system")),
        (1080, b"\x53\xef", Some("an ext2 file system")),
        (7, b"XFSB", None),
    ] {
        assert_eq!(recognise(&head(at, mark), &blank, size), kind, "{kind:?}");
    }
    let tail = |back: usize, mark: &[u8]| {
        let mut tail = blank.clone();
        tail[tail_len - back..tail_len - back + mark.len()].copy_from_slice(mark);
        tail
    };
    let none = head(0, b"");
    assert_eq!(
        recognise(&none, &tail(512, b"EFI PART"), size),
        Some("a GPT partition table")
    );
    let md = b"\xfc\x4e\x2b\xa9";
    assert_eq!(
        recognise(&none, &tail(8192 + 512, md), size),
        Some("a member of a Linux RAID (md)")
    );
    assert_eq!(
        recognise(&none, &tail(65_536 + 512, md), size),
        Some("a member of a Linux RAID (md)")
    );
    assert_eq!(recognise(&none, &tail(100, md), size), None);
}

#[test]
fn short_and_random_media_are_looked_at_without_harm() {
    for size in [0, 511, 512, 4096, 100_000] {
        assert_eq!(identify(&MemoryMedia::new(size)).unwrap(), None);
        assert!(
            Pool::read_label(Arc::new(MemoryMedia::new(size)))
                .unwrap()
                .is_none()
        );
        let refused =
            Pool::open_or_format(Arc::new(MemoryMedia::new(size)), &OpenOptions::new("a"));
        assert_eq!(refused.err().unwrap().reason(), "TooSmall");
    }
    let media = MemoryMedia::new(4 * MIB);
    media.write_at(100, &[1]).unwrap();
    assert_eq!(identify(&media).unwrap(), Some(Signature::UnknownData));
}

/// The first MiB and the last 128 KiB.
fn ends(path: &Path) -> (Vec<u8>, Vec<u8>) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::open(path).unwrap();
    let (mut head, mut tail) = (vec![0; MIB as usize], vec![0; 128 << 10]);
    file.read_exact_at(&mut head, 0).unwrap();
    file.read_exact_at(&mut tail, file.metadata().unwrap().len() - (128 << 10))
        .unwrap();
    (head, tail)
}

/// What the tools of this machine write is recognised; tools that are not there are left out.
#[test]
fn real_file_systems_are_recognised_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for (tool, arguments, kind) in [
        ("mkfs.ext2", &["-q"][..], "an ext2 file system"),
        ("mkfs.ext3", &["-q"], "an ext3 file system"),
        ("mkfs.ext4", &["-q"], "an ext4 file system"),
        ("mkfs.xfs", &["-q"], "an xfs file system"),
        ("mkfs.btrfs", &["-q"], "a btrfs file system"),
        ("mkfs.vfat", &[], "a FAT file system"),
        ("mkswap", &[], "swap space"),
    ] {
        let path = dir.path().join(tool);
        let media = FileMedia::open_file(&path, 400 * MIB).unwrap();
        let mut command = Command::new(tool);
        command
            .args(arguments)
            .arg(&path)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if !command.status().is_ok_and(|status| status.success()) {
            continue;
        }
        tried += 1;
        assert_eq!(identify(&media).unwrap(), Some(Signature::Known(kind)));
        let before = ends(&path);
        let refused = Pool::open_or_format(Arc::new(media), &OpenOptions::new("a"))
            .err()
            .unwrap();
        assert_eq!(refused.reason(), "ForeignFilesystem");
        assert!(refused.to_string().contains(kind), "{refused}");
        assert!(ends(&path) == before, "something was written");
        let force = OpenOptions {
            force: true,
            ..OpenOptions::new("a")
        };
        let media = Arc::new(FileMedia::open_file(&path, 0).unwrap());
        Pool::open_or_format(media, &force).unwrap();
        let (head, tail) = ends(&path);
        assert_eq!(
            recognise(&head, &tail, 400 * MIB),
            None,
            "{tool} shows through"
        );
    }
    assert!(tried > 0 || !Path::new("/sbin/mkfs.ext4").exists());
}
