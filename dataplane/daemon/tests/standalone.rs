//! The daemon by a configuration file.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod common;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use roadstead_api::v1::{self, VolumeState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn config(dir: &Path, portal: SocketAddr, more: &str, size: &str) -> PathBuf {
    let path = dir.join("standalone.yaml");
    let text = format!(
        "portals: [{{address: {}, port: {}}}]\n\
         drives:\n\
         - {{name: d, memory: {{size: 64MiB}}}}\n\
         subsystems:\n\
         - nqn: nqn.2026-11.io.roadstead:test\n  \
           allowAnyHost: true\n  \
           namespaces:\n  \
           - {{name: one, drive: d, size: {size}}}\n{more}",
        portal.ip(),
        portal.port(),
    );
    std::fs::write(&path, text).unwrap();
    path
}

fn check(path: &Path) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_roadsteadd"))
        .args(["--check", "--config"])
        .arg(path)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn check_names_every_mistake() {
    let dir = temporary();
    let good = config(dir.path(), free_address(), "", "32MiB");
    assert_eq!(check(&good), (0, String::new()));
    let bad = config(dir.path(), free_address(), "nonsense: 1\n", "1Gx");
    let expected = "standalone.yaml:8: subsystems[0].namespaces[0].size: \
         '1Gx' is not a size; write e.g. 1GiB\n\
         standalone.yaml:9: nonsense: unknown field; known are discovery, drives, hostNqn, \
         ioQueues, mdns, metricsListen, portals, queueEntries, reactors, referrals, socket, stateDir, subsystems\n";
    assert_eq!(check(&bad), (2, expected.to_owned()));
    let (code, said) = check(&dir.path().join("none.yaml"));
    assert_eq!(code, 2);
    assert!(said.starts_with("cannot read "), "{said}");
}

#[tokio::test]
async fn the_file_rules() {
    let dir = temporary();
    let portal = free_address();
    let file = config(dir.path(), portal, "", "32MiB");
    let daemon = Daemon::start(dir.path(), &["--config", file.to_str().unwrap()]).await;
    let served = |report: &v1::NodeReport| report.portals.iter().all(|portal| portal.listening);
    let report = daemon
        .report_when("it serves", |report| {
            !report.portals.is_empty() && served(report)
        })
        .await;
    assert_eq!(report.volumes[0].state(), VolumeState::Online);
    assert_eq!(report.volumes[0].name, "one");
    let drive = drive_of(&report, "d");
    assert_eq!(
        drive.capacity_bytes,
        64 * MIB,
        "a memory drive has the room that was asked for"
    );

    let request = v1::ApplyRequest {
        state: Some(v1::NodeState::default()),
    };
    let status = daemon.client().await.apply(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::FailedPrecondition);
    assert!(status.message().contains("SIGHUP"), "{status}");

    config(dir.path(), portal, "nonsense: 1\n", "48MiB");
    daemon.signal("HUP");
    until("the mistake is in the log", async || {
        daemon
            .log_text()
            .contains("nonsense: unknown field")
            .then_some(())
    })
    .await;
    assert_eq!(daemon.report().await.volumes[0].size_bytes, 32 * MIB);

    config(dir.path(), portal, "", "48MiB");
    daemon.signal("HUP");
    let grown = |report: &v1::NodeReport| report.volumes[0].size_bytes == 48 * MIB;
    daemon.report_when("it has grown", grown).await;
    assert!(daemon.stop());
}

/// Paths are switched by the file while hosts are connected.
#[tokio::test]
async fn ana_states_follow_the_file() {
    let dir = temporary();
    let portal = free_address();
    let file = config(dir.path(), portal, "", "32MiB");
    let daemon = Daemon::start(dir.path(), &["--config", file.to_str().unwrap()]).await;
    let state_is = |state: v1::AnaState| {
        move |report: &v1::NodeReport| {
            let portals = report.portals.first();
            portals.is_some_and(|one| {
                one.listening && one.portal.as_ref().is_some_and(|p| p.ana_state() == state)
            })
        }
    };
    daemon
        .report_when("optimized", state_is(v1::AnaState::Optimized))
        .await;
    let text = std::fs::read_to_string(&file).unwrap();
    for (word, state) in [
        ("inaccessible", v1::AnaState::Inaccessible),
        ("nonOptimized", v1::AnaState::NonOptimized),
    ] {
        let port = format!("port: {}", portal.port());
        let changed = text.replacen(&port, &format!("{port}, anaState: {word}"), 1);
        std::fs::write(&file, changed).unwrap();
        daemon.signal("HUP");
        daemon.report_when(word, state_is(state)).await;
    }
    assert!(daemon.stop());
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn health_and_metrics() {
    let dir = temporary();
    let file = config(dir.path(), free_address(), "", "32MiB");
    let metrics = free_address();
    let listen = metrics.to_string();
    let arguments = [
        "--config",
        file.to_str().unwrap(),
        "--metrics-listen",
        &listen,
    ];
    let _daemon = Daemon::start(dir.path(), &arguments).await;
    until("it is ready", async || {
        get(metrics, "/readyz")
            .await
            .filter(|answer| answer.starts_with("HTTP/1.1 200 OK\r\n"))
    })
    .await;
    assert!(
        get(metrics, "/healthz")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    let text = get(metrics, "/metrics").await.unwrap();
    for line in [
        r#"roadstead_drive_capacity_bytes{drive="d"} 67108864"#,
        r#"roadstead_volume_online{volume="one",uuid="#,
        "process_resident_memory_bytes ",
    ] {
        assert!(text.contains(line), "{line}:\n{text}");
    }
    assert!(
        get(metrics, "/other")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 404")
    );
}
