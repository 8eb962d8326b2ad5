//! Connections, exports and portals as they come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use roadstead_nvme::fabrics::CNTLID_DYNAMIC;
use roadstead_nvme::{AnaState, Status};
use roadstead_target::{AnaStates, PortalRules};

use super::super::{Exports, HostAccess, ServeConfig, ServeError, Server};
use super::host::{HOST, Host, Options};
use super::{Fixture, NQN, Setup, VOLUME_BYTES, until};

#[test]
fn many_connections_on_two_reactors() {
    let fixture = Fixture::start(&Setup {
        reactors: 2,
        ..Setup::default()
    });
    let (mut admin, cntlid) = Host::admin(fixture.address, NQN, Options::default());
    let mut queues: Vec<Host> = (1..=100u16)
        .map(|qid| {
            let mut queue = Host::open(fixture.address, Options::default());
            assert_eq!(queue.connect(qid, cntlid, NQN).status, Status::SUCCESS);
            queue
        })
        .collect();
    for (i, queue) in (0u8..).zip(&mut queues) {
        assert_eq!(
            queue.write(u64::from(i), &[i; 4096], 4096, false),
            Status::SUCCESS
        );
    }
    for (i, queue) in (0u8..).zip(queues.iter_mut().rev()) {
        assert!(queue.read(u64::from(i), 1, 4096).data == [i; 4096]);
    }
    let controllers = fixture.server.controllers();
    assert_eq!(controllers.len(), 1);
    assert_eq!(
        (controllers[0].cntlid, controllers[0].io_queues),
        (cntlid, 100)
    );
    assert_eq!(
        (
            controllers[0].host_nqn.as_str(),
            controllers[0].subsystem_nqn.as_str()
        ),
        (HOST, NQN)
    );
    assert_eq!(fixture.server.connections(), 101);
    let counters = fixture.server.counters(fixture.volume);
    assert_eq!(
        (counters.writes, counters.written_bytes, counters.reads),
        (100, 409_600, 100)
    );
    // Without its admin queue a controller ends, and with it its queues on every reactor.
    admin.stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(admin.is_closed_by_target());
    for queue in &mut queues {
        assert!(queue.is_closed_by_target());
    }
    until("all connections are gone", || {
        fixture.server.connections() == 0
    });
    assert!(fixture.server.controllers().is_empty());
}

#[test]
fn queues_that_do_io_are_spread_over_reactors() {
    let fixture = Fixture::start(&Setup {
        reactors: 2,
        ..Setup::default()
    });
    let loads = || {
        fixture
            .server
            .shared
            .peers
            .iter()
            .map(|peer| peer.load.get())
            .collect::<Vec<_>>()
    };
    let mut hosts = Vec::new();
    for round in 1..=3usize {
        for _ in 0..2 {
            let (admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
            assert_eq!(queue.write(0, &[1; 4096], 4096, false), Status::SUCCESS);
            hosts.push((admin, queue));
        }
        until("admin queues are no load", || {
            loads().iter().sum::<usize>() == 2 * round
        });
    }
    assert!(loads().iter().all(|&load| load >= 2), "{:?}", loads());
    drop(hosts);
    until("nothing is left", || {
        loads() == [0, 0] && fixture.server.connections() == 0
    });
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let fixture = Fixture::start(&Setup {
        connections: 3,
        ..Setup::default()
    });
    let (_admin, _queue) = Host::pair(fixture.address, NQN, Options::default());
    let _third = Host::open(fixture.address, Options::default());
    let mut fourth = std::net::TcpStream::connect(fixture.address).unwrap();
    assert_eq!(std::io::Read::read(&mut fourth, &mut [0]).unwrap_or(0), 0);
    assert_eq!(fixture.server.connections(), 3);
}

#[test]
fn exports_come_and_go_under_their_hosts() {
    let fixture = Fixture::start(&Setup {
        reactors: 2,
        ..Setup::default()
    });
    let (mut admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    let data = [3; 4096];
    assert_eq!(queue.write(0, &data, 4096, false), Status::SUCCESS);
    // The same again, and with the host listed: nothing ends.
    fixture
        .server
        .set_exports(fixture.exports(HostAccess::Any))
        .unwrap();
    let listed = |nqn: &str| HostAccess::Listed(BTreeSet::from([nqn.to_owned()]));
    fixture
        .server
        .set_exports(fixture.exports(listed(HOST)))
        .unwrap();
    assert!(queue.read(0, 1, 4096).data == data);
    // A larger volume: the end of the old size is no end any more.
    let behind = VOLUME_BYTES / 4096;
    assert_eq!(
        queue.read(behind, 1, 4096).status,
        Status::LBA_OUT_OF_RANGE.dnr()
    );
    fixture
        .drive
        .grow_volume(fixture.volume, VOLUME_BYTES + (1 << 20))
        .unwrap();
    fixture
        .server
        .set_exports(fixture.exports(listed(HOST)))
        .unwrap();
    assert!(queue.read(behind, 1, 4096).data == [0; 4096]);
    // Not allowed any more.
    fixture
        .server
        .set_exports(fixture.exports(listed("nqn.2026-11.io.roadstead:someone")))
        .unwrap();
    assert!(admin.is_closed_by_target() && queue.is_closed_by_target());
    let mut refused = Host::open(fixture.address, Options::default());
    assert_eq!(
        refused.connect(0, CNTLID_DYNAMIC, NQN).status,
        Status::CONNECT_INVALID_HOST
    );
    // Gone.
    fixture.server.set_exports(Exports::default()).unwrap();
    assert_eq!(
        refused.connect(0, CNTLID_DYNAMIC, NQN).status,
        Status::CONNECT_INVALID_PARAMETERS
    );
    // Back.
    fixture
        .server
        .set_exports(fixture.exports(HostAccess::Any))
        .unwrap();
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    assert!(queue.read(0, 1, 4096).data == data);
}

#[test]
fn a_name_that_is_none_changes_nothing() {
    let fixture = Fixture::start(&Setup::default());
    let mut exports = fixture.exports(HostAccess::Any);
    exports.subsystems[0].nqn = "no name".into();
    let error = fixture.server.set_exports(exports).unwrap_err();
    assert!(
        matches!(error, ServeError::Exports(_)) && error.to_string().contains("'no name'"),
        "{error}"
    );
    let (_admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    assert_eq!(queue.flush(), Status::SUCCESS);
}

#[test]
fn portals_move_without_touching_the_others() {
    let fixture = Fixture::start(&Setup::default());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (taken, free) = (taken.local_addr().unwrap(), taken);
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let results = fixture
        .server
        .set_portals(&[any.into(), taken.into()])
        .unwrap();
    assert_eq!(
        results[0].listening,
        Ok(fixture.address.into()),
        "the one that stays has its port"
    );
    let why = results[1].listening.clone().unwrap_err();
    assert!(
        why.contains(&taken.to_string()) && why.contains("in use"),
        "{why}"
    );
    drop(free);
    let results = fixture
        .server
        .set_portals(&[any.into(), taken.into()])
        .unwrap();
    assert_eq!(results[1].listening, Ok(taken.into()));
    let (_admin, mut queue) = Host::pair(taken, NQN, Options::default());
    // Connections outlive their portal, and the same port on all addresses is free at once.
    let all: SocketAddr = ([0, 0, 0, 0], taken.port()).into();
    let results = fixture.server.set_portals(&[all.into()]).unwrap();
    assert_eq!(results[0].listening, Ok(all.into()));
    assert_eq!(queue.flush(), Status::SUCCESS);
    assert!(std::net::TcpStream::connect(fixture.address).is_err());
    let (_admin, _queue) = Host::pair(taken, NQN, Options::default());
    assert_eq!(fixture.server.set_portals(&[]).unwrap(), []);
    assert!(std::net::TcpStream::connect(taken).is_err());
}

#[test]
fn paths_are_switched_under_their_hosts() {
    let fixture = Fixture::start(&Setup {
        reactors: 2,
        ..Setup::default()
    });
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let second: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let results = fixture
        .server
        .set_portals(&[any.into(), second.into()])
        .unwrap();
    let second = results[1].listening.clone().unwrap().address;
    let (_first_admin, mut first) = Host::pair(fixture.address, NQN, Options::default());
    let (_second_admin, mut other) = Host::pair(second, NQN, Options::default());
    for (here, there) in [
        (AnaState::Inaccessible, AnaState::Optimized),
        (AnaState::Optimized, AnaState::PersistentLoss),
        (AnaState::NonOptimized, AnaState::Change),
    ] {
        let states = |others| AnaStates {
            others,
            ..AnaStates::default()
        };
        let ana = [
            (fixture.address.into(), states(here)),
            (second.into(), states(there)),
        ];
        let rules = PortalRules {
            ana: ana.into(),
            ..PortalRules::default()
        };
        fixture.server.set_rules(rules).unwrap();
        let status = |state: AnaState| state.refusal().unwrap_or(Status::SUCCESS);
        assert_eq!(
            (first.flush(), other.flush()),
            (status(here), status(there))
        );
    }
}

#[test]
fn a_silent_host_loses_its_controller() {
    let fixture = Fixture::start(&Setup {
        reactors: 2,
        ..Setup::default()
    });
    let options = Options {
        kato_ms: 300,
        ..Options::default()
    };
    let (mut admin, mut queue) = Host::pair(fixture.address, NQN, options);
    assert!(admin.is_closed_by_target() && queue.is_closed_by_target());
    until("the controller is gone", || {
        fixture.server.controllers().is_empty()
    });
}

#[test]
fn stopping_ends_connections_and_frees_the_port() {
    let fixture = Fixture::start(&Setup {
        reactors: 2,
        ..Setup::default()
    });
    let (mut admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    let cids: Vec<u16> = (0..50)
        .map(|i| queue.start(Host::read_command(i, 16, 4096), &[]))
        .collect();
    // What was begun is answered, or the connection ends; nothing hangs.
    drop(fixture.server);
    for cid in cids {
        if queue.wait(cid).is_err() {
            break;
        }
    }
    assert!(admin.is_closed_by_target() && queue.is_closed_by_target());
    assert!(std::net::TcpListener::bind(fixture.address).is_ok());
}

#[test]
fn a_server_needs_a_reactor_and_a_core_that_exists() {
    let config = ServeConfig {
        reactors: vec![],
        ..ServeConfig::default()
    };
    assert!(matches!(Server::start(config), Err(ServeError::NoReactor)));
    let config = ServeConfig {
        reactors: vec![Some(100_000)],
        ..ServeConfig::default()
    };
    assert!(matches!(
        Server::start(config),
        Err(ServeError::Pin { core: 100_000, .. })
    ));
}
