//! Whether acknowledged writes may have been lost with the target's volatile cache.
//!
//! A target may tell a value for a namespace, its cache epoch, that changes whenever data that it acknowledged and that no
//! flush has covered may be gone. A host that sees another value while it has such writes must not go on as if nothing
//! had happened: flushes fail, until one fails that was submitted after that was seen. File systems and databases stop
//! there, and recover, instead of building on a hole.

use uuid::Uuid;

/// Of a namespace. Points in time are numbers of requests, as [`crate::flow::Flow`] gives them.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    epoch: Option<Uuid>,
    /// The last request when the last write was acknowledged that no flush has covered.
    unflushed: Option<u64>,
    /// The last request when the loss was seen.
    lost: Option<u64>,
}

impl Cache {
    /// A write that need not be durable was acknowledged; `last` is the last request.
    pub(crate) fn wrote(&mut self, last: u64) {
        self.unflushed = Some(last);
    }

    /// A flush, the request `number`, was acknowledged. False: it must fail.
    pub(crate) fn flushed(&mut self, number: u64) -> bool {
        if let Some(lost) = self.lost {
            if number > lost {
                self.lost = None;
            }
            return false;
        }
        // What was acknowledged after it was submitted is not covered.
        self.unflushed = self.unflushed.filter(|last| number <= *last);
        true
    }

    /// The target tells this epoch; `last` is the last request. True when writes may have been lost.
    pub(crate) fn seen(&mut self, epoch: Option<Uuid>, last: u64) -> bool {
        let is_another = epoch.is_some() && self.epoch.is_some_and(|known| epoch != Some(known));
        self.epoch = epoch.or(self.epoch);
        let is_lost = is_another && self.unflushed.take().is_some();
        if is_lost {
            self.lost = Some(last);
        }
        is_lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Option<Uuid> = Some(Uuid::from_u128(1));
    const TWO: Option<Uuid> = Some(Uuid::from_u128(2));

    #[test]
    fn only_unflushed_writes_can_be_lost() {
        let mut cache = Cache::default();
        assert!(!cache.seen(ONE, 0));
        assert!(!cache.seen(TWO, 0), "nothing was written");
        cache.wrote(5);
        assert!(cache.flushed(6));
        assert!(!cache.seen(ONE, 6), "it was flushed");
        cache.wrote(9);
        assert!(cache.flushed(9), "submitted before the end of the write");
        assert!(
            !cache.seen(ONE, 9) && !cache.seen(None, 9),
            "the same, or none"
        );
        assert!(cache.seen(TWO, 12));
        assert!(!cache.flushed(11), "was under way");
        assert!(
            !cache.flushed(13) && cache.flushed(14),
            "one later flush fails"
        );
        assert!(!cache.seen(ONE, 14));
    }

    #[test]
    fn a_target_that_tells_nothing_loses_nothing() {
        let mut cache = Cache::default();
        cache.wrote(1);
        assert!(!cache.seen(None, 1) && !cache.seen(ONE, 1) && !cache.seen(None, 1));
        assert!(cache.flushed(2));
    }
}
