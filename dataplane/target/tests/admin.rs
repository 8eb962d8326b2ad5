//! Admin commands and properties: every refusal, with its status.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{HOST, Host, Options, SUBSYSTEM, registry};
use roadstead_nvme::command::{GetLogPage, NSID_ALL};
use roadstead_nvme::fabrics::CNTLID_DYNAMIC;
use roadstead_nvme::feature::{self, Select};
use roadstead_nvme::identify::cns;
use roadstead_nvme::log;
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{AdminCommand, DataPointer, FabricsCommand, Status};

fn plain() -> Options {
    Options::default()
}

fn page(id: u8, offset: u64, length: u64) -> AdminCommand {
    AdminCommand::GetLogPage(GetLogPage {
        id,
        parameter: 0,
        retain_event: false,
        length,
        offset,
        nsid: NSID_ALL,
    })
}

#[test]
fn admin_commands() {
    let registry = registry();
    let mut host = Host::initialised(&registry, plain());
    host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST);
    assert_eq!(
        host.run_admin(AdminCommand::KeepAlive).status,
        Status::COMMAND_SEQUENCE.dnr()
    );
    host.enable();
    assert_eq!(
        host.run_admin(AdminCommand::KeepAlive).status,
        Status::SUCCESS
    );

    let identify = |cns, nsid, command_set| AdminCommand::Identify {
        cns,
        cntlid: 0,
        nsid,
        command_set,
    };
    let set = |id, value| AdminCommand::SetFeatures {
        id,
        save: false,
        nsid: 0,
        value,
    };
    let get = |id| AdminCommand::GetFeatures {
        id,
        select: Select::Current,
        nsid: 0,
        value: 0,
    };
    let save = AdminCommand::SetFeatures {
        id: feature::id::KEEP_ALIVE_TIMER,
        save: true,
        nsid: 0,
        value: 1,
    };
    let of_one_namespace = AdminCommand::SetFeatures {
        id: feature::id::ARBITRATION,
        save: false,
        nsid: 1,
        value: 0,
    };
    let of_namespace = AdminCommand::GetLogPage(GetLogPage {
        id: log::id::HEALTH,
        parameter: 0,
        retain_event: false,
        length: 512,
        offset: 0,
        nsid: 1,
    });
    let field = Status::INVALID_FIELD.dnr();
    let nsid = Status::INVALID_NAMESPACE.dnr();
    for (command, status) in [
        (identify(0x33, 0, 0), field),
        (identify(cns::NAMESPACE, 0, 0), nsid),
        (identify(cns::NAMESPACE, NSID_ALL, 0), nsid),
        (identify(cns::NAMESPACE, 2, 0), Status::SUCCESS),
        (identify(cns::NAMESPACE_DESCRIPTORS, 2, 0), nsid),
        (identify(cns::ACTIVE_NAMESPACES, NSID_ALL, 0), nsid),
        (identify(cns::ACTIVE_NAMESPACES, NSID_ALL - 1, 0), nsid),
        (identify(cns::COMMAND_SET_NAMESPACE, 1, 2), field),
        (identify(cns::COMMAND_SET_NAMESPACE, 2, 0), nsid),
        (identify(cns::COMMAND_SET_NAMESPACE, 1, 0), Status::SUCCESS),
        (identify(cns::COMMAND_SET_CONTROLLER, 0, 1), field),
        (identify(cns::COMMAND_SET_CONTROLLER, 0, 0), Status::SUCCESS),
        (identify(cns::COMMAND_SET_ACTIVE_NAMESPACES, 0, 2), field),
        (identify(cns::INDEPENDENT_NAMESPACE, 1, 0), Status::SUCCESS),
        (identify(cns::INDEPENDENT_NAMESPACE, 3, 0), nsid),
        (identify(cns::ALLOCATED_NAMESPACES, 0, 0), Status::SUCCESS),
        (identify(cns::ALLOCATED_NAMESPACES, NSID_ALL, 0), nsid),
        (identify(cns::ALLOCATED_NAMESPACE, 1, 0), Status::SUCCESS),
        (identify(cns::CONTROLLERS_OF_NAMESPACE, 2, 0), nsid),
        (identify(cns::COMMAND_SET_ALLOCATED_NAMESPACES, 0, 2), field),
        (
            identify(cns::COMMAND_SET_ALLOCATED_NAMESPACE, 1, 0),
            Status::SUCCESS,
        ),
        (identify(cns::COMMAND_SETS, 0, 0), Status::SUCCESS),
        (page(0x77, 0, 512), Status::INVALID_LOG_PAGE.dnr()),
        (
            page(log::id::DISCOVERY, 0, 1024),
            Status::INVALID_LOG_PAGE.dnr(),
        ),
        (page(log::id::HEALTH, 516, 4), field),
        (page(log::id::HEALTH, 512, 4), Status::SUCCESS),
        (page(log::id::HEALTH, 1 << 40, 4), field),
        (page(log::id::HEALTH, 0, (1 << 20) + 4), field),
        (page(log::id::EFFECTS, 0, 4096), Status::SUCCESS),
        (page(log::id::FIRMWARE_SLOTS, 0, 512), Status::SUCCESS),
        (page(log::id::ERRORS, 0, 64), Status::SUCCESS),
        (of_namespace, field),
        (get(0x7f), field),
        (
            get(feature::id::HOST_IDENTIFIER),
            Status::HOST_ID_INCONSISTENT.dnr(),
        ),
        (set(0x7f, 0), field),
        (
            set(feature::id::HOST_IDENTIFIER, 1),
            Status::COMMAND_SEQUENCE.dnr(),
        ),
        (
            set(feature::id::VOLATILE_WRITE_CACHE, 0),
            Status::FEATURE_NOT_CHANGEABLE.dnr(),
        ),
        (set(feature::id::VOLATILE_WRITE_CACHE, 1), Status::SUCCESS),
        (
            set(feature::id::ERROR_RECOVERY, 5),
            Status::FEATURE_NOT_CHANGEABLE.dnr(),
        ),
        (set(feature::id::ERROR_RECOVERY, 0), Status::SUCCESS),
        (set(feature::id::POWER_MANAGEMENT, 0), Status::SUCCESS),
        (set(feature::id::POWER_MANAGEMENT, 1), field),
        (set(feature::id::TEMPERATURE_THRESHOLD, 1 << 16), field),
        (set(feature::id::TEMPERATURE_THRESHOLD, 2 << 20), field),
        (
            of_one_namespace,
            Status::FEATURE_NOT_NAMESPACE_SPECIFIC.dnr(),
        ),
        (set(feature::id::NUMBER_OF_QUEUES, 0xffff), field),
        (save, Status::FEATURE_NOT_SAVEABLE.dnr()),
    ] {
        assert_eq!(host.run_admin(command).status, status, "{command:?}");
    }
    let mut unknown = AdminCommand::KeepAlive.encode(0);
    unknown.opcode = 0x10;
    assert_eq!(host.run(unknown, &[]).status, Status::INVALID_OPCODE.dnr());
}

#[test]
fn admin_data_lengths() {
    let registry = registry();
    let mut host = Host::admin(&registry, plain());
    let identify = AdminCommand::Identify {
        cns: cns::CONTROLLER,
        cntlid: 0,
        nsid: 0,
        command_set: 0,
    };
    let mut sqe = identify.encode(0);
    sqe.dptr = DataPointer::Transport { length: 2048 }.encode();
    assert_eq!(host.run(sqe, &[]).status, Status::SGL_LENGTH_INVALID.dnr());
    // Data to the host cannot go in the command's capsule.
    let sqe = identify.encode(0);
    assert_eq!(
        host.run(sqe, &[0; 4096]).status,
        Status::SGL_TYPE_INVALID.dnr()
    );
    assert_eq!(host.run_admin(identify).status, Status::SUCCESS);
}

#[test]
fn properties() {
    let registry = registry();
    let mut host = Host::admin(&registry, plain());
    let field = Status::INVALID_FIELD.dnr();
    let set = |value: u32| FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: u64::from(value),
    };
    let enabled = Configuration::enabled().0;
    for (command, status) in [
        (
            FabricsCommand::PropertyGet {
                offset: property::CAP,
                wide: false,
            },
            Status::INVALID_FIELD,
        ),
        (
            FabricsCommand::PropertyGet {
                offset: property::CSTS,
                wide: true,
            },
            Status::INVALID_FIELD,
        ),
        (
            FabricsCommand::PropertyGet {
                offset: 0x99,
                wide: false,
            },
            Status::INVALID_FIELD,
        ),
        (
            FabricsCommand::PropertySet {
                offset: property::CSTS,
                wide: false,
                value: 1,
            },
            field,
        ),
        (
            FabricsCommand::PropertySet {
                offset: property::CC,
                wide: true,
                value: 1,
            },
            field,
        ),
        (set(enabled | 6 << 4), field),
        (set(enabled | 1 << 4), field),
        (set(enabled | 1 << 11), field),
        (set(enabled ^ 1 << 20), field),
        (set(enabled | 1 << 7), field),
        (set(enabled ^ 1 << 16), field),
        (FabricsCommand::Disconnect, Status::INVALID_OPCODE.dnr()),
        (set(enabled), Status::SUCCESS),
    ] {
        let done = host.fabrics(command);
        assert_eq!((done.status, done.is_more), (status, false), "{command:?}");
    }
}
