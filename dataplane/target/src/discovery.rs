//! The discovery log: what a host may use, and where (section 5.16.1.23).

use std::net::SocketAddr;

use roadstead_nvme::log::{DiscoveryHeader, DiscoveryRecord, discovery_parameter, subsystem_type};
use roadstead_nvme::{Nqn, Portal};
use zerocopy::IntoBytes;

use crate::table::{Table, canonical};

/// A record, before it is written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    kind: u8,
    /// None for discovery services.
    subsystem: Option<Nqn>,
    portal: Portal,
    port_id: u16,
    flags: u16,
}

/// Referrals have no port of ours.
const NO_PORT: u16 = 0;

/// What a host that reached `local` sees: this service, the subsystems that it may use at every portal, and referrals.
pub(crate) fn entries(table: &Table, host: &Nqn, local: Portal) -> Vec<Entry> {
    let portals: Vec<(Portal, Portal, u16)> = table
        .portals()
        .iter()
        .zip(1_u16..)
        .filter_map(|(portal, id)| Some((*portal, visible(*portal, local)?, id)))
        .collect();
    let own = table.portal_of(local);
    let is_discovery_only = |portal: &Portal| table.rules().discovery_only.contains(portal);
    let mut entries = Vec::new();
    for (portal, shown, port_id) in &portals {
        if is_discovery_only(portal) || own == Some(*portal) {
            entries.push(Entry {
                kind: subsystem_type::CURRENT_DISCOVERY,
                subsystem: None,
                portal: *shown,
                port_id: *port_id,
                flags: DiscoveryRecord::SAME_INFORMATION | DiscoveryRecord::PERSISTENT,
            });
        }
    }
    let allowed = table
        .subsystems()
        .iter()
        .filter(|(_, subsystem)| subsystem.access.allows(host));
    for (nqn, _) in allowed {
        for (portal, shown, port_id) in &portals {
            if !is_discovery_only(portal) {
                entries.push(Entry {
                    kind: subsystem_type::NVM,
                    subsystem: Some(nqn.clone()),
                    portal: *shown,
                    port_id: *port_id,
                    flags: 0,
                });
            }
        }
    }
    entries.extend(table.rules().referrals.iter().map(|portal| Entry {
        kind: subsystem_type::REFERRAL,
        subsystem: None,
        portal: *portal,
        port_id: NO_PORT,
        flags: 0,
    }));
    entries
}

/// The log page, whole. `parameter` is the log specific parameter of the command; `queue_entries` the most of an admin
/// queue.
pub(crate) fn log(
    table: &Table,
    host: &Nqn,
    local: Portal,
    parameter: u8,
    generation: u64,
    queue_entries: u16,
) -> Vec<u8> {
    let mut entries = entries(table, host, local);
    if parameter & discovery_parameter::PORT_LOCAL != 0 {
        let own = local.at(canonical(local.address));
        entries.retain(|entry| entry.portal == own);
    }
    let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    let mut log = DiscoveryHeader::new(generation, count).as_bytes().to_vec();
    let discovery = Nqn::discovery();
    for entry in entries {
        let subsystem = entry.subsystem.as_ref().unwrap_or(&discovery);
        let mut record = DiscoveryRecord::new(
            entry.kind,
            subsystem,
            entry.portal,
            entry.port_id,
            queue_entries,
        );
        record.flags = entry.flags.into();
        log.extend_from_slice(record.as_bytes());
    }
    log
}

/// Whether no host sees another log with `new` than with `old`.
pub(crate) fn is_same(old: &Table, new: &Table) -> bool {
    let access = |table: &Table| -> Vec<_> {
        let subsystems = table.subsystems().iter();
        subsystems
            .map(|(nqn, subsystem)| (nqn.clone(), subsystem.access.clone()))
            .collect()
    };
    old.portals() == new.portals()
        && old.rules().discovery_only == new.rules().discovery_only
        && old.rules().referrals == new.rules().referrals
        && access(old) == access(new)
}

/// How a host that reached `local` reaches a portal.
fn visible(portal: Portal, local: Portal) -> Option<Portal> {
    let address = portal.address;
    if !address.ip().is_unspecified() {
        return Some(portal);
    }
    // Sockets that listen on :: take IPv4 too, so the address family need not be the portal's.
    let ip = canonical(local.address).ip();
    (address.is_ipv6() || ip.is_ipv4()).then(|| portal.at(SocketAddr::new(ip, address.port())))
}
