//! Portals and paths, from and to the control API's messages.

use std::net::SocketAddr;

use roadstead_api::v1;
use roadstead_nvme::{Portal, Transport};

use super::value::{ip_address, port, transport};

/// An address; the error names the field.
pub(super) fn portal(portal: &v1::Portal) -> Result<Portal, (&'static str, String)> {
    let transport = transport(portal.transport).map_err(|what| ("transport", what))?;
    let address = ip_address(&portal.address).map_err(|what| ("address", what))?;
    let port = port(portal.port).map_err(|what| ("port", what))?;
    let transport = match transport {
        v1::Transport::Rdma => Transport::Rdma,
        _ => Transport::Tcp,
    };
    if transport == Transport::Rdma && address.is_unspecified() {
        let what = format!("{address} is no address of an RDMA device; name one for each device");
        return Err(("address", what));
    }
    Ok(Portal {
        transport,
        address: SocketAddr::new(address, port),
    })
}

/// A path of an attachment; the error names the field. The one without the network has no address.
pub(crate) fn path(path: &v1::Portal) -> Result<Portal, (&'static str, String)> {
    if path.transport() != v1::Transport::Local {
        return portal(path);
    }
    match (path.address.as_str(), path.port) {
        ("", 0) => Ok(Portal::LOCAL),
        ("", port) => Err(("port", format!("{port}: the local path has none"))),
        (address, _) => Err(("address", format!("'{address}': the local path has none"))),
    }
}

/// An address in the control API's words.
pub(crate) fn portal_message(portal: Portal) -> v1::Portal {
    let transport = match portal.transport {
        Transport::Tcp => v1::Transport::Tcp,
        Transport::Rdma => v1::Transport::Rdma,
        Transport::Local => {
            return v1::Portal {
                transport: v1::Transport::Local.into(),
                ..v1::Portal::default()
            };
        }
    };
    v1::Portal {
        transport: transport.into(),
        address: portal.address.ip().to_string(),
        port: portal.address.port().into(),
        ..v1::Portal::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(transport: v1::Transport, address: &str, port: u32) -> v1::Portal {
        v1::Portal {
            transport: transport.into(),
            address: address.into(),
            port,
            ..v1::Portal::default()
        }
    }

    #[test]
    fn a_path_is_a_portal_or_local_without_an_address() {
        use v1::Transport::{Local, Rdma, Tcp, Unspecified};
        for (transport, address, port, wanted) in [
            (Tcp, "192.0.2.1", 4420, Ok("192.0.2.1:4420")),
            (Rdma, "192.0.2.1", 4420, Ok("rdma:192.0.2.1:4420")),
            (Local, "", 0, Ok("local")),
            (Local, "", 4420, Err("port")),
            (Local, "192.0.2.1", 0, Err("address")),
            (Local, "::", 0, Err("address")),
            (Tcp, "", 0, Err("address")),
            (Tcp, "192.0.2.1", 0, Err("port")),
            (Unspecified, "", 0, Err("transport")),
        ] {
            let message = message(transport, address, port);
            let shown = path(&message)
                .map(|path| path.to_string())
                .map_err(|(field, _)| field);
            assert_eq!(shown, wanted.map(str::to_owned), "{message:?}");
            if let Ok(path) = path(&message) {
                assert_eq!(portal_message(path), message);
            }
        }
        let local = portal(&message(Local, "", 0)).map_err(|(field, _)| field);
        assert_eq!(local, Err("transport"), "nothing listens there");
    }
}
