//! Waiting longer after every failure, within bounds, and not all at the same moment.

use std::time::Duration;

/// A doubling delay with jitter.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
    seed: u64,
}

impl Backoff {
    /// Delays from `first`, doubling up to `max`; `seed` tells this one's jitter from others'.
    pub fn new(first: Duration, max: Duration, seed: u64) -> Self {
        Backoff {
            first,
            max,
            failures: 0,
            seed,
        }
    }

    /// The delay after one more failure: between half and the whole of the doubled one.
    pub fn next_delay(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let delay = self.first.saturating_mul(factor).min(self.max);
        self.failures = self.failures.saturating_add(1).min(31);
        delay / 2 + delay.mul_f64(self.unit() / 2.0)
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next number of a sequence in 0..1 (xorshift).
    fn unit(&mut self) -> f64 {
        let mut x = self.seed | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.seed = x;
        let bits = u32::try_from(x >> 32).unwrap_or_default();
        f64::from(bits) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_bounds_and_starts_again() {
        let first = Duration::from_millis(100);
        let max = Duration::from_secs(10);
        let mut backoff = Backoff::new(first, max, 7);
        let mut full = first;
        for _ in 0..40 {
            let delay = backoff.next_delay();
            assert!(delay >= full / 2 && delay <= full, "{delay:?} of {full:?}");
            full = (full * 2).min(max);
        }
        backoff.reset();
        assert!(backoff.next_delay() <= first);
    }
}
