//! The node service with real file systems on loop devices. Needs root; says so and passes without.

// A failed helper of a test is a failed test.
#![allow(clippy::unwrap_used, clippy::panic)]

mod loops;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use loops::{Bench, bench, is_mounted, run};
use roadstead_csi::proto::csi::node_server::Node as _;
use roadstead_csi::proto::csi::volume_capability::access_mode::Mode;
use roadstead_csi::proto::csi::volume_usage::Unit;
use roadstead_csi::proto::csi::{
    CapacityRange, NodeExpandVolumeRequest, NodeGetVolumeHealthRequest, NodeGetVolumeStatsRequest,
};
use tonic::{Code, Request};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn ext4_lives_through_it_all_with_every_call_repeated() {
    let Some(bench) = bench() else { return };
    life(&bench, "ext4", 64 * MIB).await;
}

#[tokio::test]
async fn xfs_lives_through_it_all_with_every_call_repeated() {
    let Some(bench) = bench() else { return };
    life(&bench, "xfs", 320 * MIB).await;
}

async fn life(bench: &Bench, fs_type: &str, size: u64) {
    bench.image("v", size);
    for pod in ["first", "second"] {
        for _ in 0..2 {
            bench.stage("v", fs_type).await.unwrap();
        }
        for _ in 0..2 {
            bench.publish("v", pod, fs_type, false).await.unwrap();
        }
        let file = bench.target(pod).join("kept");
        if pod == "first" {
            fs::write(&file, "data").unwrap();
        }
        assert_eq!(fs::read(&file).unwrap(), b"data", "formatted again");

        let usage = bench.stats("v", pod).await.unwrap();
        assert_eq!(
            (usage[0].unit(), usage[1].unit()),
            (Unit::Bytes, Unit::Inodes)
        );
        assert!(usage[0].total > 0 && usage[0].available > 0 && usage[0].used >= 0);

        for _ in 0..2 {
            bench.unpublish("v", pod).await.unwrap();
        }
        assert!(!bench.target(pod).exists());
        assert_eq!(
            bench.stats("v", pod).await.unwrap_err().code(),
            Code::NotFound
        );
        for _ in 0..2 {
            bench.unstage("v").await.unwrap();
        }
        assert!(!is_mounted(&bench.staging("v")));
        assert!(bench.device("v").is_none());
    }
}

#[tokio::test]
async fn grows_while_mounted() {
    let Some(bench) = bench() else { return };
    for (volume, fs_type, size) in [("e", "ext4", 64 * MIB), ("x", "xfs", 320 * MIB)] {
        if fs_type == "ext4" && !loops::can_grow_ext4() {
            eprintln!("skipped for ext4: needs CAP_SYS_RESOURCE, which this machine withholds");
            continue;
        }
        bench.image(volume, size);
        bench.stage(volume, fs_type).await.unwrap();
        bench.publish(volume, volume, fs_type, false).await.unwrap();
        let before = bench.stats(volume, volume).await.unwrap()[0].total;

        let request = || NodeExpandVolumeRequest {
            volume_id: volume.into(),
            volume_path: bench.target(volume).display().to_string(),
            capacity_range: Some(CapacityRange {
                required_bytes: i64::try_from(size * 2).unwrap(),
                limit_bytes: 0,
            }),
            ..Default::default()
        };
        let expand = || bench.node.node_expand_volume(Request::new(request()));
        assert_eq!(
            expand().await.unwrap_err().code(),
            Code::Aborted,
            "the target did not grow yet"
        );
        bench.image(volume, size * 2);
        for _ in 0..2 {
            let grown = expand().await.unwrap().into_inner();
            assert_eq!(u64::try_from(grown.capacity_bytes).unwrap(), size * 2);
        }
        let after = bench.stats(volume, volume).await.unwrap()[0].total;
        assert!(
            after > before * 3 / 2,
            "{fs_type}: {before} to {after} bytes"
        );
    }
    let absent = NodeExpandVolumeRequest {
        volume_id: "none".into(),
        volume_path: "/".into(),
        ..Default::default()
    };
    let error = bench
        .node
        .node_expand_volume(Request::new(absent))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn what_a_device_holds_is_never_overwritten() {
    let Some(bench) = bench() else { return };
    for (volume, asked, put) in [
        ("other", "ext4", Put::Program("mkfs.xfs", &["-q"])),
        ("another", "xfs", Put::Program("mkfs.ext4", &["-q"])),
        (
            "older",
            "ext4",
            Put::Program("mke2fs", &["-q", "-t", "ext2"]),
        ),
        ("parts", "ext4", Put::Bytes(510, &[0x55, 0xaa])),
        ("unknown", "ext4", Put::Bytes(700, b"precious")),
        ("damaged", "ext4", Put::Bytes(1080, &[0x53, 0xef])),
    ] {
        let image = bench.image(volume, 320 * MIB);
        match put {
            Put::Program(program, args) => {
                run(Command::new(program).args(args).arg(&image));
            }
            Put::Bytes(at, bytes) => {
                use std::os::unix::fs::FileExt;
                let file = fs::File::options().write(true).open(&image).unwrap();
                file.write_all_at(bytes, at).unwrap();
            }
        }
        let before = sum(&image);
        for _ in 0..2 {
            let error = bench.stage(volume, asked).await.unwrap_err();
            assert_eq!(
                error.code(),
                Code::FailedPrecondition,
                "{volume}: {error:?}"
            );
            assert!(error.message().contains("nothing was written"), "{error:?}");
        }
        bench.unstage(volume).await.unwrap();
        assert_eq!(sum(&image), before, "{volume}");
    }
}

enum Put {
    Program(&'static str, &'static [&'static str]),
    Bytes(u64, &'static [u8]),
}

fn sum(path: &Path) -> Vec<u8> {
    let out = Command::new("sha256sum").arg(path).output().unwrap();
    assert!(out.status.success());
    out.stdout
}

#[tokio::test]
async fn a_killed_mkfs_is_done_again() {
    let Some(bench) = bench() else { return };
    for fs_type in ["ext4", "xfs"] {
        for delay_ms in [1, 2, 3, 4, 6, 8, 10, 13, 16, 20, 30] {
            let volume = format!("{fs_type}-{delay_ms}");
            let image = bench.image(&volume, 320 * MIB);
            let mut mkfs = Command::new(format!("mkfs.{fs_type}"))
                .arg("-q")
                .arg(&image)
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(delay_ms));
            mkfs.kill().unwrap();
            mkfs.wait().unwrap();
            let staged = bench.stage(&volume, fs_type).await;
            staged.unwrap_or_else(|error| panic!("{volume}: {error:?}"));
            fs::write(bench.staging(&volume).join("file"), "x").unwrap();
            bench.unstage(&volume).await.unwrap();
            fs::remove_file(image).unwrap();
        }
    }
}

#[tokio::test]
async fn raw_block() {
    let Some(bench) = bench() else { return };
    bench.image("raw", 8 * MIB);
    for _ in 0..2 {
        bench.stage("raw", "").await.unwrap();
    }
    for _ in 0..2 {
        bench.publish("raw", "pod", "", false).await.unwrap();
    }
    let usage = bench.stats("raw", "pod").await.unwrap();
    assert_eq!(usage[0].total, 8 << 20);
    let target = bench.target("pod");
    run(Command::new("dd")
        .arg("if=/dev/urandom")
        .arg(format!("of={}", target.display()))
        .args([
            "bs=1M",
            "count=8",
            "oflag=direct",
            "conv=notrunc",
            "status=none",
        ]));
    let error = bench.unstage("raw").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    for _ in 0..2 {
        bench.unpublish("raw", "pod").await.unwrap();
    }
    assert!(!target.exists());
    bench.unstage("raw").await.unwrap();
    // The volume has data now: not for a file system any more.
    let error = bench.stage("raw", "ext4").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
}

#[tokio::test]
async fn a_published_volume_is_not_detached() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    bench.stage("v", "ext4").await.unwrap();
    bench.publish("v", "pod", "ext4", false).await.unwrap();
    let error = bench.unstage("v").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    fs::write(bench.target("pod").join("file"), "still there").unwrap();
    bench.unpublish("v", "pod").await.unwrap();
    bench.unstage("v").await.unwrap();
}

#[tokio::test]
async fn nothing_is_published_that_is_not_staged() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    for fs_type in ["ext4", ""] {
        let error = bench.publish("v", "pod", fs_type, false).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    }
    // What was never there can be taken away.
    bench.unpublish("v", "pod").await.unwrap();
    bench.unstage("v").await.unwrap();
}

#[tokio::test]
async fn read_only() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    let error = bench
        .stage_as("v", "ext4", Mode::MultiNodeReaderOnly)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    bench.unstage("v").await.unwrap();

    bench.stage("v", "ext4").await.unwrap();
    bench.publish("v", "writer", "ext4", false).await.unwrap();
    fs::write(bench.target("writer").join("file"), "x").unwrap();
    bench.publish("v", "reader", "ext4", true).await.unwrap();
    let denied = fs::write(bench.target("reader").join("file"), "y").unwrap_err();
    assert_eq!(denied.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // An earlier call that was killed before the mount became read-only.
    bench.unpublish("v", "reader").await.unwrap();
    bench.publish("v", "reader", "ext4", false).await.unwrap();
    bench.publish("v", "reader", "ext4", true).await.unwrap();
    assert!(fs::write(bench.target("reader").join("file"), "y").is_err());
    let error = bench
        .publish("v", "reader", "ext4", false)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists, "{error:?}");
    for pod in ["reader", "writer"] {
        bench.unpublish("v", pod).await.unwrap();
    }
    bench.unstage("v").await.unwrap();

    let mode = Mode::MultiNodeReaderOnly;
    for _ in 0..2 {
        bench.stage_as("v", "ext4", mode).await.unwrap();
        bench
            .publish_as("v", "reader", "ext4", false, mode)
            .await
            .unwrap();
    }
    assert_eq!(fs::read(bench.target("reader").join("file")).unwrap(), b"x");
    assert!(fs::write(bench.target("reader").join("file"), "y").is_err());
}

#[tokio::test]
async fn one_pod_alone() {
    let Some(bench) = bench() else { return };
    for fs_type in ["ext4", ""] {
        let volume = format!("v{fs_type}");
        let mode = Mode::SingleNodeSingleWriter;
        bench.image(&volume, 64 * MIB);
        bench.stage_as(&volume, fs_type, mode).await.unwrap();
        for _ in 0..2 {
            bench
                .publish_as(&volume, "one", fs_type, false, mode)
                .await
                .unwrap();
        }
        let second = bench.publish_as(&volume, "two", fs_type, false, mode).await;
        assert_eq!(second.unwrap_err().code(), Code::FailedPrecondition);
        bench.unpublish(&volume, "one").await.unwrap();
        bench
            .publish_as(&volume, "two", fs_type, false, mode)
            .await
            .unwrap();
        bench.unpublish(&volume, "two").await.unwrap();
        bench.unstage(&volume).await.unwrap();
    }
}

#[tokio::test]
async fn one_operation_a_volume() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    let hold = bench.loops.hold();
    let node = bench.node.clone();
    let request = bench.stage_request("v", "ext4", Mode::SingleNodeWriter);
    let first = tokio::spawn(async move { node.node_stage_volume(Request::new(request)).await });
    bench.loops.until_waiting().await;
    assert_eq!(bench.unstage("v").await.unwrap_err().code(), Code::Aborted);
    assert_eq!(
        bench.stage("v", "ext4").await.unwrap_err().code(),
        Code::Aborted
    );
    // The caller hangs up: the operation goes on, and its repetition finds it done or running.
    first.abort();
    assert_eq!(
        bench.stage("v", "ext4").await.unwrap_err().code(),
        Code::Aborted
    );
    drop(hold);
    while let Err(error) = bench.stage("v", "ext4").await {
        assert_eq!(error.code(), Code::Aborted);
        tokio::task::yield_now().await;
    }
    assert!(is_mounted(&bench.staging("v")));
}

#[tokio::test]
async fn a_stale_mount_gives_way() {
    let Some(bench) = bench() else { return };
    bench.image("v", 64 * MIB);
    bench.stage("v", "ext4").await.unwrap();
    // The attachment ended without its unstaging and was made again with another device.
    let old = bench.loops.forget("v");
    bench.stage("v", "ext4").await.unwrap();
    let new = bench.device("v").unwrap();
    assert_ne!(old, new);
    bench.unstage("v").await.unwrap();
    assert!(!is_mounted(&bench.staging("v")));
    run(Command::new("losetup").arg("-d").arg(old));
}

#[tokio::test]
async fn data_below_a_mount_is_not_removed() {
    let Some(bench) = bench() else { return };
    let target = bench.target("pod");
    fs::create_dir_all(&target).unwrap();
    fs::write(target.join("file"), "not ours").unwrap();
    let error = bench.unpublish("v", "pod").await.unwrap_err();
    assert_eq!(error.code(), Code::Internal, "{error:?}");
    assert!(target.join("file").exists());
}

#[tokio::test]
async fn bad_requests() {
    let Some(bench) = bench() else { return };
    let stats = NodeGetVolumeStatsRequest {
        volume_id: "v".into(),
        ..Default::default()
    };
    let error = bench
        .node
        .node_get_volume_stats(Request::new(stats))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    for change in [
        |r: &mut loops::StageRequest| r.volume_id.clear(),
        |r: &mut loops::StageRequest| r.staging_target_path.clear(),
        |r: &mut loops::StageRequest| r.staging_target_path = "relative".into(),
        |r: &mut loops::StageRequest| r.volume_capability = None,
        |r: &mut loops::StageRequest| r.publish_context.clear(),
        |r: &mut loops::StageRequest| r.volume_id = "v".repeat(129),
    ] {
        let mut request = bench.stage_request("v", "ext4", Mode::SingleNodeWriter);
        change(&mut request);
        let error = bench
            .node
            .node_stage_volume(Request::new(request))
            .await
            .unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    }
    let health = NodeGetVolumeHealthRequest {
        volume_id: "v".into(),
        ..Default::default()
    };
    let health = bench
        .node
        .node_get_volume_health(Request::new(health))
        .await
        .unwrap();
    assert_eq!(
        health
            .into_inner()
            .volume_health
            .unwrap()
            .health_statuses
            .len(),
        1
    );
}
