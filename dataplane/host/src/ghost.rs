//! Writes that may still be in flight on a path that was given up.
//!
//! A command whose connection is lost is sent again at once, but its first copy may still lie before the target or
//! its drive, and would undo whatever newer was written to the same blocks meanwhile. The copy and its repetition
//! write the same, so only other writes have to wait: a write is not sent while a copy of another one may be under
//! way to one of its blocks. It is known not to be when
//! - the path has a new controller: the target lets a host in again after the last I/O of its ended controllers; or
//! - the target says that it has ended the old controller, asked to over another path (Cross-Controller Reset); or
//! - so much time has passed that the old controller has ended by its keep-alive timer (twice the time-out, for timers
//!   restarted by traffic), and has quiesced (Command Quiesce Time) (Base Specification 2.1, section 9.6.2).

use std::time::Instant;

/// Blocks of the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) lba: u64,
    pub(crate) blocks: u32,
}

impl Range {
    fn overlaps(self, other: Self) -> bool {
        self.lba < other.lba.saturating_add(u64::from(other.blocks))
            && other.lba < self.lba.saturating_add(u64::from(self.blocks))
    }
}

#[derive(Clone, Copy, Debug)]
struct Ghost {
    path: usize,
    /// Of the request.
    sequence: u64,
    range: Range,
    until: Instant,
}

/// All of them. At most as many as commands can be in flight: a path has none when it gets its next controller.
#[derive(Debug, Default)]
pub(crate) struct Ghosts(Vec<Ghost>);

impl Ghosts {
    /// A command of the request `sequence` was in flight on a path that is lost.
    pub(crate) fn add(&mut self, path: usize, sequence: u64, range: Range, until: Instant) {
        self.0.push(Ghost {
            path,
            sequence,
            range,
            until,
        });
    }

    /// Whether a command of the request `sequence` that writes these blocks has to wait.
    pub(crate) fn block(&self, sequence: u64, range: Range) -> bool {
        let mut ghosts = self.0.iter();
        ghosts.any(|ghost| ghost.sequence != sequence && ghost.range.overlaps(range))
    }

    /// Whether there are any of the path.
    pub(crate) fn has(&self, path: usize) -> bool {
        self.0.iter().any(|ghost| ghost.path == path)
    }

    /// The controller of the path has ended. True if something that waited may go on.
    pub(crate) fn ended(&mut self, path: usize) -> bool {
        self.retain(|ghost| ghost.path != path)
    }

    /// As [`Self::reconnected`], by time.
    pub(crate) fn expire(&mut self, now: Instant) -> bool {
        self.retain(|ghost| ghost.until > now)
    }

    fn retain(&mut self, keep: impl Fn(&Ghost) -> bool) -> bool {
        let before = self.0.len();
        self.0.retain(keep);
        self.0.len() != before
    }

    /// When [`Self::expire`] has something to do next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|ghost| ghost.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn other_writes_of_the_blocks_wait() {
        let now = Instant::now();
        let mut ghosts = Ghosts::default();
        let range = |lba, blocks| Range { lba, blocks };
        assert!(!ghosts.block(1, range(0, 100)));
        ghosts.add(0, 1, range(10, 4), now + Duration::from_secs(3));
        ghosts.add(1, 2, range(20, 4), now + Duration::from_secs(5));
        let table = [
            (9, range(9, 1), false),
            (9, range(9, 2), true),
            (9, range(13, 1), true),
            (9, range(14, 6), false),
            (1, range(10, 4), false),
            (1, range(10, 11), true),
            (9, range(u64::MAX, 9), false),
        ];
        for (sequence, range, waits) in table {
            assert_eq!(ghosts.block(sequence, range), waits, "{sequence} {range:?}");
        }
        assert!(!ghosts.ended(2));
        assert!(ghosts.ended(1));
        assert!(!ghosts.block(9, range(20, 4)) && ghosts.block(9, range(10, 4)));
        assert_eq!(ghosts.deadline(), Some(now + Duration::from_secs(3)));
        assert!(!ghosts.expire(now + Duration::from_secs(2)));
        assert!(ghosts.expire(now + Duration::from_secs(3)));
        assert_eq!(ghosts.deadline(), None);
    }
}
