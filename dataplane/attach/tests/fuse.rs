//! FUSE and loop devices of this kernel over the initiator and a real target. Needs root, /dev/fuse and loop
//! devices: without them the tests say so and pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

#[path = "../../initiator/tests/common/mod.rs"]
mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{BLOCK, NQN, Target, UUID, wait_for};
use roadstead_attach::fuse::FuseMethod;
use roadstead_attach::{
    AttachError, Availability, HostIdentity, Losses, Method, PathSpec, PathState, Spec,
};
use roadstead_nvme::{AnaState, Portal};
use roadstead_target::Access;
use uuid::Uuid;

/// A method with its files in a directory of its own, and a target. Leaves nothing behind.
struct Bench {
    target: Target,
    run: tempfile::TempDir,
    method: FuseMethod,
    spec: Spec,
}

impl Bench {
    /// `None` where it cannot be tested.
    fn new(id: &str, blocks: u64) -> Option<Self> {
        let run = tempfile::tempdir().unwrap();
        let method = new_method(run.path());
        let reason = match method.available() {
            Availability::Missing(reason) => Some(reason),
            Availability::Available if !rustix::process::geteuid().is_root() => {
                Some("not root".into())
            }
            Availability::Available => None,
        };
        if let Some(reason) = reason {
            println!("SKIPPED: {reason}");
            return None;
        }
        let target = Target::new(blocks, Access::Any);
        let spec = Spec {
            // Unique on the machine: devices are found by it.
            id: format!("test-{id}-{}", std::process::id()),
            subsystem_nqn: NQN.into(),
            volume_uuid: UUID,
            foreign: None,
            paths: vec![PathSpec::from(Portal::from(target.address))],
            read_only: false,
            method: None,
            ctrl_loss_timeout_s: 0,
        };
        Some(Self {
            target,
            run,
            method,
            spec,
        })
    }

    fn attach(&self) -> PathBuf {
        self.method.attach(&self.spec).unwrap().path
    }

    fn assert_nothing_left(&self) {
        assert_eq!(fs::read_dir(self.run.path()).unwrap().count(), 0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.run.path().to_str().unwrap()));
        for device in fs::read_dir("/sys/block").unwrap().flatten() {
            let backing = fs::read_to_string(device.path().join("loop/backing_file"));
            assert!(!backing.unwrap_or_default().contains(&self.spec.id));
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Err(error) = self.method.detach(&self.spec) {
            eprintln!("left behind: {error}");
        }
    }
}

fn new_method(run: &Path) -> FuseMethod {
    let host = HostIdentity {
        nqn: "nqn.2014-08.org.nvmexpress:uuid:test".into(),
        id: Uuid::from_u128(5),
        keys: None,
    };
    FuseMethod::with_run_dir(host, run.to_path_buf())
}

/// An aligned buffer within a larger one.
struct Aligned(Vec<u8>, usize);

impl Aligned {
    fn new(length: usize, fill: u8) -> Self {
        let memory = vec![fill; length + BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        Self(memory, start)
    }

    fn bytes(&mut self) -> &mut [u8] {
        let end = self.0.len() - BLOCK + self.1;
        &mut self.0[self.1..end]
    }
}

fn open_direct(device: &Path) -> File {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    let options = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(direct)
        .open(device);
    options.unwrap()
}

#[test]
fn a_device_is_made_used_grown_and_removed() {
    let Some(bench) = Bench::new("life", 256) else {
        return;
    };
    let device = bench.method.attach(&bench.spec).unwrap();
    assert_eq!(device.size_bytes, 256 * BLOCK as u64);
    let again = bench.method.attach(&bench.spec).unwrap();
    assert_eq!(again, device, "attaching twice is attaching once");
    let name = device.path.file_name().unwrap().to_str().unwrap();
    let queue = |attribute: &str| -> String {
        let path = format!("/sys/block/{name}/queue/{attribute}");
        fs::read_to_string(path).unwrap().trim().into()
    };
    assert_eq!(queue("logical_block_size"), BLOCK.to_string());
    let dio = fs::read_to_string(format!("/sys/block/{name}/loop/dio")).unwrap();
    assert_eq!(dio.trim(), "1");

    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&device.path)
        .unwrap();
    let data: Vec<u8> = (0..256 * BLOCK)
        .map(|i| u8::try_from(i % 253).unwrap())
        .collect();
    file.write_all(&data).unwrap();
    let flushes = bench.target.flushes();
    file.sync_all().unwrap();
    assert!(bench.target.flushes() > flushes, "fsync reaches the target");
    assert!(bench.target.memory() == data);

    bench.target.serve(512, Access::Any);
    assert_eq!(
        bench.method.rescan(&bench.spec).unwrap(),
        512 * BLOCK as u64
    );
    assert_eq!(
        bench.method.device(&bench.spec).unwrap().size_bytes,
        512 * BLOCK as u64
    );
    assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), 512 * BLOCK as u64);
    file.write_all_at(&data, 256 * BLOCK as u64).unwrap();
    file.sync_all().unwrap();
    assert!(bench.target.memory()[256 * BLOCK..] == data);

    bench.target.serve(600, Access::Any);
    wait_for("the device to grow by itself", || {
        bench.method.device(&bench.spec).unwrap().size_bytes == 600 * BLOCK as u64
    });

    // Discard reaches the target as zeroes.
    let range = [0_u64, 16 * BLOCK as u64];
    let blkdiscard = std::process::Command::new("blkdiscard")
        .args(["-l", &range[1].to_string()])
        .arg(&device.path)
        .status();
    if blkdiscard.is_ok_and(|status| status.success()) {
        assert!(bench.target.memory()[..16 * BLOCK].iter().all(|b| *b == 0));
        assert_eq!(
            bench.target.memory()[16 * BLOCK..32 * BLOCK],
            data[16 * BLOCK..32 * BLOCK]
        );
    }
    drop(file);
    bench.method.detach(&bench.spec).unwrap();
    bench.method.detach(&bench.spec).unwrap();
    bench.assert_nothing_left();
}

#[test]
fn io_waits_over_broken_connections() {
    let Some(bench) = Bench::new("cuts", 1024) else {
        return;
    };
    let device = bench.attach();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (device, stop) = (&device, &stop);
            scope.spawn(move || {
                let file = open_direct(device);
                let at = worker * 128 * BLOCK as u64;
                let mut round = 0_u8;
                while !stop.load(Ordering::Relaxed) {
                    round = round.wrapping_add(1);
                    let mut data = Aligned::new(32 * BLOCK, round);
                    file.write_all_at(data.bytes(), at).expect("no error");
                    let mut back = Aligned::new(32 * BLOCK, 0);
                    file.read_exact_at(back.bytes(), at).expect("no error");
                    assert!(back.bytes() == data.bytes());
                    if round.is_multiple_of(8) {
                        file.sync_data().expect("no error");
                    }
                }
            });
        }
        for cut in 0..20 {
            let (before, writes) = (bench.target.accepted(), bench.target.writes());
            wait_for("writes between cuts", || {
                bench.target.writes() > writes + 20
            });
            bench.target.refuse(cut % 5 == 2);
            bench.target.cut();
            if cut % 5 == 2 {
                let waiting = || bench.method.paths(&bench.spec)[0].state == PathState::Connecting;
                wait_for("the loss to show", waiting);
                bench.target.refuse(false);
            }
            wait_for("a new connection", || bench.target.accepted() > before);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let live = || bench.method.paths(&bench.spec)[0].state == PathState::Live;
    wait_for("the path to be live", live);
}

#[test]
fn a_device_in_use_follows_its_paths() {
    let Some(mut bench) = Bench::new("follow", 64) else {
        return;
    };
    bench.target = Target::with_portals(2, 64, Access::Any);
    let path = |index: usize| PathSpec::from(Portal::from(bench.target.portals[index]));
    let (old, new) = (path(0), path(1));
    bench.spec.paths = vec![old];
    let file = open_direct(&bench.attach());
    let write = |fill: u8| {
        let mut data = Aligned::new(BLOCK, fill);
        file.write_all_at(data.bytes(), 0).unwrap();
        assert_eq!(bench.target.memory()[..BLOCK], *data.bytes());
    };
    write(1);
    let before = bench.method.paths(&bench.spec).remove(0);
    let traffic = before.traffic.unwrap();
    assert!(traffic.commands.writes > 0 && traffic.segments.unwrap().sent > 0);
    assert_eq!(before.ana_state, Some(AnaState::Optimized));
    wait_for("the other path alone", || {
        let has = bench.method.follow(&bench.spec, &[new]);
        assert_eq!(has[0], new);
        has.len() == 1
    });
    bench.spec.paths = vec![new];
    bench.target.refuse_portal(0, true);
    bench.target.cut_portal(0);
    write(2);
    let after = bench.method.paths(&bench.spec);
    assert_eq!((after[0].path, after[0].state), (new, PathState::Live));
    assert!(after[0].traffic.unwrap().commands.writes > 0);
    assert_eq!(after[0].losses, Losses::default());
}

#[test]
fn a_device_in_use_is_not_taken_away() {
    let Some(bench) = Bench::new("busy", 64) else {
        return;
    };
    let device = bench.attach();
    let exclusive = i32::try_from(rustix::fs::OFlags::EXCL.bits()).unwrap();
    let holder = OpenOptions::new()
        .read(true)
        .custom_flags(exclusive)
        .open(&device)
        .unwrap();
    assert!(matches!(
        bench.method.detach(&bench.spec),
        Err(AttachError::Busy { .. })
    ));
    // Nor by a daemon that starts anew and finds it.
    let second = new_method(bench.run.path());
    assert!(matches!(
        second.attach(&bench.spec),
        Err(AttachError::Busy { .. })
    ));
    let mut block = [0; BLOCK];
    (&holder).read_exact(&mut block).unwrap();
    drop(holder);
    bench.method.detach(&bench.spec).unwrap();
    bench.assert_nothing_left();
}

#[test]
fn what_a_dead_daemon_left_is_cleaned_up() {
    let Some(bench) = Bench::new("stale", 64) else {
        return;
    };
    bench.attach();
    let mount = bench.run.path().join(&bench.spec.id);
    rustix::mount::unmount(
        &mount,
        rustix::mount::UnmountFlags::FORCE | rustix::mount::UnmountFlags::DETACH,
    )
    .unwrap();
    let second = new_method(bench.run.path());
    let device = second.attach(&bench.spec).unwrap();
    let file = open_direct(&device.path);
    let mut data = Aligned::new(BLOCK, 9);
    file.write_all_at(data.bytes(), 0).unwrap();
    drop(file);
    assert_eq!(bench.target.memory()[..BLOCK], *data.bytes());
    second.detach(&bench.spec).unwrap();
    bench.assert_nothing_left();
}

#[test]
fn a_read_only_device_refuses_writes() {
    let Some(mut bench) = Bench::new("ro", 64) else {
        return;
    };
    bench.spec.read_only = true;
    let device = bench.attach();
    let name = device.file_name().unwrap().to_str().unwrap();
    let ro = fs::read_to_string(format!("/sys/block/{name}/ro")).unwrap();
    assert_eq!(ro.trim(), "1");
    let opened = OpenOptions::new().write(true).open(&device);
    let written = opened.and_then(|file| file.write_all_at(&[7; BLOCK], 0));
    assert!(written.is_err(), "refused at once");
    let mut block = [1; BLOCK];
    File::open(&device).unwrap().read_exact(&mut block).unwrap();
    assert_eq!(bench.target.writes(), 0);
}

#[test]
fn a_wrong_volume_or_target_leaves_nothing() {
    let Some(mut bench) = Bench::new("wrong", 64) else {
        return;
    };
    bench.spec.volume_uuid = Uuid::from_u128(1);
    let error = bench.method.attach(&bench.spec).unwrap_err().to_string();
    assert!(error.contains("no namespace with UUID"), "{error}");
    bench.spec.paths[0].port = 1;
    let error = bench.method.attach(&bench.spec).unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");
    bench.assert_nothing_left();
}
