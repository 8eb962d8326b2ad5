//! Which objects are not to be written for a while, because a write failed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::plan::{Kind, ObjectVersion};
use crate::writer::WriteError;

/// Delay after the first failed write to an object, and the longest one.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Which objects are not to be written for a while.
#[derive(Default)]
pub struct Delays(HashMap<(Kind, String), Delay>);

struct Delay {
    backoff: Backoff,
    until: Instant,
    /// The version that the failed write was for.
    version: String,
}

impl Delays {
    /// The write may be tried at `now`.
    pub fn allow(&self, object: &ObjectVersion, now: Instant) -> bool {
        self.0
            .get(&(object.kind, object.name.clone()))
            .is_none_or(|delay| now >= delay.until || delay.version != object.resource_version)
    }

    /// Takes note of a write's result.
    pub fn record(
        &mut self,
        object: &ObjectVersion,
        result: &Result<(), WriteError>,
        now: Instant,
    ) {
        let key = (object.kind, object.name.clone());
        if result.is_ok() {
            self.0.remove(&key);
            return;
        }
        let seed = u64::from(object.name.bytes().map(u32::from).sum::<u32>());
        let delay = self.0.entry(key).or_insert_with(|| Delay {
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX, seed),
            until: now,
            version: String::new(),
        });
        delay.until = now + delay.backoff.next_delay();
        delay.version.clone_from(&object.resource_version);
    }

    /// Forgets what is over, and says when the next delay ends.
    pub fn next(&mut self, now: Instant) -> Option<Instant> {
        self.0.retain(|_, delay| delay.until + RETRY_MAX > now);
        self.0
            .values()
            .map(|d| d.until)
            .filter(|until| *until > now)
            .min()
    }
}
