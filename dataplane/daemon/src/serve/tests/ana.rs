//! Volumes and portals change their ANA groups under connected hosts.

use roadstead_nvme::command::{AdminCommand, GetLogPage, NSID_ALL};
use roadstead_nvme::event::{AsyncEvent, mask};
use roadstead_nvme::log::{self, AnaGroup, AnaHeader};
use roadstead_nvme::{AnaState, Portal, Status, feature};
use roadstead_target::{AnaStates, PortalRules};
use zerocopy::FromBytes;

use super::super::HostAccess;
use super::host::{Host, Options};
use super::{Fixture, NQN, Setup};

/// The group of the only namespace and its state, as the log says; reading it lets the next event come.
fn group(admin: &mut Host) -> (u32, AnaState) {
    let page = GetLogPage {
        id: log::id::ANA,
        parameter: 0,
        retain_event: false,
        length: 4096,
        offset: 0,
        nsid: NSID_ALL,
    };
    let done = admin.run(AdminCommand::GetLogPage(page).encode(0), &[]);
    assert_eq!(done.status, Status::SUCCESS);
    let (header, rest) = AnaHeader::read_from_prefix(&done.data).unwrap();
    assert_eq!(header.groups.get(), 1);
    let (group, _) = AnaGroup::read_from_prefix(rest).unwrap();
    (group.id.get(), AnaState::from_code(group.state).unwrap())
}

/// Waits for the answer to the request for events, and asks for the next one.
fn told(admin: &mut Host, request: &mut u16) -> AsyncEvent {
    let event = admin.wait(*request).unwrap().result;
    *request = admin.start(AdminCommand::AsyncEventRequest.encode(0), &[]);
    AsyncEvent::parse(u32::try_from(event).unwrap())
}

#[test]
fn a_host_is_told_of_another_group_and_of_another_state_of_it() {
    let fixture = Fixture::start(&Setup {
        reactors: 2,
        ..Setup::default()
    });
    let rules = |group: u32| {
        let states = AnaStates {
            groups: [(group, AnaState::NonOptimized)].into(),
            ..AnaStates::default()
        };
        PortalRules {
            ana: [(Portal::from(fixture.address), states)].into(),
            ..PortalRules::default()
        }
    };
    let in_group = |group: u32| {
        let mut exports = fixture.exports(HostAccess::Any);
        exports.subsystems[0].ana_groups.insert(1, group);
        exports
    };
    fixture.server.set_rules(rules(2)).unwrap();
    let (mut admin, mut queue) = Host::pair(fixture.address, NQN, Options::default());
    let events = AdminCommand::SetFeatures {
        id: feature::id::ASYNC_EVENT_CONFIGURATION,
        save: false,
        nsid: 0,
        value: mask::ANA_CHANGE,
    };
    assert_eq!(admin.run(events.encode(0), &[]).status, Status::SUCCESS);
    assert_eq!(group(&mut admin), (1, AnaState::Optimized));
    let mut request = admin.start(AdminCommand::AsyncEventRequest.encode(0), &[]);
    for (volume, portal, state) in [
        (2, 2, AnaState::NonOptimized),
        (1, 2, AnaState::Optimized),
        (1, 1, AnaState::NonOptimized),
        (2, 1, AnaState::Optimized),
    ] {
        fixture.server.set_exports(in_group(volume)).unwrap();
        fixture.server.set_rules(rules(portal)).unwrap();
        assert_eq!(told(&mut admin, &mut request), AsyncEvent::ANA_CHANGE);
        assert_eq!(group(&mut admin), (volume, state));
        assert_eq!(
            queue.flush(),
            Status::SUCCESS,
            "the path carries I/O all the while"
        );
    }
}
