//! The drive's thread on memory and on real files.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test")]

use std::sync::{Arc, mpsc};

use roadstead_pool::media::sim::SimMedia;
use roadstead_pool::media::{FileMedia, MemoryMedia};
use roadstead_pool::{
    BlockSize, Command, DriveThread, Fault, Media, OpenError, OpenOptions, Pool, PoolError, Reply,
    Segment, Volume, VolumeReader, VolumeSpec,
};
use uuid::Uuid;

const MIB: u64 = 1 << 20;

fn spec(name: &str, size_bytes: u64) -> VolumeSpec {
    VolumeSpec {
        uuid: Uuid::new_v4(),
        name: name.to_owned(),
        size_bytes,
        block_size: BlockSize::B4096,
        created_unix_s: 1_800_000_000,
    }
}

fn open(media: &Arc<dyn Media>) -> DriveThread {
    let pool = Pool::open_or_format(Arc::clone(media), &OpenOptions::new("target-1")).unwrap();
    DriveThread::start(pool, "drive").unwrap()
}

fn segments(reader: &VolumeReader, offset: u64, len: u64) -> Vec<Segment> {
    let io = reader.begin();
    let found = reader.lookup(&io, offset, len).unwrap().collect();
    reader.end(io);
    found
}

/// Writes as a reactor does: allocate what lacks, then write where the map says.
fn write(drive: &DriveThread, media: &dyn Media, volume: &Arc<Volume>, offset: u64, data: &[u8]) {
    let extents = volume.extents_of(offset, data.len() as u64);
    let reader = volume.reader();
    drive
        .handle()
        .call(|reply| Command::Allocate(volume.uuid(), extents, reply))
        .unwrap();
    let io = reader.begin();
    for piece in reader.lookup(&io, offset, data.len() as u64).unwrap() {
        let from = (piece.offset - offset) as usize;
        let mut blocks = roadstead_pool::Blocks::for_bytes(piece.len as usize);
        blocks
            .as_bytes_mut()
            .copy_from_slice(&data[from..from + piece.len as usize]);
        media
            .write_at(piece.drive_offset.unwrap(), blocks.as_bytes())
            .unwrap();
    }
    reader.end(io);
}

fn read(media: &dyn Media, volume: &Arc<Volume>, offset: u64, len: u64) -> Vec<u8> {
    let reader = volume.reader();
    let io = reader.begin();
    let mut all = Vec::new();
    for piece in reader.lookup(&io, offset, len).unwrap() {
        let mut blocks = roadstead_pool::Blocks::for_bytes(piece.len as usize);
        if let Some(place) = piece.drive_offset {
            media.read_at(place, blocks.as_bytes_mut()).unwrap();
        }
        all.extend_from_slice(blocks.as_bytes());
    }
    reader.end(io);
    all
}

#[test]
fn a_volume_is_a_hole_until_extents_are_allocated() {
    let media: Arc<dyn Media> = Arc::new(MemoryMedia::new(256 * MIB));
    let drive = open(&media);
    let volume = drive.handle().create_volume(spec("a", 64 * MIB)).unwrap();
    let reader = volume.reader();
    let hole = Segment {
        offset: MIB - 4096,
        len: 8192,
        drive_offset: None,
    };
    assert_eq!(segments(&reader, MIB - 4096, 8192), [hole]);
    write(&drive, &*media, &volume, MIB - 4096, &[7; 8192]);
    let pieces = segments(&reader, 0, 4 * MIB);
    assert_eq!(
        pieces.iter().map(|p| p.len).collect::<Vec<_>>(),
        [2 * MIB, 2 * MIB]
    );
    assert!(pieces[0].drive_offset.is_some() && pieces[1].drive_offset.is_none());
    assert_eq!(volume.allocated_bytes(), 2 * MIB);
    let mut expected = vec![0; 4 * MIB as usize];
    expected[MIB as usize - 4096..][..8192].fill(7);
    assert_eq!(read(&*media, &volume, 0, 4 * MIB), expected);
    drive.close();
}

#[test]
fn a_file_keeps_volumes_and_data_over_reopening_and_growing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drive");
    let media: Arc<dyn Media> = Arc::new(FileMedia::open_file(&path, 128 * MIB).unwrap());
    let drive = open(&media);
    let volume = drive.handle().create_volume(spec("a", 32 * MIB)).unwrap();
    let pattern: Vec<u8> = (0..3 * MIB).map(|n| (n / 4096 % 251) as u8).collect();
    write(&drive, &*media, &volume, 5 * MIB + 4096, &pattern);
    let (uuid, before) = (volume.uuid(), drive.handle().stats());
    drop(volume);
    drive.close();
    assert!(
        FileMedia::open_file(&path, 0).is_err(),
        "the file is locked while somebody has it"
    );
    drop(media);

    let media: Arc<dyn Media> = Arc::new(FileMedia::open_file(&path, 200 * MIB).unwrap());
    let drive = open(&media);
    let stats = drive.handle().stats();
    assert_eq!(
        (stats.pool_uuid, stats.allocated_bytes),
        (before.pool_uuid, 4 * MIB)
    );
    assert_eq!(stats.capacity_bytes, before.capacity_bytes + 72 * MIB);
    let volume = drive.handle().volume(uuid).unwrap();
    assert_eq!(read(&*media, &volume, 5 * MIB + 4096, 3 * MIB), pattern);
    drive
        .handle()
        .grow_volume(uuid, stats.capacity_bytes)
        .unwrap();
    assert_eq!(drive.handle().stats().free_bytes, 0);
    drive.close();
}

#[test]
fn deleted_space_comes_back_only_after_io_in_flight_has_ended() {
    let media: Arc<dyn Media> = Arc::new(MemoryMedia::new(64 * MIB));
    let drive = open(&media);
    let room = drive.handle().stats().capacity_bytes;
    let old = drive.handle().create_volume(spec("old", room)).unwrap();
    for extent in 0..old.extent_count() {
        write(&drive, &*media, &old, u64::from(extent) * MIB, &[9; 4096]);
    }
    let reader = old.reader();
    let io = reader.begin();
    drive.handle().delete_volume(old.uuid()).unwrap();
    assert!(reader.lookup(&io, 0, 4096).is_err());
    let new = drive.handle().create_volume(spec("new", room)).unwrap();
    let (answer, answered) = mpsc::channel();
    let reply = Reply::new(move |result| answer.send(result).unwrap());
    assert!(
        drive
            .handle()
            .try_submit(Command::Allocate(new.uuid(), 0..1, reply))
            .is_ok()
    );
    drive.handle().call(Command::Sync).unwrap();
    assert!(
        answered.try_recv().is_err(),
        "every extent was within reach of the I/O"
    );
    assert_eq!(drive.handle().stats().limbo_bytes, room);
    reader.end(io);
    answered.recv().unwrap().unwrap();
    assert_eq!(read(&*media, &new, 0, MIB), vec![0; MIB as usize]);
    drive.close();
}

#[test]
fn commands_are_answered_when_the_drive_is_closed() {
    let media: Arc<dyn Media> = Arc::new(MemoryMedia::new(64 * MIB));
    let drive = open(&media);
    let handle = drive.handle().clone();
    drive.close();
    assert_eq!(
        handle.create_volume(spec("a", MIB)).unwrap_err(),
        PoolError::Stopped
    );
}

#[test]
fn another_owners_pool_is_refused_without_force() {
    let media: Arc<dyn Media> = Arc::new(MemoryMedia::new(64 * MIB));
    open(&media).close();
    let mut other = OpenOptions::new("target-2");
    let refused = Pool::open_or_format(Arc::clone(&media), &other)
        .err()
        .unwrap();
    assert!(
        matches!(&refused, OpenError::ForeignLabel { owner, .. } if owner == "target-1"),
        "{refused}"
    );
    other.force = true;
    let pool = Pool::open_or_format(Arc::clone(&media), &other).unwrap();
    assert!(pool.volumes().is_empty());
}

#[test]
fn a_drive_that_fails_answers_everyone_and_keeps_its_volumes_readable() {
    let sim = Arc::new(SimMedia::new(64 * MIB));
    let media: Arc<dyn Media> = Arc::clone(&sim) as Arc<dyn Media>;
    let drive = open(&media);
    let volume = drive.handle().create_volume(spec("a", 8 * MIB)).unwrap();
    write(&drive, &*media, &volume, 0, &[5; 4096]);
    sim.fail_syncs(true);
    let refused = drive.handle().create_volume(spec("b", MIB)).unwrap_err();
    assert_eq!(refused.reason(), "DriveOffline");
    sim.fail_syncs(false);
    let uuid = volume.uuid();
    let refused = drive
        .handle()
        .call(|reply| Command::Allocate(uuid, 1..2, reply))
        .unwrap_err();
    assert!(matches!(refused, PoolError::Faulted(_)));
    assert_eq!(drive.handle().stats().fault.unwrap().reason(), "IoError");
    assert!(volume.fault().is_some());
    assert_eq!(read(&*media, &volume, 0, 4096), [5; 4096]);
    drive.close();
}

#[test]
fn an_allocation_that_waits_is_answered_when_the_drive_fails() {
    let media: Arc<dyn Media> = Arc::new(MemoryMedia::new(64 * MIB));
    let drive = open(&media);
    let room = drive.handle().stats().capacity_bytes;
    let volume = drive.handle().create_volume(spec("a", room)).unwrap();
    let (uuid, all) = (volume.uuid(), 0..volume.extent_count());
    drive
        .handle()
        .call(|reply| Command::Allocate(uuid, all.clone(), reply))
        .unwrap();
    let reader = volume.reader();
    let io = reader.begin();
    drive
        .handle()
        .call(|reply| Command::Deallocate(uuid, all, reply))
        .unwrap();
    let (answer, answered) = mpsc::channel();
    let reply = Reply::new(move |result| answer.send(result).unwrap());
    assert!(
        drive
            .handle()
            .try_submit(Command::Allocate(uuid, 0..1, reply))
            .is_ok()
    );
    drive.handle().call(Command::Check).unwrap();
    assert!(answered.try_recv().is_err());
    let gone = std::io::Error::from_raw_os_error(19);
    volume.report_fault(Fault::io("reading", &gone));
    assert_eq!(
        answered.recv().unwrap().unwrap_err().reason(),
        "DriveOffline"
    );
    assert_eq!(drive.handle().fault().unwrap().reason(), "Gone");
    reader.end(io);
    drive.close();
}

#[test]
fn a_drive_grows_while_it_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drive");
    let file = Arc::new(FileMedia::open_file(&path, 64 * MIB).unwrap());
    let media: Arc<dyn Media> = file;
    let drive = open(&media);
    let before = drive.handle().stats();
    let volume = drive
        .handle()
        .create_volume(spec("a", before.capacity_bytes))
        .unwrap();
    let refused = drive
        .handle()
        .grow_volume(volume.uuid(), before.capacity_bytes + MIB)
        .unwrap_err();
    assert_eq!(refused.reason(), "NoRoom");
    for size in [100 * MIB, 10 * MIB] {
        drive
            .handle()
            .call(|reply| Command::GrowDrive(size, reply))
            .unwrap();
        assert_eq!(
            drive.handle().stats().capacity_bytes,
            before.capacity_bytes + 36 * MIB
        );
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 100 * MIB);
    }
    drive
        .handle()
        .grow_volume(volume.uuid(), before.capacity_bytes + 36 * MIB)
        .unwrap();
    let all = 0..volume.extent_count();
    drive
        .handle()
        .call(|reply| Command::Allocate(volume.uuid(), all, reply))
        .unwrap();
    write(
        &drive,
        &*media,
        &volume,
        volume.size_bytes() - 4096,
        &[3; 4096],
    );
    let (uuid, end) = (volume.uuid(), volume.size_bytes() - 4096);
    drop(volume);
    drive.close();
    let drive = open(&media);
    let volume = drive.handle().volume(uuid).unwrap();
    assert_eq!(read(&*media, &volume, end, 4096), [3; 4096]);
    assert_eq!(drive.handle().stats().free_bytes, 0);
    drive.close();
}
