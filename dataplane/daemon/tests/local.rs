//! Volumes that a daemon serves to its own node, without a network. Where there is root, /dev/fuse and loop devices they
//! are attached; without them those tests say so and pass.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod common;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use common::*;
use roadstead_api::v1;
use tonic::Code;

const BLOCK: usize = 4096;
/// Of the data that is written, in blocks.
const BLOCKS: usize = 300;

/// A file drive with one volume, and no portal at all.
fn state_without_portals(dir: &Path, revision: &str) -> v1::NodeState {
    v1::NodeState {
        portals: Vec::new(),
        ..state(dir, revision, "127.0.0.1:1".parse().unwrap())
    }
}

fn local() -> v1::Portal {
    v1::Portal {
        transport: v1::Transport::Local.into(),
        ..Default::default()
    }
}

fn request(id: &str) -> v1::AttachRequest {
    v1::AttachRequest {
        // Unique on the machine: devices are found by it.
        id: format!("local-{id}-{}", std::process::id()),
        subsystem_nqn: roadstead_api::subsystem_nqn(VOLUME),
        volume_uuid: VOLUME.into(),
        paths: vec![local()],
        method: "fuse".into(),
        ..Default::default()
    }
}

fn possible() -> bool {
    let reason = if !rustix::process::geteuid().is_root() {
        "not root"
    } else if !Path::new("/dev/fuse").exists() || !Path::new("/dev/loop-control").exists() {
        "no /dev/fuse or no /dev/loop-control"
    } else {
        return true;
    };
    println!("SKIPPED: {reason}");
    false
}

fn open(device: &str) -> File {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(direct);
    options.open(device).unwrap()
}

/// Aligned memory for direct I/O, full of `fill`.
fn aligned(memory: &mut Vec<u8>, fill: u8) -> &mut [u8] {
    memory.clear();
    memory.resize((BLOCKS + 1) * BLOCK, fill);
    let start = memory.as_ptr().align_offset(BLOCK);
    &mut memory[start..start + BLOCKS * BLOCK]
}

async fn attach(daemon: &Daemon, request: &v1::AttachRequest) -> v1::AttachmentReport {
    let reply = daemon.client().await.attach(request.clone()).await;
    reply.unwrap().into_inner().attachment.unwrap()
}

async fn detach(daemon: &Daemon, request: &v1::AttachRequest) {
    let id = request.id.clone();
    let detached = daemon.client().await.detach(v1::DetachRequest { id }).await;
    detached.unwrap();
}

/// TCP sockets of a process, listening or connected, by the kernel's tables.
fn tcp_sockets(pid: u32) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = links.flatten().filter_map(|fd| fd.path().read_link().ok());
    let own: Vec<String> = links.map(|link| link.display().to_string()).collect();
    let mut found = 0;
    for table in ["tcp", "tcp6"] {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/{table}"));
        let text = text.unwrap_or_default();
        let inodes = text.lines().skip(1);
        found += inodes
            .filter_map(|line| line.split_whitespace().nth(9))
            .filter(|inode| own.contains(&format!("socket:[{inode}]")))
            .count();
    }
    found
}

#[tokio::test]
async fn a_volume_of_the_node_itself_is_attached_without_a_network() {
    if !possible() {
        return;
    }
    let dir = temporary();
    let mut daemon = Daemon::start(dir.path(), &[]).await;
    let report = daemon.apply(&state_without_portals(dir.path(), "1")).await;
    assert!(report.host.unwrap().local_attach);
    assert_eq!(report.portals, []);

    let request = request("a");
    let attached = attach(&daemon, &request).await;
    assert_eq!(attached.size_bytes, 64 * MIB);
    let (mut out, mut back) = (Vec::new(), Vec::new());
    let device = open(&attached.device);
    let data = aligned(&mut out, 0x5a);
    device.write_all_at(data, 7 * BLOCK as u64).unwrap();
    device.sync_all().unwrap();
    let read = aligned(&mut back, 0);
    device.read_exact_at(read, 7 * BLOCK as u64).unwrap();
    assert!(read == data);
    drop(device);

    let report = daemon.report().await;
    let path = &report.attachments[0].paths[0];
    assert_eq!(path.portal, Some(local()), "neither address nor port");
    assert_eq!(path.state(), v1::PathState::Live);
    assert_eq!(report.portals, []);
    let counters = volume_of(&report, VOLUME).counters.unwrap();
    assert!(counters.written_bytes >= (BLOCKS * BLOCK) as u64);
    let controllers = &report.subsystems[0].controllers;
    assert_eq!(controllers.len(), 1);
    assert_eq!(controllers[0].host_nqn, report.host.unwrap().host_nqn);
    assert_eq!(tcp_sockets(daemon.id()), 0, "nothing is on the network");

    // The next daemon has it again, as soon as it serves the volume.
    daemon.kill();
    daemon = Daemon::start(dir.path(), &[]).await;
    let is_live = |report: &v1::NodeReport| {
        let mut paths = report.attachments.iter().flat_map(|one| &one.paths);
        paths.any(|path| path.state() == v1::PathState::Live && path.portal == Some(local()))
    };
    let report = daemon.report_when("it is attached again", is_live).await;
    let device = open(&report.attachments[0].device);
    let read = aligned(&mut back, 0);
    device.read_exact_at(read, 7 * BLOCK as u64).unwrap();
    assert!(read == data);
    drop(device);

    detach(&daemon, &request).await;
    let report = daemon.report().await;
    assert_eq!(report.attachments, []);
    assert_eq!(report.subsystems[0].controllers, []);
    assert!(daemon.stop());
}

#[tokio::test]
async fn what_cannot_be_attached_locally_is_refused_with_the_reason() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut state = state_without_portals(dir.path(), "1");
    daemon.apply(&state).await;
    let refusal = async |request: v1::AttachRequest| {
        let refused = daemon.client().await.attach(request).await.unwrap_err();
        (refused.code(), refused.message().to_owned())
    };
    let tcp = portal("127.0.0.1:4420".parse().unwrap());
    let table = [
        (
            v1::AttachRequest {
                method: "kernel".into(),
                ..request("b")
            },
            Code::FailedPrecondition,
            "kernel",
        ),
        (
            v1::AttachRequest {
                paths: vec![local(), tcp],
                ..request("b")
            },
            Code::InvalidArgument,
            "the local path needs no other beside it",
        ),
        (
            v1::AttachRequest {
                paths: vec![v1::Portal {
                    port: 4420,
                    ..local()
                }],
                ..request("b")
            },
            Code::InvalidArgument,
            "paths[0].port",
        ),
        (
            v1::AttachRequest {
                paths: vec![v1::Portal {
                    address: "127.0.0.1".into(),
                    ..local()
                }],
                ..request("b")
            },
            Code::InvalidArgument,
            "paths[0].address",
        ),
    ];
    for (request, code, part) in table {
        let (refused, message) = refusal(request).await;
        assert_eq!(refused, code, "{message}");
        assert!(message.contains(part), "{part}: {message}");
    }
    if possible() {
        let other = "9d1c1a3e-55a4-4f9b-8d9e-3b0a4f0a7c99";
        let elsewhere = v1::AttachRequest {
            subsystem_nqn: roadstead_api::subsystem_nqn(other),
            volume_uuid: other.into(),
            ..request("b")
        };
        let (code, message) = refusal(elsewhere).await;
        assert_eq!(code, Code::Unavailable, "{message}");
        assert!(message.contains("this node's own subsystems"), "{message}");
        // The list of hosts counts here, too.
        state.revision = "2".into();
        state.subsystems[0].allow_any_host = false;
        daemon.apply(&state).await;
        let (code, message) = refusal(request("b")).await;
        assert_eq!(code, Code::Unavailable, "{message}");
    }
    assert_eq!(daemon.report().await.attachments, []);
}
