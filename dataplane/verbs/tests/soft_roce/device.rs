//! Devices: what they are, what they tell, and what does not belong together.

use std::process::Command;
use std::time::Instant;

use roadstead_verbs::{
    Channel, CmEventKind, DeviceEvent, DeviceInfo, QueuePair, VerbsError, available, devices,
};

use crate::lab::{End, LISTENER, Part, SIZES, connected, event, lab, readable, resolved};

/// The device of this address, and its name.
fn described(ip: std::net::IpAddr) -> DeviceInfo {
    let mut all = devices().unwrap();
    all.retain(|one| one.ports.iter().any(|port| port.addresses().contains(&ip)));
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}: {status}");
}

#[test]
fn the_device_is_described_as_it_is() {
    let Some(lab) = lab() else { return };
    available().unwrap();
    let info = described(lab.ip());
    let [port] = info.ports.as_slice() else {
        panic!("{info:?}");
    };
    println!("{info:?}");
    assert!(port.is_active() && port.number == 1 && port.gbit_per_second > 0);
    assert_eq!(port.netdevs.len(), 1);
    let channel = Channel::new().unwrap();
    let id = resolved(&channel, lab.next_address());
    assert_eq!(id.device().unwrap().name(), info.name);
}

#[test]
fn what_is_another_queue_pairs_is_refused() {
    let Some(lab) = lab() else { return };
    let (mut client, mut server, _listener) = connected(&lab);
    client.pair.send(0, b"to the server", None, None).unwrap();
    client.pair.flush().unwrap();
    let (received, finished) = (&mut server.received, &mut server.finished);
    let failed = server
        .pair
        .poll(&mut client.part.receives, received, finished);
    assert!(matches!(failed, Err(VerbsError::Foreign { .. })));
    // Of another region.
    let buffer = server.part.pool.alloc(4096).unwrap();
    let failed = client.pair.send(0, &[], Some((buffer, 4096)), None);
    assert!(matches!(failed, Err(VerbsError::NotRegistered)));
    // More than the buffer has.
    let buffer = client.part.pool.alloc(4096).unwrap();
    let failed = client.pair.send(0, &[], Some((buffer, 4097)), None);
    assert!(matches!(failed, Err(VerbsError::NotRegistered)));
    assert_eq!(server.message(), b"to the server");
}

#[test]
fn a_queue_of_any_size_fills_and_empties() {
    let Some(lab) = lab() else { return };
    for sends in [1, 2, 7, 40] {
        let address = lab.next_address();
        let (listening, channel) = (Channel::new().unwrap(), Channel::new().unwrap());
        let _listener = listening.listen(address, LISTENER, 1).unwrap();
        let id = resolved(&channel, address);
        let part = Part::new(id.device().unwrap());
        let sizes = roadstead_verbs::QueueSizes { sends, ..SIZES };
        let (region, receives, events) = (&part.region, &part.receives, &part.events);
        let mut pair = QueuePair::new(id, region, receives, events, sizes, 1).unwrap();
        pair.connect(crate::lab::LIMITS, &[]).unwrap();
        let (id, _) = crate::lab::request(&listening);
        let server_part = Part::new(id.device().unwrap());
        let mut server_pair = server_part.pair(id, 2);
        server_pair.accept(crate::lab::LIMITS, &[]).unwrap();
        for channel in [&channel, &listening] {
            let one = event(channel).kind;
            assert!(matches!(one, CmEventKind::Established { .. }), "{one:?}");
        }
        let mut client = End::new(channel, part, pair);
        let mut server = End::new(listening, server_part, server_pair);
        let mut sent = 0_u8;
        while sent < 100 {
            while client.pair.room() == 0 {
                client.wait();
            }
            client.pair.send(0, &[sent], None, None).unwrap();
            client.pair.flush().unwrap();
            assert_eq!(server.message(), [sent]);
            server.part.receives.flush().unwrap();
            sent += 1;
        }
        let room = client.pair.room();
        for _ in 0..room {
            client.pair.send(0, &[1], None, None).unwrap();
        }
        let full = client.pair.send(0, &[1], None, None);
        assert!(matches!(full, Err(VerbsError::QueueFull)));
    }
}

#[test]
fn a_port_tells_that_it_goes_and_comes() {
    let Some(lab) = lab() else { return };
    let channel = Channel::new().unwrap();
    let device = resolved(&channel, lab.next_address()).device().unwrap();
    while device.next_async_event().unwrap().is_some() {}
    let netdev = described(lab.ip()).ports[0].netdevs[0].clone();
    for (state, told) in [
        ("down", DeviceEvent::PortDown(1)),
        ("up", DeviceEvent::PortActive(1)),
    ] {
        run("ip", &["link", "set", &netdev, state]);
        loop {
            match device.next_async_event().unwrap() {
                Some(one) if one == told => break,
                Some(other) => println!("after {state}: {other:?}"),
                None => readable(device.async_fd()),
            }
        }
    }
}

/// Alone and last, for there is no device after it. A listener is told, too.
#[test]
#[ignore = "the device is gone after it"]
fn connections_of_a_removed_device_are_told_and_end() {
    let Some(lab) = lab() else { return };
    let name = described(lab.ip()).name;
    let (client, server, listener) = connected(&lab);
    let started = Instant::now();
    let mut remove = Command::new("rdma")
        .args(["link", "del", &name])
        .spawn()
        .unwrap();
    for end in [&client, &server] {
        let one = event(&end.channel);
        println!("after {:?}: {one:?}", started.elapsed());
        assert!(
            matches!(
                one.kind,
                CmEventKind::DeviceRemoved | CmEventKind::Disconnected
            ),
            "{one:?}"
        );
    }
    drop((client, server, listener));
    println!("all was dropped after {:?}", started.elapsed());
    // The driver of soft-RoCE cannot take a device from a program: it waits for the end of this one, which whoever runs
    // this looks at.
    assert!(
        remove
            .try_wait()
            .unwrap()
            .is_none_or(|status| status.success())
    );
    // What was counted before is not there any more.
    std::mem::forget(lab);
}
