//! Free extents: which are clean, which are not yet out of reach, and which to clean next.
//!
//! ```text
//!  free ── take (zero, sync) ──> clean ── pop ──> mapped ── limbo ──> release ──> free
//! ```
//! None of it is on the medium: after a start everything that no map mentions is free and not clean.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use crate::bitmap::Bitmap;
use crate::shared::PoolShared;
use crate::state::Span;

/// Names extents that were freed together. Give it to `release` when every I/O that was in flight when the
/// change returned has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GraceToken(pub(crate) u64);

struct Limbo {
    token: u64,
    /// The journal batch that freed them; reused only once it is durable.
    seq: u64,
    released: bool,
    spans: Vec<Span>,
}

pub(crate) struct Reserve {
    shared: Arc<PoolShared>,
    /// Every extent that is not free: mapped, clean, being cleaned, or in limbo.
    taken: Bitmap,
    clean: VecDeque<u32>,
    limbo: VecDeque<Limbo>,
    cursor: u32,
    last_token: u64,
}

impl Reserve {
    pub(crate) fn new(shared: Arc<PoolShared>, mapped: &Bitmap) -> Self {
        shared.clean_extents.store(0, SeqCst);
        shared.limbo_extents.store(0, SeqCst);
        Self {
            shared,
            taken: mapped.clone(),
            clean: VecDeque::new(),
            limbo: VecDeque::new(),
            cursor: 0,
            last_token: 0,
        }
    }

    /// The drive has so many extents from now on; the new ones are free.
    pub(crate) fn grow_drive(&mut self, extents: u32) {
        self.taken.grow(extents);
    }

    pub(crate) fn clean_count(&self) -> usize {
        self.clean.len()
    }

    pub(crate) fn pop_clean(&mut self) -> Option<u32> {
        let extent = self.clean.pop_front()?;
        self.shared.clean_extents.fetch_sub(1, SeqCst);
        Some(extent)
    }

    /// Free extents to clean, at most `max`, as spans; they count as taken from now on.
    pub(crate) fn take_free(&mut self, max: usize) -> Vec<Span> {
        let mut spans: Vec<Span> = Vec::new();
        for _ in 0..max {
            let found = self
                .taken
                .next_absent(self.cursor)
                .or_else(|| self.taken.next_absent(0));
            let Some(extent) = found else { break };
            self.taken.insert(extent);
            self.cursor = extent.saturating_add(1);
            match spans.last_mut() {
                Some(span) if span.first.checked_add(span.count) == Some(extent) => span.count += 1,
                _ => spans.push(Span {
                    first: extent,
                    count: 1,
                }),
            }
        }
        spans
    }

    /// They could not be cleaned.
    pub(crate) fn put_back(&mut self, spans: &[Span]) {
        for extent in spans
            .iter()
            .flat_map(|span| span.first..span.first + span.count)
        {
            self.taken.remove(extent);
        }
    }

    /// They were zeroed and synced.
    pub(crate) fn push_clean(&mut self, spans: &[Span]) {
        for span in spans {
            self.clean.extend(span.first..span.first + span.count);
            self.shared.clean_extents.fetch_add(span.count, SeqCst);
        }
    }

    /// They were freed by the journal batch `seq`.
    pub(crate) fn push_limbo(&mut self, spans: Vec<Span>, seq: u64) -> GraceToken {
        self.last_token += 1;
        let extents = spans.iter().map(|s| s.count).sum();
        self.shared.limbo_extents.fetch_add(extents, SeqCst);
        self.limbo.push_back(Limbo {
            token: self.last_token,
            seq,
            released: false,
            spans,
        });
        GraceToken(self.last_token)
    }

    /// Nobody can reach what was freed up to `token` any more.
    pub(crate) fn release(&mut self, token: GraceToken) {
        for entry in self
            .limbo
            .iter_mut()
            .take_while(|entry| entry.token <= token.0)
        {
            entry.released = true;
        }
    }

    pub(crate) fn last_unreleased(&self) -> Option<GraceToken> {
        self.limbo
            .back()
            .filter(|entry| !entry.released)
            .map(|entry| GraceToken(entry.token))
    }

    /// Whether a sync would let released extents go free.
    pub(crate) fn waits_for_sync(&self) -> bool {
        let durable = self.shared.durable_seq();
        self.limbo
            .front()
            .is_some_and(|entry| entry.released && entry.seq > durable)
    }

    /// Frees what is released and durable; gives its spans.
    pub(crate) fn reclaim(&mut self) -> Vec<Span> {
        let durable = self.shared.durable_seq();
        let mut freed = Vec::new();
        let can_go = |entry: &Limbo| entry.released && entry.seq <= durable;
        while self.limbo.front().is_some_and(can_go) {
            let Some(entry) = self.limbo.pop_front() else {
                break;
            };
            for span in entry.spans {
                for extent in span.first..span.first + span.count {
                    self.taken.remove(extent);
                }
                self.shared.limbo_extents.fetch_sub(span.count, SeqCst);
                freed.push(span);
            }
        }
        freed
    }
}
