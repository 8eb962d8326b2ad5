//! A daemon with a holder: its FUSE devices outlive it. Needs root, /dev/fuse, loop devices and Linux 6.9; without
//! them the test says so and passes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that fails here says where"
)]

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use common::*;
use roadstead_api::v1;

const BLOCK: usize = 4096;
const BLOCKS: u64 = 512;

/// A block-aligned buffer, full of `fill`.
fn aligned(memory: &mut Vec<u8>, fill: u8) -> &mut [u8] {
    memory.clear();
    memory.resize(2 * BLOCK, fill);
    let start = memory.as_ptr().align_offset(BLOCK);
    &mut memory[start..start + BLOCK]
}

/// Writes and reads back blocks of the device until told to stop; counts what succeeded.
fn load(device: &Path, stop: &AtomicBool, done: &AtomicU64) {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    let file: File = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(direct)
        .open(device)
        .unwrap();
    let (mut out, mut back) = (Vec::new(), Vec::new());
    for round in 0.. {
        if stop.load(SeqCst) {
            return;
        }
        let at = (round * 7 % BLOCKS) * BLOCK as u64;
        let fill = u8::try_from(round % 251).unwrap();
        file.write_all_at(aligned(&mut out, fill), at).unwrap();
        let back = aligned(&mut back, !fill);
        file.read_exact_at(back, at).unwrap();
        assert!(back.iter().all(|byte| *byte == fill), "round {round}");
        done.fetch_add(1, SeqCst);
    }
}

/// The daemon below its holder.
fn child_of(holder: u32) -> Option<u32> {
    let list = std::fs::read_to_string(format!("/proc/{holder}/task/{holder}/children"));
    list.unwrap_or_default().split(' ').next()?.parse().ok()
}

fn possible() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let reason = if !rustix::process::geteuid().is_root() {
        "not root".to_owned()
    } else if !Path::new("/dev/fuse").exists() || !Path::new("/dev/loop-control").exists() {
        "no /dev/fuse or no /dev/loop-control".to_owned()
    } else if !roadstead_attach::holder::kernel_resends(release.trim()) {
        format!("kernel {}", release.trim())
    } else {
        return true;
    };
    println!("SKIPPED: {reason}");
    false
}

#[tokio::test]
async fn a_killed_daemon_is_started_again_and_one_that_gives_up_is_not() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &["--hold"]).await;
    let holder = daemon.id();
    let first = until("there is a daemon", async || child_of(holder)).await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(first).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    until("there is another daemon", async || {
        child_of(holder).filter(|pid| *pid != first)
    })
    .await;
    until("it answers", async || {
        roadstead_api::connect_unix(&daemon.socket).await.ok()
    })
    .await;
    // The state directory is locked: this one gives up, and so does its holder.
    let second = Daemon::spawn(dir.path(), &["--hold"]);
    assert!(!second.wait(), "the end is told");
    assert!(daemon.stop(), "SIGTERM ends daemon and holder");
}

#[tokio::test]
async fn devices_outlive_the_daemon() {
    if !possible() {
        return;
    }
    let (target_dir, dir) = (temporary(), temporary());
    let target = Daemon::start(target_dir.path(), &[]).await;
    let address = free_address();
    let state = v1::NodeState {
        revision: "1".into(),
        drives: vec![memory_drive("d", 64)],
        volumes: vec![volume(VOLUME, "d", 16)],
        subsystems: vec![v1::Subsystem {
            allow_any_host: true,
            ..subsystem(VOLUME)
        }],
        portals: vec![portal(address)],
        ..Default::default()
    };
    target.apply(&state).await;

    let daemon = Daemon::start(dir.path(), &["--hold"]).await;
    outlives(daemon, "far", portal(address)).await;
}

/// Its own volume is away with the daemon, and comes back with the next.
#[tokio::test]
async fn devices_of_its_own_volumes_outlive_the_daemon() {
    if !possible() {
        return;
    }
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &["--hold"]).await;
    let state = v1::NodeState {
        portals: vec![],
        ..state(dir.path(), "1", free_address())
    };
    daemon.apply(&state).await;
    let local = v1::Portal {
        transport: v1::Transport::Local.into(),
        ..Default::default()
    };
    outlives(daemon, "own", local).await;
}

/// A device goes on while its daemon is killed again and again.
async fn outlives(daemon: Daemon, name: &str, path: v1::Portal) {
    let holder = daemon.id();
    // Unique on the machine: devices are found by it.
    let id = format!("hold-{name}-{}", std::process::id());
    let request = v1::AttachRequest {
        id: id.clone(),
        subsystem_nqn: roadstead_api::subsystem_nqn(VOLUME),
        volume_uuid: VOLUME.into(),
        paths: vec![path],
        method: "fuse".into(),
        ..Default::default()
    };
    let reply = daemon.client().await.attach(request.clone()).await.unwrap();
    let device = reply.into_inner().attachment.unwrap().device;

    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let writer = {
        let (stop, done, device) = (stop.clone(), done.clone(), device.clone());
        std::thread::spawn(move || load(Path::new(&device), &stop, &done))
    };
    for _ in 0..5 {
        let before = done.load(SeqCst);
        until("the device is used", async || {
            (writer.is_finished() || done.load(SeqCst) > before + 20).then_some(())
        })
        .await;
        assert!(!writer.is_finished(), "I/O failed");
        let pid = until("there is a daemon", async || child_of(holder)).await;
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    let before = done.load(SeqCst);
    until("the device is used again", async || {
        (writer.is_finished() || done.load(SeqCst) > before + 20).then_some(())
    })
    .await;
    stop.store(true, SeqCst);
    writer.join().unwrap();

    // The new daemon knows the device, gives the same one, and can take it away.
    let reply = daemon.client().await.attach(request).await.unwrap();
    assert_eq!(reply.into_inner().attachment.unwrap().device, device);
    let request = v1::DetachRequest { id: id.clone() };
    daemon.client().await.detach(request).await.unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&id));
    assert!(daemon.stop(), "SIGTERM ends daemon and holder");
}
