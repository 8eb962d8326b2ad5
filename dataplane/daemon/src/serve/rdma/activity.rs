//! What a reactor's RDMA devices were asked to do, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use roadstead_verbs::Counts;

/// The counts of all queue pairs of one reactor, those that are gone included. Its reactor writes them once a second.
#[derive(Debug, Default)]
pub(crate) struct RdmaActivity {
    requests: AtomicU64,
    doorbells: AtomicU64,
    polls: AtomicU64,
    completions: AtomicU64,
    messages: AtomicU64,
}

impl RdmaActivity {
    pub(super) fn store(&self, counts: Counts) {
        let Counts {
            requests,
            doorbells,
            polls,
            completions,
            messages,
        } = counts;
        self.requests.store(requests, Relaxed);
        self.doorbells.store(doorbells, Relaxed);
        self.polls.store(polls, Relaxed);
        self.completions.store(completions, Relaxed);
        self.messages.store(messages, Relaxed);
    }

    /// As they were a second ago at most.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            requests: self.requests.load(Relaxed),
            doorbells: self.doorbells.load(Relaxed),
            polls: self.polls.load(Relaxed),
            completions: self.completions.load(Relaxed),
            messages: self.messages.load(Relaxed),
        }
    }
}
