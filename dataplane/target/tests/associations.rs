//! The life of associations: who is let in, how controllers and queues end, and when their host may come back.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{
    BLOCKS, HOST, Host, Options, SUBSYSTEM, hosts, namespace, nqn, registry, subsystem, table,
};
use roadstead_nvme::fabrics::CNTLID_DYNAMIC;
use roadstead_nvme::feature::{self};
use roadstead_nvme::identify::{IdentifyController, cns};
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{AdminCommand, FabricsCommand, IoCommand, Status};
use roadstead_target::tcp::Close;
use roadstead_target::{Ended, Refusal, Registry, Table, limits};
use zerocopy::FromBytes;

#[test]
fn keep_alive() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    for now_ms in [4000, 8000] {
        (admin.now_ms, io.now_ms) = (now_ms, now_ms);
        admin.run_admin(AdminCommand::KeepAlive);
    }
    admin.now_ms = 8000 + 5000 + 1000;
    admin.tick();
    assert_eq!(admin.closed, None);
    admin.now_ms += 1;
    admin.tick();
    assert_eq!(admin.closed, Some(Close::Ended(Ended::KeepAliveExpired)));
    assert_eq!(registry.controllers(), []);
    io.tick();
    assert_eq!(io.closed, Some(Close::Ended(Ended::KeepAliveExpired)));
}

#[test]
fn io_commands_keep_a_controller_alive() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    let limit_ms = 5000 + 1000;
    io.start(IoCommand::Flush { nsid: 1 }.encode(0), &[]);
    admin.now_ms = limit_ms + 1;
    admin.tick();
    assert_eq!(admin.closed, None, "there was a command since");
    // None since then: the next time-out is the last.
    admin.now_ms = 2 * limit_ms + 1;
    admin.tick();
    assert_eq!(admin.closed, None);
    admin.now_ms = 2 * limit_ms + 2;
    admin.tick();
    assert_eq!(admin.closed, Some(Close::Ended(Ended::KeepAliveExpired)));
}

#[test]
fn io_queues_end_with_their_controller() {
    let registry = registry();
    let (admin, mut io) = Host::pair(&registry, Options::default());
    drop(admin);
    io.start(roadstead_nvme::IoCommand::Flush { nsid: 1 }.encode(0), &[]);
    assert_eq!(io.closed, Some(Close::Ended(Ended::AdminQueueClosed)));
    assert!(io.memory.requests.is_empty());
}

#[test]
fn io_queues_end_with_a_reset_and_can_be_made_again() {
    let registry = registry();
    let (mut admin, mut old) = Host::pair(&registry, Options::default());
    let cntlid = registry.controllers()[0].cntlid;
    let set = |value| FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: u64::from(value),
    };
    let status = FabricsCommand::PropertyGet {
        offset: property::CSTS,
        wide: false,
    };
    assert_eq!(admin.fabrics(status).result, 1);
    admin.fabrics(set(Configuration::enabled().with_shutdown().0));
    assert_eq!(admin.fabrics(status).result, 9);
    admin.fabrics(set(0));
    assert_eq!(admin.fabrics(status).result, 8);
    admin.enable();
    assert_eq!(admin.fabrics(status).result, 1);
    let mut new = admin.io(1, cntlid);
    old.tick();
    assert_eq!(old.closed, Some(Close::Ended(Ended::ControllerReset)));
    drop(old);
    assert_eq!(registry.controllers()[0].io_queues, 1);
    assert_eq!(new.read(0, 1).status, Status::SUCCESS);
}

#[test]
fn controllers_end_when_what_they_use_is_taken_away() {
    let taken: [(Table, Ended); 2] = [
        (table(&[]), Ended::SubsystemGone),
        (
            table(&[(SUBSYSTEM, subsystem(hosts(&[]), &[(1, namespace(BLOCKS))]))]),
            Ended::HostNotAllowed,
        ),
    ];
    for (table, reason) in taken {
        let registry = registry();
        let (mut admin, mut io) = Host::pair(&registry, Options::default());
        registry.apply(table);
        assert_eq!(registry.controllers(), []);
        admin.tick();
        io.tick();
        assert_eq!(admin.closed, Some(Close::Ended(reason)));
        assert_eq!(io.closed, Some(Close::Ended(reason)));
    }
}

#[test]
fn silent_discovery_controllers_end() {
    let registry = registry();
    let mut host = Host::initialised(&registry, Options::default());
    host.connect(0, CNTLID_DYNAMIC, roadstead_nvme::nqn::DISCOVERY, HOST);
    host.enable();
    host.set_feature(feature::id::KEEP_ALIVE_TIMER, 0);
    host.now_ms = 120_000;
    host.tick();
    assert_eq!(host.closed, None);
    host.now_ms += 1;
    host.tick();
    assert_eq!(host.closed, Some(Close::Ended(Ended::KeepAliveExpired)));
}

#[test]
fn controller_identifiers_differ() {
    let registry = registry();
    let admins: Vec<Host> = (0..5)
        .map(|_| Host::admin(&registry, Options::default()))
        .collect();
    let ids: Vec<u16> = registry
        .controllers()
        .iter()
        .map(|info| info.cntlid)
        .collect();
    assert_eq!(ids, [1, 2, 3, 4, 5]);
    drop(admins);
    let _next = Host::admin(&registry, Options::default());
    assert_eq!(
        registry.controllers()[0].cntlid,
        6,
        "identifiers are not used again at once"
    );
}

/// An I/O queue with a write in flight.
fn writing(registry: &std::sync::Arc<Registry>) -> (Host, Host) {
    let (admin, mut io) = Host::pair(registry, Options::default());
    let blocks = roadstead_nvme::command::Blocks { start: 0, count: 1 };
    let write = roadstead_nvme::IoCommand::Write {
        nsid: 1,
        blocks,
        fua: false,
    };
    io.start(write.encode(0), &[1; 512]);
    assert_eq!(io.memory.requests.len(), 1);
    (admin, io)
}

fn connects(registry: &std::sync::Arc<Registry>, host: &str) -> Status {
    let mut admin = Host::initialised(registry, Options::default());
    admin.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, host).status
}

#[test]
fn hosts_wait_for_old_writes_before_they_come_back() {
    let busy = Status::CONNECT_CONTROLLER_BUSY;
    let other = "nqn.2014-08.org.nvmexpress:uuid:b";
    let registry = registry();
    let (admin, io) = writing(&registry);
    assert_eq!(
        connects(&registry, HOST),
        Status::SUCCESS,
        "another path while the first works"
    );
    drop(admin);
    // Its queue's connection is still there, and then not.
    assert_eq!(connects(&registry, HOST), busy);
    let abandoned = io.connection.abandon();
    assert_eq!(connects(&registry, HOST), busy);
    assert_eq!(connects(&registry, other), Status::SUCCESS);
    drop(abandoned);
    assert_eq!(connects(&registry, HOST), Status::SUCCESS);

    // Nothing in flight: no wait, even if the old connection is not closed yet.
    let (admin, mut io) = writing(&registry);
    io.settle();
    drop(admin);
    assert_eq!(connects(&registry, HOST), Status::SUCCESS);
    drop(io);
}

#[test]
fn queues_wait_for_old_writes_before_they_come_back() {
    let busy = Status::CONNECT_CONTROLLER_BUSY;
    let registry = registry();
    let (mut admin, io) = writing(&registry);
    let cntlid = registry.controllers()[0].cntlid;
    let queue = |qid| {
        let mut host = Host::initialised(&registry, Options::default());
        host.connect(qid, cntlid, SUBSYSTEM, HOST).status
    };
    let abandoned = io.connection.abandon();
    assert_eq!(queue(1), busy);
    assert_eq!(queue(2), Status::SUCCESS);
    let set = |value| FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value,
    };
    admin.fabrics(set(0));
    admin.enable();
    assert_eq!(queue(2), busy);
    drop(abandoned);
    assert_eq!((queue(1), queue(2)), (Status::SUCCESS, Status::SUCCESS));
}

#[test]
fn what_waits_does_not_start_when_the_controller_ended() {
    let registry = registry();
    let (admin, mut io) = Host::pair(&registry, Options::default());
    io.memory.buffers = Some(0);
    let blocks = roadstead_nvme::command::Blocks { start: 0, count: 1 };
    let write = roadstead_nvme::IoCommand::Write {
        nsid: 1,
        blocks,
        fua: false,
    };
    io.start(write.encode(0), &[1; 512]);
    assert!(io.connection.is_waiting());
    drop(admin);
    io.memory.buffers = None;
    io.pump();
    assert!(io.connection.is_waiting() && io.memory.requests.is_empty());
}

#[test]
fn a_subsystem_reset_ends_its_controllers() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    let mut discovery = Host::initialised(&registry, Options::default());
    discovery.connect(0, CNTLID_DYNAMIC, roadstead_nvme::nqn::DISCOVERY, HOST);
    let set = |value: u32| FabricsCommand::PropertySet {
        offset: property::NSSR,
        wide: false,
        value: u64::from(value),
    };
    let get = |offset, wide| FabricsCommand::PropertyGet { offset, wide };
    let refused = discovery.fabrics(set(property::SUBSYSTEM_RESET));
    assert_eq!(refused.status, Status::INVALID_FIELD.dnr());
    let cap = discovery.fabrics(get(property::CAP, true)).result;
    assert!(!property::Capabilities(cap).has_subsystem_reset());
    let cap = admin.fabrics(get(property::CAP, true)).result;
    assert!(property::Capabilities(cap).has_subsystem_reset());
    assert_eq!(admin.fabrics(set(1)).status, Status::SUCCESS);
    assert_eq!(admin.fabrics(get(property::NSSR, false)).result, 0);
    assert_eq!(io.read(0, 1).status, Status::SUCCESS);
    assert_eq!(
        admin.fabrics(set(property::SUBSYSTEM_RESET)).status,
        Status::SUCCESS
    );
    admin.tick();
    io.tick();
    discovery.tick();
    let reset = Some(Close::Ended(Ended::SubsystemReset));
    assert_eq!((&admin.closed, &io.closed), (&reset, &reset));
    assert_eq!(discovery.closed, None);
    assert_eq!(connects(&registry, HOST), Status::SUCCESS);
}

#[test]
fn disconnect_ends_one_queue() {
    let registry = registry();
    let (mut admin, mut first) = Host::pair(&registry, Options::default());
    let cntlid = registry.controllers()[0].cntlid;
    let mut second = admin.io(2, cntlid);
    let done = first.fabrics(FabricsCommand::Disconnect);
    assert_eq!(done.status, Status::SUCCESS);
    first.tick();
    assert_eq!(first.closed, Some(Close::Ended(Ended::Disconnected)));
    drop(first);
    assert_eq!(registry.controllers()[0].io_queues, 1);
    assert_eq!(second.read(0, 1).status, Status::SUCCESS);
    let mut again = admin.io(1, cntlid);
    assert_eq!(again.read(0, 1).status, Status::SUCCESS);
    // The admin queue ends with the connection alone.
    let refused = admin.fabrics(FabricsCommand::Disconnect);
    assert_eq!(refused.status, Status::INVALID_OPCODE.dnr());
}

/// The admin queue and two I/O queues are lost in every order, with I/O in flight and without, after a reset and without
/// one. Each time the others end, nothing is left, and the host comes back as soon as its I/O has ended.
#[test]
fn associations_end_in_every_order() {
    let orders = [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ];
    let cases = orders.iter().flat_map(|order| {
        [
            (order, false, false),
            (order, true, false),
            (order, false, true),
        ]
    });
    for (order, is_busy, is_reset) in cases {
        let what = format!("{order:?} busy {is_busy} reset {is_reset}");
        let registry = registry();
        let (mut admin, mut first) = Host::pair(&registry, Options::default());
        let second = admin.io(2, registry.controllers()[0].cntlid);
        if is_busy {
            let flush = roadstead_nvme::IoCommand::Flush { nsid: 1 };
            first.start(flush.encode(0), &[]);
            assert_eq!(first.memory.requests.len(), 1);
        }
        if is_reset {
            let disable = FabricsCommand::PropertySet {
                offset: property::CC,
                wide: false,
                value: 0,
            };
            assert_eq!(admin.fabrics(disable).status, Status::SUCCESS);
        }
        let mut queues = [Some(admin), Some(first), Some(second)];
        let mut in_flight = Vec::new();
        for lost in order {
            let host = queues[*lost].take().unwrap();
            in_flight.push(host.connection.abandon());
            let is_gone = queues[0].is_none();
            assert_eq!(registry.controllers().is_empty(), is_gone, "{what}");
            for host in queues[1..].iter_mut().flatten() {
                host.tick();
                assert_eq!(host.closed.is_some(), is_gone || is_reset, "{what}");
            }
            if is_gone {
                // The first queue's flush is in flight until its drive ends it.
                let expected = if is_busy {
                    Status::CONNECT_CONTROLLER_BUSY
                } else {
                    Status::SUCCESS
                };
                assert_eq!(connects(&registry, HOST), expected, "{what}");
            }
        }
        drop(in_flight);
        assert_eq!(connects(&registry, HOST), Status::SUCCESS, "{what}");
        assert_eq!(registry.controllers(), [], "{what}");
    }
}

#[test]
fn both_ways_to_shut_down_are_complete_at_once() {
    for shutdown in [1 << 14, 2 << 14] {
        let registry = registry();
        let mut admin = Host::admin(&registry, Options::default());
        let set = |value: u32| FabricsCommand::PropertySet {
            offset: property::CC,
            wide: false,
            value: u64::from(value),
        };
        let status = FabricsCommand::PropertyGet {
            offset: property::CSTS,
            wide: false,
        };
        admin.fabrics(set(Configuration::enabled().0 | shutdown));
        let told = property::Status(u32::try_from(admin.fabrics(status).result).unwrap());
        assert!(told.is_shutdown_complete() && told.is_ready() && !told.is_fatal());
        // Only a new enable takes it back.
        admin.fabrics(set(Configuration::enabled().0));
        assert_eq!(admin.fabrics(status).result, 9);
        admin.fabrics(set(0));
        admin.enable();
        assert_eq!(admin.fabrics(status).result, 1);
    }
}

#[test]
fn controllers_of_one_host_are_their_own() {
    let registry = registry();
    let (mut admin, mut first) = Host::pair(&registry, Options::default());
    let (_other, mut second) = Host::pair(&registry, Options::default());
    admin.set_feature(feature::id::KEEP_ALIVE_TIMER, 9000);
    let disable = FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: 0,
    };
    assert_eq!(admin.fabrics(disable).status, Status::SUCCESS);
    first.tick();
    second.tick();
    assert_eq!(first.closed, Some(Close::Ended(Ended::ControllerReset)));
    assert_eq!(second.closed, None);
    drop(admin);
    second.tick();
    assert_eq!(second.read(0, 1).status, Status::SUCCESS);
    assert_eq!(registry.controllers().len(), 1);
}

#[test]
fn refused_hosts_are_reported_once() {
    let registry = registry();
    let other = "nqn.2014-08.org.nvmexpress:uuid:b";
    let only = |names: &[&str]| {
        table(&[(
            SUBSYSTEM,
            subsystem(hosts(names), &[(1, namespace(BLOCKS))]),
        )])
    };
    let refusal = |host| Refusal {
        subsystem: nqn(SUBSYSTEM),
        host: nqn(host),
    };
    registry.apply(only(&[]));
    for _ in 0..3 {
        assert_eq!(connects(&registry, HOST), Status::CONNECT_INVALID_HOST);
    }
    assert_eq!(registry.take_refusals(), [refusal(HOST)]);
    assert_eq!(connects(&registry, HOST), Status::CONNECT_INVALID_HOST);
    assert_eq!(connects(&registry, other), Status::CONNECT_INVALID_HOST);
    assert_eq!(registry.take_refusals(), [refusal(other)]);
    assert_eq!(registry.take_refusals(), []);
    // Allowed and refused again is news.
    registry.apply(only(&[HOST]));
    assert_eq!(connects(&registry, HOST), Status::SUCCESS);
    registry.apply(only(&[]));
    assert_eq!(connects(&registry, HOST), Status::CONNECT_INVALID_HOST);
    assert_eq!(registry.take_refusals(), [refusal(HOST)]);
    // However many names a host makes up, little is kept.
    for i in 0..limits::REFUSALS_MAX + 10 {
        let host = format!("nqn.2014-08.org.nvmexpress:uuid:{i}");
        connects(&registry, &host);
    }
    assert!(registry.take_refusals().len() <= limits::REFUSALS_MAX);
}

/// How a host asks to end the controller of this admin queue over another.
fn ending(admin: &mut Host) -> AdminCommand {
    let page = IdentifyController::read_from_bytes(&admin.identify(cns::CONTROLLER, 0)).unwrap();
    assert!(page.cross_controller_resets > 0 && page.instance > 0);
    AdminCommand::CrossControllerReset {
        cntlid: page.cntlid.get(),
        instance: page.instance,
        instance_random: page.instance_random.get(),
    }
}

#[test]
fn a_host_ends_a_controller_that_it_cannot_reach() {
    let registry = registry();
    let (mut lost, mut io) = writing(&registry);
    let end = ending(&mut lost);
    let (mut admin, _io) = Host::pair(&registry, Options::default());
    let cid = admin.start(end.encode(0), &[]);
    admin.tick();
    assert!(admin.done.is_empty(), "its write is in flight");
    assert!(admin.connection.is_draining());
    // It takes no more, and what was begun ends.
    let before = io.memory.requests.len();
    io.start(IoCommand::Flush { nsid: 1 }.encode(0), &[]);
    assert_eq!(
        (io.memory.requests.len(), io.closed.is_some()),
        (before, true)
    );
    io.memory.pending.clear();
    drop(io);
    admin.tick();
    let done = admin.done.pop_front().unwrap();
    assert_eq!(
        (done.cid, done.status, done.result),
        (cid, Status::SUCCESS, 1)
    );
    // Again: it is gone, which is what was wanted.
    let done = admin.run_admin(end);
    assert_eq!((done.status, done.result), (Status::SUCCESS, 1));
    lost.tick();
    assert!(matches!(
        lost.closed,
        Some(Close::Ended(Ended::CrossControllerReset))
    ));
    assert_eq!(registry.controllers().len(), 1);
}

#[test]
fn only_the_controller_that_is_meant_ends_and_only_for_its_host() {
    let registry = registry();
    let mut admin = Host::admin(&registry, Options::default());
    let mut own = Host::admin(&registry, Options::default());
    let AdminCommand::CrossControllerReset {
        cntlid,
        instance,
        instance_random,
    } = ending(&mut own)
    else {
        panic!();
    };
    let end = |cntlid, instance, instance_random| AdminCommand::CrossControllerReset {
        cntlid,
        instance,
        instance_random,
    };
    for wrong in [
        end(cntlid + 1, instance, instance_random),
        end(cntlid, instance + 1, instance_random),
        end(cntlid, instance, instance_random + 1),
    ] {
        let done = admin.run_admin(wrong);
        assert_eq!((done.status, done.result), (Status::SUCCESS, 1));
    }
    let right = end(cntlid, instance, instance_random);
    assert_eq!(own.run_admin(right).status, Status::INVALID_FIELD.dnr());
    let mut other = Host::initialised(&registry, Options::default());
    let name = "nqn.2014-08.org.nvmexpress:uuid:b";
    let connected = other.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, name);
    assert_eq!(connected.status, Status::SUCCESS);
    other.enable();
    assert_eq!(other.run_admin(right).status, Status::SUCCESS);
    assert_eq!(registry.controllers().len(), 3, "none of these ended any");
    admin.run_admin(right);
    assert_eq!(registry.controllers().len(), 2);
}
