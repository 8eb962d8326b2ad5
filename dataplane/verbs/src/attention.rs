//! Whether a queue pair is polled, or left to its device to tell of completions.

/// After so many polls that found nothing, a queue pair is left to its device.
const MISSES_MAX: u32 = 1000;

/// The attention that a queue pair gets from its thread.
///
/// A queue pair that is polled no longer was armed before its last poll: nothing that comes is missed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attention {
    is_busy: bool,
    misses: u32,
}

/// What to do after a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Poll again.
    Poll,
    /// Arm it, then poll again.
    Arm,
    /// It was armed before this poll: wait until its device tells.
    Wait,
}

impl Attention {
    /// There is something to do: true if it was not polled before. It is then.
    pub fn wakes(&mut self) -> bool {
        self.misses = 0;
        !std::mem::replace(&mut self.is_busy, true)
    }

    /// It is polled.
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Its thread sleeps: it is not polled any more, and was armed before its last poll.
    pub fn sleeps(&mut self) {
        *self = Self::default();
    }

    /// After a poll that found something or did not.
    pub fn polled(&mut self, worked: bool) -> Next {
        if worked {
            self.misses = 0;
            self.is_busy = true;
            return Next::Poll;
        }
        self.misses += 1;
        self.is_busy = self.misses <= MISSES_MAX;
        match self.misses {
            MISSES_MAX => Next::Arm,
            misses if misses < MISSES_MAX => Next::Poll,
            _ => Next::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_armed_one_poll_before_it_is_left() {
        let mut attention = Attention::default();
        assert!(attention.wakes() && !attention.wakes());
        for _ in 1..MISSES_MAX {
            assert_eq!(attention.polled(false), Next::Poll);
        }
        assert_eq!(attention.polled(false), Next::Arm);
        assert_eq!(attention.polled(true), Next::Poll);
        for _ in 1..MISSES_MAX {
            assert_eq!(attention.polled(false), Next::Poll);
        }
        assert_eq!(attention.polled(false), Next::Arm);
        assert_eq!(attention.polled(false), Next::Wait);
        assert!(attention.wakes());
        attention.sleeps();
        assert!(attention.wakes());
    }
}
