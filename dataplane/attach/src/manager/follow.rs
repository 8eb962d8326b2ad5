//! Attachments follow the paths that they should have, while they are in use.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::warn;

use super::{Entry, Manager};
use crate::{AttachError, PathSpec, Spec};

/// Pause between two rounds: a path that cannot be connected now is tried again in the next, and so is one that the
/// kernel gave up. Other paths are wanted: the next round begins at once.
const ROUND: Duration = Duration::from_secs(10);

/// The paths that attachments should have, by id.
#[derive(Default)]
pub(super) struct Wanted {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    paths: HashMap<String, Vec<PathSpec>>,
    is_new: bool,
}

impl Wanted {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Manager {
    /// Says which paths attachments should have, by id. Makes no attachment and ends none; one without paths here
    /// keeps those that it has. Returns at once: [`Self::follow_in_background`] does it.
    pub fn want_paths(&self, paths: HashMap<String, Vec<PathSpec>>) {
        let mut state = self.wanted.lock();
        if state.paths != paths {
            state.paths = paths;
            state.is_new = true;
            self.wanted.changed.notify_all();
        }
    }

    /// One round over all attachments.
    pub fn follow(&self) {
        let ids: Vec<String> = self.lock().keys().cloned().collect();
        for id in ids {
            if let Err(error) = self.follow_one(&id) {
                warn!(id, %error, "the paths of an attachment cannot be changed");
            }
        }
    }

    /// Runs [`Self::follow`] on a thread of its own as long as the process lives.
    ///
    /// # Errors
    /// [`AttachError::Io`] when there is no thread to be had.
    pub fn follow_in_background(self: &Arc<Self>) -> Result<(), AttachError> {
        let manager = Arc::clone(self);
        let run = move || {
            loop {
                manager.follow();
                let state = manager.wanted.lock();
                let waited = manager
                    .wanted
                    .changed
                    .wait_timeout_while(state, ROUND, |state| !state.is_new);
                let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
                state.is_new = false;
            }
        };
        std::thread::Builder::new()
            .name("paths".into())
            .spawn(run)
            .map_err(AttachError::io("start the thread that follows paths"))?;
        Ok(())
    }

    /// The attachment is not marked busy meanwhile, for a target that does not answer may take a minute, and a detach
    /// must not wait for that. If it went meanwhile, what was connected too late goes as well.
    fn follow_one(&self, id: &str) -> Result<(), AttachError> {
        let settled = |entry: &&Entry| entry.device.is_some() && !entry.busy;
        let spec = self.lock().get(id).filter(settled).map(|e| e.spec.clone());
        let Some(spec) = spec else {
            return Ok(());
        };
        let wanted = self.wanted.lock().paths.get(id).cloned();
        let wanted = wanted.unwrap_or_else(|| spec.paths.clone());
        let method = self.method_of(&spec)?;
        let has = method.follow(&spec, &wanted);
        let mut table = self.lock();
        match table.get_mut(id) {
            // The next round will see.
            Some(entry) if entry.busy || entry.spec.paths != spec.paths => return Ok(()),
            Some(entry) => {
                if entry.spec.paths == has {
                    return Ok(());
                }
                let changed = Spec { paths: has, ..spec };
                self.keep(&changed)?;
                entry.spec = changed;
                return Ok(());
            }
            None => {}
        }
        let going = Entry {
            spec: spec.clone(),
            device: None,
            error: Some("it is being taken away".into()),
            busy: true,
        };
        table.insert(id.to_owned(), going);
        drop(table);
        let gone = method.detach(&spec);
        self.lock().remove(id);
        gone
    }
}
