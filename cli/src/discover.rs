//! `roadstead discover`: what a host may use, told by discovery services.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use roadstead_bench::KeyFiles;
use roadstead_initiator::{Found, Identity, Nqn, Portal, discover};
use serde::Serialize;

use crate::local::parse_portal;

/// The port of discovery services that IANA has given.
const DISCOVERY_PORT: u16 = 8009;

/// Arguments of `roadstead discover`.
#[derive(Args)]
pub(crate) struct DiscoverArgs {
    /// Addresses of discovery services, with their port unless that is 8009, `rdma:` before it for NVMe/RDMA. Any portal of a target answers too.
    #[arg(required = true, value_parser = service, value_name = "IP[:PORT]")]
    services: Vec<Portal>,
    /// Who asks: a target tells each host what that host may use.
    #[arg(long, default_value = "nqn.2026-11.io.roadstead:discover")]
    host_nqn: String,
    #[command(flatten)]
    keys: KeyFiles,
    /// Seconds that each service has for its answer.
    #[arg(long, default_value_t = 5)]
    timeout: u64,
}

/// An address with the port of discovery services as the default.
pub(crate) fn service(text: &str) -> Result<Portal, String> {
    parse_portal(text, DISCOVERY_PORT)
}

#[derive(Serialize)]
pub(crate) struct Line {
    pub(crate) subsystem_nqn: String,
    pub(crate) transport: &'static str,
    pub(crate) address: SocketAddr,
}

/// What the services tell.
pub(crate) fn lines(args: &DiscoverArgs) -> Result<Vec<Line>> {
    let identity = Identity {
        keys: args.keys.read()?,
        ..Identity::named(Nqn::new(&args.host_nqn).context("--host-nqn")?)
    };
    let timeout = Duration::from_secs(args.timeout.max(1));
    let found = discover(&args.services, &identity, timeout)?;
    let line = |found: Found| Line {
        subsystem_nqn: found.nqn.to_string(),
        transport: found.portal.transport.name(),
        address: found.portal.address,
    };
    Ok(found.into_iter().map(line).collect())
}
