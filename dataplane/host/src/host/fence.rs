//! Ending the controller of a lost path by another controller.
//!
//! Writes in flight on a lost path are sent again over another one at once, but newer writes to the same blocks have to wait
//! for the old controller's end ([`crate::ghost`]), which takes its keep-alive time-out. A target with Cross-Controller
//! Reset (Base Specification 2.3, section 5.4.3) ends it when asked to over any other path, and answers when nothing of it
//! is in flight any more.

use std::time::{Duration, Instant};

use roadstead_nvme::Cqe;

use super::Host;
use super::control::{CID_FENCE, UNKNOWN_COMMAND};
use crate::admin::Control;
use crate::path::{Fence, Path};
use crate::setup::SetUpError;

/// Pause until a target is asked again: there was nobody to ask, or it has not ended the controller yet.
const FENCE_PAUSE: Duration = Duration::from_millis(100);

/// In the result of a Cross-Controller Reset: it is done.
const IMMEDIATE: u64 = 1;

/// The controller of which path, in which of its attempts, is being ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fencing {
    path: usize,
    attempt: u32,
}

impl Host {
    /// Asks for the ends that are due.
    pub(super) fn fence(&mut self, now: Instant) {
        for index in 0..self.paths.len() {
            if !self.ghosts.has(index)
                && let Some(path) = self.paths.get_mut(index)
            {
                // Time has ended what there was to wait for.
                path.fence = None;
            }
            let due = self.paths.get(index).and_then(|path| path.fence.as_ref());
            let Some(fence) = due.filter(|fence| !fence.is_asked && fence.at <= now) else {
                continue;
            };
            let (attempt, cntlid, instance) = (fence.attempt, fence.cntlid, fence.instance);
            let asker = self.paths.iter().position(Path::can_fence);
            if let Some(path) = self.paths.get_mut(index)
                && let Some(fence) = &mut path.fence
            {
                fence.is_asked = asker.is_some();
                fence.at = now + FENCE_PAUSE;
            }
            if let Some(asker) = asker {
                if let Some(association) = self.association(asker) {
                    association.fencing = Some(Fencing {
                        path: index,
                        attempt,
                    });
                }
                let command = Control::cross_controller_reset(cntlid, instance);
                self.send(asker, 0, CID_FENCE, command);
            }
        }
    }

    /// The answer to a Cross-Controller Reset.
    pub(super) fn fence_answered(&mut self, asker: usize, cqe: &Cqe) -> Result<(), SetUpError> {
        let association = self.association(asker);
        let fencing = association.and_then(|association| association.fencing.take());
        let fencing = fencing.ok_or(UNKNOWN_COMMAND)?;
        let path = self.paths.get_mut(fencing.path).ok_or(UNKNOWN_COMMAND)?;
        // A path that is connected again needs no fence, and has none.
        let Some(fence) = path.fence.as_mut().filter(|f| f.attempt == fencing.attempt) else {
            return Ok(());
        };
        fence.is_asked = false;
        if !cqe.status().is_success() {
            // The time-outs that end it without our doing are waited for.
            path.fence = None;
        } else if cqe.result.get() & IMMEDIATE != 0 {
            path.fence = None;
            if self.ghosts.ended(fencing.path) {
                self.flow.release();
            }
        }
        Ok(())
    }

    /// A path was lost that others had asked over.
    pub(super) fn fence_lost(&mut self, fencing: Fencing) {
        if let Some(path) = self.paths.get_mut(fencing.path)
            && let Some(fence) = path.fence.as_mut().filter(|f| f.attempt == fencing.attempt)
        {
            fence.is_asked = false;
        }
    }

    /// When to ask next.
    pub(super) fn fence_deadline(&self) -> Option<Instant> {
        let fences = self.paths.iter().filter_map(|path| path.fence.as_ref());
        let waiting = fences.filter(|fence| !fence.is_asked);
        waiting.map(|fence: &Fence| fence.at).min()
    }
}
