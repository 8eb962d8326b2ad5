//! `roadstead-csi`: reads the command line and wires the services to their sockets.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::future::try_join;
use roadstead_csi::controller::{Controller, WAIT_MAX};
use roadstead_csi::identity::{DRIVER_NAME, Identity, Needs};
use roadstead_csi::metrics::Metrics;
use roadstead_csi::node::{Daemon, Node};
use roadstead_csi::proto::csi::controller_server::ControllerServer;
use roadstead_csi::proto::csi::identity_server::IdentityServer;
use roadstead_csi::proto::csi::node_server::NodeServer;
use roadstead_csi::proto::registration::registration_server::RegistrationServer;
use roadstead_csi::registration::{Registration, registration_socket};
use roadstead_csi::rpc::Rpc;
use roadstead_csi::{http, socket};
use tokio::signal::unix::{SignalKind, signal};
use tonic::transport::Server;
use tracing::info;
use tracing_subscriber::EnvFilter;

/// The Roadstead CSI driver.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// Create, delete, attach and grow volumes through the Kubernetes API.
    Controller(ControllerArgs),
    /// Stage and publish volumes on this node.
    Node(NodeArgs),
}

#[derive(Args)]
struct ControllerArgs {
    /// Where the side cars connect.
    #[arg(long, default_value = "/csi/csi.sock")]
    csi_socket: PathBuf,
    /// Address of probes and metrics.
    #[arg(long, default_value = "0.0.0.0:7423")]
    http_listen: SocketAddr,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Args)]
struct NodeArgs {
    /// Name of the Kubernetes node.
    #[arg(long)]
    node_name: String,
    /// The local dataplane.
    #[arg(long, default_value = roadstead_api::DEFAULT_SOCKET)]
    daemon_socket: PathBuf,
    /// The kubelet's folder, at the same path here as on the node.
    #[arg(long, default_value = "/var/lib/kubelet")]
    kubelet_dir: PathBuf,
    /// Most volumes on this node at once.
    #[arg(long, default_value_t = 512)]
    max_volumes: u32,
    /// Address of probes and metrics.
    #[arg(long, default_value = "0.0.0.0:7422")]
    http_listen: SocketAddr,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Args)]
struct LogArgs {
    /// What to log: a level, or a filter such as info,roadstead_csi=debug.
    #[arg(long, default_value = "info")]
    log_level: String,
    /// How.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().mode {
        Mode::Controller(args) => run_controller(args).await,
        Mode::Node(args) => run_node(args).await,
    }
}

async fn run_controller(args: ControllerArgs) -> anyhow::Result<()> {
    start_log(&args.log)?;
    let client = kube::Client::try_default()
        .await
        .context("cannot find the Kubernetes API")?;
    let metrics = Metrics::default();
    let rpc = Rpc::new(metrics.clone());
    let server = Server::builder()
        .add_service(IdentityServer::new(Identity::new(
            Needs::Api(client.clone()),
            rpc.clone(),
        )))
        .add_service(ControllerServer::new(Controller::new(
            client, WAIT_MAX, rpc,
        )))
        .serve_with_incoming(socket::listen(&args.csi_socket)?);
    info!(socket = %args.csi_socket.display(), "controller is up");
    let http = http::serve(args.http_listen, args.csi_socket, metrics);
    until_told(
        async { server.await.context("the CSI server failed") },
        async { http.await.context("the HTTP server failed") },
    )
    .await
}

async fn run_node(args: NodeArgs) -> anyhow::Result<()> {
    start_log(&args.log)?;
    let endpoint = args
        .kubelet_dir
        .join("plugins")
        .join(DRIVER_NAME)
        .join("csi.sock");
    let registration = registration_socket(&args.kubelet_dir);
    let metrics = Metrics::default();
    let rpc = Rpc::new(metrics.clone());
    let daemon = Daemon {
        socket: args.daemon_socket.clone(),
    };
    let node = Node::new(
        args.node_name.clone(),
        args.max_volumes,
        daemon,
        rpc.clone(),
    );
    let identity = Identity::new(Needs::Daemon(args.daemon_socket), rpc);
    let server = Server::builder()
        .add_service(IdentityServer::new(identity))
        .add_service(NodeServer::new(node))
        .serve_with_incoming(socket::listen(&endpoint)?);
    let registrar = Registration::new(&endpoint).context("cannot link to the CSI socket")?;
    let registrar = Server::builder()
        .add_service(RegistrationServer::new(registrar))
        .serve_with_incoming(socket::listen(&registration)?);
    info!(node = args.node_name, socket = %endpoint.display(), "node is up");
    let http = http::serve(args.http_listen, endpoint, metrics);
    let ended = until_told(
        async {
            let servers = try_join(server, registrar).await;
            servers.map(|_| ()).context("a gRPC server failed")
        },
        async { http.await.context("the HTTP server failed") },
    )
    .await;
    // The kubelet forgets a driver whose registration socket is gone.
    let _ = std::fs::remove_file(&registration);
    ended
}

/// Runs both servers until one fails or the process is told to end. Calls that run are not waited for: each can be
/// repeated.
async fn until_told(
    grpc: impl Future<Output = anyhow::Result<()>>,
    http: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    tokio::select! {
        ended = grpc => ended,
        ended = http => ended,
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    }
}

fn start_log(args: &LogArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log_level)
        .with_context(|| format!("--log-level '{}' cannot be understood", args.log_level))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(())
}
