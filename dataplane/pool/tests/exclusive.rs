//! A volume for one I/O alone, and what is kept with volumes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "test"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;

use roadstead_pool::media::MemoryMedia;
use roadstead_pool::{
    BlockSize, Command, DriveThread, LookupError, MAX_NOTE_BYTES, Media, OpenOptions, Pool,
    PoolError, Volume, VolumeSpec,
};
use uuid::Uuid;

fn spec(number: u128) -> VolumeSpec {
    VolumeSpec {
        uuid: Uuid::from_u128(number),
        name: "volume".to_owned(),
        size_bytes: 64 << 10,
        block_size: BlockSize::B512,
        created_unix_s: 0,
    }
}

fn open(media: &Arc<dyn Media>) -> DriveThread {
    let options = OpenOptions {
        extent_bytes: 64 << 10,
        journal_bytes: Some(64 << 10),
        ..OpenOptions::new("test")
    };
    let pool = Pool::open_or_format(Arc::clone(media), &options).unwrap();
    DriveThread::start(pool, "test").unwrap()
}

fn drive() -> (Arc<dyn Media>, DriveThread, Arc<Volume>) {
    let media: Arc<dyn Media> = Arc::new(MemoryMedia::new(8 << 20));
    let drive = open(&media);
    let volume = drive.handle().create_volume(spec(1)).unwrap();
    (media, drive, volume)
}

#[test]
fn what_is_fenced_off_waits_and_the_rest_goes_on() {
    let (_media, _drive, volume) = drive();
    let reader = volume.reader();
    let is_busy = |offset, len| {
        let io = reader.begin();
        let result = reader.lookup(&io, offset, len).map(|_| ());
        reader.end(io);
        result == Err(LookupError::Busy)
    };
    let first = volume.fence(4096, 4096);
    let second = volume.fence(6144, 4096);
    for (offset, len, waits) in [
        (0, 4096, false),
        (0, 4097, true),
        (8191, 1, true),
        (8192, 512, true),
        (10239, 1, true),
        (10240, 512, false),
    ] {
        assert_eq!(is_busy(offset, len), waits, "{offset} {len}");
    }
    let mut exclusive = volume.try_exclusive().unwrap();
    assert!(exclusive.poll());
    let own = reader.begin();
    let refused = reader.lookup_exclusive(&own, &exclusive, 8192, 512);
    assert_eq!(refused.unwrap_err(), LookupError::Busy);
    reader.end(own);
    drop((exclusive, first));
    assert!(!is_busy(4096, 2048) && is_busy(6144, 512));
    drop(second);
    assert!(!is_busy(0, 65536));
}

#[test]
fn lookups_are_refused_and_earlier_ones_waited_for() {
    let (_media, drive, volume) = drive();
    let (reader, idle) = (volume.reader(), volume.reader());
    drop(idle);
    let old = reader.begin();
    assert!(reader.lookup(&old, 0, 512).is_ok());
    let lender = volume.lender();
    let lent = lender.begin();
    assert!(lender.lookup(&lent, 0, 512).is_ok());
    let mut exclusive = volume.try_exclusive().unwrap();
    assert!(volume.try_exclusive().is_none());
    assert!(!exclusive.poll(), "an I/O is in flight");
    let new = reader.begin();
    assert_eq!(reader.lookup(&new, 0, 512).unwrap_err(), LookupError::Busy);
    reader.end(new);
    reader.end(old);
    assert!(exclusive.poll(), "what is lent is not waited for");
    let late = lender.begin();
    assert_eq!(lender.lookup(&late, 0, 512).unwrap_err(), LookupError::Busy);
    lender.end(late);
    lender.end(lent);
    let own = reader.begin();
    assert!(reader.lookup_exclusive(&own, &exclusive, 0, 512).is_ok());
    reader.end(own);
    drop(exclusive);
    let after = reader.begin();
    assert!(reader.lookup(&after, 0, 512).is_ok());
    reader.end(after);
    // A volume that is deleted meanwhile stays so.
    let exclusive = volume.try_exclusive().unwrap();
    drive.handle().delete_volume(volume.uuid()).unwrap();
    drop(exclusive);
    assert!(volume.is_deleted() && volume.try_exclusive().is_none());
    drive.close();
}

/// Threads that count by reading and writing under a claim lose no count, while others read and write past it.
#[test]
fn nothing_comes_between_read_and_write() {
    const ROUNDS: u64 = 300;
    let (_media, drive, volume) = drive();
    let counter = AtomicU64::new(0);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let add = || {
            let reader = volume.reader();
            for _ in 0..ROUNDS {
                let mut exclusive = loop {
                    match volume.try_exclusive() {
                        Some(exclusive) => break exclusive,
                        None => thread::yield_now(),
                    }
                };
                while !exclusive.poll() {
                    thread::yield_now();
                }
                let io = reader.begin();
                assert!(reader.lookup_exclusive(&io, &exclusive, 0, 8).is_ok());
                let value = counter.load(SeqCst);
                thread::yield_now();
                assert_eq!(counter.load(SeqCst), value, "somebody wrote in between");
                counter.store(value + 1, SeqCst);
                reader.end(io);
            }
        };
        // Ordinary writes: plus a million, in two halves that nobody else may see apart.
        let disturb = || {
            let reader = volume.reader();
            while !over.load(SeqCst) {
                let io = reader.begin();
                if reader.lookup(&io, 0, 8).is_ok() {
                    counter.fetch_add(1 << 40, SeqCst);
                }
                reader.end(io);
                thread::yield_now();
            }
        };
        let adders = [scope.spawn(add), scope.spawn(add)];
        let disturber = scope.spawn(disturb);
        for adder in adders {
            adder.join().unwrap();
        }
        over.store(true, SeqCst);
        disturber.join().unwrap();
    });
    assert_eq!(counter.load(SeqCst) & 0xff_ffff, 2 * ROUNDS);
    drive.close();
}

fn keep(drive: &DriveThread, uuid: Uuid, bytes: Vec<u8>) -> Result<(), PoolError> {
    let bytes = Box::new(move || bytes);
    drive
        .handle()
        .call(|reply| Command::Note(uuid, bytes, reply))
}

#[test]
fn what_is_kept_with_a_volume_is_there_after_opening_again() {
    let (media, drive, volume) = drive();
    assert_eq!(volume.note(), []);
    for round in 0..40 {
        // Often enough to switch halves.
        keep(&drive, volume.uuid(), vec![round; MAX_NOTE_BYTES]).unwrap();
    }
    assert_eq!(volume.note(), [39; MAX_NOTE_BYTES]);
    drop(volume);
    drive.close();
    let drive = open(&media);
    let volume = drive.handle().volume(Uuid::from_u128(1)).unwrap();
    assert_eq!(volume.note(), [39; MAX_NOTE_BYTES]);
    keep(&drive, volume.uuid(), Vec::new()).unwrap();
    drop(volume);
    drive.close();
    let drive = open(&media);
    assert_eq!(
        drive.handle().volume(Uuid::from_u128(1)).unwrap().note(),
        []
    );
    drive.close();
}

#[test]
fn notes_have_bounds() {
    let (_media, drive, volume) = drive();
    let too_long = keep(&drive, volume.uuid(), vec![0; MAX_NOTE_BYTES + 1]);
    assert_eq!(too_long, Err(PoolError::NoRoomForNote));
    let unknown = keep(&drive, Uuid::from_u128(9), vec![0]);
    assert!(matches!(unknown, Err(PoolError::VolumeUnknown { .. })));
    let mut kept = Vec::new();
    for number in 2..40 {
        let uuid = drive.handle().create_volume(spec(number)).unwrap().uuid();
        match keep(&drive, uuid, vec![1; MAX_NOTE_BYTES]) {
            Ok(()) => kept.push(uuid),
            Err(error) => assert_eq!(error, PoolError::NoRoomForNote),
        }
    }
    assert!((1..38).contains(&kept.len()), "{}", kept.len());
    // One that has its room can change; another gets it when it is given up.
    keep(&drive, kept[0], vec![2; MAX_NOTE_BYTES]).unwrap();
    keep(&drive, kept[0], Vec::new()).unwrap();
    keep(&drive, volume.uuid(), vec![1; MAX_NOTE_BYTES]).unwrap();
    assert!(drive.handle().fault().is_none());
    drive.close();
}
