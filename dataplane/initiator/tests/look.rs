//! Looking at real targets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test")]

mod common;

use std::net::TcpListener;
use std::time::{Duration, Instant};

use common::{NQN, Target, UUID};
use roadstead_initiator::{Listed, Names, Nqn, Portal, Reach, Seen, Spec, Wanted, look};
use roadstead_target::Access;

const TIMEOUT: Duration = Duration::from_secs(20);

fn ask(target: &Target, portals: &[Portal], timeout: Duration) -> Seen {
    let nqn = Nqn::new(NQN).unwrap();
    look(&nqn, portals, &target.spec().identity, timeout)
}

fn listed(blocks: u64) -> Vec<Listed> {
    let names = Names {
        uuid: Some(UUID),
        nguid: None,
    };
    let size = Some((blocks * 4096, 4096));
    vec![Listed {
        nsid: 1,
        names,
        size,
    }]
}

#[test]
fn portals_and_namespaces_are_seen() {
    let target = Target::with_portals(2, 16, Access::Any);
    let portals: Vec<Portal> = target.portals.iter().map(|a| Portal::tcp(*a)).collect();
    let seen = ask(&target, &portals, TIMEOUT);
    let reaches: Vec<&Reach> = seen.portals.iter().map(|(_, reach)| reach).collect();
    assert_eq!(reaches, [&Reach::Reached, &Reach::Reached]);
    assert_eq!((seen.namespaces, seen.is_cut_off), (listed(16), false));
    // It grows, and goes.
    target.serve(32, Access::Any);
    assert_eq!(ask(&target, &portals, TIMEOUT).namespaces, listed(32));
    target.serve_nothing();
    assert_eq!(ask(&target, &portals, TIMEOUT).namespaces, []);
}

#[test]
fn a_host_that_is_not_let_in_sees_why() {
    let target = Target::new(16, Access::Hosts([Nqn::discovery()].into()));
    let seen = ask(&target, &[Portal::tcp(target.address)], TIMEOUT);
    let Reach::Failed(why) = &seen.portals[0].1 else {
        panic!("{seen:?}");
    };
    assert!(why.contains("Connect refused"), "{why}");
    assert_eq!(seen.namespaces, []);
}

#[test]
fn silent_portals_cost_their_time_once_and_hide_nothing() {
    let target = Target::new(16, Access::Any);
    // The kernel accepts, and nobody answers.
    let silent: Vec<TcpListener> = (0..4)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut portals: Vec<Portal> = silent
        .iter()
        .map(|listener| Portal::tcp(listener.local_addr().unwrap()))
        .collect();
    portals.push(Portal::tcp(target.address));
    let patience = Duration::from_secs(2);
    let started = Instant::now();
    let seen = ask(&target, &portals, patience);
    assert!(started.elapsed() < patience * 3, "{:?}", started.elapsed());
    for (portal, reach) in &seen.portals[..4] {
        assert!(matches!(reach, Reach::Failed(_)), "{portal}: {reach:?}");
    }
    assert_eq!(seen.portals[4].1, Reach::Reached);
    assert_eq!(seen.namespaces, listed(16));
}

#[test]
fn a_namespace_that_has_a_name_is_not_taken_for_one_without() {
    let target = Target::new(16, Access::Any);
    let initiator = roadstead_initiator::Initiator::start(Default::default()).unwrap();
    let connect = |namespace| {
        let spec = Spec {
            namespace,
            ..target.spec()
        };
        initiator.connect(spec)
    };
    let error = connect(Wanted::Unnamed(1)).err().unwrap().to_string();
    assert!(error.contains("identifier 1 and neither a UUID"), "{error}");
    assert!(error.contains(&UUID.to_string()), "{error}");
    let error = connect(Wanted::Nguid([5; 16])).err().unwrap().to_string();
    assert!(error.contains("NGUID 0505"), "{error}");
    connect(Wanted::Nsid(1)).unwrap().close();
}
