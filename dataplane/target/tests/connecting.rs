//! Connect: every refusal, with its status.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{
    BLOCKS, HOST, Host, Options, SUBSYSTEM, hosts, namespace, nqn, registry, subsystem, table,
};
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, InvalidParameter};
use roadstead_nvme::{AdminCommand, FabricsCommand, Status};
use zerocopy::little_endian::U32;

fn plain() -> Options {
    Options::default()
}

fn data(cntlid: u16) -> ConnectData {
    ConnectData::new([5; 16], cntlid, &nqn(SUBSYSTEM), &nqn(HOST))
}

fn parameter(offset: u16, in_data: bool) -> u64 {
    InvalidParameter { offset, in_data }.encode()
}

#[test]
fn connects_of_admin_queues() {
    let registry = registry();
    let invalid = Status::CONNECT_INVALID_PARAMETERS;
    let good = data(CNTLID_DYNAMIC);
    let unknown = ConnectData {
        subsystem_nqn: nqn("nqn.2026-11.io.roadstead:other").to_field(),
        ..good
    };
    let bad_subsystem = ConnectData {
        subsystem_nqn: [b'x'; 256],
        ..good
    };
    let bad_host = ConnectData {
        host_nqn: [0; 256],
        ..good
    };
    for (what, sqsize, data, status, result) in [
        // What is not served may be so in a moment, so the host may try again.
        (
            "unknown subsystem",
            31,
            unknown,
            invalid,
            parameter(256, true),
        ),
        (
            "subsystem's name",
            31,
            bad_subsystem,
            invalid.dnr(),
            parameter(256, true),
        ),
        (
            "host's name",
            31,
            bad_host,
            invalid.dnr(),
            parameter(512, true),
        ),
        ("no entries", 0, good, invalid.dnr(), parameter(44, false)),
        (
            "too many entries",
            128,
            good,
            invalid.dnr(),
            parameter(44, false),
        ),
        (
            "chosen controller",
            31,
            self::data(3),
            invalid.dnr(),
            parameter(16, true),
        ),
        ("nothing wrong", 127, good, Status::SUCCESS, 1),
    ] {
        let mut host = Host::initialised(&registry, plain());
        let done = host.connect_with(0, sqsize, &data);
        assert_eq!((done.status, done.result), (status, result), "{what}");
        assert_eq!(host.closed, None, "{what}");
    }
}

#[test]
fn hosts_that_are_not_allowed() {
    let registry = registry();
    let only_others = subsystem(
        hosts(&["nqn.2014-08.org.nvmexpress:uuid:b"]),
        &[(1, namespace(BLOCKS))],
    );
    registry.apply(table(&[(SUBSYSTEM, only_others)]));
    let mut host = Host::initialised(&registry, plain());
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        Status::CONNECT_INVALID_HOST
    );
    // Let in, the same connection may try again.
    registry.apply(table(&[(
        SUBSYSTEM,
        subsystem(hosts(&[HOST]), &[(1, namespace(BLOCKS))]),
    )]));
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        Status::SUCCESS
    );
}

#[test]
fn connects_of_io_queues() {
    let registry = registry();
    let admin = Host::admin(&registry, plain());
    let cntlid = registry.controllers()[0].cntlid;
    let invalid = Status::CONNECT_INVALID_PARAMETERS.dnr();
    let good = data(cntlid);
    let other_subsystem = ConnectData {
        subsystem_nqn: nqn("nqn.2026-11.io.roadstead:other").to_field(),
        ..good
    };
    let other_host = ConnectData {
        host_nqn: nqn("nqn.2026-11.io.roadstead:host").to_field(),
        ..good
    };
    let other_id = ConnectData {
        host_id: [6; 16],
        ..good
    };
    let mut kept = Vec::new();
    for (what, qid, data, status, result) in [
        (
            "unknown controller",
            1,
            self::data(cntlid + 1),
            invalid,
            parameter(16, true),
        ),
        (
            "other subsystem",
            1,
            other_subsystem,
            invalid,
            parameter(256, true),
        ),
        ("other host", 1, other_host, invalid, parameter(512, true)),
        (
            "other host identifier",
            1,
            other_id,
            invalid,
            parameter(0, true),
        ),
        (
            "queue not granted",
            129,
            good,
            invalid,
            parameter(42, false),
        ),
        ("nothing wrong", 1, good, Status::SUCCESS, u64::from(cntlid)),
        ("queue exists", 1, good, Status::COMMAND_SEQUENCE.dnr(), 0),
    ] {
        let mut host = Host::initialised(&registry, plain());
        let done = host.connect_with(qid, 31, &data);
        assert_eq!((done.status, done.result), (status, result), "{what}");
        kept.push(host);
    }
    // Without the connection the queue is free again.
    drop(kept);
    drop(admin.io(1, cntlid));
    drop(admin);
    let mut host = Host::initialised(&registry, plain());
    assert_eq!(host.connect_with(1, 31, &good).status, invalid);
}

#[test]
fn io_queues_of_controllers_that_are_not_enabled_or_do_discovery() {
    let registry = registry();
    let mut admin = Host::initialised(&registry, plain());
    let cntlid = admin.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).result;
    let mut host = Host::initialised(&registry, plain());
    let done = host.connect_with(1, 31, &data(u16::try_from(cntlid).unwrap()));
    assert_eq!(done.status, Status::COMMAND_SEQUENCE.dnr());

    let discovery = roadstead_nvme::nqn::DISCOVERY;
    let mut admin = Host::initialised(&registry, plain());
    let cntlid = u16::try_from(admin.connect(0, CNTLID_DYNAMIC, discovery, HOST).result).unwrap();
    admin.enable();
    let data = ConnectData::new([5; 16], cntlid, &nqn(discovery), &nqn(HOST));
    let mut host = Host::initialised(&registry, plain());
    assert_eq!(
        host.connect_with(1, 31, &data).status,
        Status::CONNECT_INVALID_PARAMETERS.dnr()
    );
}

#[test]
fn first_commands_that_are_no_connect() {
    let registry = registry();
    let mut host = Host::initialised(&registry, plain());
    let sequence = Status::COMMAND_SEQUENCE.dnr();
    assert_eq!(host.run_admin(AdminCommand::KeepAlive).status, sequence);
    let get = FabricsCommand::PropertyGet {
        offset: 0,
        wide: true,
    };
    assert_eq!(host.fabrics(get).status, sequence);
    assert_eq!(host.read(0, 1).status, sequence);
    let connect = Connect {
        qid: 0,
        sqsize: 31,
        attributes: 0,
        kato_ms: 0,
    };
    let mut sqe = FabricsCommand::Connect(connect).encode(0);
    assert_eq!(
        host.run(sqe, &[0; 512]).status,
        Status::SGL_LENGTH_INVALID.dnr()
    );
    sqe.cdw10 = U32::new(1);
    assert_eq!(
        host.run(sqe, &[0; 1024]).status,
        Status::CONNECT_INCOMPATIBLE_FORMAT.dnr()
    );
    // Data of Connect by R2T works too.
    host.options.in_capsule = 0;
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        Status::SUCCESS
    );
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).status,
        sequence
    );
}
