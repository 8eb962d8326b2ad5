//! The command line.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use roadstead_initiator::{Identity, Nqn, PathPolicy, Portal, portals};

use crate::keys::KeyFiles;

/// How long a discovery service has for its answer.
const DISCOVERY_TIME: Duration = Duration::from_secs(5);

/// What to do in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pattern {
    /// Reads one after the other.
    Read,
    /// Writes one after the other.
    Write,
    /// Reads and writes one after the other, see --mix.
    Rw,
    /// Reads anywhere.
    Randread,
    /// Writes anywhere.
    Randwrite,
    /// Random reads and writes, see --mix.
    Randrw,
}

impl Pattern {
    pub(crate) fn is_random(self) -> bool {
        matches!(self, Self::Randread | Self::Randwrite | Self::Randrw)
    }

    /// Reads in percent.
    pub(crate) fn reads(self, mix: u8) -> u8 {
        match self {
            Self::Read | Self::Randread => 100,
            Self::Write | Self::Randwrite => 0,
            Self::Rw | Self::Randrw => mix,
        }
    }
}

/// Which path takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// The first that works.
    Nearest,
    /// One after the other.
    RoundRobin,
    /// The one with the fewest requests in flight.
    QueueDepth,
}

impl From<Policy> for PathPolicy {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Nearest => Self::Nearest,
            Policy::RoundRobin => Self::RoundRobin,
            Policy::QueueDepth => Self::QueueDepth,
        }
    }
}

/// Load on a namespace of an NVMe/TCP or NVMe/RDMA target.
///
/// Writes destroy what is in the namespace.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Address and port of the target, `rdma:` before it for NVMe/RDMA; more than one: all are connected, see --policy.
    #[arg(
        long,
        short,
        required_unless_present = "discover",
        value_delimiter = ','
    )]
    pub(crate) connect: Vec<Portal>,
    /// Take the addresses of the target from these discovery services.
    #[arg(long, conflicts_with = "connect", value_delimiter = ',')]
    pub(crate) discover: Vec<Portal>,
    /// Which of several addresses takes a request, if the target prefers none.
    #[arg(long, value_enum, default_value = "nearest")]
    pub(crate) policy: Policy,
    /// The subsystem.
    #[arg(long, short)]
    pub(crate) nqn: String,
    /// The namespace; default: the first.
    #[arg(long)]
    pub(crate) nsid: Option<u32>,
    /// What to do.
    #[arg(long, value_enum, default_value = "randread")]
    pub(crate) rw: Pattern,
    /// Reads in percent, for rw and randrw.
    #[arg(long, default_value_t = 70)]
    pub(crate) mix: u8,
    /// Bytes of one request; k and m are known.
    #[arg(long, short, default_value = "4k", value_parser = size)]
    pub(crate) block_size: u64,
    /// Requests in flight, of each thread.
    #[arg(long, short = 'q', default_value_t = 32)]
    pub(crate) depth: u32,
    /// I/O connections of each thread.
    #[arg(long, default_value_t = 1)]
    pub(crate) queues: u16,
    /// Threads; each works on its own part of the namespace.
    #[arg(long, short, default_value_t = 1)]
    pub(crate) threads: usize,
    /// Cores to pin the threads to, one each.
    #[arg(long, value_delimiter = ',')]
    pub(crate) cores: Vec<usize>,
    /// Seconds that are measured.
    #[arg(long, short = 'T', default_value_t = 5.0)]
    pub(crate) time: f64,
    /// Seconds before, that are not.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) ramp: f64,
    /// Use only so much of the namespace; k, m, g are known; default: all.
    #[arg(long, value_parser = size)]
    pub(crate) size: Option<u64>,
    /// Write checksummed blocks with their place and generation, and read them back at the end. Without writes:
    /// check that all blocks are whole, as a run with the same --block-size left them.
    #[arg(long)]
    pub(crate) verify: bool,
    /// Sleep when there is nothing to do, instead of polling.
    #[arg(long)]
    pub(crate) sleep: bool,
    /// Seconds to wait for a lost connection before requests fail.
    #[arg(long, default_value_t = 600)]
    pub(crate) ctrl_loss: u64,
    /// Ask for checksums of heads and data.
    #[arg(long)]
    pub(crate) digest: bool,
    /// Who connects.
    #[arg(long, default_value = "nqn.2026-11.io.roadstead:bench")]
    pub(crate) host_nqn: String,
    #[command(flatten)]
    pub(crate) keys: KeyFiles,
    /// Start of the random numbers.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Leave the picture of the latencies out.
    #[arg(long)]
    pub(crate) no_picture: bool,
}

impl Options {
    /// Who connects.
    pub(crate) fn identity(&self) -> anyhow::Result<Identity> {
        let nqn = Nqn::new(&self.host_nqn).context("--host-nqn")?;
        Ok(Identity {
            keys: self.keys.read()?,
            ..Identity::named(nqn)
        })
    }

    /// Asks the discovery services, if there are any to ask.
    pub(crate) fn resolve(&mut self) -> anyhow::Result<()> {
        if self.discover.is_empty() {
            return Ok(());
        }
        let identity = self.identity()?;
        self.connect = portals(&self.discover, &identity, &self.nqn, DISCOVERY_TIME)?;
        ensure!(
            !self.connect.is_empty(),
            "no discovery service knows {}",
            self.nqn
        );
        Ok(())
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(self.threads > 0, "--threads must be at least 1");
        ensure!(
            (1..=1024).contains(&self.depth),
            "--depth must be from 1 to 1024"
        );
        ensure!(self.mix <= 100, "--mix is in percent");
        ensure!(
            self.block_size >= 512 && self.block_size.is_multiple_of(512),
            "--block-size must be a multiple of 512"
        );
        ensure!(
            self.time.is_finite() && self.time > 0.0 && self.ramp.is_finite() && self.ramp >= 0.0,
            "--time and --ramp must be positive"
        );
        if !self.cores.is_empty() && self.cores.len() != self.threads {
            bail!("--cores must name one core for each thread");
        }
        Ok(())
    }
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" | "ki" => 10,
        "m" | "mi" => 20,
        "g" | "gi" => 30,
        "t" | "ti" => 40,
        _ => return Err(format!("unknown unit {unit:?}; known are k, m, g, t")),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "too large".into())
}
