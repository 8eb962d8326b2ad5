//! Data through the real daemon over NVMe/TCP, with the real initiator.
#![allow(clippy::unwrap_used, reason = "a test that fails here says where")]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::*;
use roadstead_api::v1;
use roadstead_initiator::{
    Identity, Initiator, IoError, Limits, Namespace, NamespaceRequest, Op, Spec, Wanted,
};
use roadstead_ring::ReactorConfig;
use uuid::Uuid;

/// Of every volume here.
const BLOCK_BYTES: usize = 4096;
/// Requests in flight at once.
const DEPTH: u64 = 32;
/// How long one request may take, restarts of the daemon included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:6c1ab9d6-1d3f-4a3b-9d70-3b1b9b4b2f01";

fn spec(address: SocketAddr, host: &str) -> Spec {
    Spec {
        identity: Identity {
            nqn: host.parse().unwrap(),
            id: Uuid::from_u128(7),
            keys: None,
        },
        subsystem_nqn: roadstead_api::subsystem_nqn(VOLUME).parse().unwrap(),
        namespace: Wanted::Uuid(VOLUME.parse().unwrap()),
        paths: vec![address.into()],
        limits: Limits::default(),
        header_digest: false,
        data_digest: false,
    }
}

/// One request; its answer comes through the channel.
fn start(namespace: &Namespace, op: Op, lba: u64, bytes: Vec<u8>) -> Receiver<Answer> {
    let (answer, answered) = channel();
    let blocks = u32::try_from(bytes.len() / BLOCK_BYTES).unwrap();
    let done = Box::new(move |result, bytes| answer.send((result, bytes)).unwrap_or_default());
    let request = NamespaceRequest {
        op,
        lba,
        blocks,
        bytes,
        start: 0,
        done,
    };
    assert!(namespace.submit(request).is_ok(), "the initiator has ended");
    answered
}

type Answer = (Result<(), IoError>, Vec<u8>);

fn wait(answered: &Receiver<Answer>) -> Vec<u8> {
    let (result, bytes) = answered.recv_timeout(ANSWER_TIMEOUT).unwrap();
    assert_eq!(result, Ok(()));
    bytes
}

fn read(namespace: &Namespace, lba: u64) -> Vec<u8> {
    wait(&start(namespace, Op::Read, lba, vec![0xee; BLOCK_BYTES]))
}

/// A block that says which one it is, and of which round.
fn block(lba: u64, round: u64) -> Vec<u8> {
    let word = (lba << 32 | round).to_le_bytes();
    word.iter().copied().cycle().take(BLOCK_BYTES).collect()
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let dir = temporary();
    let address = free_address();
    let mut daemon = Daemon::start(dir.path(), &[]).await;
    daemon.apply(&state(dir.path(), "1", address)).await;
    let initiator = Initiator::start(ReactorConfig::default()).unwrap();
    let namespace = initiator.connect(spec(address, HOST)).unwrap();
    assert_eq!(namespace.info().blocks, 64 * MIB / 4096);
    assert_eq!(read(&namespace, 5), vec![0; BLOCK_BYTES], "never written");

    // Blocks far apart, so that every one takes an extent of its own: the pool's metadata is at stake, too.
    let mut acknowledged = BTreeMap::new();
    for round in 1..=6 {
        let lbas: Vec<u64> = (0..DEPTH)
            .map(|n| (n * 509 + round * 13) % 16_000)
            .collect();
        let op = Op::Write {
            durable: round % 2 == 0,
        };
        let writes: Vec<_> = lbas
            .iter()
            .map(|lba| start(&namespace, op, *lba, block(*lba, round)))
            .collect();
        if round % 3 == 0 {
            // In the middle of it, if the machine is slow; the initiator waits and goes on either way.
            daemon.kill();
            daemon = Daemon::start(dir.path(), &[]).await;
        }
        writes.iter().for_each(|write| drop(wait(write)));
        wait(&start(&namespace, Op::Flush, 0, Vec::new()));
        acknowledged.extend(lbas.into_iter().map(|lba| (lba, round)));
        if round % 3 == 1 {
            daemon.kill();
            daemon = Daemon::start(dir.path(), &[]).await;
        }
    }
    for (lba, round) in &acknowledged {
        assert!(
            read(&namespace, *lba) == block(*lba, *round),
            "block {lba} of round {round}"
        );
    }
    let report = daemon.report().await;
    let counters = volume_of(&report, VOLUME).counters.unwrap();
    assert!(
        counters.reads >= acknowledged.len() as u64 && counters.errors == 0,
        "{counters:?}"
    );
    assert!(volume_of(&report, VOLUME).allocated_bytes > 0);
    let subsystem = &report.subsystems[0];
    assert_eq!(subsystem.controllers.len(), 1);
    assert_eq!(subsystem.controllers[0].host_nqn, HOST);
    namespace.close();
    assert!(daemon.stop());
}

#[tokio::test]
async fn a_host_that_is_not_listed_stays_out_and_one_that_was_is_put_out() {
    let dir = temporary();
    let address = free_address();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut wanted = state(dir.path(), "1", address);
    wanted.subsystems[0].allow_any_host = false;
    wanted.subsystems[0].allowed_hosts = vec![HOST.into()];
    daemon.apply(&wanted).await;
    let initiator = Initiator::start(ReactorConfig::default()).unwrap();
    let stranger = "nqn.2014-08.org.nvmexpress:uuid:6c1ab9d6-1d3f-4a3b-9d70-3b1b9b4b2f02";
    assert!(initiator.connect(spec(address, stranger)).is_err());
    let namespace = initiator.connect(spec(address, HOST)).unwrap();
    let connected = |report: &v1::NodeReport| report.subsystems[0].controllers.len() == 1;
    daemon.report_when("it is connected", connected).await;

    wanted.revision = "2".into();
    wanted.subsystems[0].allowed_hosts.clear();
    daemon.apply(&wanted).await;
    let gone = |report: &v1::NodeReport| report.subsystems[0].controllers.is_empty();
    daemon.report_when("it is put out", gone).await;

    wanted.revision = "3".into();
    wanted.subsystems[0].allowed_hosts = vec![HOST.into()];
    daemon.apply(&wanted).await;
    read(&namespace, 0);
    namespace.close();
}

#[tokio::test]
async fn a_drive_and_a_volume_grow_under_a_connected_host() {
    let dir = temporary();
    let address = free_address();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut wanted = state(dir.path(), "1", address);
    daemon.apply(&wanted).await;
    let initiator = Initiator::start(ReactorConfig::default()).unwrap();
    let namespace = initiator.connect(spec(address, HOST)).unwrap();
    wait(&start(
        &namespace,
        Op::Write { durable: true },
        7,
        block(7, 1),
    ));
    // The drive is too small for it: it grows, too.
    wanted.revision = "2".into();
    wanted.volumes[0].size_bytes = 192 * MIB;
    wanted.drives[0] = file_drive("d", &dir.path().join("drive"), 256);
    let report = daemon.apply(&wanted).await;
    assert!(drive_of(&report, "d").capacity_bytes > 200 * MIB);
    until("the host sees the new size", async || {
        (namespace.look().blocks == 192 * MIB / 4096).then_some(())
    })
    .await;
    let last = 192 * MIB / 4096 - 1;
    wait(&start(
        &namespace,
        Op::Write { durable: true },
        last,
        block(last, 2),
    ));
    assert!(read(&namespace, 7) == block(7, 1) && read(&namespace, last) == block(last, 2));
    namespace.close();
}

#[tokio::test]
async fn a_volume_that_must_go_goes_with_its_connections() {
    let dir = temporary();
    let address = free_address();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut wanted = state(dir.path(), "1", address);
    daemon.apply(&wanted).await;
    let initiator = Initiator::start(ReactorConfig::default()).unwrap();
    let namespace = initiator.connect(spec(address, HOST)).unwrap();
    wait(&start(
        &namespace,
        Op::Write { durable: true },
        7,
        block(7, 1),
    ));
    wanted.revision = "2".into();
    wanted.subsystems.clear();
    wanted.volumes[0].absent = true;
    let report = daemon.apply(&wanted).await;
    assert_eq!(volume_of(&report, VOLUME).state(), v1::VolumeState::Absent);
    // The same UUID again is a new volume: nothing of the old one shines through.
    let again = v1::NodeState {
        revision: "3".into(),
        ..state(dir.path(), "3", address)
    };
    daemon.apply(&again).await;
    assert_eq!(read(&namespace, 7), vec![0; BLOCK_BYTES]);
    let freed = |report: &v1::NodeReport| drive_of(report, "d").allocated_bytes == 0;
    daemon.report_when("the space is back", freed).await;
    namespace.close();
}

#[tokio::test]
async fn connections_that_a_change_does_not_concern_go_on() {
    let dir = temporary();
    let address = free_address();
    let daemon = Daemon::start(dir.path(), &[]).await;
    let mut wanted = state(dir.path(), "1", address);
    daemon.apply(&wanted).await;
    let initiator = Initiator::start(ReactorConfig::default()).unwrap();
    let namespace = initiator.connect(spec(address, HOST)).unwrap();
    let connected = |report: &v1::NodeReport| report.subsystems[0].controllers.len() == 1;
    let before = daemon.report_when("it is connected", connected).await;
    let write = start(&namespace, Op::Write { durable: true }, 1, block(1, 1));

    let other = VOLUME.replace('1', "2");
    wanted.revision = "2".into();
    wanted.drives.push(memory_drive("m", 64));
    wanted.volumes.push(volume(&other, "m", 32));
    wanted.subsystems.push(subsystem(&other));
    wanted.portals.push(portal(free_address()));
    daemon.apply(&wanted).await;
    wanted.revision = "3".into();
    wanted.drives.pop();
    wanted.volumes.pop();
    wanted.subsystems.pop();
    wanted.portals.pop();
    let after = daemon.apply(&wanted).await;
    wait(&write);
    assert!(read(&namespace, 1) == block(1, 1));
    assert_eq!(after.subsystems, before.subsystems, "the same controller");
    namespace.close();
}

#[tokio::test]
async fn io_waits_for_a_drive_that_is_missing_after_a_restart() {
    let dir = temporary();
    let address = free_address();
    let daemon = Daemon::start(dir.path(), &[]).await;
    daemon.apply(&state(dir.path(), "1", address)).await;
    let initiator = Initiator::start(ReactorConfig::default()).unwrap();
    let namespace = initiator.connect(spec(address, HOST)).unwrap();
    wait(&start(
        &namespace,
        Op::Write { durable: true },
        3,
        block(3, 1),
    ));
    daemon.kill();
    let (file, away) = (dir.path().join("drive"), dir.path().join("away"));
    std::fs::rename(&file, &away).unwrap();

    let daemon = Daemon::start(dir.path(), &[]).await;
    let waiting = start(&namespace, Op::Read, 3, vec![0; BLOCK_BYTES]);
    let listens = |report: &v1::NodeReport| report.portals.iter().any(|portal| portal.listening);
    daemon.report_when("it listens", listens).await;
    let refused = Duration::from_secs(2);
    assert!(
        waiting.recv_timeout(refused).is_err(),
        "it waits, while every try is refused"
    );
    std::fs::rename(&away, &file).unwrap();
    assert!(wait(&waiting) == block(3, 1));
    namespace.close();
}
