//! How candidates that may be used are put in order.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use roadstead_crds::PolicyLimits;
use roadstead_crds::transport::{NetworkTransport, TransportKind};

/// A path over the network: what it uses and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathKey {
    /// The transport.
    pub transport: NetworkTransport,
    /// Address of the portal.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
}

impl fmt::Display for PathKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// What is known of a path from its use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Round trip in microseconds.
    pub round_trip_us: Option<u32>,
    /// Packets lost, of a million.
    pub loss_ppm: Option<u32>,
    /// When it broke last.
    pub failed_at: Option<Timestamp>,
}

/// Why a path comes after those that have no such reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It broke, and is held back until then.
    Failed { at: Timestamp, until: Timestamp },
    /// It loses more than that many packets of a million.
    Lossy { ppm_max: u32 },
}

impl Measured {
    /// What is wrong with the path at `now`.
    pub(super) fn trouble(&self, limits: &PolicyLimits, now: Timestamp) -> Option<Trouble> {
        let hold = SignedDuration::from_secs(i64::from(limits.failure_hold_seconds));
        let failed = self.failed_at.and_then(|at| {
            let until = at.saturating_add(hold).unwrap_or(at);
            (now < until).then_some(Trouble::Failed { at, until })
        });
        let ppm_max = limits.loss_ppm_max;
        let lossy = self.loss_ppm.filter(|ppm| *ppm > ppm_max);
        failed.or(lossy.map(|_| Trouble::Lossy { ppm_max }))
    }
}

/// Paths of the same class share the load; a smaller class comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    /// It broke or loses packets.
    pub(super) troubled: bool,
    /// It does not fit, and is there as the fallback.
    pub(super) last_resort: bool,
    /// What the workload prefers: 0 local, 1 the preferred transport, 2 the other.
    pub(super) rank: u8,
}

impl Class {
    pub(super) fn rank(transport: TransportKind, preferred: NetworkTransport) -> u8 {
        match transport {
            TransportKind::Local => 0,
            other if other == TransportKind::from(preferred) => 1,
            TransportKind::Tcp | TransportKind::Roce => 2,
        }
    }
}
