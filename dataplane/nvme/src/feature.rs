//! Features (section 5.27).

/// Feature identifiers.
pub mod id {
    /// Arbitration.
    pub const ARBITRATION: u8 = 0x01;
    /// Power management.
    pub const POWER_MANAGEMENT: u8 = 0x02;
    /// Temperature threshold.
    pub const TEMPERATURE_THRESHOLD: u8 = 0x04;
    /// Error recovery.
    pub const ERROR_RECOVERY: u8 = 0x05;
    /// Volatile write cache.
    pub const VOLATILE_WRITE_CACHE: u8 = 0x06;
    /// Number of queues.
    pub const NUMBER_OF_QUEUES: u8 = 0x07;
    /// Write atomicity.
    pub const WRITE_ATOMICITY: u8 = 0x0a;
    /// Asynchronous event configuration.
    pub const ASYNC_EVENT_CONFIGURATION: u8 = 0x0b;
    /// Keep alive timer.
    pub const KEEP_ALIVE_TIMER: u8 = 0x0f;
    /// Host identifier.
    pub const HOST_IDENTIFIER: u8 = 0x81;
    /// Reservation notification mask.
    pub const RESERVATION_MASK: u8 = 0x82;
    /// Reservation persistence.
    pub const RESERVATION_PERSISTENCE: u8 = 0x83;
}

/// Which value of a feature Get Features asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The value in use.
    Current,
    /// The value after a reset.
    Default,
    /// The saved value.
    Saved,
    /// What can be done with the feature.
    Capabilities,
}

/// Result of Get Features with [`Select::Capabilities`]: survives a reset when it is saved.
pub const CAPABILITY_SAVEABLE: u32 = 1 << 0;
/// Result of Get Features with [`Select::Capabilities`]: each namespace has its own.
pub const CAPABILITY_NAMESPACE: u32 = 1 << 1;
/// Result of Get Features with [`Select::Capabilities`]: can be changed.
pub const CAPABILITY_CHANGEABLE: u32 = 1 << 2;

/// Number of I/O queues asked for or granted; the wire counts from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberOfQueues {
    /// Submission queues, at least 1.
    pub submission: u32,
    /// Completion queues, at least 1.
    pub completion: u32,
}

impl NumberOfQueues {
    /// From command dword 11 or the result. None when a number is 65535 (reserved).
    #[must_use]
    pub fn parse(value: u32) -> Option<Self> {
        let (submission, completion) = (value & 0xffff, value >> 16);
        (submission != 0xffff && completion != 0xffff).then_some(Self {
            submission: submission + 1,
            completion: completion + 1,
        })
    }

    /// As command dword 11 or result.
    #[must_use]
    pub fn encode(self) -> u32 {
        let zero_based = |count: u32| count.clamp(1, 0xffff) - 1;
        zero_based(self.completion) << 16 | zero_based(self.submission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_queues_round_trip() {
        let numbers = NumberOfQueues {
            submission: 4,
            completion: 65535,
        };
        assert_eq!(numbers.encode(), 0xfffe_0003);
        assert_eq!(NumberOfQueues::parse(numbers.encode()), Some(numbers));
        assert_eq!(NumberOfQueues::parse(0xffff), None);
        assert_eq!(NumberOfQueues::parse(0xffff_0000), None);
    }
}
