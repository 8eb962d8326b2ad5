//! Readers against a drive's thread that frees and reuses extents all the time: nobody sees another's data.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use roadstead_pool::media::MemoryMedia;
use roadstead_pool::media::sim::Random;
use roadstead_pool::{
    BlockSize, Command, DriveThread, Media, OpenOptions, Pool, Volume, VolumeSpec,
};
use uuid::Uuid;

const EXTENT: u64 = 64 << 10;
const EXTENTS: u64 = 12;
const READERS: u64 = 3;
const ROUNDS: u64 = 1500;
/// Written extents that the readers must have met for the test to say anything.
const MIN_SEEN: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(60);

fn read_one(media: &dyn Media, volume: &Arc<Volume>, extent: u64, tag: u64, pause: bool) -> bool {
    let reader = volume.reader();
    let io = reader.begin();
    let piece = reader
        .lookup(&io, extent * EXTENT, 4096)
        .unwrap()
        .next()
        .unwrap();
    let mut seen = false;
    if let Some(place) = piece.drive_offset {
        // An I/O takes its time; the extent may be freed and wanted by others meanwhile.
        for _ in 0..if pause { 200 } else { 0 } {
            thread::yield_now();
        }
        let mut sector = [0; 8];
        media.read_at(place, &mut sector).unwrap();
        let value = u64::from_le_bytes(sector);
        assert!(
            value == 0 || value == tag,
            "volume {tag} shows the data of {value}"
        );
        seen = value == tag;
    }
    reader.end(io);
    seen
}

fn write_one(drive: &DriveThread, media: &dyn Media, volume: &Arc<Volume>, extent: u64, tag: u64) {
    let reader = volume.reader();
    loop {
        let extents = volume.extents_of(extent * EXTENT, 8);
        drive
            .handle()
            .call(|reply| Command::Allocate(volume.uuid(), extents, reply))
            .unwrap();
        let io = reader.begin();
        let piece = reader
            .lookup(&io, extent * EXTENT, 8)
            .unwrap()
            .next()
            .unwrap();
        // Freed again in between: ask again.
        let written = piece
            .drive_offset
            .map(|place| media.write_at(place, &tag.to_le_bytes()).unwrap());
        reader.end(io);
        if written.is_some() {
            return;
        }
    }
}

#[test]
fn freed_extents_are_reused_only_out_of_reach() {
    let media: Arc<dyn Media> = Arc::new(MemoryMedia::new(4 << 20));
    let options = OpenOptions {
        extent_bytes: EXTENT,
        ..OpenOptions::new("target-1")
    };
    let pool = Pool::open_or_format(Arc::clone(&media), &options).unwrap();
    let drive = DriveThread::start(pool, "drive").unwrap();
    // The volumes fill the drive: what one gives back the other gets.
    let room = drive.handle().stats().capacity_bytes / EXTENT;
    let filler = VolumeSpec {
        uuid: Uuid::from_u128(99),
        name: "filler".to_owned(),
        size_bytes: (room - 2 * EXTENTS) * EXTENT,
        block_size: BlockSize::B512,
        created_unix_s: 0,
    };
    let filled = drive.handle().create_volume(filler.clone()).unwrap();
    drive
        .handle()
        .call(|r| Command::Allocate(filled.uuid(), 0..filled.extent_count(), r))
        .unwrap();
    let volumes = [1u64, 2].map(|n| {
        let uuid = Uuid::from_u128(n.into());
        drive
            .handle()
            .create_volume(VolumeSpec {
                uuid,
                size_bytes: EXTENTS * EXTENT,
                ..filler.clone()
            })
            .unwrap()
    });
    let stop = AtomicBool::new(false);
    let seen = AtomicU64::new(0);
    thread::scope(|scope| {
        for n in 0..READERS {
            let (volumes, media, stop, seen) = (&volumes, &media, &stop, &seen);
            scope.spawn(move || {
                let mut random = Random::new(n + 1);
                while !stop.load(SeqCst) {
                    let which = random.below(2);
                    let volume = &volumes[which as usize];
                    let found = read_one(&**media, volume, random.below(EXTENTS), which + 1, n > 0);
                    seen.fetch_add(u64::from(found), SeqCst);
                }
            });
        }
        let mut random = Random::new(77);
        let started = Instant::now();
        // A busy machine may run the readers late: the writer goes on until they met it.
        for round in 0.. {
            let met = seen.load(SeqCst) >= MIN_SEEN;
            if round >= ROUNDS && (met || started.elapsed() > PATIENCE) {
                break;
            }
            let which = random.below(2);
            let volume = &volumes[which as usize];
            let extent = random.below(EXTENTS);
            if random.below(2) == 0 {
                write_one(&drive, &*media, volume, extent, which + 1);
            } else {
                let extent = extent as u32;
                let range = extent..(extent + 3).min(EXTENTS as u32);
                drive
                    .handle()
                    .call(|reply| Command::Deallocate(volume.uuid(), range, reply))
                    .unwrap();
            }
        }
        stop.store(true, SeqCst);
    });
    assert!(seen.load(SeqCst) >= MIN_SEEN);
    drive.close();
}
