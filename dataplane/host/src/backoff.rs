//! When to try to connect again.

use std::time::Duration;

/// Pause after a path failed to connect.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// The pause before the next try of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self { next: BACKOFF_MIN }
    }

    /// The pause to make now, at most `longest`.
    pub(crate) fn pause(&mut self, longest: Duration) -> Duration {
        let pause = self.next.min(longest);
        self.next = pause.saturating_mul(2);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_bound() {
        let mut backoff = Backoff::new();
        let longest = Duration::from_secs(2);
        let pauses: Vec<_> = (0..7).map(|_| backoff.pause(longest).as_millis()).collect();
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
    }
}
