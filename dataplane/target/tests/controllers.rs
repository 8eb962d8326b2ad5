//! What controllers say of themselves and of what is served: Identify, features, events, limits, discovery.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use common::{
    BLOCKS, HOST, Host, Options, SUBSYSTEM, hosts, namespace, nqn, registry, subsystem, table,
};
use roadstead_nvme::command::{GetLogPage, NSID_ALL};
use roadstead_nvme::event::{AsyncEvent, mask};
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, ConnectData};
use roadstead_nvme::feature::{self, NumberOfQueues, Select};
use roadstead_nvme::identify::{IdentifyController, IdentifyControllerNvm, IdentifyNamespace, cns};
use roadstead_nvme::log::{self, DiscoveryHeader, DiscoveryRecord};
use roadstead_nvme::property::{self, Configuration};
use roadstead_nvme::{AdminCommand, FabricsCommand, Status, name};
use roadstead_target::{
    Access, BlockSize, ControllerLimits, LimitError, Namespace, Registry, Table, TableError,
    VolumeKey,
};
use zerocopy::FromBytes;

fn get_feature(host: &mut Host, id: u8, select: Select, value: u32) -> (u64, Vec<u8>) {
    let done = host.run_admin(AdminCommand::GetFeatures {
        id,
        select,
        nsid: 0,
        value,
    });
    assert_eq!(done.status, Status::SUCCESS);
    (done.result, done.data)
}

fn log_page(host: &mut Host, id: u8, offset: u64, length: u64, retain_event: bool) -> Vec<u8> {
    let page = GetLogPage {
        id,
        parameter: 0,
        retain_event,
        length,
        offset,
        nsid: NSID_ALL,
    };
    let done = host.run_admin(AdminCommand::GetLogPage(page));
    assert_eq!(done.status, Status::SUCCESS);
    done.data
}

fn serve(registry: &Registry, namespaces: &[(u32, Namespace)]) {
    registry.apply(table(&[(SUBSYSTEM, subsystem(Access::Any, namespaces))]));
}

/// What the stock Linux host looks at when it connects.
#[test]
fn identify_satisfies_linux() {
    let registry = registry();
    let mut host = Host::admin(&registry, Options::default());
    let cap = host.fabrics(FabricsCommand::PropertyGet {
        offset: property::CAP,
        wide: true,
    });
    let cap = property::Capabilities(cap.result);
    assert_eq!((cap.queue_entries(), cap.page_bytes_min()), (128, 4096));
    let version = host.fabrics(FabricsCommand::PropertyGet {
        offset: property::VS,
        wide: false,
    });
    assert_eq!(version.result, u64::from(property::VERSION_2_0));

    let controller =
        IdentifyController::read_from_bytes(&host.identify(cns::CONTROLLER, 0)).unwrap();
    assert_eq!(u64::from(controller.version.get()), version.result);
    assert_eq!(controller.cntlid.get(), registry.controllers()[0].cntlid);
    assert_eq!(controller.controller_type, 1);
    assert!(controller.keep_alive_granularity.get() > 0);
    assert!(controller.io_command_capsule.get() >= 4 + 8192 / 16);
    assert_eq!(controller.io_response_capsule.get(), 1);
    assert_eq!(controller.in_capsule_offset.get(), 0);
    assert_ne!(controller.sgl.get() & 3, 0);
    assert!(controller.commands_max.get() >= 128);
    assert_eq!((controller.sqe_sizes, controller.cqe_sizes), (0x66, 0x44));
    assert!(controller.namespaces_allowed.get() <= controller.namespace_max.get());
    assert_eq!(name::text(&controller.subsystem_nqn), SUBSYSTEM);
    assert_eq!(name::text(&controller.serial), "RS0001");
    assert_eq!(
        controller.events.get(),
        mask::NAMESPACE_ATTRIBUTES | mask::ANA_CHANGE
    );

    let nvm =
        IdentifyControllerNvm::read_from_bytes(&host.identify(cns::COMMAND_SET_CONTROLLER, 0))
            .unwrap();
    assert_eq!(nvm.write_zeroes_max, 13);
    assert_eq!(
        host.identify(cns::ACTIVE_NAMESPACES, 0)[..8],
        [1, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(host.identify(cns::ACTIVE_NAMESPACES, 1)[..4], [0; 4]);
    let one = IdentifyNamespace::read_from_bytes(&host.identify(cns::NAMESPACE, 1)).unwrap();
    assert_eq!(
        (
            one.size.get(),
            one.write_granularity.get(),
            one.deallocation & 7
        ),
        (BLOCKS, 7, 1)
    );
    let none = IdentifyNamespace::read_from_bytes(&host.identify(cns::NAMESPACE, 2)).unwrap();
    assert_eq!(none.size.get(), 0);
}

#[test]
fn features() {
    let registry = registry();
    let mut host = Host::admin(&registry, Options::default());
    let asked = NumberOfQueues {
        submission: 4,
        completion: 6,
    };
    let granted = host.set_feature(feature::id::NUMBER_OF_QUEUES, asked.encode());
    let expected = NumberOfQueues {
        submission: 6,
        completion: 6,
    };
    assert_eq!(granted, u64::from(expected.encode()));
    let (current, _) = get_feature(&mut host, feature::id::NUMBER_OF_QUEUES, Select::Current, 0);
    assert_eq!(current, granted);
    let (granted, _) = (
        host.set_feature(feature::id::NUMBER_OF_QUEUES, 0xfffe_fffe),
        0,
    );
    assert_eq!(granted, 0x007f_007f);
    host.set_feature(feature::id::KEEP_ALIVE_TIMER, 7000);
    assert_eq!(
        get_feature(&mut host, feature::id::KEEP_ALIVE_TIMER, Select::Current, 0).0,
        7000
    );
    assert_eq!(
        get_feature(
            &mut host,
            feature::id::KEEP_ALIVE_TIMER,
            Select::Capabilities,
            0
        )
        .0,
        4
    );
    assert_eq!(
        get_feature(
            &mut host,
            feature::id::VOLATILE_WRITE_CACHE,
            Select::Current,
            0
        )
        .0,
        1
    );
    assert_eq!(
        get_feature(&mut host, feature::id::HOST_IDENTIFIER, Select::Current, 1).1,
        [5; 16]
    );
    host.set_feature(feature::id::ASYNC_EVENT_CONFIGURATION, u32::MAX);
    let (enabled, _) = get_feature(
        &mut host,
        feature::id::ASYNC_EVENT_CONFIGURATION,
        Select::Current,
        0,
    );
    assert_eq!(
        enabled,
        u64::from(mask::NAMESPACE_ATTRIBUTES | mask::ANA_CHANGE)
    );
    // With I/O queues the number does not change any more.
    let _io = host.io(1, registry.controllers()[0].cntlid);
    let command = AdminCommand::SetFeatures {
        id: feature::id::NUMBER_OF_QUEUES,
        save: false,
        nsid: 0,
        value: 0,
    };
    assert_eq!(
        host.run_admin(command).status,
        Status::COMMAND_SEQUENCE.dnr()
    );
}

#[test]
fn namespace_changes_are_told_once_until_the_log_is_read() {
    let registry = registry();
    let (mut admin, mut io) = Host::pair(&registry, Options::default());
    let request = AdminCommand::AsyncEventRequest.encode(0);
    let first = admin.start(request, &[]);
    serve(&registry, &[(1, namespace(BLOCKS + 8))]);
    admin.tick();
    assert!(admin.done.is_empty(), "not enabled yet");
    admin.set_feature(
        feature::id::ASYNC_EVENT_CONFIGURATION,
        mask::NAMESPACE_ATTRIBUTES,
    );
    let done = admin.done.pop_front().unwrap();
    assert_eq!((done.cid, done.status), (first, Status::SUCCESS));
    assert_eq!(
        done.result,
        u64::from(AsyncEvent::NAMESPACE_ATTRIBUTES.encode())
    );

    // Another change, and the log not read: silence. The new size works already.
    let second = admin.start(request, &[]);
    serve(&registry, &[(1, namespace(BLOCKS + 16)), (3, namespace(8))]);
    admin.tick();
    assert!(admin.done.is_empty());
    io.memory
        .bytes
        .entry(common::VOLUME)
        .and_modify(|bytes| bytes.resize(bytes.len() + 8192, 0));
    assert_eq!(io.read(BLOCKS + 15, 1).status, Status::SUCCESS);

    // Read without clearing, then with; then it is told again, as there was a change since.
    let list = log_page(&mut admin, log::id::CHANGED_NAMESPACES, 0, 4096, true);
    assert_eq!(list[..12], [1, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    assert!(admin.done.is_empty());
    let list = log_page(&mut admin, log::id::CHANGED_NAMESPACES, 0, 4096, false);
    assert_eq!(list[..8], [1, 0, 0, 0, 3, 0, 0, 0]);
    assert_eq!(admin.done.pop_front().unwrap().cid, second);
    let list = log_page(&mut admin, log::id::CHANGED_NAMESPACES, 0, 4096, false);
    assert_eq!(list[..4], [0; 4]);

    // The same again changes nothing.
    admin.start(request, &[]);
    serve(&registry, &[(1, namespace(BLOCKS + 16)), (3, namespace(8))]);
    admin.tick();
    assert!(admin.done.is_empty());
    serve(&registry, &[(1, namespace(BLOCKS + 16))]);
    admin.tick();
    assert_eq!(admin.done.len(), 1);
    let list = log_page(&mut admin, log::id::CHANGED_NAMESPACES, 0, 4096, false);
    assert_eq!(list[..8], [3, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!((io.read(0, 1).status, io.closed), (Status::SUCCESS, None));
}

#[test]
fn event_requests_are_bounded_and_can_be_aborted() {
    let registry = registry();
    let mut admin = Host::admin(&registry, Options::default());
    let request = AdminCommand::AsyncEventRequest.encode(0);
    let cids: Vec<u16> = (0..4).map(|_| admin.start(request, &[])).collect();
    assert_eq!(admin.run(request, &[]).status, Status::AER_LIMIT.dnr());
    let done = admin.run_admin(AdminCommand::Abort {
        qid: 0,
        cid: cids[2],
    });
    assert_eq!((done.status, done.result), (Status::SUCCESS, 0));
    let aborted = admin.done.pop_front().unwrap();
    assert_eq!(
        (aborted.cid, aborted.status),
        (cids[2], Status::ABORT_REQUESTED)
    );
    for (qid, cid) in [(0, cids[2]), (1, cids[0])] {
        assert_eq!(admin.run_admin(AdminCommand::Abort { qid, cid }).result, 1);
    }
    // A reset gives the others back.
    admin.fabrics(FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: 0,
    });
    assert_eq!(admin.done.len(), 3);
    assert!(
        admin
            .done
            .iter()
            .all(|done| done.status == Status::ABORT_REQUESTED)
    );
}

#[test]
fn discovery() {
    let registry = registry();
    let other = "nqn.2026-11.io.roadstead:other";
    let both = |extra: &str| {
        let mine = subsystem(hosts(&[HOST]), &[(1, namespace(BLOCKS))]);
        let not_mine = subsystem(hosts(&["nqn.2014-08.org.nvmexpress:uuid:b"]), &[]);
        table(&[(SUBSYSTEM, mine.clone()), (other, not_mine), (extra, mine)])
    };
    registry.apply(both("nqn.2026-11.io.roadstead:x"));
    let mut host = Host::initialised(&registry, Options::default());
    assert_eq!(
        host.connect(0, CNTLID_DYNAMIC, roadstead_nvme::nqn::DISCOVERY, HOST)
            .status,
        Status::SUCCESS
    );
    host.enable();
    let controller =
        IdentifyController::read_from_bytes(&host.identify(cns::CONTROLLER, 0)).unwrap();
    assert_eq!(
        (controller.controller_type, controller.namespace_max.get()),
        (2, 0)
    );
    let refused = AdminCommand::Identify {
        cns: cns::NAMESPACE,
        cntlid: 0,
        nsid: 1,
        command_set: 0,
    };
    assert_eq!(host.run_admin(refused).status, Status::INVALID_FIELD.dnr());
    let page = GetLogPage {
        id: log::id::HEALTH,
        parameter: 0,
        retain_event: false,
        length: 512,
        offset: 0,
        nsid: 0,
    };
    assert_eq!(
        host.run_admin(AdminCommand::GetLogPage(page)).status,
        Status::INVALID_LOG_PAGE.dnr()
    );

    let header = log_page(&mut host, log::id::DISCOVERY, 0, 1024, true);
    let header = DiscoveryHeader::read_from_bytes(&header).unwrap();
    assert_eq!(header.records.get(), 3);
    // Records are read one by one, as hosts do.
    for (offset, kind, name) in [
        (1024, 3, roadstead_nvme::nqn::DISCOVERY),
        (2048, 2, SUBSYSTEM),
        (3072, 2, "nqn.2026-11.io.roadstead:x"),
    ] {
        let record = log_page(&mut host, log::id::DISCOVERY, offset, 1024, true);
        let record = DiscoveryRecord::read_from_bytes(&record).unwrap();
        assert_eq!(name::text(&record.subsystem_nqn), name);
        assert_eq!(
            (name::text(&record.address), name::text(&record.service)),
            ("192.0.2.1".into(), "4420".into())
        );
        assert_eq!(
            (record.transport, record.family, record.subsystem_type),
            (3, 1, kind)
        );
    }

    host.set_feature(feature::id::ASYNC_EVENT_CONFIGURATION, mask::DISCOVERY_LOG);
    host.start(AdminCommand::AsyncEventRequest.encode(0), &[]);
    registry.apply(both("nqn.2026-11.io.roadstead:y"));
    host.tick();
    assert_eq!(
        host.done.pop_front().unwrap().result,
        u64::from(AsyncEvent::DISCOVERY_LOG.encode())
    );
    let again = log_page(&mut host, log::id::DISCOVERY, 0, 1024, false);
    let again = DiscoveryHeader::read_from_bytes(&again).unwrap();
    assert!(again.generation.get() > header.generation.get());
}

#[test]
fn tables_are_checked() {
    let mut table = Table::new(Vec::new());
    let good = || subsystem(Access::Any, &[(1, namespace(1))]);
    let name = nqn(SUBSYSTEM);
    assert_eq!(table.add(name.clone(), good()), Ok(()));
    assert_eq!(
        table.add(name.clone(), good()),
        Err(TableError::Twice(name))
    );
    let discovery = nqn(roadstead_nvme::nqn::DISCOVERY);
    assert_eq!(
        table.add(discovery.clone(), good()),
        Err(TableError::Discovery(discovery))
    );
    for nsid in [0, 1025, u32::MAX] {
        let nqn = nqn("nqn.2026-11.io.roadstead:n");
        let added = table.add(nqn.clone(), subsystem(Access::Any, &[(nsid, namespace(1))]));
        assert_eq!(added, Err(TableError::NamespaceId { nqn, nsid }));
    }
    for blocks in [0, 1 << 51, u64::MAX] {
        let nqn = nqn("nqn.2026-11.io.roadstead:n");
        let namespace = Namespace {
            block_size: BlockSize::B4096,
            volume: VolumeKey(1),
            ..namespace(blocks)
        };
        let added = table.add(nqn.clone(), subsystem(Access::Any, &[(1, namespace)]));
        assert_eq!(
            added,
            Err(TableError::Size {
                nqn,
                nsid: 1,
                blocks
            })
        );
    }
}

#[test]
fn version_2_says_when_it_is_ready_and_takes_every_command_set() {
    let registry = registry();
    let mut host = Host::initialised(&registry, Options::default());
    host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST);
    let get = |offset, wide| FabricsCommand::PropertyGet { offset, wide };
    let cap = property::Capabilities(host.fabrics(get(property::CAP, true)).result);
    assert!(cap.has_ready_timeouts());
    assert_eq!(cap.0 >> 37 & 0xff, 0b100_0001, "NVM, and a choice");
    let ready = host.fabrics(get(property::CRTO, false));
    assert_eq!(ready.status, Status::SUCCESS);
    assert_eq!(ready.result & 0xffff, u64::from(cap.timeout_500ms()));
    let set = |configuration: Configuration| FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: u64::from(configuration.0),
    };
    let all = Configuration::enabled().with_command_set(Configuration::ALL_COMMAND_SETS);
    assert_eq!(host.fabrics(set(all)).status, Status::SUCCESS);
    // Not while it is enabled.
    let other = host.fabrics(set(Configuration::enabled()));
    assert_eq!(other.status, Status::INVALID_FIELD.dnr());
    assert_eq!(host.fabrics(get(property::CSTS, false)).result, 1);
}

#[test]
fn limits_are_set_by_the_administrator() {
    let limits = ControllerLimits::new(65536, 65535).unwrap();
    let registry = Registry::with_limits(limits);
    registry.apply(table(&[(
        SUBSYSTEM,
        subsystem(Access::Any, &[(1, namespace(BLOCKS))]),
    )]));
    let registry = std::sync::Arc::new(registry);
    let mut admin = Host::admin(&registry, Options::default());
    let cap = admin.fabrics(FabricsCommand::PropertyGet {
        offset: property::CAP,
        wide: true,
    });
    assert_eq!(property::Capabilities(cap.result).queue_entries(), 65536);
    let granted = admin.set_feature(feature::id::NUMBER_OF_QUEUES, 0xfffe_fffe);
    assert_eq!(granted, 0xfffe_fffe);
    let cntlid = registry.controllers()[0].cntlid;
    let mut queue = Host::initialised(&registry, Options::default());
    let data = ConnectData::new([5; 16], cntlid, &nqn(SUBSYSTEM), &nqn(HOST));
    let connected = queue.connect_with(65535, 65535, &data);
    assert_eq!(connected.status, Status::SUCCESS);
    // The head goes around after 65536 commands.
    let heads: Vec<Option<u16>> = (0..65537)
        .map(|_| {
            queue
                .run(roadstead_nvme::IoCommand::Flush { nsid: 1 }.encode(0), &[])
                .sqhd
        })
        .collect();
    assert_eq!(
        (heads[0], heads[65534], heads[65535]),
        (Some(2), Some(0), Some(1))
    );
    assert_eq!(
        ControllerLimits::new(31, 1),
        Err(LimitError::QueueEntries(31))
    );
    assert_eq!(
        ControllerLimits::new(65537, 1),
        Err(LimitError::QueueEntries(65537))
    );
    assert_eq!(ControllerLimits::new(32, 0), Err(LimitError::IoQueues));
}
