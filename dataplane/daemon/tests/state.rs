//! Desired state against the real daemon: what is applied is done, kept, and comes back after kill -9.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::*;
use roadstead_api::v1::{self, DriveState, VolumeState};

#[tokio::test]
async fn it_serves_again_by_itself_after_kill_9() {
    let dir = temporary();
    let address = free_address();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let before = daemon.apply(&state(dir.path(), "7", address)).await;
    assert_eq!(drive_of(&before, "d").state(), DriveState::Online);
    assert_eq!(volume_of(&before, VOLUME).state(), VolumeState::Online);
    assert_eq!(volume_of(&before, VOLUME).size_bytes, 64 * MIB);
    assert!(before.portals[0].listening);
    daemon.kill();

    let daemon = Daemon::start(dir.path(), &[]).await;
    // The kernel closes the sockets of a killed process's rings in its own time.
    let after = daemon
        .report_when("it is served again", |report| {
            report.applied_revision == "7" && report.portals.iter().all(|p| p.listening)
        })
        .await;
    assert_eq!(
        drive_of(&after, "d").pool_uuid,
        drive_of(&before, "d").pool_uuid
    );
    assert_eq!(after, before, "nobody told it anything");
    assert!(std::net::TcpStream::connect(address).is_ok());
    assert!(daemon.stop());
}

#[tokio::test]
async fn the_same_state_twice_changes_nothing() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut wanted = state(dir.path(), "1", free_address());
    let first = daemon.apply(&wanted).await;
    let log = daemon.log_text();
    wanted.revision = "2".into();
    let second = daemon.apply(&wanted).await;
    assert_eq!(
        second,
        v1::NodeReport {
            applied_revision: "2".into(),
            ..first
        }
    );
    let said = daemon.log_text()[log.len()..].to_owned();
    for word in [
        "drive open",
        "volume made",
        "subsystem served",
        "portal open",
        "failed; it is",
    ] {
        assert!(!said.contains(word), "{word}: {said}");
    }
}

#[tokio::test]
async fn nothing_is_deleted_unless_it_is_said() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let full = state(dir.path(), "1", free_address());
    daemon.apply(&full).await;

    let empty = v1::NodeState {
        volumes: vec![],
        subsystems: vec![],
        ..full.clone()
    };
    let report = daemon
        .apply(&v1::NodeState {
            revision: "2".into(),
            ..empty
        })
        .await;
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Orphan);
    assert_eq!(report.subsystems, []);

    let mut contradiction = v1::NodeState {
        revision: "3".into(),
        ..full.clone()
    };
    contradiction.volumes[0].absent = true;
    let report = daemon.apply(&contradiction).await;
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Failed);
    assert_eq!(volume_of(&report, VOLUME).reason, "InUse");

    let gone = v1::NodeState {
        revision: "4".into(),
        subsystems: vec![],
        ..contradiction
    };
    let report = daemon.apply(&gone).await;
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Absent);
    let drive = drive_of(&report, "d");
    assert_eq!(drive.free_bytes, drive.capacity_bytes, "the space is back");

    let report = daemon
        .apply(&v1::NodeState {
            revision: "5".into(),
            ..gone
        })
        .await;
    assert_eq!(
        volume_of(&report, VOLUME).state(),
        VolumeState::Absent,
        "again is no error"
    );
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_reason() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let wanted = state(dir.path(), "1", free_address());
    daemon.apply(&wanted).await;
    let cases: [(&str, v1::Volume, &str); 4] = [
        ("2", volume(VOLUME, "d", 32), "ShrinkRefused"),
        (
            "3",
            v1::Volume {
                block_size: 512,
                ..volume(VOLUME, "d", 64)
            },
            "BlockSizeRefused",
        ),
        ("4", volume(VOLUME, "d", 1024), "NoRoom"),
        ("5", volume(VOLUME, "e", 64), "OnOtherDrive"),
    ];
    for (revision, volume, reason) in cases {
        let mut state = wanted.clone();
        state.revision = revision.into();
        state.volumes = vec![volume];
        state.drives.push(memory_drive("e", 128));
        let report = daemon.apply(&state).await;
        let volume = volume_of(&report, VOLUME);
        assert_eq!(
            (volume.state(), volume.reason.as_str()),
            (VolumeState::Failed, reason)
        );
        assert!(!volume.message.is_empty());
        assert_eq!(volume.size_bytes, 64 * MIB, "{reason}: it is kept");
        assert_eq!(report.subsystems.len(), 1, "{reason}: it is served");
    }
    let larger = v1::NodeState {
        revision: "6".into(),
        volumes: vec![volume(VOLUME, "d", 96)],
        ..wanted
    };
    let report = daemon.apply(&larger).await;
    assert_eq!(volume_of(&report, VOLUME).size_bytes, 96 * MIB);
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Online);
}

/// A file with the magic number of ext4, and nothing else.
fn ext4_like(path: &Path) {
    let mut bytes = vec![0u8; usize::try_from(64 * MIB).unwrap()];
    bytes[1024 + 56] = 0x53;
    bytes[1024 + 57] = 0xef;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn drives_that_hold_something_are_left_alone() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let path = |name: &str| dir.path().join(name);
    ext4_like(&path("ext4"));
    let before = std::fs::read(path("ext4")).unwrap();
    let other = v1::Drive {
        owner: "target-2".into(),
        ..file_drive("other", &path("other"), 64)
    };
    daemon
        .apply(&v1::NodeState {
            revision: "0".into(),
            drives: vec![other.clone()],
            ..Default::default()
        })
        .await;
    let refused = v1::NodeState {
        revision: "1".into(),
        drives: vec![
            file_drive("ext4", &path("ext4"), 64),
            v1::Drive {
                owner: "target-1".into(),
                ..other
            },
            file_drive("small", &path("small"), 1),
            path_drive("none", &path("none")),
            path_drive("directory", dir.path()),
        ],
        ..Default::default()
    };
    let report = daemon.apply(&refused).await;
    for (name, state, reason) in [
        ("ext4", DriveState::Refused, "ForeignFilesystem"),
        ("other", DriveState::Refused, "ForeignLabel"),
        ("small", DriveState::Refused, "TooSmall"),
        ("none", DriveState::Missing, "NotFound"),
    ] {
        let drive = drive_of(&report, name);
        assert_eq!(
            (drive.state(), drive.reason.as_str()),
            (state, reason),
            "{drive:?}"
        );
        assert!(drive.message.contains(name), "{drive:?}");
    }
    assert_ne!(drive_of(&report, "directory").state(), DriveState::Online);
    assert!(
        std::fs::read(path("ext4")).unwrap() == before,
        "it was written to"
    );

    let mut forced = refused;
    forced.revision = "2".into();
    forced.drives.truncate(2);
    forced
        .drives
        .iter_mut()
        .for_each(|drive| drive.force = true);
    let report = daemon.apply(&forced).await;
    for drive in &report.drives {
        assert_eq!(drive.state(), DriveState::Online, "{drive:?}");
    }
}

#[tokio::test]
async fn a_drive_that_comes_late_is_opened() {
    let dir = temporary();
    let address = free_address();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let wanted = state(dir.path(), "1", address);
    daemon.apply(&wanted).await;
    daemon.kill();
    let (file, away) = (dir.path().join("drive"), dir.path().join("away"));
    std::fs::rename(&file, &away).unwrap();

    let daemon = Daemon::start(dir.path(), &[]).await;
    let report = daemon.applied("1").await;
    assert_eq!(drive_of(&report, "d").state(), DriveState::Missing);
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Unavailable);
    assert_eq!(volume_of(&report, VOLUME).reason, "DriveOffline");
    assert_eq!(report.subsystems, []);
    assert!(!file.exists(), "no new file in its place");

    std::fs::rename(&away, &file).unwrap();
    let online = |report: &v1::NodeReport| report.subsystems.len() == 1;
    let report = daemon.report_when("the drive is back", online).await;
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Online);
}

#[tokio::test]
async fn a_blank_drive_in_the_place_of_a_used_one_is_not_filled() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut wanted = state(dir.path(), "1", free_address());
    daemon.apply(&wanted).await;
    daemon.kill();
    let file = dir.path().join("drive");
    std::fs::remove_file(&file).unwrap();
    std::fs::File::create(&file)
        .unwrap()
        .set_len(128 * MIB)
        .unwrap();

    let daemon = Daemon::start(dir.path(), &[]).await;
    let report = daemon.applied("1").await;
    assert_eq!(drive_of(&report, "d").reason, "PoolLost");
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Unavailable);

    wanted.revision = "2".into();
    wanted.drives[0].force = true;
    let report = daemon.apply(&wanted).await;
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Online);
}

#[tokio::test]
async fn a_malformed_state_is_refused_as_a_whole() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut bad = state(dir.path(), "1", free_address());
    bad.subsystems[0].nqn = "example".into();
    bad.portals[0].port = 0;
    let request = v1::ApplyRequest { state: Some(bad) };
    let status = daemon.client().await.apply(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    for part in [
        "subsystems[0].nqn: 'example' is not an NQN",
        "portals[0].port: 0 is not",
    ] {
        assert!(status.message().contains(part), "{status}");
    }
    let empty = daemon
        .client()
        .await
        .apply(v1::ApplyRequest { state: None })
        .await
        .unwrap_err();
    assert_eq!(empty.code(), tonic::Code::InvalidArgument);
    assert_eq!(daemon.report().await.drives, []);
}

#[tokio::test]
async fn a_damaged_state_is_put_aside() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let wanted = state(dir.path(), "1", free_address());
    daemon.apply(&wanted).await;
    daemon.kill();
    let kept = dir.path().join("state/state");
    let mut bytes = std::fs::read(&kept).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&kept, bytes).unwrap();

    let daemon = Daemon::start(dir.path(), &[]).await;
    let report = daemon.report().await;
    assert_eq!(
        (report.applied_revision.as_str(), report.drives.len()),
        ("", 0)
    );
    assert!(daemon.log_text().contains("its checksum is wrong"));
    assert!(dir.path().join("state/state.damaged").exists());
    let report = daemon.apply(&wanted).await;
    assert_eq!(volume_of(&report, VOLUME).state(), VolumeState::Online);
}

#[tokio::test]
async fn a_watcher_sees_every_change() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut client = daemon.client().await;
    let mut reports = client
        .watch(v1::WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = reports.message().await.unwrap().unwrap();
    assert_eq!(first.applied_revision, "");
    let host = first.host.unwrap();
    assert!(host.host_nqn.ends_with(&host.host_id));
    daemon.apply(&state(dir.path(), "1", free_address())).await;
    loop {
        let report = reports.message().await.unwrap().unwrap();
        if report.applied_revision == "1" {
            break;
        }
    }
}

#[tokio::test]
async fn a_portal_that_is_taken_is_tried_again() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let squatter = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = squatter.local_addr().unwrap();
    let report = daemon.apply(&state(dir.path(), "1", address)).await;
    assert!(!report.portals[0].listening);
    assert!(!report.portals[0].message.is_empty());
    drop(squatter);
    daemon
        .report_when("it listens", |report| report.portals[0].listening)
        .await;
}

#[tokio::test]
async fn one_daemon_for_one_place() {
    let dir = temporary();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mode = std::fs::metadata(&daemon.socket)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let second = |state: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_roadsteadd"))
            .args(["--state-dir", state, "--socket"])
            .arg(&daemon.socket)
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let same = dir.path().join("state");
    assert!(second(same.to_str().unwrap()).contains("in use by another roadsteadd"));
    let other = dir.path().join("other");
    assert!(second(other.to_str().unwrap()).contains("another process listens"));
    daemon.report().await;
}
