//! Discovery against real targets.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test")]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use common::{NQN, Target};
use roadstead_initiator::{DiscoverError, Found, Nqn, Portal, discover};
use roadstead_target::Access;

const TIMEOUT: Duration = Duration::from_secs(20);

fn ask(target: &Target, services: &[SocketAddr]) -> Result<Vec<Found>, DiscoverError> {
    discover(&portals(services), &target.spec().identity, TIMEOUT)
}

fn portals(addresses: &[SocketAddr]) -> Vec<Portal> {
    addresses.iter().copied().map(Portal::tcp).collect()
}

fn found(target: &Target) -> Vec<Found> {
    let nqn = Nqn::new(NQN).unwrap();
    let found = |address: &SocketAddr| Found {
        nqn: nqn.clone(),
        portal: Portal::tcp(*address),
    };
    target.portals.iter().map(found).collect()
}

#[test]
fn portals_that_the_host_may_use_are_found() {
    let target = Target::with_portals(3, 16, Access::Any);
    assert_eq!(ask(&target, &[target.address]).unwrap(), found(&target));
    // Both tell the same.
    assert_eq!(ask(&target, &target.portals).unwrap(), found(&target));
    target.serve(16, Access::Hosts([Nqn::discovery()].into()));
    assert_eq!(ask(&target, &[target.address]).unwrap(), []);
}

#[test]
fn referrals_are_followed_and_circles_end() {
    let (first, second) = (Target::new(16, Access::Any), Target::new(16, Access::Any));
    first.refer_to(&[second.address, first.address]);
    assert_eq!(ask(&first, &[first.address]).unwrap(), found(&second));
    second.refer_to(&[first.address]);
    assert_eq!(ask(&first, &[first.address]).unwrap(), []);
}

#[test]
fn services_that_do_not_answer_are_an_error_when_none_does() {
    let target = Target::new(16, Access::Any);
    // The kernel accepts, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent
        .local_addr()
        .map(|address| (address, silent))
        .unwrap();
    let absent = {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap()
    };
    let identity = target.spec().identity;
    let patience = Duration::from_millis(300);
    let started = Instant::now();
    let error = discover(&portals(&[silent.0]), &identity, patience).unwrap_err();
    assert!(matches!(error, DiscoverError::Connection { .. }), "{error}");
    assert!(started.elapsed() >= patience);
    assert!(ask(&target, &[absent]).is_err());
    let services = [absent, target.address];
    assert_eq!(ask(&target, &services).unwrap(), found(&target));
}

#[test]
fn a_service_that_talks_nonsense_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let nonsense = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request").unwrap();
        // Until the other end closes.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let target = Target::new(16, Access::Any);
    let error = ask(&target, &[address]).unwrap_err();
    assert!(matches!(error, DiscoverError::Protocol { .. }), "{error}");
    nonsense.join().unwrap();
}
