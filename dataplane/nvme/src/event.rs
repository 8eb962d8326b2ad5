//! Asynchronous events (section 5.2).

/// Bits of the asynchronous event configuration and of the events a controller supports.
pub mod mask {
    /// Changed namespaces.
    pub const NAMESPACE_ATTRIBUTES: u32 = 1 << 8;
    /// Changed ANA states.
    pub const ANA_CHANGE: u32 = 1 << 11;
    /// Changed discovery log.
    pub const DISCOVERY_LOG: u32 = 1 << 31;
}

/// An event: the result of an Asynchronous Event Request. Unknown ones survive as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncEvent {
    /// Type; 2 is a notice.
    pub kind: u8,
    /// What happened.
    pub information: u8,
    /// The log page that says more, and whose reading makes the event occur again.
    pub log_page: u8,
}

impl AsyncEvent {
    /// Namespaces came, went or changed: read [`crate::log::id::CHANGED_NAMESPACES`].
    pub const NAMESPACE_ATTRIBUTES: Self = Self {
        kind: 2,
        information: 0x00,
        log_page: 0x04,
    };
    /// ANA states changed.
    pub const ANA_CHANGE: Self = Self {
        kind: 2,
        information: 0x03,
        log_page: 0x0c,
    };
    /// The discovery log changed.
    pub const DISCOVERY_LOG: Self = Self {
        kind: 2,
        information: 0xf0,
        log_page: 0x70,
    };

    /// A reservation notification: read [`crate::log::id::RESERVATION_NOTIFICATION`].
    pub const RESERVATION_LOG: Self = Self {
        kind: 6,
        information: 0x00,
        log_page: 0x80,
    };

    /// As result of the completion.
    #[must_use]
    pub fn encode(self) -> u32 {
        u32::from_le_bytes([self.kind & 7, self.information, self.log_page, 0])
    }

    /// From the result of the completion.
    #[must_use]
    pub fn parse(result: u32) -> Self {
        let [kind, information, log_page, _] = result.to_le_bytes();
        Self {
            kind: kind & 7,
            information,
            log_page,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_round_trip() {
        assert_eq!(AsyncEvent::NAMESPACE_ATTRIBUTES.encode(), 0x0004_0002);
        assert_eq!(AsyncEvent::RESERVATION_LOG.encode(), 0x0080_0006);
        for event in [
            AsyncEvent::NAMESPACE_ATTRIBUTES,
            AsyncEvent::ANA_CHANGE,
            AsyncEvent::DISCOVERY_LOG,
            AsyncEvent::RESERVATION_LOG,
        ] {
            assert_eq!(AsyncEvent::parse(event.encode()), event);
        }
    }
}
