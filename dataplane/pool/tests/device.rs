//! A real block device: a loop device, which root alone can make. Elsewhere the tests say that they were
//! skipped.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr,
    reason = "test"
)]

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use roadstead_pool::media::FileMedia;
use roadstead_pool::probe::{Claim, Machine, Wanted};
use roadstead_pool::{
    BlockSize, Blocks, Command as Ask, DriveThread, Media, OpenError, OpenOptions, Pool, VolumeSpec,
};
use uuid::Uuid;

const MIB: u64 = 1 << 20;
const CLAIM: Claim<'static> = Claim {
    owner: "target-1",
    known: None,
    force: false,
};

/// A loop device over a file of its own.
struct Loop {
    path: PathBuf,
    dir: tempfile::TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(text(&output.stderr))
    }
}

impl Loop {
    fn new(sector_bytes: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("backing");
        std::fs::File::create(&file)
            .unwrap()
            .set_len(128 * MIB)
            .unwrap();
        let made = run(
            "losetup",
            &["-f", "--show", "-b", sector_bytes, file.to_str().unwrap()],
        );
        match made {
            Ok(path) => Some(Self {
                path: path.into(),
                dir,
            }),
            Err(why) => {
                eprintln!("skipped: no loop device: {why}");
                None
            }
        }
    }

    fn find(&self) -> Result<PathBuf, OpenError> {
        Machine::default()
            .find(&Wanted::Path(self.path.clone()), &CLAIM)
            .map(|device| device.path)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["-d", self.path.to_str().unwrap()]).unwrap();
    }
}

/// Another `losetup` that looks for a free device claims ours for an instant: that passes.
fn open_device(path: &Path) -> FileMedia {
    loop {
        match FileMedia::open_device(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => std::thread::yield_now(),
            result => return result.unwrap(),
        }
    }
}

fn open(path: &Path) -> (Arc<dyn Media>, DriveThread) {
    let media: Arc<dyn Media> = Arc::new(open_device(path));
    let pool = Pool::open_or_format(Arc::clone(&media), &OpenOptions::new("target-1")).unwrap();
    (media, DriveThread::start(pool, "device").unwrap())
}

fn spec(block_size: BlockSize) -> VolumeSpec {
    VolumeSpec {
        uuid: Uuid::new_v4(),
        name: "a".to_owned(),
        size_bytes: 16 * MIB,
        block_size,
        created_unix_s: 0,
    }
}

#[test]
fn a_pool_lives_on_a_block_device() {
    for sector_bytes in ["512", "4096"] {
        let Some(device) = Loop::new(sector_bytes) else {
            return;
        };
        assert_eq!(device.find().unwrap(), device.path);
        let (media, drive) = open(&device.path);
        assert_eq!(media.block_bytes().to_string(), sector_bytes);
        assert!(
            FileMedia::open_device(&device.path).is_err(),
            "held for this process alone"
        );
        let small = drive.handle().create_volume(spec(BlockSize::B512));
        assert_eq!(small.is_ok(), sector_bytes == "512", "{small:?}");
        let volume = drive
            .handle()
            .create_volume(spec(BlockSize::B4096))
            .unwrap();
        drive
            .handle()
            .call(|reply| Ask::Allocate(volume.uuid(), 3..5, reply))
            .unwrap();
        let reader = volume.reader();
        let io = reader.begin();
        let piece = reader.lookup(&io, 4 * MIB, 4096).unwrap().next().unwrap();
        reader.end(io);
        let mut block = Blocks::new(1);
        media
            .read_at(piece.drive_offset.unwrap(), block.as_bytes_mut())
            .unwrap();
        assert!(block.as_bytes().iter().all(|byte| *byte == 0));
        block.as_bytes_mut().fill(7);
        media
            .write_at(piece.drive_offset.unwrap(), block.as_bytes())
            .unwrap();
        drive.handle().call(Ask::Sync).unwrap();
        drive.handle().call(Ask::Check).unwrap();
        let uuid = volume.uuid();
        drop((volume, reader, media));
        drive.close();

        let (media, drive) = open(&device.path);
        let volume = drive.handle().volume(uuid).unwrap();
        assert_eq!(volume.allocated_bytes(), 2 * MIB);
        let reader = volume.reader();
        let io = reader.begin();
        assert_eq!(
            reader.lookup(&io, 4 * MIB, 4096).unwrap().next(),
            Some(piece)
        );
        reader.end(io);
        media
            .read_at(piece.drive_offset.unwrap(), block.as_bytes_mut())
            .unwrap();
        assert!(block.as_bytes().iter().all(|byte| *byte == 7));
        drive.close();
    }
}

#[test]
fn a_mounted_device_is_refused_and_its_file_system_too() {
    let Some(device) = Loop::new("512") else {
        return;
    };
    let path = device.path.to_str().unwrap();
    let at = device.dir.path().join("mounted here");
    std::fs::create_dir(&at).unwrap();
    let mounted =
        run("mkfs.ext4", &["-q", path]).and_then(|_| run("mount", &[path, at.to_str().unwrap()]));
    if let Err(why) = mounted {
        eprintln!("skipped: no mount: {why}");
        return;
    }
    let refused = device.find().err().unwrap();
    let busy = FileMedia::open_device(&device.path).err().unwrap();
    run("umount", &[at.to_str().unwrap()]).unwrap();
    assert!(
        matches!(&refused, OpenError::Mounted { at: shown, .. } if Path::new(shown) == at),
        "{refused}"
    );
    assert_eq!(busy.kind(), ErrorKind::ResourceBusy);
    assert!(device.find().is_ok());
    let media = Arc::new(open_device(&device.path));
    let refused = Pool::open_or_format(media, &OpenOptions::new("target-1"))
        .err()
        .unwrap();
    assert!(
        refused.to_string().contains("an ext4 file system"),
        "{refused}"
    );
}
