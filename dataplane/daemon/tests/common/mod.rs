//! The real daemon as a child process, and what tests ask of it.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test program uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use roadstead_api::v1;
use roadstead_api::v1::node_client::NodeClient;
use tempfile::TempDir;
use tonic::transport::Channel;

/// How long a condition may take to come true. Generous: other tests share the machine.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    pub socket: PathBuf,
    pub log: PathBuf,
}

impl Daemon {
    /// Starts it in `dir` with more arguments, and waits until its socket answers.
    pub async fn start(dir: &Path, arguments: &[&str]) -> Self {
        let daemon = Self::spawn(dir, arguments);
        until("the socket answers", async || {
            roadstead_api::connect_unix(&daemon.socket).await.ok()
        })
        .await;
        daemon
    }

    pub fn spawn(dir: &Path, arguments: &[&str]) -> Self {
        let socket = dir.join("run/sock");
        let log = dir.join("log");
        let file = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_roadsteadd"))
            .arg("--state-dir")
            .arg(dir.join("state"))
            .arg("--socket")
            .arg(&socket)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { child, socket, log }
    }

    pub async fn client(&self) -> NodeClient<Channel> {
        roadstead_api::connect_unix(&self.socket).await.unwrap()
    }

    pub async fn report(&self) -> v1::NodeReport {
        let report = self
            .client()
            .await
            .get_report(v1::GetReportRequest {})
            .await;
        report.unwrap().into_inner()
    }

    /// Applies the state and waits until it was worked on to the end.
    pub async fn apply(&self, state: &v1::NodeState) -> v1::NodeReport {
        let request = v1::ApplyRequest {
            state: Some(state.clone()),
        };
        self.client().await.apply(request).await.unwrap();
        self.applied(&state.revision).await
    }

    /// The report, once it is of this revision.
    pub async fn applied(&self, revision: &str) -> v1::NodeReport {
        let what = format!("revision {revision} is applied");
        self.report_when(&what, |report| report.applied_revision == revision)
            .await
    }

    /// The report, once it is as asked.
    pub async fn report_when(
        &self,
        what: &str,
        is_so: impl Fn(&v1::NodeReport) -> bool,
    ) -> v1::NodeReport {
        until(what, async || {
            Some(self.report().await).filter(|report| is_so(report))
        })
        .await
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// kill -9, and gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end; whether it ended well.
    pub fn wait(mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    /// SIGTERM; whether it ended well.
    pub fn stop(mut self) -> bool {
        self.signal("TERM");
        self.child.wait().unwrap().success()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the daemon's log:\n{}", self.log_text());
        }
    }
}

/// Waits until `look` gives something.
pub async fn until<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

pub fn temporary() -> TempDir {
    tempfile::Builder::new()
        .prefix("roadsteadd-test-")
        .tempdir()
        .unwrap()
}

/// Ports that tests give to daemons: below those that the kernel gives to whoever connects, so that no connection of
/// another test takes one before its daemon does.
const PORTS: std::ops::Range<u16> = 12_000..28_000;

/// A port that nobody uses now, and no other test of this process is given.
pub fn free_address() -> SocketAddr {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    // Processes that run at the same time begin far from each other.
    let start = std::process::id().wrapping_mul(61);
    let count = u32::from(PORTS.end - PORTS.start);
    for _ in 0..count {
        let nth = start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % count;
        let address = ([127, 0, 0, 1], PORTS.start + u16::try_from(nth).unwrap()).into();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    unreachable!("no port of {PORTS:?} is free")
}

pub const MIB: u64 = 1 << 20;
pub const VOLUME: &str = "9d1c1a3e-55a4-4f9b-8d9e-3b0a4f0a7c11";

pub fn file_drive(name: &str, path: &Path, size_mib: u64) -> v1::Drive {
    let file = v1::FileSource {
        path: path.display().to_string(),
        size_bytes: size_mib * MIB,
    };
    v1::Drive {
        name: name.into(),
        owner: "target-1".into(),
        source: Some(v1::drive::Source::File(file)),
        force: false,
    }
}

pub fn path_drive(name: &str, path: &Path) -> v1::Drive {
    v1::Drive {
        source: Some(v1::drive::Source::Path(path.display().to_string())),
        ..file_drive(name, path, 1)
    }
}

pub fn memory_drive(name: &str, size_mib: u64) -> v1::Drive {
    let memory = v1::MemorySource {
        size_bytes: size_mib * MIB,
    };
    v1::Drive {
        source: Some(v1::drive::Source::Memory(memory)),
        ..file_drive(name, Path::new("/"), 1)
    }
}

pub fn volume(uuid: &str, drive: &str, size_mib: u64) -> v1::Volume {
    v1::Volume {
        uuid: uuid.into(),
        name: format!("volume-{}", &uuid[uuid.len() - 2..]),
        drive: drive.into(),
        size_bytes: size_mib * MIB,
        block_size: 4096,
        absent: false,
    }
}

pub fn subsystem(uuid: &str) -> v1::Subsystem {
    v1::Subsystem {
        nqn: roadstead_api::subsystem_nqn(uuid),
        serial: String::new(),
        namespaces: vec![v1::Namespace {
            nsid: 1,
            volume_uuid: uuid.into(),
            ..Default::default()
        }],
        allow_any_host: true,
        allowed_hosts: vec![],
    }
}

pub fn portal(address: SocketAddr) -> v1::Portal {
    v1::Portal {
        transport: v1::Transport::Tcp.into(),
        address: address.ip().to_string(),
        port: address.port().into(),
        ..Default::default()
    }
}

/// One file drive with one volume, exported.
pub fn state(dir: &Path, revision: &str, address: SocketAddr) -> v1::NodeState {
    v1::NodeState {
        revision: revision.into(),
        drives: vec![file_drive("d", &dir.join("drive"), 128)],
        volumes: vec![volume(VOLUME, "d", 64)],
        subsystems: vec![subsystem(VOLUME)],
        portals: vec![portal(address)],
        ..Default::default()
    }
}

pub fn drive_of<'a>(report: &'a v1::NodeReport, name: &str) -> &'a v1::DriveReport {
    report
        .drives
        .iter()
        .find(|drive| drive.name == name)
        .unwrap()
}

pub fn volume_of<'a>(report: &'a v1::NodeReport, uuid: &str) -> &'a v1::VolumeReport {
    report
        .volumes
        .iter()
        .find(|volume| volume.uuid == uuid)
        .unwrap()
}
