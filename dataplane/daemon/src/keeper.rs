//! Keeps the desired state: a new one is checked, made durable and handed to the reconciler, in this order.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use prost::Message;
use roadstead_api::v1;
use roadstead_attach::Manager;
use roadstead_nvme::Portal;
use tokio::sync::Mutex;

use crate::desired::{self, Desired, Invalid};
use crate::external::Looker;
use crate::reconcile::Event;
use crate::store::{StateDir, StoreError};

/// The file of the last state.
const FILE: &str = "state";

/// Why a state was not taken. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The daemon runs by a file.
    #[error("this daemon serves what {} says; change that file and send SIGHUP", file.display())]
    FileRules { file: PathBuf },
    /// The state is malformed.
    #[error("the state was not taken: {}", listed(.0))]
    Invalid(Vec<Invalid>),
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The reconciler has ended.
    #[error("the daemon is stopping")]
    Stopped,
}

fn listed(invalid: &[Invalid]) -> String {
    invalid
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// The one place through which a new state comes.
pub(crate) struct Keeper {
    directory: Arc<StateDir>,
    events: Sender<Event>,
    looker: Arc<Looker>,
    /// Set when a file says what to serve.
    file: Option<PathBuf>,
    attachments: Arc<Manager>,
    /// Held while a state is being kept: the last one written is the last one handed over.
    turn: Mutex<()>,
}

impl Keeper {
    pub(crate) fn new(
        directory: Arc<StateDir>,
        events: Sender<Event>,
        looker: Arc<Looker>,
        file: Option<PathBuf>,
        attachments: Arc<Manager>,
    ) -> Self {
        Self {
            directory,
            events,
            looker,
            file,
            attachments,
            turn: Mutex::new(()),
        }
    }

    /// Takes a state that came over the control API.
    pub(crate) async fn apply(&self, state: v1::NodeState) -> Result<(), ApplyError> {
        if let Some(file) = &self.file {
            return Err(ApplyError::FileRules { file: file.clone() });
        }
        let desired = desired::parse(&state).map_err(ApplyError::Invalid)?;
        let _turn = self.turn.lock().await;
        let directory = Arc::clone(&self.directory);
        let save = move || directory.save(FILE, &state.encode_to_vec());
        // A panic in `save` is as good as a reconciler that ended: the daemon cannot go on.
        tokio::task::spawn_blocking(save)
            .await
            .map_err(|_| ApplyError::Stopped)??;
        self.hand_over(desired)
    }

    /// Takes a state that the file says; it is not kept elsewhere.
    pub(crate) fn apply_file(&self, state: &v1::NodeState) -> Result<(), ApplyError> {
        self.hand_over(desired::parse(state).map_err(ApplyError::Invalid)?)
    }

    fn hand_over(&self, desired: Desired) -> Result<(), ApplyError> {
        let specs = |paths: &Vec<Portal>| paths.iter().copied().map(Into::into).collect();
        let attachments = desired.attachments.iter();
        self.attachments.want_paths(
            attachments
                .map(|(id, paths)| (id.clone(), specs(paths)))
                .collect(),
        );
        self.looker.follow(&desired.externals);
        self.events
            .send(Event::Desired(Box::new(desired)))
            .map_err(|_| ApplyError::Stopped)
    }

    /// Hands over the kept state, so that the node serves without anyone telling it to.
    ///
    /// A file that cannot be used is put aside: the daemon serves nothing until it is told again, and nothing
    /// is lost, because nothing is ever deleted for being missing.
    pub(crate) fn resume(&self) -> Result<(), ApplyError> {
        let bytes = match self.directory.load(FILE) {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) => bytes,
            Err(error @ StoreError::Damaged { .. }) => return self.give_up(&error.to_string()),
            Err(error) => return Err(error.into()),
        };
        let Ok(state) = v1::NodeState::decode(bytes.as_slice()) else {
            return self.give_up("it does not hold a state");
        };
        match desired::parse(&state) {
            Ok(desired) => {
                tracing::info!(revision = desired.revision, "serving the kept state");
                self.hand_over(desired)
            }
            Err(invalid) => self.give_up(&listed(&invalid)),
        }
    }

    fn give_up(&self, why: &str) -> Result<(), ApplyError> {
        tracing::error!(
            why,
            "the kept state cannot be used and was put aside; nothing is served"
        );
        Ok(self.directory.set_aside(FILE)?)
    }
}
