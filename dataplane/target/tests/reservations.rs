//! Reservations over connections: who may do what, who is told, and what is waited for.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::sync::Arc;

use common::{Host, Options, SUBSYSTEM, namespace, registry, subsystem, table};
use roadstead_nvme::command::{
    AcquireAction, Blocks, CopyRange, DsmRange, GetLogPage, NSID_ALL, RegisterAction,
    ReleaseAction, ReservationCommand,
};
use roadstead_nvme::event::AsyncEvent;
use roadstead_nvme::feature::{Select, id as feature};
use roadstead_nvme::log::id as log;
use roadstead_nvme::reservation::{
    AcquireData, Notice, NotificationLog, RegisterData, ReleaseData, ReportHeader, ReservationType,
};
use roadstead_nvme::{AdminCommand, DataPointer, IoCommand, Sqe, Status};
use roadstead_target::{Access, IoOp, Registry};
use roadstead_tcp::Pdu;
use roadstead_tcp::pdu::H2cData;
use uuid::Uuid;
use zerocopy::{FromBytes, IntoBytes};

const CONFLICT: Status = Status::RESERVATION_CONFLICT.dnr();
const EXCLUSIVE: ReservationType = ReservationType::WriteExclusive;

fn sqe(command: ReservationCommand) -> Sqe {
    IoCommand::Reservation { nsid: 1, command }.encode(0)
}

fn register(host: &mut Host, action: RegisterAction, current: u64, new: u64) -> Status {
    let command = ReservationCommand::Register {
        action,
        ignore_key: false,
        persist: None,
    };
    let data = RegisterData {
        current_key: current.into(),
        new_key: new.into(),
    };
    host.run(sqe(command), data.as_bytes()).status
}

fn acquire_command(
    action: AcquireAction,
    kind: ReservationType,
    key: u64,
    victim: u64,
) -> (Sqe, AcquireData) {
    let command = ReservationCommand::Acquire { action, kind };
    let data = AcquireData {
        current_key: key.into(),
        preempt_key: victim.into(),
    };
    (sqe(command), data)
}

fn acquire(host: &mut Host, kind: ReservationType, key: u64) -> Status {
    let (sqe, data) = acquire_command(AcquireAction::Acquire, kind, key, 0);
    host.run(sqe, data.as_bytes()).status
}

fn preempt(host: &mut Host, kind: ReservationType, key: u64, victim: u64) -> Status {
    let (sqe, data) = acquire_command(AcquireAction::Preempt, kind, key, victim);
    host.run(sqe, data.as_bytes()).status
}

fn release(host: &mut Host, action: ReleaseAction, key: u64) -> Status {
    let data = ReleaseData {
        current_key: key.into(),
    };
    host.run(sqe(ReservationCommand::Release { action }), data.as_bytes())
        .status
}

fn pair(registry: &Arc<Registry>, host: u8, in_capsule: u32) -> (Host, Host) {
    let options = Options {
        host,
        in_capsule,
        ..Options::default()
    };
    let (admin, mut io) = Host::pair(registry, options);
    io.memory.immediate = in_capsule > 0;
    (admin, io)
}

/// Every I/O command with what it needs to succeed, and whether it writes.
fn commands() -> Vec<(IoCommand, usize, Vec<u8>, bool)> {
    let (nsid, fua) = (1, false);
    let blocks = Blocks { start: 4, count: 1 };
    let zeroes = |all| IoCommand::WriteZeroes {
        nsid,
        blocks,
        fua,
        deallocate: true,
        all,
    };
    let trim = |deallocate| IoCommand::DatasetManagement {
        nsid,
        ranges: 1,
        deallocate,
    };
    let copy = IoCommand::Copy {
        nsid,
        start: 4,
        ranges: 1,
        format: 0,
        fua,
    };
    let range = DsmRange::new(4, 1).as_bytes().to_vec();
    let source = CopyRange::new(9, 1).as_bytes().to_vec();
    let none = Vec::new;
    vec![
        (IoCommand::Read { nsid, blocks, fua }, 512, none(), false),
        (IoCommand::Verify { nsid, blocks, fua }, 0, none(), false),
        (
            IoCommand::Compare { nsid, blocks, fua },
            0,
            vec![0; 512],
            false,
        ),
        (
            IoCommand::Write { nsid, blocks, fua },
            0,
            vec![0; 512],
            true,
        ),
        (zeroes(false), 0, none(), true),
        (zeroes(true), 0, none(), true),
        (trim(true), 0, range.clone(), true),
        (trim(false), 0, range, true),
        (IoCommand::Flush { nsid }, 0, none(), true),
        (copy, 0, source, true),
    ]
}

fn try_all(host: &mut Host, read: bool, write: bool, what: &str) {
    for (command, length, data, writes) in commands() {
        let mut sqe = command.encode(0);
        if length > 0 {
            let length = u32::try_from(length).unwrap();
            sqe.dptr = DataPointer::Transport { length }.encode();
        }
        let may = if writes { write } else { read };
        let expected = if may { Status::SUCCESS } else { CONFLICT };
        assert_eq!(host.run(sqe, &data).status, expected, "{what}: {command:?}");
    }
    // A pair needs both.
    let blocks = Blocks { start: 4, count: 1 };
    let mut one = IoCommand::Compare {
        nsid: 1,
        blocks,
        fua: false,
    }
    .encode(0);
    one.flags |= Sqe::FLAGS_FUSE_FIRST;
    let mut two = IoCommand::Write {
        nsid: 1,
        blocks,
        fua: false,
    }
    .encode(0);
    two.flags |= Sqe::FLAGS_FUSE_SECOND;
    host.start(one, &[0; 512]);
    let two = host.start(two, &[0; 512]);
    host.settle();
    let done = host.done.iter().find(|done| done.cid == two).unwrap();
    let is_failed =
        |status: Status| matches!(status, CONFLICT) || status == Status::ABORTED_FAILED_FUSED.dnr();
    assert_eq!(is_failed(done.status), !(read && write), "{what}: fused");
    host.done.clear();
}

#[test]
fn every_command_of_every_host_goes_by_the_table() {
    for in_capsule in [0, 8192] {
        let registry = registry();
        let (_a, mut holder) = pair(&registry, 1, in_capsule);
        let (_b, mut registrant) = pair(&registry, 2, in_capsule);
        let (_c, mut other) = pair(&registry, 3, in_capsule);
        for (host, key) in [(&mut holder, 11), (&mut registrant, 22)] {
            assert_eq!(
                register(host, RegisterAction::Register, 0, key),
                Status::SUCCESS
            );
        }
        for host in [&mut holder, &mut registrant, &mut other] {
            try_all(host, true, true, "no reservation");
        }
        for kind in ReservationType::ALL {
            assert_eq!(acquire(&mut holder, kind, 11), Status::SUCCESS);
            try_all(&mut holder, true, true, "holder");
            let all = kind.is_for_registrants();
            let read = !kind.is_exclusive_access();
            try_all(
                &mut registrant,
                read || all,
                all,
                &format!("{kind:?}, registrant"),
            );
            try_all(&mut other, read, false, &format!("{kind:?}, other"));
            // The same host by another controller has the same rights.
            let (_d, mut second) = pair(&registry, 1, in_capsule);
            try_all(&mut second, true, true, "holder's other controller");
            assert_eq!(acquire(&mut other, kind, 11), CONFLICT, "not registered");
            let action = ReleaseAction::Release(kind);
            assert_eq!(release(&mut holder, action, 11), Status::SUCCESS);
            try_all(&mut other, true, true, "released");
        }
    }
}

#[test]
fn commands_that_are_refused() {
    let registry = registry();
    let (_admin, mut host) = pair(&registry, 1, 8192);
    let invalid = Status::INVALID_FIELD.dnr();
    assert_eq!(
        register(&mut host, RegisterAction::Unregister, 0, 0),
        CONFLICT
    );
    assert_eq!(register(&mut host, RegisterAction::Register, 0, 0), invalid);
    assert_eq!(acquire(&mut host, EXCLUSIVE, 0), CONFLICT);
    assert_eq!(release(&mut host, ReleaseAction::Clear, 0), CONFLICT);
    let command = ReservationCommand::Register {
        action: RegisterAction::Register,
        ignore_key: false,
        persist: None,
    };
    let length = Status::SGL_LENGTH_INVALID.dnr();
    assert_eq!(host.run(sqe(command), &[0; 8]).status, length);
    let mut nowhere = sqe(command);
    for nsid in [0, 2, NSID_ALL] {
        nowhere.nsid = nsid.into();
        let status = host.run(nowhere, &[0; 16]).status;
        assert_eq!(status, Status::INVALID_NAMESPACE.dnr());
    }
    let report = |length: u32, extended| {
        let command = ReservationCommand::Report {
            length: u64::from(length),
            extended,
        };
        let mut sqe = sqe(command);
        sqe.dptr = DataPointer::Transport { length }.encode();
        sqe
    };
    let short = Status::HOST_ID_INCONSISTENT.dnr();
    assert_eq!(host.run(report(64, false), &[]).status, short);
    let mut wrong = report(64, true);
    wrong.dptr = DataPointer::Transport { length: 60 }.encode();
    assert_eq!(host.run(wrong, &[]).status, length);
    let mut huge = report(4096, true);
    huge.cdw10 = u32::MAX.into();
    assert_eq!(host.run(huge, &[]).status, invalid);
}

#[test]
fn the_report_shows_registrants_and_the_holder() {
    let registry = registry();
    let (_a, mut one) = pair(&registry, 1, 8192);
    let (_b, mut two) = pair(&registry, 2, 8192);
    register(&mut one, RegisterAction::Register, 0, 11);
    register(&mut two, RegisterAction::Register, 0, 22);
    assert_eq!(acquire(&mut two, EXCLUSIVE, 22), Status::SUCCESS);
    for length in [4_u32, 24, 64, 128, 192, 4096] {
        let command = ReservationCommand::Report {
            length: u64::from(length),
            extended: true,
        };
        let mut sqe = sqe(command);
        sqe.dptr = DataPointer::Transport { length }.encode();
        let done = one.run(sqe, &[]);
        assert_eq!(
            (done.status, done.data.len()),
            (Status::SUCCESS, length as usize)
        );
        let mut whole = done.data.clone();
        whole.resize(192, 0);
        if length < 192 {
            continue;
        }
        let (header, _) = ReportHeader::read_from_prefix(&whole).unwrap();
        assert_eq!(header.generation.get(), 2);
        assert_eq!(
            (header.kind, header.registered.get(), header.persist),
            (1, 2, 0)
        );
        for (at, holder, key, host) in [(64, 0, 11, 1), (128, 1, 22, 2)] {
            let mut entry = vec![0xff, 0xff, holder, 0, 0, 0, 0, 0, key, 0, 0, 0, 0, 0, 0, 0];
            entry.extend([host; 16]);
            assert_eq!(whole[at..at + 32], entry);
        }
    }
}

fn read_log(admin: &mut Host, retain_event: bool) -> NotificationLog {
    let page = GetLogPage {
        id: log::RESERVATION_NOTIFICATION,
        parameter: 0,
        retain_event,
        length: 64,
        offset: 0,
        nsid: 0,
    };
    let done = admin.run_admin(AdminCommand::GetLogPage(page));
    assert_eq!(done.status, Status::SUCCESS);
    NotificationLog::read_from_bytes(&done.data).unwrap()
}

/// What the admin queue's event request ended with after a look.
fn event(admin: &mut Host, cid: u16) -> Option<AsyncEvent> {
    admin.tick();
    admin.settle();
    let index = admin.done.iter().position(|done| done.cid == cid)?;
    let done = admin.done.remove(index)?;
    Some(AsyncEvent::parse(u32::try_from(done.result).unwrap()))
}

#[test]
fn hosts_are_told_by_event_and_log() {
    let registry = registry();
    let (mut admin_a, mut a) = pair(&registry, 1, 8192);
    let (mut admin_b, mut b) = pair(&registry, 2, 8192);
    register(&mut a, RegisterAction::Register, 0, 11);
    register(&mut b, RegisterAction::Register, 0, 22);
    let wait = AdminCommand::AsyncEventRequest.encode(0);
    let mut cid = admin_b.start(wait, &[]);
    assert_eq!(event(&mut admin_b, cid), None);
    // Released: whoever had rights by it is told.
    let kind = ReservationType::WriteExclusiveRegistrants;
    assert_eq!(acquire(&mut a, kind, 11), Status::SUCCESS);
    let action = ReleaseAction::Release(kind);
    assert_eq!(release(&mut a, action, 11), Status::SUCCESS);
    assert_eq!(event(&mut admin_b, cid), Some(AsyncEvent::RESERVATION_LOG));
    assert_eq!(event(&mut admin_a, 0), None);
    assert_eq!(read_log(&mut admin_a, false).kind, 0, "its own doing");
    let kept = read_log(&mut admin_b, true);
    let released = read_log(&mut admin_b, false);
    assert_eq!(kept, released);
    assert_eq!(
        (released.kind, released.nsid.get(), released.available),
        (Notice::ReservationReleased.code(), 1, 0)
    );
    assert_eq!(read_log(&mut admin_b, false).kind, 0);
    // Preempted, with the log not read in between: one event for all.
    cid = admin_b.start(wait, &[]);
    assert_eq!(acquire(&mut b, EXCLUSIVE, 22), Status::SUCCESS);
    assert_eq!(preempt(&mut a, EXCLUSIVE, 11, 22), Status::SUCCESS);
    assert_eq!(event(&mut admin_b, cid), Some(AsyncEvent::RESERVATION_LOG));
    cid = admin_b.start(wait, &[]);
    register(&mut b, RegisterAction::Register, 0, 22);
    assert_eq!(release(&mut a, ReleaseAction::Clear, 11), Status::SUCCESS);
    assert_eq!(event(&mut admin_b, cid), None, "the log was not read");
    let first = read_log(&mut admin_b, false);
    assert_eq!(
        (first.kind, first.available),
        (Notice::RegistrationPreempted.code(), 1)
    );
    let second = read_log(&mut admin_b, false);
    assert_eq!(second.kind, Notice::ReservationPreempted.code());
    assert_eq!(second.count.get(), first.count.get() + 1);
}

#[test]
fn masks_and_persistence_are_features() {
    let registry = registry();
    let (mut admin, mut io) = pair(&registry, 1, 8192);
    let get = |admin: &mut Host, id, nsid, select| {
        let command = AdminCommand::GetFeatures {
            id,
            select,
            nsid,
            value: 0,
        };
        let done = admin.run_admin(command);
        (done.status, done.result)
    };
    let set = |admin: &mut Host, id, nsid, value, save| {
        let command = AdminCommand::SetFeatures {
            id,
            save,
            nsid,
            value,
        };
        admin.run_admin(command).status
    };
    let good = Status::SUCCESS;
    for id in [feature::RESERVATION_MASK, feature::RESERVATION_PERSISTENCE] {
        assert_eq!(get(&mut admin, id, 1, Select::Current), (good, 0));
        assert_eq!(get(&mut admin, id, 1, Select::Capabilities), (good, 0b110));
        let (status, _) = get(&mut admin, id, NSID_ALL, Select::Current);
        assert_eq!(status, Status::INVALID_FIELD.dnr());
        let (status, _) = get(&mut admin, id, 2, Select::Current);
        assert_eq!(status, Status::INVALID_NAMESPACE.dnr());
        let saveable = Status::FEATURE_NOT_SAVEABLE.dnr();
        assert_eq!(set(&mut admin, id, 1, 1, true), saveable);
    }
    // They are told to belong to namespaces.
    let page = GetLogPage {
        id: log::FEATURES,
        parameter: 0,
        retain_event: false,
        length: 1024,
        offset: 0,
        nsid: 0,
    };
    let told = admin.run_admin(AdminCommand::GetLogPage(page)).data;
    for id in [0x82, 0x83] {
        assert_eq!(told[id * 4..id * 4 + 4], [1, 0, 0x10, 0]);
    }
    let mask = feature::RESERVATION_MASK;
    assert_eq!(set(&mut admin, mask, NSID_ALL, 0b1111, false), good);
    assert_eq!(get(&mut admin, mask, 1, Select::Current), (good, 0b1110));
    // Nothing is told through the mask.
    let (_b, mut b) = pair(&registry, 2, 8192);
    register(&mut io, RegisterAction::Register, 0, 11);
    register(&mut b, RegisterAction::Register, 0, 22);
    assert_eq!(release(&mut b, ReleaseAction::Clear, 22), good);
    assert_eq!(read_log(&mut admin, false).kind, 0);
    assert_eq!(set(&mut admin, mask, 1, 0, false), good);
    assert_eq!(get(&mut admin, mask, 1, Select::Current), (good, 0));
    // Persistence is kept before it is said to be so.
    let persistence = feature::RESERVATION_PERSISTENCE;
    assert_eq!(set(&mut admin, persistence, 1, 1, false), good);
    assert_eq!(admin.memory.saved.as_deref().map(<[u8]>::len), Some(8));
    assert_eq!(get(&mut admin, persistence, 1, Select::Current), (good, 1));
    admin.memory.saved = None;
    assert_eq!(set(&mut admin, persistence, 1, 1, false), good);
    assert_eq!(admin.memory.saved, None, "nothing changed");
}

#[test]
fn reservations_survive_what_they_are_to_survive() {
    let uuid = Uuid::from_bytes([9; 16]);
    for persist in [false, true] {
        let registry = registry();
        let (_a, mut a) = pair(&registry, 1, 8192);
        let command = ReservationCommand::Register {
            action: RegisterAction::Register,
            ignore_key: false,
            persist: Some(persist),
        };
        let data = RegisterData {
            current_key: 0.into(),
            new_key: 11.into(),
        };
        assert_eq!(a.run(sqe(command), data.as_bytes()).status, Status::SUCCESS);
        // The command completes when its state is kept.
        let (sqe, data) = acquire_command(AcquireAction::Acquire, EXCLUSIVE, 11, 0);
        let cid = a.start(sqe, data.as_bytes());
        assert_eq!(a.done.iter().any(|done| done.cid == cid), !persist);
        a.settle();
        let kept = a.memory.saved.clone().unwrap_or_default();
        assert_eq!(kept.is_empty(), !persist);

        let next = Registry::new();
        assert_eq!(next.restore_reservations(uuid, &kept), Ok(()));
        assert_eq!(next.restore_reservations(uuid, &[1]), Ok(()), "it is known");
        next.apply(table(&[(
            SUBSYSTEM,
            subsystem(Access::Any, &[(1, namespace(common::BLOCKS))]),
        )]));
        let next = Arc::new(next);
        let (_a, mut a) = pair(&next, 1, 8192);
        let (_b, mut b) = pair(&next, 2, 8192);
        assert_eq!(a.write(0, &[1; 512]).status, Status::SUCCESS);
        let expected = if persist { CONFLICT } else { Status::SUCCESS };
        assert_eq!(b.write(0, &[1; 512]).status, expected);
    }
    assert!(Registry::new().restore_reservations(uuid, &[9; 9]).is_err());
}

#[test]
fn a_failed_save_is_the_commands_failure() {
    let registry = registry();
    let (_a, mut a) = pair(&registry, 1, 8192);
    a.memory.failure = Some(roadstead_target::IoError::Write);
    let command = ReservationCommand::Register {
        action: RegisterAction::Register,
        ignore_key: false,
        persist: Some(true),
    };
    let data = RegisterData {
        current_key: 0.into(),
        new_key: 11.into(),
    };
    let status = a.run(sqe(command), data.as_bytes()).status;
    assert_eq!(status, Status::WRITE_FAULT);
}

#[test]
fn preemption_holds_for_everything_that_starts_later() {
    let registry = registry();
    let (_a, mut a) = pair(&registry, 1, 0);
    let (_b, mut b) = pair(&registry, 2, 0);
    register(&mut a, RegisterAction::Register, 0, 11);
    register(&mut b, RegisterAction::Register, 0, 22);
    // The host was asked for the data of a write; before it comes, the host is preempted.
    let (cid, tag) = b.write_asked_for(1);
    b.wire.bytes.clear();
    assert_eq!(acquire(&mut a, EXCLUSIVE, 11), Status::SUCCESS);
    b.deaf = false;
    let data = H2cData {
        cid,
        tag,
        offset: 0,
        length: 512,
        last: true,
    };
    b.send(&Pdu::H2cData(data), &[1; 512]);
    b.settle();
    assert_eq!(b.done.pop_front().unwrap().status, CONFLICT);
    assert!(b.memory.requests.is_empty());
}

#[test]
fn preempt_and_abort_waits_for_what_the_preempted_have_in_flight() {
    let registry = registry();
    let (_a, mut a) = pair(&registry, 1, 8192);
    let (_b, mut b) = pair(&registry, 2, 8192);
    let (_c, mut c) = pair(&registry, 3, 8192);
    for (host, key) in [(&mut a, 11), (&mut b, 22), (&mut c, 33)] {
        register(host, RegisterAction::Register, 0, key);
        host.memory.immediate = false;
    }
    let write = |start| {
        IoCommand::Write {
            nsid: 1,
            blocks: Blocks { start, count: 1 },
            fua: false,
        }
        .encode(0)
    };
    b.start(write(0), &[1; 512]);
    c.start(write(1), &[1; 512]);
    assert_eq!(acquire(&mut b, EXCLUSIVE, 22), Status::SUCCESS);
    // That settled b's write; another one is on its way.
    let old = b.start(write(2), &[1; 512]);
    let (sqe, data) = acquire_command(AcquireAction::PreemptAndAbort, EXCLUSIVE, 11, 22);
    let cid = a.start(sqe, data.as_bytes());
    a.settle();
    let is_done = |host: &Host, cid| host.done.iter().any(|done| done.cid == cid);
    assert!(!is_done(&a, cid) && a.connection.is_draining() && a.connection.is_waiting());
    // New commands of the preempted are refused already, and do not prolong the wait.
    let refused = b.start(write(3), &[1; 512]);
    let read = IoCommand::Read {
        nsid: 1,
        blocks: Blocks { start: 0, count: 1 },
        fua: false,
    };
    let mut read = read.encode(0);
    read.dptr = DataPointer::Transport { length: 512 }.encode();
    let reading = b.start(read, &[]);
    assert!(is_done(&b, refused) && !is_done(&b, reading));
    let (tag, request, buffer) = b.memory.pending.pop_front().unwrap();
    assert!(matches!(request.op, IoOp::Write));
    b.finish(tag, &request, buffer);
    b.pump();
    assert!(is_done(&b, old));
    a.pump();
    assert!(is_done(&a, cid), "the write ended; the read may go on");
    assert!(!a.connection.is_draining());
    assert!(c.connection.in_flight() > 0, "others are not waited for");
    let done = b.done.iter().find(|done| done.cid == refused).unwrap();
    assert_eq!(done.status, CONFLICT);
}
