//! Starts the parts, joins them, and stops them in order.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::Context;
use roadstead_attach::{HostIdentity, Manager, set_io_flusher};
use roadstead_initiator::{Dial, Nqn};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::capability::Probe;
use crate::config::{self, Config};
use crate::control::{self, Node};
use crate::external::Looker;
use crate::hold;
use crate::http::{self, Answer};
use crate::identity::{self, Identity};
use crate::keeper::Keeper;
use crate::mdns;
use crate::metrics;
use crate::reconcile::{self, Event, Reconciler};
use crate::report::Reporter;
use crate::serve::{ServeConfig, ServeError, Server};
use crate::settings::{Mode, Settings};
use crate::status::Status;
use crate::store::StateDir;

/// Directory of the attachments, in the state directory.
const ATTACHMENTS: &str = "attachments";

/// Runs the daemon until SIGTERM or SIGINT, or until a part of it fails.
///
/// # Errors
/// What failed, and with what.
pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    // With a volume of this node's own attached here, every thread between the reactors and the drives is on the way of
    // the kernel's write-back. All start after this.
    set_io_flusher();
    let directory = Arc::new(StateDir::open(&settings.state_dir)?);
    let identity = identity::load_or_make(&directory, settings.host_nqn.as_deref())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = settings.node_name,
        reactors = settings.reactors,
        host_nqn = identity.nqn,
        "roadsteadd starts"
    );
    let reactors = usize::try_from(settings.reactors).context("number of reactors")?;
    let config = ServeConfig {
        reactors: vec![None; reactors],
        controllers: settings.controllers,
        ..ServeConfig::default()
    };
    let server = Arc::new(Server::start(config).context("starting the reactors")?);
    let dial = server
        .dial()
        .context("connecting the initiator to the target")?;
    let attachments = attachments(&settings.state_dir, &identity, dial)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let parts = Parts {
        settings,
        directory,
        identity,
        server,
        attachments,
    };
    let result = runtime.block_on(parts.run());
    // Calls that block, such as an attach to a target that does not answer, are not waited for.
    runtime.shutdown_background();
    result
}

fn attachments(state_dir: &Path, identity: &Identity, dial: Dial) -> anyhow::Result<Arc<Manager>> {
    let host = HostIdentity {
        nqn: identity.nqn.clone(),
        id: identity.id,
        keys: None,
    };
    let methods = roadstead_attach::default_methods(&host, hold::held()?, Some(dial))?;
    let manager = Arc::new(Manager::open(state_dir.join(ATTACHMENTS), methods)?);
    manager.restore_in_background()?;
    manager.follow_in_background()?;
    Ok(manager)
}

struct Parts {
    settings: Settings,
    directory: Arc<StateDir>,
    identity: Identity,
    server: Arc<Server>,
    attachments: Arc<Manager>,
}

impl Parts {
    async fn run(self) -> anyhow::Result<()> {
        let Self {
            settings,
            directory,
            identity,
            server,
            attachments,
        } = self;
        let (to_reconciler, events) = reconcile::channel();
        let (publish, status) = watch::channel(Arc::new(Status::default()));
        let channel = (to_reconciler.clone(), events);
        let reconciler = Reconciler::new(server.clone(), directory.clone(), channel, publish);
        let (ended, reconciler_ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("reconciler".to_owned())
            .spawn(move || {
                // The daemon is stopping if nobody listens.
                let _ = ended.send(reconciler.run());
            })?;
        let file = match &settings.mode {
            Mode::Standalone { file, .. } => Some(file.clone()),
            Mode::Cluster => None,
        };
        let looker = Looker::new(roadstead_initiator::Identity {
            nqn: Nqn::new(&identity.nqn).context("the host NQN")?,
            id: identity.id,
            keys: None,
        });
        let (looks, attached) = (looker.clone(), attachments.clone());
        let keeper = Keeper::new(directory, to_reconciler.clone(), looks, file, attached);
        let reporter = Reporter {
            status,
            server: server.clone(),
            attachments: attachments.clone(),
            looker: looker.clone(),
            identity,
            probe: Probe::default(),
            meter: Mutex::default(),
        };
        let node = Arc::new(Node {
            keeper,
            reporter,
            attachments,
            looker,
        });
        match &settings.mode {
            Mode::Standalone { config, .. } => node.keeper.apply_file(&config.state)?,
            Mode::Cluster => node.keeper.resume()?,
        }
        let result = serve(&settings, node, server, reconciler_ended).await;
        tracing::info!("roadsteadd stops");
        // It has ended by itself if this fails.
        let _ = to_reconciler.send(Event::Stop);
        if thread.join().is_err() {
            tracing::error!("the reconciler panicked");
        }
        result
    }
}

/// Everything that runs on this thread, until it shall stop.
async fn serve(
    settings: &Settings,
    node: Arc<Node>,
    server: Arc<Server>,
    mut reconciler_ended: oneshot::Receiver<Result<(), ServeError>>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hang_up = signal(SignalKind::hangup())?;
    let socket = control::bind_socket(&settings.socket)?;
    let mut tasks = tokio::task::JoinSet::new();
    if settings.mdns {
        let status = node.reporter.status.clone();
        // Ends with the runtime.
        tokio::spawn(mdns::follow(status, settings.node_name.clone()));
    }
    if let Some(address) = settings.metrics_listen {
        tasks.spawn(serve_http(address, node.clone(), server));
    }
    if let Some(listen) = settings.control.clone() {
        let node = node.clone();
        tasks.spawn(async move { Ok(control::serve_operator(node, listen).await?) });
    }
    tasks.spawn(reread(settings.clone(), node.clone(), hang_up));
    tasks.spawn(async move { Ok(control::serve_socket(node, socket).await?) });
    tracing::info!(socket = %settings.socket.display(), "control API");
    let result = tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = &mut reconciler_ended => match ended {
            Ok(result) => Ok(result?),
            Err(_) => Err(anyhow::anyhow!("the reconciler ended early")),
        },
        Some(ended) = tasks.join_next() => match ended {
            Ok(Ok(())) => Err(anyhow::anyhow!("a server ended early")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.into()),
        },
    };
    // A stale socket is removed at the next start, too.
    let _ = fs::remove_file(&settings.socket);
    result
}

async fn serve_http(
    address: SocketAddr,
    node: Arc<Node>,
    server: Arc<Server>,
) -> anyhow::Result<()> {
    let listener = http::listen(address, "health and metrics").await;
    http::serve(listener, move |path| match path {
        "/healthz" if server.is_healthy() => Answer::ok("ok\n"),
        "/healthz" => Answer::unavailable("a reactor has ended\n"),
        "/readyz" => ready(&node.reporter.status.borrow()),
        "/metrics" => {
            let attachments = node.attachments.attachments();
            let report = node.reporter.report_of(&attachments);
            let (connections, activities) = (server.connections(), server.activities());
            Answer::ok(metrics::text(
                &report,
                &attachments,
                connections,
                activities,
                &server.rdma_counts(),
            ))
        }
        _ => Answer::not_found(),
    })
    .await;
    Ok(())
}

/// Ready as soon as the kept state is served. A node that was never told anything is ready to be told.
fn ready(status: &Status) -> Answer {
    if status.is_settled || !status.has_state {
        Answer::ok("ok\n")
    } else {
        Answer::unavailable("drives are being opened\n")
    }
}

/// Reads the configuration file again at SIGHUP. A file with mistakes changes nothing.
async fn reread(settings: Settings, node: Arc<Node>, mut hang_up: Signal) -> anyhow::Result<()> {
    while hang_up.recv().await.is_some() {
        let Mode::Standalone { file, config } = &settings.mode else {
            tracing::info!("SIGHUP: there is no configuration file to read again");
            continue;
        };
        match config::load(file) {
            Ok(new) => {
                if needs_restart(config, &new) {
                    tracing::warn!(
                        "reactors, queueEntries, ioQueues, hostNqn, stateDir, socket, metricsListen and mdns change with a restart"
                    );
                }
                tracing::info!(file = %file.display(), "configuration read again");
                node.keeper.apply_file(&new.state)?;
            }
            Err(error) => {
                tracing::error!("configuration not taken, the old one stays in force:\n{error}");
            }
        }
    }
    Ok(())
}

fn needs_restart(old: &Config, new: &Config) -> bool {
    let rest = |config: &Config| Config {
        state: Default::default(),
        ..config.clone()
    };
    rest(old) != rest(new)
}
