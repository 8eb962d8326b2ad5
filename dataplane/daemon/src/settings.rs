//! What the daemon was told: the command line over the configuration file over the defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Parser, ValueEnum};
use roadstead_api::DEFAULT_SOCKET;
use roadstead_target::ControllerLimits;

use crate::config::{Config, ConfigError};
use crate::{config, desired};

/// Most reactors: one a core, and no machine that we know needs more.
pub(crate) const REACTORS_MAX: u32 = 64;
/// Where the state is kept unless told otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/roadstead";

/// NVMe-oF target and initiator of one node.
#[derive(Debug, Parser)]
#[command(name = "roadsteadd", version)]
pub(crate) struct Arguments {
    /// Stand-alone: serve what this YAML file says, without Kubernetes.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check the configuration file, name every mistake and exit.
    #[arg(long, requires = "config")]
    pub(crate) check: bool,
    /// Where the state of this daemon is kept [default: /var/lib/roadstead].
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
    /// Unix socket of the control API [default: /run/roadstead/roadsteadd.sock].
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Address and port of the control API for the operator, with mutual TLS.
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        requires = "tls_dir",
        conflicts_with = "config"
    )]
    control_listen: Option<SocketAddr>,
    /// Directory with ca.crt, tls.crt and tls.key; read again whenever they change.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "config")]
    tls_dir: Option<PathBuf>,
    /// Address and port of /metrics, /healthz and /readyz.
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// Name of this node, for the logs.
    #[arg(long, value_name = "NAME")]
    node_name: Option<String>,
    /// Host NQN of this node; made once and kept if not given.
    #[arg(long, value_name = "NQN", value_parser = desired::nqn)]
    host_nqn: Option<String>,
    /// Threads that do I/O, one a core [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(REACTORS_MAX)))]
    reactors: Option<u32>,
    /// Stay as a holder and start the daemon as a process of its own: attached devices outlive its death.
    #[arg(long)]
    pub(crate) hold: bool,
    /// Socket of a holder that outlives this one: attached devices then outlive both.
    #[arg(long, value_name = "PATH", requires = "hold")]
    pub(crate) holder: Option<PathBuf>,
    /// Be such a holder, listen at this socket, and do nothing else.
    #[arg(long, value_name = "PATH", conflicts_with_all = ["hold", "config"])]
    pub(crate) hold_at: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// Everything that was decided.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) state_dir: PathBuf,
    pub(crate) socket: PathBuf,
    pub(crate) control: Option<ControlListen>,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) node_name: String,
    pub(crate) host_nqn: Option<String>,
    pub(crate) reactors: u32,
    pub(crate) controllers: ControllerLimits,
    pub(crate) mdns: bool,
}

/// Who says what to serve.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    /// A file.
    Standalone { file: PathBuf, config: Box<Config> },
    /// The control API.
    Cluster,
}

/// The control API for the operator.
#[derive(Debug, Clone)]
pub(crate) struct ControlListen {
    pub(crate) address: SocketAddr,
    pub(crate) tls_dir: PathBuf,
}

impl Arguments {
    /// Reads the configuration file, if one is named, and merges.
    pub(crate) fn settle(self) -> Result<Settings, ConfigError> {
        let config = match &self.config {
            Some(file) => config::load(file)?,
            None => Config::default(),
        };
        let control = self.control_listen.zip(self.tls_dir);
        let or = |given: Option<PathBuf>, file: &Option<PathBuf>, default: &str| {
            given
                .or_else(|| file.clone())
                .unwrap_or_else(|| Path::new(default).to_owned())
        };
        Ok(Settings {
            state_dir: or(self.state_dir, &config.state_dir, DEFAULT_STATE_DIR),
            socket: or(self.socket, &config.socket, DEFAULT_SOCKET),
            control: control.map(|(address, tls_dir)| ControlListen { address, tls_dir }),
            metrics_listen: self.metrics_listen.or(config.metrics_listen),
            node_name: self.node_name.unwrap_or_else(machine_name),
            host_nqn: self.host_nqn.or_else(|| config.host_nqn.clone()),
            reactors: self.reactors.or(config.reactors).unwrap_or(1),
            controllers: config.controllers,
            mdns: config.mdns,
            mode: match self.config {
                Some(file) => Mode::Standalone {
                    file,
                    config: Box::new(config),
                },
                None => Mode::Cluster,
            },
        })
    }
}

/// The machine's own name.
fn machine_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
