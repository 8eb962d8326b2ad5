//! Data structures of reservations (sections 7.2 to 7.5, 5.16.1.24 and 8.19).

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Reservation capabilities of a namespace with everything: persistence, all six types, and the meaning of "ignore
/// existing key" since version 1.3.
pub const CAPABILITIES: u8 = 0xff;

/// Bits of the reservation notification mask: what is not to be reported.
pub mod mask {
    /// [`super::Notice::RegistrationPreempted`].
    pub const REGISTRATION_PREEMPTED: u32 = 1 << 1;
    /// [`super::Notice::ReservationReleased`].
    pub const RESERVATION_RELEASED: u32 = 1 << 2;
    /// [`super::Notice::ReservationPreempted`].
    pub const RESERVATION_PREEMPTED: u32 = 1 << 3;
    /// All of them.
    pub const ALL: u32 = 0b1110;
}

/// Types of reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ReservationType {
    /// Only the holder writes.
    WriteExclusive,
    /// Only the holder reads and writes.
    ExclusiveAccess,
    /// Only registrants write; one of them is the holder.
    WriteExclusiveRegistrants,
    /// Only registrants read and write; one of them is the holder.
    ExclusiveAccessRegistrants,
    /// Only registrants write, and all of them are holders.
    WriteExclusiveAll,
    /// Only registrants read and write, and all of them are holders.
    ExclusiveAccessAll,
}

impl ReservationType {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::WriteExclusive,
        Self::ExclusiveAccess,
        Self::WriteExclusiveRegistrants,
        Self::ExclusiveAccessRegistrants,
        Self::WriteExclusiveAll,
        Self::ExclusiveAccessAll,
    ];

    /// The number on the wire, 1 to 6.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::WriteExclusive => 1,
            Self::ExclusiveAccess => 2,
            Self::WriteExclusiveRegistrants => 3,
            Self::ExclusiveAccessRegistrants => 4,
            Self::WriteExclusiveAll => 5,
            Self::ExclusiveAccessAll => 6,
        }
    }

    /// From the number on the wire.
    #[must_use]
    pub fn parse(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whether every registrant is a holder.
    #[must_use]
    pub fn is_held_by_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAll | Self::ExclusiveAccessAll)
    }

    /// Whether being registered gives rights, to the holder or not.
    #[must_use]
    pub fn is_for_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Whether it keeps others from reading too.
    #[must_use]
    pub fn is_exclusive_access(self) -> bool {
        matches!(
            self,
            Self::ExclusiveAccess | Self::ExclusiveAccessRegistrants | Self::ExclusiveAccessAll
        )
    }
}

/// Data of Reservation Register.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct RegisterData {
    /// The host's key until now.
    pub current_key: U64,
    /// The host's key from now on.
    pub new_key: U64,
}

/// Data of Reservation Acquire.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct AcquireData {
    /// The host's key.
    pub current_key: U64,
    /// Whose registrations are preempted.
    pub preempt_key: U64,
}

/// Data of Reservation Release.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ReleaseData {
    /// The host's key.
    pub current_key: U64,
}

/// Start of Reservation Report: 24 bytes, which the extended form fills up to 64.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ReportHeader {
    /// Counts registrations, preemptions and clearings.
    pub generation: U32,
    /// The reservation's type; 0 without one.
    pub kind: u8,
    /// Entries that follow.
    pub registered: U16,
    /// Reserved.
    pub reserved7: [u8; 2],
    /// Reservations survive a loss of power.
    pub persist: u8,
    /// Reserved.
    pub reserved10: [u8; 14],
}

const _: () = assert!(size_of::<ReportHeader>() == 24);

/// Bytes of the extended form's header.
pub const EXTENDED_HEADER_BYTES: usize = 64;

/// An entry of the extended report.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct ExtendedRegistrant {
    /// The controller; 0xffff where controllers are dynamic.
    pub cntlid: U16,
    /// Bit 0: the host holds the reservation.
    pub status: u8,
    /// Reserved.
    pub reserved3: [u8; 5],
    /// The host's key.
    pub key: U64,
    /// The host.
    pub host_id: [u8; 16],
    /// Reserved.
    pub reserved32: [u8; 32],
}

const _: () = assert!(size_of::<ExtendedRegistrant>() == 64);

/// What is reported to hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The host's registration was preempted.
    RegistrationPreempted,
    /// A reservation that gave the host rights was released.
    ReservationReleased,
    /// All registrations, and the reservation, were cleared.
    ReservationPreempted,
}

impl Notice {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::RegistrationPreempted => 1,
            Self::ReservationReleased => 2,
            Self::ReservationPreempted => 3,
        }
    }

    /// Its bit of the notification mask.
    #[must_use]
    pub fn mask(self) -> u32 {
        1 << self.code()
    }
}

/// The reservation notification log.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct NotificationLog {
    /// Counts notifications; 0 when the log is empty.
    pub count: U64,
    /// See [`Notice::code`]; 0 when the log is empty.
    pub kind: u8,
    /// Notifications behind this one.
    pub available: u8,
    /// Reserved.
    pub reserved10: [u8; 2],
    /// The namespace.
    pub nsid: U32,
    /// Reserved.
    pub reserved16: [u8; 48],
}

const _: () = assert!(size_of::<NotificationLog>() == 64);

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;

    #[test]
    fn types_round_trip() {
        for code in 0..=u8::MAX {
            let kind = ReservationType::parse(code);
            assert_eq!(kind.is_some(), (1..=6).contains(&code));
            assert!(kind.is_none_or(|kind| kind.code() == code));
        }
    }

    #[test]
    fn fields_stand_where_the_wire_has_them() {
        assert_eq!(offset_of!(ReportHeader, kind), 4);
        assert_eq!(offset_of!(ReportHeader, registered), 5);
        assert_eq!(offset_of!(ReportHeader, persist), 9);
        assert_eq!(offset_of!(ExtendedRegistrant, key), 8);
        assert_eq!(offset_of!(ExtendedRegistrant, host_id), 16);
        assert_eq!(offset_of!(NotificationLog, kind), 8);
        assert_eq!(offset_of!(NotificationLog, available), 9);
        assert_eq!(offset_of!(NotificationLog, nsid), 12);
    }

    #[test]
    fn notices_have_their_bits() {
        let notices = [
            (Notice::RegistrationPreempted, mask::REGISTRATION_PREEMPTED),
            (Notice::ReservationReleased, mask::RESERVATION_RELEASED),
            (Notice::ReservationPreempted, mask::RESERVATION_PREEMPTED),
        ];
        for (notice, bit) in notices {
            assert_eq!(notice.mask(), bit);
        }
    }
}
