//! The paths of a device while it is in use: what they do, how often they were lost, and which there should be.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tracing::{info, warn};

use super::KernelMethod;
use super::sysfs::Controller;
use super::watch::Link;
use crate::manager::failed_paths;
use crate::{Losses, PathSpec, PathState, PathStatus, Spec};

/// What was seen of paths so far, by the id of the attachment.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<String, HashMap<PathSpec, Last>>>);

#[derive(Clone, Copy, Default)]
struct Last {
    is_live: bool,
    losses: Losses,
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, HashMap<PathSpec, Last>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the paths do at `now_s` (Unix seconds) and adds how often each was lost.
    fn note(&self, id: &str, paths: &mut [PathStatus], now_s: u64) {
        let mut all = self.lock();
        let before = all.remove(id).unwrap_or_default();
        let mut after = HashMap::new();
        for status in paths {
            let mut last = before.get(&status.path).copied().unwrap_or_default();
            let is_live = status.state == PathState::Live;
            if last.is_live && !is_live {
                last.losses.count = last.losses.count.saturating_add(1);
                last.losses.last_s = now_s;
            }
            last.is_live = is_live;
            status.losses = last.losses;
            after.insert(status.path, last);
        }
        all.insert(id.to_owned(), after);
    }

    /// The attachment is gone.
    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
    }
}

impl KernelMethod {
    /// What every path does now.
    pub(super) fn status(&self, spec: &Spec) -> Vec<PathStatus> {
        let controllers = self.controllers(spec);
        let mut paths = failed_paths(spec, "the kernel has no controller for it");
        for status in &mut paths {
            if let Some(controller) = controllers.iter().find(|c| c.is_to(&status.path)) {
                (status.state, status.message) = state(controller);
                if let Some(namespace) =
                    controller.namespace(|n| spec.is_meant(n.nsid, n.uuid, n.nguid))
                {
                    status.ana_state = namespace.ana_state();
                    status.traffic = namespace.traffic();
                }
            }
            status.round_trip = self.watch.round_trip(&status.path);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_s = now.map_or(0, |since| since.as_secs());
        self.seen.note(&spec.id, &mut paths, now_s);
        paths
    }

    /// Has the connections to these paths watched.
    pub(super) fn watch_paths(&self, spec: &Spec, paths: &[PathSpec]) {
        let controllers = self.controllers(spec);
        let link = |path: &PathSpec| {
            let controller = controllers.iter().find(|c| c.is_alive() && c.is_to(path))?;
            Some(Link {
                path: *path,
                dir: controller.dir.as_path().into(),
            })
        };
        self.watch
            .follow(&spec.id, paths.iter().filter_map(link).collect());
    }

    /// Connects the paths that have no controller and disconnects controllers that are none of the paths', once one
    /// of the paths is live. Returns the paths and what could not be disconnected yet.
    pub(super) fn move_to(&self, spec: &Spec, paths: &[PathSpec]) -> Vec<PathSpec> {
        let mut controllers = self.controllers(spec);
        for path in paths {
            if controllers.iter().any(|c| c.is_alive() && c.is_to(path)) {
                continue;
            }
            if let Err(error) = self.connect_path(spec, path) {
                warn!(id = spec.id, %path, %error, "path cannot be connected, will try later");
            }
        }
        controllers = self.controllers(spec);
        let wanted = |c: &Controller| paths.iter().any(|path| c.is_to(path));
        // An appliance's subsystem is shared: another attachment may want what this one does not.
        let is_safe = controllers.iter().any(|c| c.state == "live" && wanted(c))
            && matches!(self.is_shared(spec), Ok(false));
        let mut left = paths.to_vec();
        for old in spec.paths.iter().filter(|path| !paths.contains(path)) {
            let closed = controllers
                .iter()
                .filter(|c| c.is_to(old))
                .all(|c| is_safe && self.close(spec, old, c));
            if !closed {
                left.push(*old);
            }
        }
        self.watch_paths(spec, &left);
        left
    }

    fn close(&self, spec: &Spec, path: &PathSpec, controller: &Controller) -> bool {
        match controller.delete() {
            Ok(()) => {
                info!(id = spec.id, %path, "path is not wanted any more, kernel disconnected");
                true
            }
            Err(error) => {
                warn!(id = spec.id, %path, %error, "path cannot be disconnected, will try later");
                false
            }
        }
    }
}

fn state(controller: &Controller) -> (PathState, String) {
    match controller.state.as_str() {
        "live" => (PathState::Live, String::new()),
        "new" | "connecting" | "resetting" => (PathState::Connecting, controller.state.clone()),
        other => (PathState::Failed, other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use roadstead_nvme::Portal;

    use super::*;

    #[test]
    fn a_loss_is_a_path_that_was_live_and_is_not() {
        let path: PathSpec = "rdma:10.0.0.1:4420".parse::<Portal>().unwrap().into();
        let seen = Seen::default();
        let look = |state, now_s| {
            let status = PathStatus::failed(path, "");
            let mut paths = [PathStatus { state, ..status }];
            seen.note("a", &mut paths, now_s);
            (paths[0].losses.count, paths[0].losses.last_s)
        };
        assert_eq!(look(PathState::Connecting, 10), (0, 0));
        assert_eq!(look(PathState::Live, 11), (0, 0));
        assert_eq!(look(PathState::Connecting, 12), (1, 12));
        assert_eq!(look(PathState::Failed, 13), (1, 12));
        assert_eq!(look(PathState::Live, 14), (1, 12));
        assert_eq!(look(PathState::Failed, 15), (2, 15));
        seen.forget("a");
        assert_eq!(look(PathState::Failed, 16), (0, 0));
    }
}
