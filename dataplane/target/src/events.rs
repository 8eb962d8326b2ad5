//! Asynchronous events of a controller.

use std::collections::BTreeSet;

use roadstead_nvme::command::NSID_ALL;
use roadstead_nvme::event::{AsyncEvent, mask};
use roadstead_nvme::log::CHANGED_NAMESPACES_MAX;

/// Stands among the bits of the event configuration for what has a mask of its own.
pub(crate) const RESERVATION_LOG: u32 = 1 << 24;

/// Events and what is known about them.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// What the host wants to hear of.
    pub(crate) enabled: u32,
    /// Happened and not reported.
    pending: u32,
    /// Reported, and the log page that says more was not read yet: not reported again.
    masked: u32,
    /// Changed since the host last read the list.
    changed: BTreeSet<u32>,
}

impl Events {
    pub(crate) fn raise(&mut self, event: u32) {
        self.pending |= event;
    }

    /// Namespaces changed.
    pub(crate) fn raise_namespaces(&mut self, changed: Vec<u32>) {
        self.changed.extend(changed);
        self.raise(mask::NAMESPACE_ATTRIBUTES);
    }

    /// The next event to report, when a request for one is held.
    pub(crate) fn take(&mut self) -> Option<AsyncEvent> {
        let known = [
            (mask::NAMESPACE_ATTRIBUTES, AsyncEvent::NAMESPACE_ATTRIBUTES),
            (mask::ANA_CHANGE, AsyncEvent::ANA_CHANGE),
            (mask::DISCOVERY_LOG, AsyncEvent::DISCOVERY_LOG),
            (RESERVATION_LOG, AsyncEvent::RESERVATION_LOG),
        ];
        let ready = self.pending & (self.enabled | RESERVATION_LOG) & !self.masked;
        let (bit, event) = known.into_iter().find(|(bit, _)| ready & bit != 0)?;
        self.pending &= !bit;
        self.masked |= bit;
        Some(event)
    }

    /// The host read the log page of an event.
    pub(crate) fn rearm(&mut self, event: u32) {
        self.masked &= !event;
    }

    /// The changed namespaces, as the log page shows them; forgotten unless they are to be kept.
    pub(crate) fn changed(&mut self, keep: bool) -> Vec<u32> {
        let list = if self.changed.len() > CHANGED_NAMESPACES_MAX {
            vec![NSID_ALL]
        } else {
            self.changed.iter().copied().collect()
        };
        if !keep {
            self.changed.clear();
        }
        list
    }

    /// A reset: nothing is enabled, pending or masked; what changed is kept, as the host did not hear of it.
    pub(crate) fn reset(&mut self) {
        *self = Self {
            changed: std::mem::take(&mut self.changed),
            ..Self::default()
        };
    }
}
