//! Reservations over reactors and restarts.

use std::time::{Duration, Instant};

use roadstead_nvme::command::{AcquireAction, RegisterAction, ReservationCommand};
use roadstead_nvme::reservation::{AcquireData, RegisterData, ReservationType};
use roadstead_nvme::{IoCommand, Status};
use zerocopy::IntoBytes;

use super::host::{Host, Options};
use super::{Fixture, Kind, NQN, Setup};

const CONFLICT: Status = Status::RESERVATION_CONFLICT.dnr();
const EXCLUSIVE: ReservationType = ReservationType::WriteExclusive;

fn pair(fixture: &Fixture, host: u8) -> (Host, Host) {
    let options = Options {
        host,
        ..Options::default()
    };
    Host::pair(fixture.address, NQN, options)
}

fn register(queue: &mut Host, key: u64, persist: bool) -> Status {
    let command = ReservationCommand::Register {
        action: RegisterAction::Register,
        ignore_key: false,
        persist: Some(persist),
    };
    let data = RegisterData {
        current_key: 0.into(),
        new_key: key.into(),
    };
    let sqe = IoCommand::Reservation { nsid: 1, command }.encode(0);
    queue.run(sqe, data.as_bytes()).status
}

fn acquire(queue: &mut Host, action: AcquireAction, key: u64, victim: u64) -> Status {
    let command = ReservationCommand::Acquire {
        action,
        kind: EXCLUSIVE,
    };
    let data = AcquireData {
        current_key: key.into(),
        preempt_key: victim.into(),
    };
    let sqe = IoCommand::Reservation { nsid: 1, command }.encode(0);
    queue.run(sqe, data.as_bytes()).status
}

#[test]
fn a_reservation_outlives_the_daemon_when_it_is_to() {
    for persist in [false, true] {
        let setup = Setup {
            kind: Kind::File,
            reactors: 2,
            ..Setup::default()
        };
        let fixture = Fixture::start(&setup);
        {
            let (_a, mut a) = pair(&fixture, 1);
            let (_b, mut b) = pair(&fixture, 2);
            assert_eq!(register(&mut a, 11, persist), Status::SUCCESS);
            assert_eq!(register(&mut b, 22, persist), Status::SUCCESS);
            let acquired = acquire(&mut a, AcquireAction::Acquire, 11, 0);
            assert_eq!(acquired, Status::SUCCESS);
            assert_eq!(a.write(0, &[1; 4096], 4096, false), Status::SUCCESS);
            assert_eq!(b.write(0, &[1; 4096], 4096, false), CONFLICT);
        }
        let fixture = fixture.restart(&setup);
        let (_b, mut b) = pair(&fixture, 2);
        let expected = if persist { CONFLICT } else { Status::SUCCESS };
        assert_eq!(b.write(0, &[2; 4096], 4096, false), expected);
        // The registration is there as well, or not.
        let expected = if persist { Status::SUCCESS } else { CONFLICT };
        let preempted = acquire(&mut b, AcquireAction::Preempt, 22, 11);
        assert_eq!(preempted, expected);
        assert_eq!(b.write(0, &[3; 4096], 4096, false), Status::SUCCESS);
    }
}

/// A host writes as fast as it can and is preempted. What the other host writes after its command completed stays.
#[test]
fn no_write_of_a_preempted_host_comes_later() {
    for kind in [Kind::Memory, Kind::File] {
        let fixture = Fixture::start(&Setup {
            kind,
            reactors: 2,
            ..Setup::default()
        });
        for round in 0..8_u8 {
            let (_a, mut a) = pair(&fixture, 1);
            let (_b, mut b) = pair(&fixture, 2);
            assert_eq!(register(&mut a, 11, false), Status::SUCCESS);
            assert_eq!(register(&mut b, 22, false), Status::SUCCESS);
            let acquired = acquire(&mut b, AcquireAction::Acquire, 22, 0);
            assert_eq!(acquired, Status::SUCCESS);
            let sizes = [4096, 16384, 65536];
            let len = sizes[usize::from(round) % sizes.len()];
            let flood = std::thread::spawn(move || {
                let deadline = Instant::now() + Duration::from_secs(10);
                loop {
                    let count = u32::try_from(len / 4096).unwrap();
                    let cids: Vec<u16> = (0..32)
                        .map(|_| b.start(Host::write_command(0, count, false), &vec![0xbb; len]))
                        .collect();
                    let ends: Vec<Status> = cids
                        .into_iter()
                        .map(|cid| b.wait(cid).unwrap().status)
                        .collect();
                    if ends.contains(&CONFLICT) {
                        return ends.iter().all(|end| *end == CONFLICT || end.is_success());
                    }
                    assert!(Instant::now() < deadline, "never refused");
                }
            });
            std::thread::sleep(Duration::from_millis(5 + u64::from(round)));
            let preempted = acquire(&mut a, AcquireAction::PreemptAndAbort, 11, 22);
            assert_eq!(preempted, Status::SUCCESS);
            let own = vec![round; len];
            assert_eq!(a.write(0, &own, 4096, false), Status::SUCCESS);
            assert!(flood.join().unwrap());
            let count = u32::try_from(len / 4096).unwrap();
            assert!(a.read(0, count, 4096).data == own, "{kind:?} round {round}");
            let command = ReservationCommand::Release {
                action: roadstead_nvme::command::ReleaseAction::Clear,
            };
            let sqe = IoCommand::Reservation { nsid: 1, command }.encode(0);
            let cleared = a.run(sqe, &11_u64.to_le_bytes()).status;
            assert_eq!(cleared, Status::SUCCESS);
        }
    }
}
