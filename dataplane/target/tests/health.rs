//! What a controller tells about itself: logs of errors and health, supported pages, lists, features with their defaults.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::sync::Arc;

use common::{BLOCKS, HOST, Host, Options, SUBSYSTEM, namespace, registry, subsystem, table};
use roadstead_nvme::command::{Blocks, GetLogPage, NSID_ALL};
use roadstead_nvme::fabrics::CNTLID_DYNAMIC;
use roadstead_nvme::feature::{self, Select};
use roadstead_nvme::identify::{IdentifyController, cns};
use roadstead_nvme::log::{self, ErrorEntry, HealthLog, effect, feature_effect, supported};
use roadstead_nvme::nqn::DISCOVERY;
use roadstead_nvme::{AdminCommand, IoCommand, Status, opcode};
use roadstead_target::{Access, IoError, Registry, limits};
use zerocopy::FromBytes;

fn log_page(host: &mut Host, id: u8, offset: u64, length: u64) -> Vec<u8> {
    let done = host.run_admin(AdminCommand::GetLogPage(GetLogPage {
        id,
        parameter: 0,
        retain_event: false,
        length,
        offset,
        nsid: NSID_ALL,
    }));
    assert_eq!(done.status, Status::SUCCESS);
    done.data
}

fn errors(host: &mut Host) -> Vec<ErrorEntry> {
    let length = u64::try_from(limits::ERROR_ENTRIES * size_of::<ErrorEntry>()).unwrap();
    log_page(host, log::id::ERRORS, 0, length)
        .chunks(size_of::<ErrorEntry>())
        .map(|entry| ErrorEntry::read_from_bytes(entry).unwrap())
        .collect()
}

fn health(host: &mut Host) -> HealthLog {
    HealthLog::read_from_bytes(&log_page(host, log::id::HEALTH, 0, 512)).unwrap()
}

fn identify(host: &mut Host, cns: u8, cntlid: u16, nsid: u32) -> Vec<u8> {
    let done = host.run_admin(AdminCommand::Identify {
        cns,
        cntlid,
        nsid,
        command_set: 0,
    });
    assert_eq!(done.status, Status::SUCCESS);
    done.data
}

/// Bits of a log of 256 entries.
fn bits(log: &[u8], index: u8) -> u32 {
    let start = 4 * usize::from(index);
    u32::from_le_bytes(log[start..start + 4].try_into().unwrap())
}

#[test]
fn failed_commands_are_in_the_error_log() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    assert_eq!(errors(&mut admin)[0].count.get(), 0);
    let refused = io.read(BLOCKS, 1);
    assert_eq!(refused.status, Status::LBA_OUT_OF_RANGE.dnr());
    assert!(refused.is_more);
    io.memory.failure = Some(IoError::Read);
    assert!(io.read(3, 1).is_more);
    let unknown = admin.run_admin(AdminCommand::Identify {
        cns: 0x77,
        cntlid: 0,
        nsid: 9,
        command_set: 0,
    });
    assert!(unknown.is_more);
    let fields = |entry: &ErrorEntry| {
        (
            entry.count.get(),
            entry.sqid.get(),
            entry.cid.get(),
            Status(entry.status.get() >> 1),
            entry.lba.get(),
            entry.nsid.get(),
            entry.opcode,
        )
    };
    let entries = errors(&mut admin);
    let of = |status: Status| status.more();
    assert_eq!(
        fields(&entries[0]),
        (
            3,
            0,
            unknown.cid,
            of(unknown.status),
            0,
            9,
            opcode::admin::IDENTIFY
        )
    );
    let medium = of(Status::UNRECOVERED_READ);
    assert_eq!(
        fields(&entries[1]),
        (2, 1, refused.cid + 1, medium, 3, 1, opcode::io::READ)
    );
    assert_eq!(
        fields(&entries[2]),
        (
            1,
            1,
            refused.cid,
            of(refused.status),
            BLOCKS,
            1,
            opcode::io::READ
        )
    );
    assert_eq!((entries[0].transport, entries[0].version), (3, 1));
    assert_eq!(entries[3].count.get(), 0);
    // Only the newest are kept; the count goes on.
    for _ in 0..limits::ERROR_ENTRIES {
        io.read(BLOCKS, 1);
    }
    let entries = errors(&mut admin);
    let newest = u64::try_from(limits::ERROR_ENTRIES).unwrap() + 3;
    assert_eq!(entries[0].count.get(), newest);
    assert_eq!(entries[limits::ERROR_ENTRIES - 1].count.get(), 4);
    let health = health(&mut admin);
    assert_eq!(
        (health.errors.get(), health.media_errors.get()),
        (u128::from(newest), 1)
    );
    let data = identify(&mut admin, cns::CONTROLLER, 0, 0);
    let data = IdentifyController::read_from_bytes(&data).unwrap();
    assert_eq!(
        usize::from(data.error_log_entries) + 1,
        limits::ERROR_ENTRIES
    );
    // What worked is no error, and has nothing more to say.
    assert!(!io.read(0, 1).is_more);
    assert_eq!(errors(&mut admin)[0].count.get(), newest);
}

#[test]
fn health_counts_what_hosts_do() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    let log = health(&mut admin);
    assert_eq!((log.reads.get(), log.units_read.get()), (0, 0));
    for _ in 0..3 {
        io.read(0, 2000);
    }
    io.write(0, &[1; 512]);
    io.read(BLOCKS, 1);
    admin.now_ms = 2 * 3_600_000 + 5;
    let log = health(&mut admin);
    assert_eq!((log.reads.get(), log.writes.get()), (3, 1));
    assert_eq!((log.units_read.get(), log.units_written.get()), (6, 1));
    assert_eq!((log.power_on_hours.get(), log.power_cycles.get()), (2, 1));
    assert_eq!((log.warnings, log.spare), (0, 100));
    // The subsystem's health outlives its controllers.
    drop((admin, io));
    let mut admin = Host::admin(&registry, Options::default());
    assert_eq!(health(&mut admin).reads.get(), 3);
}

#[test]
fn supported_pages_features_and_commands_are_told_truly() {
    let registry = registry();
    let mut io = Host::admin(&registry, Options::default());
    let mut discovery = Host::initialised(&registry, Options::default());
    discovery.connect(0, CNTLID_DYNAMIC, DISCOVERY, HOST);
    discovery.enable();
    for host in [&mut io, &mut discovery] {
        let pages = log_page(host, log::id::SUPPORTED, 0, 1024);
        let features = log_page(host, log::id::FEATURES, 0, 1024);
        for id in 0..=u8::MAX {
            let page = AdminCommand::GetLogPage(GetLogPage {
                id,
                parameter: 0,
                retain_event: true,
                length: 4,
                offset: 0,
                nsid: NSID_ALL,
            });
            let is_there = host.run_admin(page).status == Status::SUCCESS;
            assert_eq!(bits(&pages, id) & supported::LOG != 0, is_there, "{id:#x}");
            let get = AdminCommand::GetFeatures {
                id,
                select: Select::Capabilities,
                nsid: 0,
                value: 0,
            };
            let mut sqe = get.encode(0);
            sqe.dptr = roadstead_nvme::DataPointer::Transport { length: 0 }.encode();
            let is_there = host.run(sqe, &[]).status == Status::SUCCESS;
            let told = bits(&features, id) & feature_effect::SUPPORTED != 0;
            assert_eq!(told, is_there, "{id:#x}");
        }
    }
    let effects = log_page(&mut io, log::id::EFFECTS, 0, 4096);
    for command in 0..=u8::MAX {
        let mut sqe = AdminCommand::KeepAlive.encode(0);
        sqe.opcode = command;
        // These end later, or only with the connection's data.
        if [opcode::admin::ASYNC_EVENT, opcode::FABRICS].contains(&command) {
            continue;
        }
        let exists = io.run(sqe, &[]).status != Status::INVALID_OPCODE.dnr();
        let told = bits(&effects, command) & effect::SUPPORTED != 0;
        assert_eq!(told, exists, "{command:#x}");
    }
}

#[test]
fn io_commands_in_the_effects_log_exist_and_no_others() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    let effects = log_page(&mut admin, log::id::EFFECTS, 1024, 1024);
    for command in 0..=u8::MAX {
        if command == opcode::FABRICS {
            continue;
        }
        let mut sqe = IoCommand::Flush { nsid: 1 }.encode(0);
        sqe.opcode = command;
        let exists = io.run(sqe, &[]).status != Status::INVALID_OPCODE.dnr();
        let told = bits(&effects, command) & effect::SUPPORTED != 0;
        assert_eq!(told, exists, "{command:#x}");
    }
}

#[test]
fn lists_of_namespaces_and_controllers() {
    let registry = Registry::new();
    registry.apply(table(&[
        (
            SUBSYSTEM,
            subsystem(Access::Any, &[(2, namespace(8)), (5, namespace(8))]),
        ),
        (
            "nqn.2026-11.io.roadstead:other",
            subsystem(Access::Any, &[]),
        ),
    ]));
    let registry = Arc::new(registry);
    let mut one = Host::admin(&registry, Options::default());
    let mut stranger = Host::initialised(&registry, Options::default());
    stranger.connect(0, CNTLID_DYNAMIC, "nqn.2026-11.io.roadstead:other", HOST);
    let _two = Host::admin(&registry, Options::default());
    let numbers = |bytes: &[u8]| {
        let pairs = bytes.chunks(2);
        pairs
            .map(|pair| u16::from_le_bytes(pair.try_into().unwrap()))
            .take(4)
            .collect::<Vec<u16>>()
    };
    let list = identify(&mut one, cns::CONTROLLERS, 0, 0);
    assert_eq!(numbers(&list), [2, 1, 3, 0]);
    let list = identify(&mut one, cns::CONTROLLERS, 2, 0);
    assert_eq!(numbers(&list), [1, 3, 0, 0]);
    let list = identify(&mut one, cns::CONTROLLERS_OF_NAMESPACE, 0, 5);
    assert_eq!(numbers(&list), [2, 1, 3, 0]);
    for cns in [
        cns::ACTIVE_NAMESPACES,
        cns::ALLOCATED_NAMESPACES,
        cns::COMMAND_SET_ACTIVE_NAMESPACES,
        cns::COMMAND_SET_ALLOCATED_NAMESPACES,
    ] {
        let list = identify(&mut one, cns, 0, 2);
        assert_eq!(list[..8], [5, 0, 0, 0, 0, 0, 0, 0], "{cns:#x}");
    }
    assert_eq!(
        identify(&mut one, cns::ALLOCATED_NAMESPACE, 0, 5),
        identify(&mut one, cns::NAMESPACE, 0, 5)
    );
}

#[test]
fn features_have_defaults_and_none_is_saved() {
    let registry = registry();
    let mut host = Host::admin(&registry, Options::default());
    let get = |host: &mut Host, id, select, value| {
        let done = host.run_admin(AdminCommand::GetFeatures {
            id,
            select,
            nsid: 0,
            value,
        });
        assert_eq!(done.status, Status::SUCCESS);
        done.result
    };
    let under = 1 << 20;
    for (id, selector, new, default) in [
        (feature::id::ARBITRATION, 0, 3, 7),
        (feature::id::TEMPERATURE_THRESHOLD, 0, 300, 343),
        (feature::id::TEMPERATURE_THRESHOLD, under, 200, 0),
        (feature::id::WRITE_ATOMICITY, 0, 1, 0),
        (feature::id::NUMBER_OF_QUEUES, 0, 0x0003_0003, 0x007f_007f),
        (feature::id::ASYNC_EVENT_CONFIGURATION, 0, 0x100, 0),
        (feature::id::KEEP_ALIVE_TIMER, 0, 9000, 0),
    ] {
        let set = AdminCommand::SetFeatures {
            id,
            save: false,
            nsid: NSID_ALL,
            value: selector | new,
        };
        assert_eq!(host.run_admin(set).status, Status::SUCCESS, "{id:#x}");
        let new = u64::from(new);
        assert_eq!(
            get(&mut host, id, Select::Current, selector),
            new,
            "{id:#x}"
        );
        for select in [Select::Default, Select::Saved] {
            assert_eq!(get(&mut host, id, select, selector), default, "{id:#x}");
        }
        let capabilities = u64::from(feature::CAPABILITY_CHANGEABLE);
        assert_eq!(get(&mut host, id, Select::Capabilities, 0), capabilities);
    }
    assert_eq!(
        get(
            &mut host,
            feature::id::ERROR_RECOVERY,
            Select::Capabilities,
            0
        ),
        0
    );
    // A reset brings the defaults back; the keep alive timer belongs to the association.
    let disable = roadstead_nvme::FabricsCommand::PropertySet {
        offset: roadstead_nvme::property::CC,
        wide: false,
        value: 0,
    };
    host.fabrics(disable);
    host.enable();
    for (id, value) in [
        (feature::id::ARBITRATION, 7),
        (feature::id::NUMBER_OF_QUEUES, 0x007f_007f),
        (feature::id::ASYNC_EVENT_CONFIGURATION, 0),
        (feature::id::KEEP_ALIVE_TIMER, 9000),
    ] {
        assert_eq!(get(&mut host, id, Select::Current, 0), value, "{id:#x}");
    }
}

#[test]
fn the_keep_alive_time_out_is_rounded_up_to_its_granularity() {
    let registry = registry();
    let mut host = Host::admin(&registry, Options::default());
    for (asked, kept) in [(1, 1000), (7001, 8000), (0, 0), (u32::MAX, 4_294_967_000)] {
        let set = AdminCommand::SetFeatures {
            id: feature::id::KEEP_ALIVE_TIMER,
            save: false,
            nsid: 0,
            value: asked,
        };
        assert_eq!(host.run_admin(set).status, Status::SUCCESS);
        let get = AdminCommand::GetFeatures {
            id: feature::id::KEEP_ALIVE_TIMER,
            select: Select::Current,
            nsid: 0,
            value: 0,
        };
        assert_eq!(host.run_admin(get).result, kept);
    }
}

#[test]
fn a_path_that_is_at_fault_is_no_error_of_the_command() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    let mut lost = roadstead_target::Table::new(vec![common::local().into()]);
    lost.add(
        common::nqn(SUBSYSTEM),
        subsystem(Access::Any, &[(1, namespace(BLOCKS))]),
    )
    .unwrap();
    let states = roadstead_target::AnaStates {
        others: roadstead_nvme::AnaState::Inaccessible,
        ..Default::default()
    };
    lost.set_rules(roadstead_target::PortalRules {
        ana: [(common::local().into(), states)].into(),
        ..Default::default()
    })
    .unwrap();
    registry.apply(lost);
    let read = IoCommand::Read {
        nsid: 1,
        blocks: Blocks { start: 0, count: 1 },
        fua: false,
    };
    let refused = io.run(read.encode(0), &[]);
    assert_eq!(refused.status, Status::ANA_INACCESSIBLE);
    assert!(!refused.is_more);
    assert_eq!(errors(&mut admin)[0].count.get(), 0);
}
