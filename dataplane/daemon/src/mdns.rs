//! Tells the local network where the discovery service is: mDNS, DNS-SD service `_nvme-disc._tcp` (NVMe-oF automated
//! discovery, TP 8009). Off unless the configuration says otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use mdns_sd::{ServiceDaemon, ServiceInfo};
use tokio::sync::watch;

use crate::status::Status;

/// The service's type.
const SERVICE: &str = "_nvme-disc._tcp.local.";
/// Longest label of a name in DNS, bytes.
const LABEL_MAX: usize = 63;

/// The responder, and what it tells.
struct Advertiser {
    responder: ServiceDaemon,
    node: String,
    /// Names of the services, by address.
    told: BTreeMap<SocketAddr, String>,
}

impl Advertiser {
    fn new(responder: ServiceDaemon, node: &str) -> Self {
        Self {
            responder,
            node: node.to_owned(),
            told: BTreeMap::new(),
        }
    }

    /// Tells these addresses and no others.
    fn tell(&mut self, addresses: &BTreeSet<SocketAddr>) -> Result<(), mdns_sd::Error> {
        let told: Vec<SocketAddr> = self.told.keys().copied().collect();
        for address in told.into_iter().filter(|one| !addresses.contains(one)) {
            if let Some(name) = self.told.remove(&address) {
                self.responder.unregister(&name)?;
            }
        }
        for &address in addresses {
            if self.told.contains_key(&address) {
                continue;
            }
            let service = service(&self.node, address)?;
            let name = service.get_fullname().to_owned();
            self.responder.register(service)?;
            tracing::info!(%address, name, "told by mDNS");
            self.told.insert(address, name);
        }
        Ok(())
    }
}

impl Drop for Advertiser {
    fn drop(&mut self) {
        // It ends with the process if this fails.
        let _ = self.responder.shutdown();
    }
}

/// The service at an address; an unspecified address stands for all of this machine.
fn service(node: &str, address: SocketAddr) -> Result<ServiceInfo, mdns_sd::Error> {
    let label = |text: String| -> String {
        let fits = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        fits.take(LABEL_MAX).collect()
    };
    let place = if address.ip().is_unspecified() {
        String::new()
    } else {
        format!("-{}", address.ip())
    };
    let instance = label(format!("roadstead-{node}{place}-{}", address.port()));
    let host = format!("{}.local.", label(format!("roadstead-{node}{place}")));
    let properties = [("p", "tcp"), ("nqn", roadstead_nvme::nqn::DISCOVERY)];
    let (port, properties) = (address.port(), &properties[..]);
    if address.ip().is_unspecified() {
        let service = ServiceInfo::new(SERVICE, &instance, &host, "", port, properties)?;
        Ok(service.enable_addr_auto())
    } else {
        ServiceInfo::new(SERVICE, &instance, &host, address.ip(), port, properties)
    }
}

/// Tells where the discovery service listens, as long as the daemon runs. That it cannot is said in the log.
pub(crate) async fn follow(mut status: watch::Receiver<Arc<Status>>, node: String) {
    let mut advertiser = match ServiceDaemon::new() {
        Ok(responder) => Advertiser::new(responder, &node),
        Err(error) => {
            tracing::error!(%error, "the mDNS responder did not start; is multicast possible here?");
            return;
        }
    };
    loop {
        let addresses = status.borrow_and_update().discovery.clone();
        if let Err(error) = advertiser.tell(&addresses) {
            tracing::error!(%error, "the discovery service is not told by mDNS");
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mdns_sd::{IfKind, ServiceEvent};

    use super::*;

    /// A port of its own: another responder on this machine does not matter.
    const PORT: u16 = 15353;
    const NAME: &str = "roadstead-test-127-0-0-1-8009";

    fn on_loopback() -> ServiceDaemon {
        let responder = ServiceDaemon::new_with_port(PORT).unwrap();
        responder.disable_interface(IfKind::All).unwrap();
        responder.enable_interface(IfKind::LoopbackV4).unwrap();
        responder
    }

    #[test]
    fn services_have_names_that_dns_takes() {
        let node = "a.node_with.a-very-long.name".repeat(4);
        let service = service(&node, "[fd00::1]:8009".parse().unwrap()).unwrap();
        let instance = service.get_fullname().strip_suffix(SERVICE).unwrap();
        assert!(instance.len() <= LABEL_MAX + 1, "{instance}");
        assert_eq!(service.get_port(), 8009);
        assert_eq!(service.get_property_val_str("p"), Some("tcp"));
        assert_eq!(
            service.get_property_val_str("nqn"),
            Some("nqn.2014-08.org.nvmexpress.discovery")
        );
    }

    #[test]
    fn what_is_told_is_heard() {
        let mut advertiser = Advertiser::new(on_loopback(), "test");
        let listener = on_loopback();
        let events = listener.browse(SERVICE).unwrap();
        let wait = |what: &str, is_it: &dyn Fn(&ServiceEvent) -> bool| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while let Ok(event) = events.recv_deadline(deadline) {
                if is_it(&event) {
                    return;
                }
            }
            panic!("in vain: {what}");
        };
        let address: SocketAddr = "127.0.0.1:8009".parse().unwrap();
        advertiser.tell(&[address].into()).unwrap();
        wait("told", &|event| match event {
            ServiceEvent::ServiceResolved(found) => {
                found.get_port() == 8009 && found.get_fullname().starts_with(NAME)
            }
            _ => false,
        });
        advertiser.tell(&BTreeSet::new()).unwrap();
        wait(
            "taken back",
            &|event| matches!(event, ServiceEvent::ServiceRemoved(_, name) if name.starts_with(NAME)),
        );
    }
}
