//! Asymmetric namespace access: states by portal and group, the log page, events, and what I/O gets.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use common::{BLOCKS, HOST, Host, Options, SUBSYSTEM, local, namespace, nqn, subsystem};
use roadstead_nvme::command::{Blocks, GetLogPage, NSID_ALL};
use roadstead_nvme::event::{AsyncEvent, mask};
use roadstead_nvme::fabrics::CNTLID_DYNAMIC;
use roadstead_nvme::identify::{
    IdentifyController, IdentifyIndependentNamespace, IdentifyNamespace, cns,
};
use roadstead_nvme::log::{self, AnaGroup, AnaHeader};
use roadstead_nvme::{
    AdminCommand, AnaState, FabricsCommand, IoCommand, Portal, Status, feature, property,
};
use roadstead_target::tcp::Connection;
use roadstead_target::{
    Access, AnaStates, Namespace, PortalRules, Registry, Table, TableError, VolumeKey, limits,
};
use zerocopy::FromBytes;

/// A second portal.
fn other() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 2], 4420))
}

fn in_group(group: u32) -> Namespace {
    Namespace {
        ana_group: group,
        ..namespace(BLOCKS)
    }
}

fn states(others: AnaState, groups: &[(u32, AnaState)]) -> AnaStates {
    AnaStates {
        others,
        groups: groups.iter().copied().collect(),
    }
}

fn rules(ana: &[(SocketAddr, AnaStates)]) -> PortalRules {
    PortalRules {
        ana: ana
            .iter()
            .cloned()
            .map(|(at, states)| (at.into(), states))
            .collect(),
        ..PortalRules::default()
    }
}

fn table(namespaces: &[(u32, Namespace)], ana: &[(SocketAddr, AnaStates)]) -> Table {
    let mut table = Table::new(vec![local().into(), other().into()]);
    table
        .add(nqn(SUBSYSTEM), subsystem(Access::Any, namespaces))
        .unwrap();
    table.set_rules(rules(ana)).unwrap();
    table
}

fn serving(namespaces: &[(u32, Namespace)], ana: &[(SocketAddr, AnaStates)]) -> Arc<Registry> {
    let registry = Registry::new();
    registry.apply(table(namespaces, ana));
    Arc::new(registry)
}

fn ana_log(host: &mut Host, parameter: u8, length: u64, retain_event: bool) -> Vec<u8> {
    let done = host.run_admin(AdminCommand::GetLogPage(GetLogPage {
        id: log::id::ANA,
        parameter,
        retain_event,
        length,
        offset: 0,
        nsid: NSID_ALL,
    }));
    assert_eq!(done.status, Status::SUCCESS);
    done.data
}

/// Change count of the log, then (group, change count, state, namespaces).
type Log = (u64, Vec<(u32, u64, u8, Vec<u32>)>);

fn parsed(host: &mut Host, parameter: u8) -> Log {
    let bytes = ana_log(host, parameter, 4096, false);
    let (header, mut rest) = AnaHeader::read_from_prefix(&bytes).unwrap();
    let mut groups = Vec::new();
    for _ in 0..header.groups.get() {
        let (group, behind) = AnaGroup::read_from_prefix(rest).unwrap();
        let (list, behind) = behind.split_at(4 * usize::try_from(group.namespaces.get()).unwrap());
        rest = behind;
        let list = list
            .chunks(4)
            .map(|nsid| u32::from_le_bytes(nsid.try_into().unwrap()));
        groups.push((
            group.id.get(),
            group.change_count.get(),
            group.state,
            list.collect(),
        ));
    }
    assert!(rest.iter().all(|byte| *byte == 0));
    (header.change_count.get(), groups)
}

fn enable_events(host: &mut Host) {
    let events = mask::NAMESPACE_ATTRIBUTES | mask::ANA_CHANGE;
    host.set_feature(feature::id::ASYNC_EVENT_CONFIGURATION, events);
}

#[test]
fn controllers_say_what_ana_they_do() {
    let registry = serving(&[(1, in_group(7))], &[]);
    let mut host = Host::admin(&registry, Options::default());
    let controller =
        IdentifyController::read_from_bytes(&host.identify(cns::CONTROLLER, 0)).unwrap();
    assert_eq!(controller.multipath & 0b1011, 0b1011);
    assert_eq!(controller.ana_capabilities & 0x1f, 0x1f);
    assert_ne!(controller.ana_transition_s, 0);
    assert_eq!(controller.ana_group_max.get(), limits::ANA_GROUPS_MAX);
    assert_eq!(controller.ana_groups.get(), limits::ANA_GROUPS_MAX);
    assert_ne!(controller.events.get() & mask::ANA_CHANGE, 0);
    let namespace = IdentifyNamespace::read_from_bytes(&host.identify(cns::NAMESPACE, 1)).unwrap();
    assert_eq!((namespace.ana_group.get(), namespace.sharing), (7, 1));
    let independent = host.identify(cns::INDEPENDENT_NAMESPACE, 1);
    let independent = IdentifyIndependentNamespace::read_from_bytes(&independent).unwrap();
    assert_eq!(independent.ana_group.get(), 7);
    // The longest log fits the host's buffer, which it sizes by these fields.
    let bytes = 16 + 32 * limits::ANA_GROUPS_MAX + 4 * controller.namespaces_allowed.get();
    assert!(bytes <= limits::TRANSFER_BYTES_MAX);
}

#[test]
fn the_log_has_every_group_with_namespaces() {
    let namespaces = [(1, in_group(5)), (2, in_group(3)), (9, in_group(5))];
    let ana = states(AnaState::NonOptimized, &[(5, AnaState::Inaccessible)]);
    let registry = serving(&namespaces, &[(local(), ana)]);
    let mut host = Host::admin(&registry, Options::default());
    assert_eq!(
        parsed(&mut host, 0),
        (0, vec![(3, 0, 0x02, vec![2]), (5, 0, 0x03, vec![1, 9])])
    );
    assert_eq!(
        parsed(&mut host, AnaHeader::GROUPS_ONLY),
        (0, vec![(3, 0, 0x02, vec![]), (5, 0, 0x03, vec![])])
    );
    // As nvme-cli reads it: the longest log, 4 KiB at a time.
    let mut page = |offset, length| {
        host.run_admin(AdminCommand::GetLogPage(GetLogPage {
            id: log::id::ANA,
            parameter: 0,
            retain_event: true,
            length,
            offset,
            nsid: NSID_ALL,
        }))
    };
    assert_eq!(page(4096, 4096).data, [0; 4096]);
    assert_eq!(page(8192, 16).data, [0; 16]);
    assert_eq!(page(8212, 4).status, Status::INVALID_FIELD.dnr());
    // In parts.
    let whole = ana_log(&mut host, 0, 4096, false);
    let part = host.run_admin(AdminCommand::GetLogPage(GetLogPage {
        id: log::id::ANA,
        parameter: 0,
        retain_event: false,
        length: 8,
        offset: 48,
        nsid: NSID_ALL,
    }));
    assert_eq!(part.data, whole[48..56]);
}

#[test]
fn change_counts_follow_what_changed() {
    let two = [(1, in_group(1)), (2, in_group(2))];
    let registry = serving(&two, &[]);
    let mut host = Host::admin(&registry, Options::default());
    assert_eq!(parsed(&mut host, 0).0, 0);
    let lost = |group| {
        [(
            local(),
            states(AnaState::Optimized, &[(group, AnaState::Inaccessible)]),
        )]
    };
    registry.apply(table(&two, &lost(2)));
    assert_eq!(
        parsed(&mut host, 0),
        (1, vec![(1, 0, 1, vec![1]), (2, 1, 3, vec![2])])
    );
    // A group without namespaces changes nothing, and neither does another portal.
    registry.apply(table(&two, &[lost(2), lost(77)].concat()[..1]));
    registry.apply(table(
        &two,
        &[
            lost(2)[0].clone(),
            (other(), states(AnaState::Inaccessible, &[])),
        ],
    ));
    assert_eq!(parsed(&mut host, 0).0, 1);
    // A namespace comes.
    let three = [two[0], two[1], (4, in_group(1))];
    registry.apply(table(&three, &lost(2)));
    assert_eq!(
        parsed(&mut host, 0),
        (2, vec![(1, 1, 1, vec![1, 4]), (2, 1, 3, vec![2])])
    );
    // A reset begins anew.
    let disable = FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: 0,
    };
    assert_eq!(host.fabrics(disable).status, Status::SUCCESS);
    host.enable();
    assert_eq!(parsed(&mut host, 0).0, 0);
}

#[test]
fn io_gets_the_status_of_its_path() {
    let namespaces = [(1, in_group(1)), (2, in_group(2))];
    let registry = serving(&namespaces, &[]);
    let (_admin, mut io) = Host::pair(&registry, Options::default());
    for state in AnaState::ALL {
        registry.apply(table(
            &namespaces,
            &[(local(), states(AnaState::Optimized, &[(1, state)]))],
        ));
        let expected = state.refusal().unwrap_or(Status::SUCCESS);
        assert_eq!(io.read(0, 1).status, expected, "{state:?}");
        assert_eq!(io.write(0, &[7; 512]).status, expected, "{state:?}");
        let flush = |nsid| IoCommand::Flush { nsid }.encode(0);
        assert_eq!(io.run(flush(1), &[]).status, expected, "{state:?}");
        assert_eq!(io.run(flush(2), &[]).status, Status::SUCCESS, "{state:?}");
        let zero = IoCommand::WriteZeroes {
            nsid: 1,
            blocks: Blocks { start: 0, count: 1 },
            fua: false,
            all: false,
            deallocate: false,
        };
        assert_eq!(io.run(zero.encode(0), &[]).status, expected, "{state:?}");
        let discard = IoCommand::DatasetManagement {
            nsid: 1,
            ranges: 1,
            deallocate: true,
        };
        assert_eq!(
            io.run(discard.encode(0), &[0; 16]).status,
            expected,
            "{state:?}"
        );
    }
    assert_eq!(io.closed, None);
}

#[test]
fn a_lost_path_hides_the_blocks_in_use() {
    let lost = states(AnaState::Inaccessible, &[]);
    let registry = serving(&[(1, in_group(1))], &[(local(), lost)]);
    let mut host = Host::admin(&registry, Options::default());
    let namespace = IdentifyNamespace::read_from_bytes(&host.identify(cns::NAMESPACE, 1)).unwrap();
    assert_eq!((namespace.size.get(), namespace.used.get()), (BLOCKS, 0));
}

#[test]
fn changes_are_told_by_the_event_that_they_are() {
    let one = [(1, in_group(1))];
    let registry = serving(&one, &[]);
    let mut admin = Host::admin(&registry, Options::default());
    enable_events(&mut admin);
    let request = AdminCommand::AsyncEventRequest.encode(0);
    let told = |admin: &mut Host, table: Table| {
        while admin.connection.in_flight() < 2 {
            admin.start(request, &[]);
        }
        registry.apply(table);
        admin.tick();
        let events: Vec<AsyncEvent> = admin
            .done
            .drain(..)
            .map(|done| AsyncEvent::parse(u32::try_from(done.result).unwrap()))
            .collect();
        for event in &events {
            admin.run_admin(AdminCommand::GetLogPage(GetLogPage {
                id: event.log_page,
                parameter: 0,
                retain_event: false,
                length: 4096,
                offset: 0,
                nsid: NSID_ALL,
            }));
        }
        events
    };
    let at = |state| vec![(local(), states(state, &[]))];
    let moved = [(1, in_group(2))];
    let more = [moved[0], (2, in_group(2))];
    let elsewhere = [(other(), states(AnaState::Change, &[]))];
    let empty_group = [(
        local(),
        states(AnaState::Optimized, &[(9, AnaState::Change)]),
    )];
    for (what, table, events) in [
        (
            "state",
            table(&one, &at(AnaState::NonOptimized)),
            vec![AsyncEvent::ANA_CHANGE],
        ),
        (
            "state again",
            table(&one, &at(AnaState::Optimized)),
            vec![AsyncEvent::ANA_CHANGE],
        ),
        ("group", table(&moved, &[]), vec![AsyncEvent::ANA_CHANGE]),
        (
            "new namespace",
            table(&more, &[]),
            vec![AsyncEvent::NAMESPACE_ATTRIBUTES],
        ),
        (
            "both",
            table(&moved, &at(AnaState::Inaccessible)),
            vec![AsyncEvent::NAMESPACE_ATTRIBUTES, AsyncEvent::ANA_CHANGE],
        ),
        ("back", table(&moved, &[]), vec![AsyncEvent::ANA_CHANGE]),
        ("other portal", table(&moved, &elsewhere), vec![]),
        (
            "group without namespaces",
            table(&moved, &empty_group),
            vec![],
        ),
    ] {
        assert_eq!(told(&mut admin, table), events, "{what}");
    }
}

#[test]
fn an_event_comes_again_only_after_its_log_was_read() {
    let one = [(1, in_group(1))];
    let registry = serving(&one, &[]);
    let mut admin = Host::admin(&registry, Options::default());
    enable_events(&mut admin);
    let request = AdminCommand::AsyncEventRequest.encode(0);
    admin.start(request, &[]);
    admin.start(request, &[]);
    let switch = |state| registry.apply(table(&one, &[(local(), states(state, &[]))]));
    switch(AnaState::Inaccessible);
    admin.tick();
    assert_eq!(admin.done.drain(..).count(), 1);
    switch(AnaState::Optimized);
    admin.tick();
    assert!(admin.done.is_empty());
    ana_log(&mut admin, 0, 4096, true);
    assert!(admin.done.is_empty(), "the event was to be kept");
    ana_log(&mut admin, 0, 4096, false);
    assert_eq!(admin.done.drain(..).count(), 1);
}

#[test]
fn states_belong_to_the_portal_that_the_host_reached() {
    let any_v4: SocketAddr = "0.0.0.0:4420".parse().unwrap();
    let any_v6: SocketAddr = "[::]:4420".parse().unwrap();
    let away: SocketAddr = "0.0.0.0:4421".parse().unwrap();
    let lost = || states(AnaState::Inaccessible, &[]);
    for (portals, of, expected) in [
        (vec![local()], local(), 3),
        (vec![any_v4], any_v4, 3),
        (vec![any_v6], any_v6, 3),
        // The exact one is the portal, not the one of all addresses.
        (vec![any_v4, local()], any_v4, 1),
        (vec![any_v4, local()], local(), 3),
        (vec![any_v4, away], away, 1),
    ] {
        let mut table = Table::new(portals.iter().copied().map(Into::into).collect());
        let served = subsystem(Access::Any, &[(1, in_group(1))]);
        table.add(nqn(SUBSYSTEM), served).unwrap();
        table.set_rules(rules(&[(of, lost())])).unwrap();
        let registry = Registry::new();
        registry.apply(table);
        let mut host = Host::admin(&Arc::new(registry), Options::default());
        assert_eq!(
            parsed(&mut host, 0).1,
            [(1, 0, expected, vec![1])],
            "{portals:?} {of}"
        );
    }
}

#[test]
fn groups_are_checked() {
    let mut table = Table::new(vec![local().into()]);
    for group in [0, limits::ANA_GROUPS_MAX + 1] {
        let namespace = Namespace {
            volume: VolumeKey(1),
            ..in_group(group)
        };
        let added = table.add(nqn(SUBSYSTEM), subsystem(Access::Any, &[(1, namespace)]));
        assert_eq!(added, Err(TableError::AnaGroup { group }));
        let states = AnaStates {
            groups: BTreeMap::from([(group, AnaState::Change)]),
            ..AnaStates::default()
        };
        assert_eq!(
            table.set_rules(rules(&[(local(), states)])),
            Err(TableError::AnaGroup { group })
        );
    }
}

/// An admin queue by a portal, at a time.
fn connected(registry: &Arc<Registry>, portal: impl Into<Portal>, now_ms: u64) -> Host {
    let mut host = Host::raw(registry, Options::default());
    host.connection = Connection::new(Arc::clone(registry), portal, now_ms);
    host.now_ms = now_ms;
    host.initialise();
    let done = host.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST);
    assert_eq!(done.status, Status::SUCCESS);
    host.enable();
    host
}

/// The state of the only group.
fn state(host: &mut Host) -> u8 {
    let (_, groups) = parsed(host, 0);
    groups[0].2
}

#[test]
fn the_way_within_the_process_is_optimized_whatever_the_portals_are() {
    const OPTIMIZED: u8 = 1;
    let all = states(AnaState::Inaccessible, &[]);
    let registry = serving(
        &[(1, in_group(1))],
        &[(local(), all.clone()), (other(), all)],
    );
    let mut host = connected(&registry, Portal::LOCAL, 0);
    assert_eq!(state(&mut host), OPTIMIZED);
    let mut without = Table::new(Vec::new());
    let served = subsystem(Access::Any, &[(1, in_group(1))]);
    without.add(nqn(SUBSYSTEM), served).unwrap();
    registry.apply(without);
    host.tick();
    assert_eq!(host.closed, None);
    assert_eq!(state(&mut host), OPTIMIZED);
}

#[test]
fn a_path_that_was_lost_rests_before_it_is_optimized_again() {
    const OPTIMIZED: u8 = 1;
    const NON_OPTIMIZED: u8 = 2;
    let registry = serving(&[(1, in_group(1))], &[]);
    let mut stays = connected(&registry, other(), 0);
    drop(connected(&registry, local(), 0));
    let mut back = connected(&registry, local(), 1000);
    enable_events(&mut back);
    assert_eq!(
        (state(&mut back), state(&mut stays)),
        (NON_OPTIMIZED, OPTIMIZED)
    );
    let wait = back.start(AdminCommand::AsyncEventRequest.encode(0), &[]);
    back.now_ms = 1000 + limits::PATH_REST_MS - 1;
    back.tick();
    assert!(back.done.is_empty());
    // What is served may change meanwhile, and does so without the path's help.
    let mut changed = table(&[(1, in_group(1)), (2, in_group(1))], &[]);
    changed.set_rules(rules(&[])).unwrap();
    registry.apply(changed);
    assert_eq!(state(&mut back), NON_OPTIMIZED);
    back.now_ms += 1;
    back.tick();
    let done = back.done.pop_front().unwrap();
    assert_eq!(done.cid, wait);
    assert_eq!(state(&mut back), OPTIMIZED);

    // It goes on, as it does when it is lost again.
    drop(back);
    assert_eq!(
        state(&mut connected(&registry, local(), 9000)),
        NON_OPTIMIZED
    );
}

#[test]
fn paths_rest_only_when_they_were_lost_lately_and_there_is_another() {
    const OPTIMIZED: u8 = 1;
    let registry = serving(&[(1, in_group(1))], &[]);
    // The only path.
    drop(connected(&registry, local(), 0));
    assert_eq!(state(&mut connected(&registry, local(), 1)), OPTIMIZED);
    let _stays = connected(&registry, other(), 0);
    // The first time.
    let mut orderly = connected(&registry, local(), limits::LOST_PATH_MS + 1);
    assert_eq!(state(&mut orderly), OPTIMIZED);
    // It was disconnected.
    let shutdown = orderly.fabrics(FabricsCommand::PropertySet {
        offset: property::CC,
        wide: false,
        value: 0x0046_4001,
    });
    assert_eq!(shutdown.status, Status::SUCCESS);
    drop(orderly);
    let mut later = connected(&registry, local(), limits::LOST_PATH_MS + 2);
    assert_eq!(state(&mut later), OPTIMIZED);
    // Nobody has told yet that the other connection is dead.
    let silent_ms = limits::LOST_PATH_MS + 2 + limits::SILENT_MS;
    assert_ne!(
        state(&mut connected(&registry, local(), silent_ms)),
        OPTIMIZED
    );
}
