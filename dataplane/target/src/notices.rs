//! Reservation notifications of one controller (section 8.19.1).

use std::collections::{BTreeMap, VecDeque};

use roadstead_nvme::reservation::{Notice, NotificationLog, mask};
use zerocopy::FromZeros;
use zerocopy::little_endian::{U32, U64};

use crate::limits;

/// What the host has not read yet, and what it does not want to hear of.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    /// Masks by namespace identifier; none is zero.
    masks: BTreeMap<u32, u32>,
    count: u64,
    /// Oldest first, at most [`limits::NOTICES_MAX`].
    waiting: VecDeque<(u64, u32, Notice)>,
}

impl Notices {
    /// Something happened. False when the host does not want to hear of it.
    pub(crate) fn add(&mut self, nsid: u32, notice: Notice) -> bool {
        if self.mask(nsid) & notice.mask() != 0 {
            return false;
        }
        if self.waiting.len() >= limits::NOTICES_MAX {
            self.waiting.pop_front();
        }
        self.count += 1;
        self.waiting.push_back((self.count, nsid, notice));
        true
    }

    /// The log page: the oldest notification, which is taken out unless it is to be kept.
    pub(crate) fn log(&mut self, keep: bool) -> NotificationLog {
        let mut log = NotificationLog::new_zeroed();
        if let Some((count, nsid, notice)) = self.waiting.front() {
            log.count = U64::new(*count);
            log.kind = notice.code();
            log.available = u8::try_from(self.waiting.len() - 1).unwrap_or(u8::MAX);
            log.nsid = U32::new(*nsid);
        }
        if !keep {
            self.waiting.pop_front();
        }
        log
    }

    /// What is not reported of a namespace.
    pub(crate) fn mask(&self, nsid: u32) -> u32 {
        self.masks.get(&nsid).copied().unwrap_or(0)
    }

    /// Sets what is not reported of a namespace.
    pub(crate) fn set_mask(&mut self, nsid: u32, value: u32) {
        if value & mask::ALL == 0 {
            self.masks.remove(&nsid);
        } else {
            self.masks.insert(nsid, value & mask::ALL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_gives_one_at_a_time_and_shows_what_was_lost() {
        let mut notices = Notices::default();
        assert_eq!(notices.log(false).kind, 0);
        for _ in 0..limits::NOTICES_MAX + 3 {
            assert!(notices.add(7, Notice::ReservationReleased));
        }
        let first = notices.log(true);
        assert_eq!(notices.log(false), first);
        assert_eq!((first.count.get(), first.kind, first.nsid.get()), (4, 2, 7));
        assert_eq!(usize::from(first.available), limits::NOTICES_MAX - 1);
        assert_eq!(notices.log(false).count.get(), 5);
    }

    #[test]
    fn masks_are_per_namespace_and_kind() {
        let mut notices = Notices::default();
        notices.set_mask(7, mask::RESERVATION_RELEASED | 1);
        assert_eq!(notices.mask(7), mask::RESERVATION_RELEASED);
        assert!(!notices.add(7, Notice::ReservationReleased));
        assert!(notices.add(7, Notice::ReservationPreempted));
        assert!(notices.add(8, Notice::ReservationReleased));
        notices.set_mask(7, 0);
        assert!(notices.add(7, Notice::ReservationReleased));
    }
}
