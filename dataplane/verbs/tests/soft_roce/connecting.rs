//! Connections as they come, are refused and move.

use roadstead_verbs::{Channel, CmEventKind, VerbsError};

use crate::lab::{CLIENT, LIMITS, LISTENER, Part, SERVER, event, lab, request, resolved};

#[test]
fn private_data_goes_both_ways_and_a_request_moves_to_another_channel() {
    let Some(lab) = lab() else { return };
    let address = lab.next_address();
    let (listening, serving) = (Channel::new().unwrap(), Channel::new().unwrap());
    let connecting = Channel::new().unwrap();
    let _listener = listening.listen(address, LISTENER, 16).unwrap();
    let id = resolved(&connecting, address);
    assert_eq!(id.peer(), Some(address));
    let device = id.device().unwrap();
    let limits = device.limits().unwrap();
    assert!(limits.queue_entries > 64 && limits.reads_inbound > 0 && limits.shared_receives > 0);
    let client_part = Part::new(device);
    let mut client = client_part.pair(id, CLIENT);
    let ask: Vec<u8> = (1..=32).collect();
    client.connect(LIMITS, &ask).unwrap();

    let (id, private_data) = request(&listening);
    assert_eq!(private_data[..32], ask);
    assert_eq!(id.local(), Some(address));
    assert_eq!(id.device(), Some(device));
    // As a reactor hands it to another.
    let (mut server, server_part) = std::thread::scope(|scope| {
        let take = scope.spawn(|| {
            let mut id = id;
            id.migrate(&serving).unwrap();
            id.set_token(SERVER);
            id
        });
        let id = take.join().unwrap();
        let part = Part::new(id.device().unwrap());
        (part.pair(id, SERVER), part)
    });
    let answer: Vec<u8> = (101..=132).collect();
    server.accept(LIMITS, &answer).unwrap();

    let one = event(&connecting);
    match (one.token, one.kind) {
        (CLIENT, CmEventKind::Established { private_data }) => {
            assert_eq!(private_data[..32], answer);
        }
        other => panic!("{other:?}"),
    }
    let one = event(&serving);
    assert_eq!(one.token, SERVER);
    assert!(matches!(one.kind, CmEventKind::Established { .. }));
    client.disconnect();
    let one = event(&serving);
    assert_eq!(one.token, SERVER);
    assert!(matches!(one.kind, CmEventKind::Disconnected), "{one:?}");
    assert!(listening.next_event().unwrap().is_none());
    drop((client, server, client_part, server_part));
}

#[test]
fn a_request_is_refused_with_private_data() {
    let Some(lab) = lab() else { return };
    let address = lab.next_address();
    let (listening, connecting) = (Channel::new().unwrap(), Channel::new().unwrap());
    let _listener = listening.listen(address, LISTENER, 16).unwrap();
    let id = resolved(&connecting, address);
    let part = Part::new(id.device().unwrap());
    let mut client = part.pair(id, CLIENT);
    client.connect(LIMITS, b"please").unwrap();
    let (id, private_data) = request(&listening);
    assert!(private_data.starts_with(b"please"));
    id.reject(&[9, 8, 7, 6]).unwrap();
    match event(&connecting).kind {
        CmEventKind::Rejected {
            status,
            private_data,
        } => {
            assert_eq!(private_data[..4], [9, 8, 7, 6]);
            println!("status of a refusal: {status}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_nobody_listens_nobody_answers() {
    let Some(lab) = lab() else { return };
    let connecting = Channel::new().unwrap();
    let id = resolved(&connecting, lab.next_address());
    let part = Part::new(id.device().unwrap());
    let mut client = part.pair(id, CLIENT);
    client.connect(LIMITS, &[]).unwrap();
    let one = event(&connecting);
    assert!(matches!(one.kind, CmEventKind::Rejected { .. }), "{one:?}");
}

#[test]
fn addresses_that_are_not_here_are_refused() {
    let Some(_lab) = lab() else { return };
    let channel = Channel::new().unwrap();
    let failed = channel.listen("192.0.2.77:4420".parse().unwrap(), 1, 1);
    assert!(matches!(failed, Err(VerbsError::Listen { .. })));
}
