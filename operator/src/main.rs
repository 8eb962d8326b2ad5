//! `roadstead-operator`: reads the command line, waits for the Lease, and leads while it holds it.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client, Config};
use roadstead_operator::http::{self, Health};
use roadstead_operator::lead::Elector;
use roadstead_operator::metrics::Metrics;
use roadstead_operator::run::{Context, lead};
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

/// How long a connection to the API server may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The Roadstead operator: moves the cluster's storage to what its Targets, NVMeNamespaces and NVMeAttachments say.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Kubernetes namespace of the node pods, the Secrets and the Lease.
    #[arg(long, default_value = "roadstead-system")]
    namespace: String,
    /// Name in the Lease and in Events; one for each operator, in a cluster the pod's. Default: the host name.
    #[arg(long)]
    identity: Option<String>,
    /// Name of the Lease.
    #[arg(long, default_value = "roadstead-operator")]
    lease: String,
    /// Address of probes and metrics.
    #[arg(long, default_value = "0.0.0.0:7424")]
    http_listen: SocketAddr,
    /// What to log: a level, or a filter such as info,roadstead_operator=debug.
    #[arg(long, default_value = "info")]
    log_level: String,
    /// How.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    // What the client library calls an error is logged here with what it was for.
    let filter = EnvFilter::try_new(format!("kube_client=off,{}", cli.log_level))
        .context("--log-level cannot be understood")?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match cli.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    // One TLS implementation for both clients; a second call would only find the first one's choice.
    let _ = rustls::crypto::ring::default_provider().install_default();

    let mut config = Config::infer()
        .await
        .context("no access to a Kubernetes API: run in a pod, or set KUBECONFIG")?;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let client = Client::try_from(config).context("the Kubernetes configuration cannot be used")?;
    let identity = match cli.identity {
        Some(identity) => identity,
        None => host_name().context("no host name: give --identity")?,
    };
    info!(
        version = env!("CARGO_PKG_VERSION"),
        namespace = cli.namespace,
        identity,
        "roadstead-operator starts"
    );

    let metrics = Metrics::default();
    let health = Health::default();
    let leases: Api<Lease> = Api::namespaced(client.clone(), &cli.namespace);
    let mut elector = Elector::new(leases, &cli.lease, &identity, health.clone());
    let context = Context {
        client,
        namespace: cli.namespace,
        identity,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        served = http::serve(cli.http_listen, metrics, health) => {
            served.with_context(|| format!("--http-listen {} cannot be used", cli.http_listen))
        }
        () = lead_in_turns(&mut elector, &context) => Ok(()),
        _ = terminate.recv() => {
            info!("told to end");
            elector.release().await;
            Ok(())
        }
        _ = interrupt.recv() => {
            info!("interrupted");
            elector.release().await;
            Ok(())
        }
    }
}

/// Leads whenever the Lease is held. A lost Lease ends everything that the leader started; then it is waited for again.
async fn lead_in_turns(elector: &mut Elector, context: &Context) {
    loop {
        elector.acquire().await;
        context.metrics.set_leader(true);
        tokio::select! {
            () = elector.hold() => {}
            never = lead(context.clone()) => match never {},
        }
        context.metrics.set_leader(false);
        context.health.resting();
    }
}

fn host_name() -> std::io::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    Ok(name.trim().to_string())
}
