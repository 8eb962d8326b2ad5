//! Paths over real sockets: what is measured on them, and how they change while requests go over them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::{BLOCK, Target, at_work, pattern, read, run, wait_for};
use roadstead_initiator::{Initiator, Namespace, Op, PathState, PathStatus, Portal, Traffic};
use roadstead_ring::ReactorConfig;
use roadstead_target::Access;

const WRITE: Op = Op::Write { durable: false };
const WORKERS: u64 = 4;

fn initiator() -> Initiator {
    Initiator::start(ReactorConfig::default()).unwrap()
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

/// A portal that takes connections and never says anything, as long as the listener lives.
fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Has the namespace reached over these portals and waits until it is, over nothing else.
fn move_to(namespace: &Namespace, portals: &[SocketAddr]) -> Vec<PathStatus> {
    let portals: Vec<Portal> = portals.iter().copied().map(Portal::from).collect();
    namespace.follow(portals.clone());
    wait_for("the paths", || {
        let paths = namespace.paths();
        let at: Vec<Portal> = paths.iter().map(|path| path.portal).collect();
        at == portals && paths.iter().all(|p| p.report.state == PathState::Live)
    });
    namespace.measure()
}

#[test]
fn what_goes_over_a_path_is_measured() {
    let target = Target::new(64, Access::Any);
    let initiator = initiator();
    let namespace = initiator.connect(target.spec()).unwrap();
    let before = namespace.measure();
    for lba in 0..10 {
        run(&namespace, WRITE, lba, 2, pattern(2, 1)).unwrap();
        read(&namespace, lba, 1);
    }
    run(&namespace, Op::Flush, 0, 0, Vec::new()).unwrap();
    wait_for("a Keep Alive", || {
        namespace.measure()[0].report.round_trip.is_some()
    });
    let path = namespace.measure().remove(0);
    assert_eq!(path.portal, target.address.into());
    let bytes = u64::try_from(BLOCK).unwrap();
    let counted = Traffic {
        reads: 10,
        writes: 10,
        read_bytes: 10 * bytes,
        written_bytes: 20 * bytes,
    };
    assert_eq!(path.report.traffic, counted);
    let round_trip = path.report.round_trip.unwrap();
    assert!(round_trip > Duration::ZERO && round_trip < Duration::from_secs(5));
    assert!(path.report.ana_state.is_some_and(|state| state.is_usable()));
    let (first, now) = (before[0].segments.unwrap(), path.segments.unwrap());
    assert!(
        first.sent > 0 && now.sent >= first.sent + 20,
        "{first:?} {now:?}"
    );
    assert!(now.sent_again <= now.sent);
    assert_eq!((path.report.losses, path.lost_s), (0, 0));

    let lost = unix_s();
    target.cut();
    wait_for("the loss and the return", || {
        let path = namespace.measure().remove(0);
        path.report.losses == 1 && path.report.state == PathState::Live
    });
    let path = namespace.measure().remove(0);
    assert!((lost..=unix_s()).contains(&path.lost_s), "{path:?}");
    assert_eq!(path.report.traffic, counted, "it counts on");
    assert!(path.segments.unwrap().sent < now.sent, "of new connections");
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(
        namespace.measure()[0].lost_s,
        path.lost_s,
        "it is the same loss"
    );
}

#[test]
fn a_path_is_added_while_requests_go_on() {
    let target = Target::with_portals(2, 256, Access::Any);
    let (initiator, portals) = (initiator(), target.portals.clone());
    let mut spec = target.spec();
    spec.paths.truncate(1);
    let namespace = initiator.connect(spec).unwrap();
    at_work(&target, &namespace, WORKERS, |some_writes| {
        some_writes();
        let paths = move_to(&namespace, &portals);
        assert_eq!(paths[1].report.traffic, Traffic::default());
        some_writes();
        // It is there for this.
        target.refuse_portal(0, true);
        target.cut_portal(0);
        some_writes();
        assert!(namespace.measure()[1].report.traffic.writes > 0);
        target.refuse_portal(0, false);
        move_to(&namespace, &portals);
    });
    namespace.close();
}

#[test]
fn the_path_in_use_is_removed_and_all_are_replaced_while_requests_go_on() {
    let target = Target::with_portals(3, 256, Access::Any);
    let (initiator, portals) = (initiator(), target.portals.clone());
    let mut spec = target.spec();
    spec.paths.truncate(2);
    spec.limits.io_queues = 2;
    let namespace = initiator.connect(spec).unwrap();
    at_work(&target, &namespace, WORKERS, |some_writes| {
        some_writes();
        move_to(&namespace, &portals[1..2]);
        // Nobody needs it any more.
        target.refuse_portal(0, true);
        target.cut_portal(0);
        some_writes();
        move_to(&namespace, &portals[2..]);
        target.refuse_portal(0, false);
        for round in 0..20 {
            let (one, other) = (portals[round % 3], portals[(round + 1) % 3]);
            let paths = match round % 2 {
                0 => move_to(&namespace, &[one, other]),
                _ => move_to(&namespace, &[other]),
            };
            assert!(paths.iter().all(|path| path.report.losses == 0), "drained");
            some_writes();
        }
    });
    namespace.close();
}

#[test]
fn paths_break_and_change_at_the_same_time_and_no_request_fails() {
    let target = Target::with_portals(3, 256, Access::Any);
    let (initiator, portals) = (initiator(), target.portals.clone());
    let mut spec = target.spec();
    // Writes that wait for copies on a dead path wait for twice what the target is told: three times this.
    spec.limits.keep_alive = Duration::from_millis(300);
    let namespace = initiator.connect(spec).unwrap();
    at_work(&target, &namespace, WORKERS, |some_writes| {
        for round in 0..24 {
            let (broken, other) = (round % 3, (round / 2 + 1) % 3);
            let wanted = [portals[broken], portals[other]];
            namespace.follow(wanted.map(Portal::from).into());
            // The only one must come back.
            target.refuse_portal(broken, broken != other && round % 4 > 1);
            target.cut_portal(broken);
            some_writes();
            target.refuse_portal(broken, false);
        }
        move_to(&namespace, &portals);
    });
    namespace.close();
}

#[test]
fn a_path_that_works_stays_until_a_wanted_one_works() {
    let target = Target::with_portals(2, 256, Access::Any);
    let (initiator, portals) = (initiator(), target.portals.clone());
    let (_listener, dark) = silent();
    let mut spec = target.spec();
    spec.paths.truncate(1);
    let namespace = initiator.connect(spec).unwrap();
    at_work(&target, &namespace, WORKERS, |some_writes| {
        namespace.follow(vec![dark.into()]);
        let at = || -> Vec<Portal> { namespace.paths().iter().map(|p| p.portal).collect() };
        some_writes();
        assert_eq!(at(), [dark.into(), portals[0].into()]);
        namespace.follow(Vec::new());
        assert_eq!(at().len(), 2, "without a path there is no volume");
        namespace.follow(vec![portals[1].into()]);
        wait_for("the way out", || at() == [portals[1].into()]);
    });
    namespace.close();
}

#[test]
fn a_dark_portal_does_not_hold_up_the_others() {
    let target = Target::new(16, Access::Any);
    let initiator = initiator();
    let (_listener, dark) = silent();
    let mut spec = target.spec();
    spec.paths.insert(0, dark.into());
    let patience = spec.limits.connect;
    let started = Instant::now();
    let namespace = initiator.connect(spec).unwrap();
    run(&namespace, WRITE, 0, 1, pattern(1, 1)).unwrap();
    assert!(started.elapsed() < patience / 2, "{:?}", started.elapsed());
    let dark = &namespace.paths()[0].report;
    assert_eq!((dark.state, dark.losses), (PathState::Connecting, 0));
    wait_for("it to be given a name", || {
        namespace.paths()[0].report.message.contains("not set up")
    });
}
