//! Which paths there are. They may change while the namespace is in use.
//!
//! A path that is not wanted any more is drained: it takes no new command as soon as one that is wanted works, and ends
//! when what is in flight on it was answered. Should it be lost before, that is the loss of a path as any other, and it
//! stays until no copy of a write on it can take effect any more. While no wanted path works, it carries on.

use std::time::Instant;

use super::Host;
use crate::action::{Action, Epoch};
use crate::path::Path;

impl Host {
    /// These paths are wanted from now on, nearest first, by their places: paths that there are, or new ones at free
    /// places. The others end in time, which [`Action::Removed`] tells. Without any, nothing changes.
    pub fn want(&mut self, places: &[u16], now: Instant) {
        if places.is_empty() {
            return;
        }
        let others = std::mem::take(&mut self.order);
        for path in &mut self.paths {
            path.is_wanted = false;
        }
        for place in places {
            for path in (0..=*place).skip(self.paths.len()) {
                self.paths.push(Path::vacant(Epoch { path, attempt: 0 }));
            }
            let path = self.paths.get_mut(usize::from(*place));
            let Some(path) = path.filter(|path| !path.is_wanted) else {
                continue;
            };
            if path.is_vacant() {
                path.occupy(now);
            }
            path.is_wanted = true;
            self.order.push(*place);
        }
        let left = others.into_iter().filter(|place| !places.contains(place));
        self.order.extend(left);
    }

    /// The paths that there are: wanted ones, nearest first, then the others.
    pub(super) fn in_order(&self) -> impl Iterator<Item = &Path> + Clone {
        let places = self.order.iter();
        places.filter_map(|place| self.paths.get(usize::from(*place)))
    }

    /// Ends paths that are neither wanted nor needed.
    pub(super) fn prune(&mut self) {
        let another_works = self.in_order().any(|path| path.is_wanted && path.works());
        for index in 0..self.paths.len() {
            let path = self.paths.get(index);
            if path.is_some_and(|path| path.is_done_with(another_works)) && !self.ghosts.has(index)
            {
                self.remove(index);
            }
        }
    }

    fn remove(&mut self, index: usize) {
        let Some(path) = self.paths.get_mut(index) else {
            return;
        };
        let epoch = path.epoch;
        let gone = std::mem::replace(path, Path::vacant(epoch));
        self.order.retain(|place| *place != epoch.path);
        if let Some(fencing) = gone.association.and_then(|a| a.fencing) {
            self.fence_lost(fencing);
        }
        self.actions.push_back(Action::Close { epoch });
        self.actions.push_back(Action::Removed { path: index });
    }
}
