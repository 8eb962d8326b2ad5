//! The discovery service: what each host sees at each portal, and when it is told of changes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use common::{BLOCKS, HOST, Host, Options, SUBSYSTEM, hosts, local, namespace, nqn, subsystem};
use roadstead_nvme::command::GetLogPage;
use roadstead_nvme::event::{AsyncEvent, mask};
use roadstead_nvme::fabrics::{CNTLID_DYNAMIC, ConnectData, InvalidParameter};
use roadstead_nvme::log::{self, DiscoveryHeader, DiscoveryRecord, discovery_parameter};
use roadstead_nvme::nqn::DISCOVERY;
use roadstead_nvme::{AdminCommand, AnaState, Portal, Status, feature, name};
use roadstead_target::tcp::{Close, Connection};
use roadstead_target::{Access, AnaStates, Ended, PortalRules, Registry, Table};
use zerocopy::FromBytes;

const OTHER_HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:b";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn table(portals: &[&str], rules: PortalRules, subsystems: &[(&str, Access)]) -> Table {
    let mut table = Table::new(
        portals
            .iter()
            .map(|portal| address(portal).into())
            .collect(),
    );
    table.set_rules(rules).unwrap();
    for (name, access) in subsystems {
        let served = subsystem(access.clone(), &[(1, namespace(BLOCKS))]);
        table.add(nqn(name), served).unwrap();
    }
    table
}

fn discovery_only(portals: &[&str]) -> PortalRules {
    PortalRules {
        discovery_only: portals
            .iter()
            .map(|portal| address(portal).into())
            .collect(),
        ..PortalRules::default()
    }
}

fn connect(registry: &Arc<Registry>, host: &str) -> Host {
    let mut connection = Host::initialised(registry, Options::default());
    let done = connection.connect(0, CNTLID_DYNAMIC, DISCOVERY, host);
    assert_eq!(done.status, Status::SUCCESS);
    connection.enable();
    connection
}

fn read(host: &mut Host, parameter: u8, retain_event: bool) -> (u64, Vec<DiscoveryRecord>) {
    let mut page = |offset, length| {
        let done = host.run_admin(AdminCommand::GetLogPage(GetLogPage {
            id: log::id::DISCOVERY,
            parameter,
            retain_event,
            length,
            offset,
            nsid: 0,
        }));
        assert_eq!(done.status, Status::SUCCESS);
        done.data
    };
    let header = DiscoveryHeader::read_from_bytes(&page(0, 1024)).unwrap();
    let records = (1..=header.records.get())
        .map(|index| DiscoveryRecord::read_from_bytes(&page(1024 * index, 1024)).unwrap());
    (header.generation.get(), records.collect())
}

/// Type, name, address, flags.
fn shown(records: &[DiscoveryRecord]) -> Vec<(u8, String, String, u16)> {
    let show = |record: &DiscoveryRecord| {
        let place = format!(
            "{}:{}",
            name::text(&record.address),
            name::text(&record.service)
        );
        let subsystem = name::text(&record.subsystem_nqn);
        (record.subsystem_type, subsystem, place, record.flags.get())
    };
    records.iter().map(show).collect()
}

#[test]
fn records_for_each_subsystem_and_portal() {
    let portals = ["192.0.2.1:4420", "198.51.100.7:4420", "192.0.2.1:8009"];
    let rules = PortalRules {
        referrals: BTreeSet::from([address("203.0.113.9:8009").into()]),
        ..discovery_only(&["192.0.2.1:8009"])
    };
    let subsystems = [
        ("nqn.2026-11.io.roadstead:b", Access::Any),
        (SUBSYSTEM, hosts(&[HOST])),
    ];
    let registry = Registry::new();
    registry.apply(table(&portals, rules, &subsystems));
    let registry = Arc::new(registry);
    let (current, nvm, referral) = (3, 2, 1);
    let line = |kind, name: &str, place: &str, flags| (kind, name.into(), place.into(), flags);
    let services = [
        line(current, DISCOVERY, "192.0.2.1:4420", 3),
        line(current, DISCOVERY, "192.0.2.1:8009", 3),
    ];
    let at_both = |name| {
        [
            line(nvm, name, "192.0.2.1:4420", 0),
            line(nvm, name, "198.51.100.7:4420", 0),
        ]
    };
    let referrals = [line(referral, DISCOVERY, "203.0.113.9:8009", 0)];
    let open = at_both("nqn.2026-11.io.roadstead:b");
    let mine = at_both(SUBSYSTEM);
    let (_, records) = read(&mut connect(&registry, HOST), 0, false);
    assert_eq!(
        shown(&records),
        [&services[..], &open, &mine, &referrals].concat()
    );
    let ids: Vec<u16> = records.iter().map(|record| record.port.get()).collect();
    assert_eq!(ids, [1, 3, 1, 2, 1, 2, 0]);
    let (_, records) = read(&mut connect(&registry, OTHER_HOST), 0, false);
    assert_eq!(shown(&records), [&services[..], &open, &referrals].concat());
    // Of the portal that was reached alone.
    let mut host = connect(&registry, OTHER_HOST);
    let (_, records) = read(&mut host, discovery_parameter::PORT_LOCAL, false);
    assert_eq!(shown(&records), [services[0].clone(), open[0].clone()]);
}

#[test]
fn the_way_within_the_process_is_in_no_log() {
    let portals = table(
        &["192.0.2.1:4420"],
        PortalRules::default(),
        &[(SUBSYSTEM, Access::Any)],
    );
    let registry = Registry::new();
    registry.apply(portals);
    let registry = Arc::new(registry);
    let mut within = Host::raw(&registry, Options::default());
    within.connection = Connection::new(Arc::clone(&registry), Portal::LOCAL, 0);
    within.initialise();
    let done = within.connect(0, CNTLID_DYNAMIC, DISCOVERY, HOST);
    assert_eq!(done.status, Status::SUCCESS);
    within.enable();
    for host in [&mut within, &mut connect(&registry, HOST)] {
        let (_, records) = read(host, 0, false);
        assert!(!records.is_empty());
        for record in records {
            assert_eq!(record.transport, log::transport::TCP);
            assert_eq!(name::text(&record.address), "192.0.2.1");
        }
    }
}

#[test]
fn a_portal_for_discovery_has_no_subsystems() {
    let rules = discovery_only(&["192.0.2.1:4420"]);
    let registry = Registry::new();
    registry.apply(table(
        &["192.0.2.1:4420"],
        rules,
        &[(SUBSYSTEM, Access::Any)],
    ));
    let registry = Arc::new(registry);
    assert_eq!(local(), address("192.0.2.1:4420"));
    let mut host = Host::initialised(&registry, Options::default());
    let refused = host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST);
    let parameter = InvalidParameter {
        offset: ConnectData::OFFSET_SUBSYSTEM_NQN,
        in_data: true,
    };
    assert_eq!(
        (refused.status, refused.result),
        (Status::CONNECT_INVALID_PARAMETERS.dnr(), parameter.encode())
    );
    let (_, records) = read(&mut connect(&registry, HOST), 0, false);
    assert_eq!(records.len(), 1);
}

#[test]
fn controllers_end_with_the_portal_that_they_were_reached_by() {
    let all = [(SUBSYSTEM, Access::Any)];
    let own = local().to_string();
    let only = discovery_only(&[&own]);
    let none = PortalRules::default;
    for (portals, rules, is_left) in [
        (vec![own.as_str(), "192.0.2.99:4420"], none(), (true, true)),
        (vec!["0.0.0.0:4420"], none(), (true, true)),
        (vec!["192.0.2.99:4420"], none(), (false, false)),
        (vec![own.as_str()], only, (true, false)),
    ] {
        let registry = Arc::new(Registry::new());
        registry.apply(table(&[&own], none(), &all));
        let mut discovery = connect(&registry, HOST);
        let (mut admin, mut io) = Host::pair(&registry, Options::default());
        registry.apply(table(&portals, rules, &all));
        let ended = |host: &mut Host| {
            host.tick();
            host.closed.take()
        };
        let gone = |is_left: bool| (!is_left).then_some(Close::Ended(Ended::PortalGone));
        assert_eq!(ended(&mut discovery), gone(is_left.0), "{portals:?}");
        assert_eq!(ended(&mut admin), gone(is_left.1), "{portals:?}");
        assert_eq!(ended(&mut io), gone(is_left.1), "{portals:?}");
    }
}

#[test]
fn hosts_hear_of_what_concerns_them_alone() {
    let portals = ["192.0.2.1:4420"];
    let plain = || PortalRules::default();
    let mine = |extra: Option<&(&'static str, Access)>| {
        let mut all = vec![(SUBSYSTEM, hosts(&[HOST]))];
        all.extend(extra.cloned());
        all
    };
    let others = ("nqn.2026-11.io.roadstead:o", hosts(&[OTHER_HOST]));
    let open = ("nqn.2026-11.io.roadstead:p", Access::Any);
    let registry = Arc::new(Registry::new());
    registry.apply(table(&portals, plain(), &mine(None)));
    let mut host = connect(&registry, HOST);
    let enable = AdminCommand::SetFeatures {
        id: feature::id::ASYNC_EVENT_CONFIGURATION,
        save: false,
        nsid: 0,
        value: mask::DISCOVERY_LOG,
    };
    assert_eq!(host.run_admin(enable).status, Status::SUCCESS);
    let lost = PortalRules {
        ana: BTreeMap::from([(
            local().into(),
            AnaStates {
                others: AnaState::Inaccessible,
                ..AnaStates::default()
            },
        )]),
        ..plain()
    };
    let referral = PortalRules {
        referrals: BTreeSet::from([address("203.0.113.9:8009").into()]),
        ..plain()
    };
    let two = ["192.0.2.1:4420", "192.0.2.1:4430"];
    host.start(AdminCommand::AsyncEventRequest.encode(0), &[]);
    let (mut generation, _) = read(&mut host, 0, false);
    for (what, table, is_told, is_counted) in [
        (
            "others' subsystem",
            table(&portals, plain(), &mine(Some(&others))),
            false,
            true,
        ),
        (
            "ANA",
            table(&portals, lost, &mine(Some(&others))),
            false,
            false,
        ),
        (
            "open subsystem",
            table(&portals, plain(), &mine(Some(&open))),
            true,
            true,
        ),
        (
            "portal",
            table(&two, plain(), &mine(Some(&open))),
            true,
            true,
        ),
        (
            "referral",
            table(&two, referral, &mine(Some(&open))),
            true,
            true,
        ),
        ("gone", table(&portals, plain(), &mine(None)), true, true),
    ] {
        registry.apply(table);
        host.tick();
        let event = host.done.pop_front().map(|done| done.result);
        let expected = is_told.then(|| u64::from(AsyncEvent::DISCOVERY_LOG.encode()));
        assert_eq!(event, expected, "{what}");
        if is_told {
            host.start(AdminCommand::AsyncEventRequest.encode(0), &[]);
        }
        let (now, _) = read(&mut host, 0, false);
        assert_eq!(now > generation, is_counted, "{what}");
        generation = now;
    }
}
