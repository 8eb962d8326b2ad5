//! Messages, reads and writes.

use roadstead_verbs::{Kind, Remote};

use crate::lab::{SLOTS, connected, lab, pattern};

#[test]
fn messages_go_both_ways_in_order_and_their_slots_come_round() {
    let Some(lab) = lab() else { return };
    let (mut client, mut server, _listener) = connected(&lab);
    for round in 0..8_u8 {
        let count = u8::try_from(SLOTS).unwrap() / 2;
        for number in 0..count {
            let head = [round, number, 3, 4];
            client.pair.send(7, &head, None, None).unwrap();
        }
        client.pair.flush().unwrap();
        for number in 0..count {
            assert_eq!(server.message(), [round, number, 3, 4]);
            server.pair.send(1, &[number; 16], None, None).unwrap();
        }
        server.part.receives.flush().unwrap();
        server.pair.flush().unwrap();
        for number in 0..count {
            assert_eq!(client.message(), [number; 16]);
        }
        client.part.receives.flush().unwrap();
    }
    let counts = client.pair.counts();
    assert_eq!((counts.requests, counts.doorbells), (128, 8));
    assert_eq!(counts.messages, 128);
    assert!(counts.completions <= 16, "{counts:?}");
    assert!(client.finished.iter().all(|one| one.status.is_success()));
    assert!(client.finished.iter().all(|one| one.token == 7));
}

#[test]
fn a_message_carries_a_buffer_after_its_head() {
    let Some(lab) = lab() else { return };
    let (mut client, mut server, _listener) = connected(&lab);
    let head: Vec<u8> = (0..64).collect();
    let data = client.part.filled(4096, 5);
    client
        .pair
        .send(3, &head, Some((data, 4096)), None)
        .unwrap();
    client.pair.flush().unwrap();
    let message = server.message();
    assert_eq!(message[..64], head);
    assert_eq!(message[64..], pattern(4096, 5));
    client.wait_finished(1);
    let one = client.finished.remove(0);
    assert_eq!((one.token, one.kind), (3, Kind::Send));
    assert!(one.status.is_success() && one.buffer.is_some());
}

#[test]
fn memory_of_the_other_end_is_read_and_written() {
    let Some(lab) = lab() else { return };
    let (client, mut server, _listener) = connected(&lab);
    let key = client.part.region.remote_key();
    for length in [512_usize, 4096, 65_536, 1 << 20] {
        let there = client.part.filled(length, length + 1);
        let remote = Remote {
            address: there.as_ptr().addr() as u64,
            key,
        };
        let here = server.part.pool.alloc(length).unwrap();
        let bytes = u32::try_from(length).unwrap();
        server.pair.read(11, here, bytes, remote).unwrap();
        server.pair.flush().unwrap();
        server.wait_finished(1);
        let one = server.finished.remove(0);
        assert_eq!((one.token, one.kind), (11, Kind::Read));
        assert!(one.status.is_success(), "{}", one.status);
        assert!(one.buffer.unwrap()[..] == pattern(length, length + 1)[..]);

        let here = server.part.filled(length, length + 2);
        server.pair.write(12, here, bytes, remote).unwrap();
        server.pair.flush().unwrap();
        server.wait_finished(1);
        let one = server.finished.remove(0);
        assert_eq!((one.token, one.kind), (12, Kind::Write));
        assert!(one.status.is_success() && one.buffer.is_some());
        assert!(there[..] == pattern(length, length + 2)[..]);
    }
}

#[test]
fn a_write_and_the_message_after_it_arrive_in_order_with_one_doorbell() {
    let Some(lab) = lab() else { return };
    let (mut client, mut server, _listener) = connected(&lab);
    let key = client.part.region.remote_key();
    for number in 0..100_u64 {
        let there = client.part.pool.alloc(4096).unwrap();
        let address = there.as_ptr().addr() as u64;
        let here = server.part.filled(4096, number as usize);
        server
            .pair
            .write(number, here, 4096, Remote { address, key })
            .unwrap();
        server.pair.send(number, &[1; 16], None, None).unwrap();
        server.pair.flush().unwrap();
        assert_eq!(client.message(), [1; 16]);
        assert!(there[..] == pattern(4096, number as usize)[..]);
        client.part.receives.flush().unwrap();
        server.wait_finished(2);
        for (one, kind) in server.finished.drain(..).zip([Kind::Write, Kind::Send]) {
            assert!(one.status.is_success());
            assert_eq!((one.token, one.kind), (number, kind));
            assert_eq!(one.buffer.is_some(), kind == Kind::Write);
        }
    }
    let counts = server.pair.counts();
    assert_eq!((counts.requests, counts.doorbells), (200, 100));
    assert_eq!(counts.completions, 100);
}

#[test]
fn a_wrong_key_fails_and_gives_the_buffer_back() {
    let Some(lab) = lab() else { return };
    let (client, mut server, _listener) = connected(&lab);
    let key = client.part.region.remote_key() ^ 0x00f0_0000;
    let remote = Remote { address: 4096, key };
    let here = server.part.pool.alloc(4096).unwrap();
    server.pair.read(1, here, 4096, remote).unwrap();
    server.pair.flush().unwrap();
    server.wait_finished(1);
    let one = server.finished.remove(0);
    assert!(
        !one.status.is_success() && !one.status.is_flushed(),
        "{}",
        one.status
    );
    assert!(one.buffer.is_some());
    println!("status of a wrong key: {} ({})", one.status, one.status.0);
}

/// Memory that is registered by a program cannot be invalidated by the other end; what can is a kernel's.
#[test]
fn memory_of_a_program_is_not_invalidated() {
    let Some(lab) = lab() else { return };
    let (mut client, mut server, _listener) = connected(&lab);
    let key = client.part.region.remote_key();
    server.pair.send(5, &[2; 16], None, Some(key)).unwrap();
    server.pair.flush().unwrap();
    client.wait_received(1);
    println!("a message that invalidates: {:?}", client.received);
    assert!(client.received.iter().all(|one| {
        if one.status.is_success() {
            one.invalidated_key == Some(key)
        } else {
            one.length == 0
        }
    }));
}
