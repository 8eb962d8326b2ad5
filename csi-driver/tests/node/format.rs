//! What a device holds is kept; what holds nothing is formatted.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tonic::Code;

use crate::MIB;
use crate::loops::{bench, run};

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
