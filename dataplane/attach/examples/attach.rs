//! Attaches a namespace until the standard input ends: `attach METHOD NQN UUID ADDRESS:PORT [rescan]`.
//! A line on the standard input rescans.

use std::io::BufRead;
use std::net::SocketAddr;

use roadstead_attach::{HostIdentity, Manager, PathSpec, Spec, default_methods};
use roadstead_nvme::Portal;
use uuid::Uuid;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [method, nqn, uuid, address] = arguments.as_slice() else {
        return Err("usage: attach METHOD NQN UUID ADDRESS:PORT".into());
    };
    let address: SocketAddr = address.parse()?;
    let host = HostIdentity {
        nqn: "nqn.2026-11.io.roadstead:attach-example".into(),
        id: Uuid::from_u128(0x1234),
        keys: None,
    };
    let state = std::env::temp_dir().join("roadstead-attach-example");
    let manager = Manager::open(state, default_methods(&host, None, None)?)?;
    let attachment = manager.attach(Spec {
        id: format!("example-{uuid}"),
        subsystem_nqn: nqn.clone(),
        volume_uuid: uuid.parse()?,
        foreign: None,
        paths: vec![PathSpec::from(Portal::from(address))],
        read_only: false,
        method: Some(method.clone()),
        ctrl_loss_timeout_s: 0,
    })?;
    let id = attachment.spec.id.clone();
    if let Some(device) = attachment.device {
        println!("{} {}", device.path.display(), device.size_bytes);
    }
    for line in std::io::stdin().lock().lines() {
        line?;
        println!("size {}", manager.rescan(&id)?);
    }
    manager.detach(&id)?;
    println!("detached");
    Ok(())
}
