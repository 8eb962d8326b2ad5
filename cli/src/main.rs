//! `roadstead`, also `kubectl roadstead`: looks at volumes, targets, drives and attachments.
//!
//! The same commands work against a cluster (kubeconfig, as kubectl does) and, with `--socket`, against the daemon
//! of one machine. What is shown comes from the objects' status or the daemon's report; nothing is changed, but by
//! `attach`, `detach` and `rescan`, which speak to one daemon only. `bench` and `discover` speak to any NVMe/TCP or NVMe/RDMA target.

mod cluster;
mod discover;
mod explain;
mod inventory;
mod local;
mod rates;
mod table;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use inventory::Inventory;

/// Looks at Roadstead volumes and at what serves them.
#[derive(Parser)]
#[command(name = "roadstead", version, about)]
struct Cli {
    #[command(flatten)]
    from: From,
    /// How lists are printed.
    #[arg(short, long, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// Whom to ask.
#[derive(Args)]
struct From {
    /// Ask the daemon of this machine at its unix socket and not a cluster.
    #[arg(long, global = true, value_name = "PATH", num_args = 0..=1,
          default_missing_value = roadstead_api::DEFAULT_SOCKET)]
    socket: Option<PathBuf>,
    /// Context of the kubeconfig; the current one unless given.
    #[arg(long, global = true, value_name = "NAME", conflicts_with = "socket")]
    context: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// The sources of capacity.
    #[command(alias = "target")]
    Targets,
    /// The drives of all targets, and those that nothing uses yet.
    #[command(alias = "drive")]
    Drives,
    /// The volumes and where they live.
    #[command(alias = "volume")]
    Volumes,
    /// The volumes in use: on which node, over which path, by which device.
    #[command(alias = "attachment")]
    Attachments,
    /// All of it about one volume: where it lives, who uses it, over what and why.
    Explain {
        /// pvc/NAME, pv/NAME, or a volume's name, UUID or NQN.
        volume: String,
        /// Kubernetes namespace of the PVC; the kubeconfig's unless given.
        #[arg(short, long)]
        namespace: Option<String>,
    },
    /// Exits with 0 if every target is ready and every drive online, else says what is not.
    Status,
    /// Makes a remote namespace a block device of this machine (needs --socket).
    Attach(local::AttachArgs),
    /// Takes that device away again (needs --socket).
    Detach {
        /// The name given to attach.
        id: String,
    },
    /// Load on a namespace of any NVMe/TCP or NVMe/RDMA target, with latencies and, on request, verification. Needs no cluster.
    ///
    /// Writes destroy what is in the namespace.
    Bench(roadstead_bench::Options),
    /// Asks discovery services of any NVMe/TCP or NVMe/RDMA targets what this host may use. Needs no cluster.
    Discover(discover::DiscoverArgs),
    /// Gives an attached device the size that its namespace has now (needs --socket).
    Rescan {
        /// The name given to attach.
        id: String,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    match run(Cli::parse()).await {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("roadstead: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<()> {
    let Cli {
        from,
        output,
        command,
    } = cli;
    match (command, &from.socket) {
        (Command::Attach(args), Some(socket)) => local::attach(socket, args).await,
        (Command::Detach { id }, Some(socket)) => local::detach(socket, id).await,
        (Command::Rescan { id }, Some(socket)) => local::rescan(socket, id).await,
        (Command::Attach(_) | Command::Detach { .. } | Command::Rescan { .. }, None) => bail!(
            "this command speaks to the daemon of one machine: add --socket; in a cluster, pods and PVCs attach volumes"
        ),
        (Command::Explain { volume, namespace }, socket) => {
            let (inventory, name) = match socket {
                Some(socket) => (local::inventory(socket).await?, volume),
                None => {
                    let client = cluster::client(from.context.as_deref()).await?;
                    let name = cluster::volume_name(&client, &volume, namespace.as_deref()).await?;
                    let mut inventory = cluster::inventory(client.clone()).await?;
                    // Who may read objects may not be allowed to reach pods; the rest is worth showing all the same.
                    if let Err(error) = rates::fill(&client, &mut inventory, &name).await {
                        eprintln!("roadstead: no live rates: {error:#}");
                    }
                    (inventory, name)
                }
            };
            say(&explain::explain(&inventory, &name)?)
        }
        (Command::Discover(args), _) => {
            log_to_stderr();
            let lines = discover::lines(&args)?;
            say(&match output {
                Output::Table => table::discovered(&lines),
                Output::Json => serde_json::to_string_pretty(&lines)?,
            })
        }
        (Command::Bench(options), _) => {
            log_to_stderr();
            bench(options, matches!(output, Output::Json)).await
        }
        (command, socket) => {
            let inventory = match socket {
                Some(socket) => local::inventory(socket).await?,
                None => cluster::inventory(cluster::client(from.context.as_deref()).await?).await?,
            };
            show(&command, output, &inventory)
        }
    }
}

/// Runs the load; an interrupt ends it early, with its results.
async fn bench(options: roadstead_bench::Options, as_json: bool) -> Result<()> {
    let mut load = tokio::task::spawn_blocking(move || roadstead_bench::run(options, as_json));
    loop {
        tokio::select! {
            result = &mut load => return result?,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                roadstead_bench::interrupt();
            }
        }
    }
}

fn log_to_stderr() {
    let log = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(log.unwrap_or_else(|_| "warn".into()))
        .init();
}

/// Prints one list of the inventory, or its verdict.
fn show(command: &Command, output: Output, inventory: &Inventory) -> Result<()> {
    let text = match (command, output) {
        (Command::Targets, Output::Table) => table::targets(inventory),
        (Command::Drives, Output::Table) => table::drives(inventory),
        (Command::Volumes, Output::Table) => table::volumes(inventory),
        (Command::Attachments, Output::Table) => table::attachments(inventory),
        (Command::Targets, Output::Json) => serde_json::to_string_pretty(&inventory.targets)?,
        (Command::Drives, Output::Json) => serde_json::to_string_pretty(&inventory.drives)?,
        (Command::Volumes, Output::Json) => serde_json::to_string_pretty(&inventory.volumes)?,
        (Command::Attachments, Output::Json) => {
            serde_json::to_string_pretty(&inventory.attachments)?
        }
        _ => {
            let problems = inventory.problems();
            if !problems.is_empty() {
                bail!("{}", problems.join("\n"));
            }
            format!(
                "ready: {} targets, {} drives, {} volumes, {} attachments",
                inventory.targets.len(),
                inventory.drives.iter().filter(|d| !d.unused()).count(),
                inventory.volumes.len(),
                inventory.attachments.len()
            )
        }
    };
    say(&text)
}

/// Prints a text. That nobody wants to read on (`| head`) is no error.
pub(crate) fn say(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
