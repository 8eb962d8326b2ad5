//! Connections as they end, in every state.

use roadstead_verbs::{Channel, CmEventKind, Remote};

use crate::lab::{
    CLIENT, LIMITS, LISTENER, PATIENCE, Part, connected, event, lab, request, resolved,
};

#[test]
fn whatever_is_dropped_half_way_leaves_nothing() {
    let Some(lab) = lab() else { return };
    let (listening, connecting) = (Channel::new().unwrap(), Channel::new().unwrap());
    let address = lab.next_address();
    let listener = listening.listen(address, LISTENER, 16).unwrap();

    // Before, with and after events.
    drop(connecting.connect(address, CLIENT, PATIENCE).unwrap());
    let id = connecting.connect(address, CLIENT, PATIENCE).unwrap();
    crate::lab::readable(connecting.fd());
    drop(id);
    assert!(connecting.next_event().unwrap().is_none());
    drop(resolved(&connecting, address));

    // A queue pair that never connects.
    let id = resolved(&connecting, address);
    let part = Part::new(id.device().unwrap());
    drop(part.pair(id, CLIENT));

    // The request is dropped unseen; then seen; then with a queue pair; then the other end goes before the answer.
    for state in 0..4 {
        let mut client = part.pair(resolved(&connecting, address), CLIENT);
        client.connect(LIMITS, b"x").unwrap();
        match state {
            0 => {
                crate::lab::readable(listening.fd());
                drop(client);
            }
            1 => drop(request(&listening)),
            2 => drop(part.pair(request(&listening).0, 1)),
            _ => {
                let mut server = part.pair(request(&listening).0, 1);
                drop(client);
                // The other end is gone, which accepting may or may not find out.
                let _ = server.accept(LIMITS, b"y");
            }
        }
        while listening.next_event().unwrap().is_some() {}
        while connecting.next_event().unwrap().is_some() {}
    }
    drop(listener);

    // A listener with a request that nobody takes.
    let listener = listening.listen(address, LISTENER, 16).unwrap();
    let mut client = part.pair(resolved(&connecting, address), CLIENT);
    client.connect(LIMITS, b"x").unwrap();
    crate::lab::readable(listening.fd());
    drop(listener);
    assert!(listening.next_event().unwrap().is_none());
    drop((listening, connecting, part, client));
}

#[test]
fn buffers_in_flight_come_back_when_the_connection_ends() {
    let Some(lab) = lab() else { return };
    // How it ends: this end disconnects; the other does; this end is just dropped.
    for way in 0..3 {
        let (mut client, mut server, _listener) = connected(&lab);
        let idle = server.part.pool.used_bytes();
        let there = client.part.filled(1 << 20, 1);
        let remote = Remote {
            address: there.as_ptr().addr() as u64,
            key: client.part.region.remote_key(),
        };
        for token in 0..12 {
            let here = server.part.pool.alloc(1 << 20).unwrap();
            if token % 2 == 0 {
                server.pair.write(token, here, 1 << 20, remote).unwrap();
            } else {
                server.pair.read(token, here, 1 << 20, remote).unwrap();
            }
        }
        server.pair.flush().unwrap();
        assert_eq!(server.part.pool.used_bytes(), idle + (12 << 20));
        let told = |channel: &Channel| {
            let end = event(channel).kind;
            assert!(matches!(end, CmEventKind::Disconnected), "{end:?}");
        };
        match way {
            0 => {
                server.pair.disconnect();
                told(&client.channel);
                // This end is told when the other has answered.
                client.pair.disconnect();
                told(&server.channel);
            }
            1 => {
                client.pair.disconnect();
                told(&server.channel);
                server.pair.disconnect();
            }
            _ => {}
        }
        if way < 2 {
            server.wait_finished(12);
            let tokens: Vec<_> = server.finished.iter().map(|one| one.token).collect();
            assert_eq!(tokens, (0..12).collect::<Vec<_>>());
            let done = server.finished.iter().filter(|one| one.status.is_success());
            println!("way {way}: {} of 12 were done", done.count());
            server.finished.clear();
            assert_eq!(server.part.pool.used_bytes(), idle);
        }
        let crate::lab::End { pair, mut part, .. } = server;
        pair.end(&mut part.receives);
        assert_eq!(part.pool.used_bytes(), 0);
    }
}

#[test]
fn slots_of_ended_connections_are_used_again() {
    let Some(lab) = lab() else { return };
    let address = lab.next_address();
    let (listening, connecting) = (Channel::new().unwrap(), Channel::new().unwrap());
    let _listener = listening.listen(address, LISTENER, 16).unwrap();
    let first = resolved(&connecting, address);
    let mut part = Part::new(first.device().unwrap());
    drop(first);
    for round in 0..12 {
        let mut client = part.pair(resolved(&connecting, address), CLIENT);
        client.connect(LIMITS, &[]).unwrap();
        let mut server = part.pair(request(&listening).0, 1);
        server.accept(LIMITS, &[]).unwrap();
        for channel in [&connecting, &listening] {
            let one = event(channel).kind;
            assert!(
                matches!(one, CmEventKind::Established { .. }),
                "{round}: {one:?}"
            );
        }
        // More messages than ever fit, most of which nobody looks at.
        for _ in 0..8 {
            client.send(0, &[1; 64], None, None).unwrap();
        }
        client.flush().unwrap();
        let (mut received, mut finished) = (Vec::new(), Vec::new());
        let end = std::time::Instant::now() + PATIENCE;
        while server
            .poll(&mut part.receives, &mut received, &mut finished)
            .unwrap()
            == 0
        {
            assert!(std::time::Instant::now() < end, "{round}: no slot is left");
        }
        received
            .iter()
            .for_each(|one| part.receives.give_back(one.slot));
        server.end(&mut part.receives);
        client.end(&mut part.receives);
        part.receives.flush().unwrap();
        while listening.next_event().unwrap().is_some() {}
        while connecting.next_event().unwrap().is_some() {}
    }
}
