//! The initiator of the same process, without a network.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;

use roadstead_initiator::{
    ConnectError, Identity, Initiator, IoError, Limits, Namespace, NamespaceRequest, Op, PathState,
    Spec, Wanted,
};
use roadstead_nvme::Portal;
use roadstead_ring::ReactorConfig;
use uuid::Uuid;

use super::super::{Exports, HostAccess};
use super::host::HOST;
use super::{Fixture, Kind, NQN, Numbers, Setup, VOLUME_BYTES, until};

const BLOCK: usize = 4096;

fn spec() -> Spec {
    Spec {
        identity: Identity {
            nqn: HOST.parse().unwrap(),
            id: Uuid::from_u128(7),
            keys: None,
        },
        subsystem_nqn: NQN.parse().unwrap(),
        namespace: Wanted::Uuid(Uuid::from_u128(42)),
        paths: vec![Portal::LOCAL],
        limits: Limits::default(),
        header_digest: true,
        data_digest: true,
    }
}

fn beside(fixture: &Fixture) -> Initiator {
    let dial = fixture.server.dial().unwrap();
    Initiator::start_beside_target(ReactorConfig::default(), Some(dial)).unwrap()
}

fn run(namespace: &Namespace, op: Op, lba: u64, bytes: Vec<u8>) -> Result<Vec<u8>, IoError> {
    let (answer, answered) = channel();
    let request = NamespaceRequest {
        op,
        lba,
        blocks: u32::try_from(bytes.len() / BLOCK).unwrap(),
        bytes,
        start: 0,
        done: Box::new(move |result: Result<(), IoError>, bytes| {
            answer.send(result.map(|()| bytes)).unwrap();
        }),
    };
    assert!(namespace.submit(request).is_ok());
    answered.recv().unwrap()
}

#[test]
fn data_goes_both_ways_without_a_portal() {
    for (kind, reactors) in [(Kind::Memory, 1), (Kind::File, 2)] {
        let fixture = Fixture::start(&Setup {
            kind,
            reactors,
            ..Setup::default()
        });
        assert!(fixture.server.set_portals(&[]).unwrap().is_empty());
        let initiator = beside(&fixture);
        let namespace = initiator.connect(spec()).unwrap();
        let mut numbers = Numbers(11);
        let mut model = vec![0; usize::try_from(VOLUME_BYTES).unwrap()];
        for round in 0..40 {
            let bytes = BLOCK << numbers.below(9);
            let last = (model.len() - bytes) / BLOCK;
            let lba = numbers.below(last as u64 + 1);
            let start = usize::try_from(lba).unwrap() * BLOCK;
            let data = numbers.bytes(bytes);
            let durable = round % 2 == 0;
            assert!(run(&namespace, Op::Write { durable }, lba, data.clone()).is_ok());
            model[start..start + bytes].copy_from_slice(&data);
        }
        assert!(run(&namespace, Op::Flush, 0, Vec::new()).is_ok());
        for (lba, wanted) in (0..).step_by(256).zip(model.chunks(256 * BLOCK)) {
            let back = run(&namespace, Op::Read, lba, vec![0xee; wanted.len()]).unwrap();
            assert!(back == wanted, "{kind:?} at {lba}");
        }
        assert_eq!(fixture.server.counters(fixture.volume).errors, 0);
        let controllers = fixture.server.controllers();
        assert_eq!(controllers.len(), 1);
        assert_eq!(controllers[0].host_nqn, HOST);
        assert_eq!(fixture.server.connections(), 2);
        assert_eq!(namespace.paths()[0].report.state, PathState::Live);
        namespace.close();
        until("the connections are gone", || {
            fixture.server.connections() == 0
        });
    }
}

#[test]
fn who_may_not_connect_by_a_portal_may_not_within_the_process() {
    let fixture = Fixture::start(&Setup::default());
    let initiator = beside(&fixture);
    let reason = |spec| match initiator.connect(spec) {
        Err(ConnectError::Paths(reasons)) => reasons.join("; "),
        _ => panic!("it may not connect"),
    };
    let unknown = Spec {
        subsystem_nqn: "nqn.2026-11.io.roadstead:other".parse().unwrap(),
        ..spec()
    };
    let said = reason(unknown);
    assert!(said.starts_with("local: Connect refused: "), "{said}");
    let nobody = HostAccess::Listed(BTreeSet::new());
    fixture.server.set_exports(fixture.exports(nobody)).unwrap();
    let said = reason(spec());
    assert!(said.starts_with("local: Connect refused: "), "{said}");
    let alone = Initiator::start(ReactorConfig::default()).unwrap();
    let said = alone.connect(spec()).map(drop).unwrap_err().to_string();
    assert!(said.contains("this process has no target"), "{said}");
}

#[test]
fn requests_wait_while_the_subsystem_is_not_served() {
    let fixture = Fixture::start(&Setup::default());
    let initiator = beside(&fixture);
    let namespace = initiator.connect(spec()).unwrap();
    fixture.server.set_exports(Exports::default()).unwrap();
    until("the path is lost", || {
        namespace.paths()[0].report.state == PathState::Connecting
    });
    let its = namespace.clone();
    let read = std::thread::spawn(move || run(&its, Op::Read, 0, vec![0xee; BLOCK]));
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(!read.is_finished());
    fixture
        .server
        .set_exports(fixture.exports(HostAccess::Any))
        .unwrap();
    assert_eq!(read.join().unwrap(), Ok(vec![0; BLOCK]));
    namespace.close();
}

#[test]
fn a_server_that_has_ended_is_not_kept_by_who_could_connect() {
    let fixture = Fixture::start(&Setup::default());
    let dial = fixture.server.dial().unwrap();
    assert!(dial().is_ok());
    drop(fixture);
    let refused = dial().map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::ConnectionRefused));
}
