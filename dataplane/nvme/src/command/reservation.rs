//! Reservation commands (sections 7.2 to 7.5).

use zerocopy::little_endian::U32;

use crate::Status;
use crate::opcode::io;
use crate::reservation::ReservationType;
use crate::wire::Sqe;

/// A reservation command, without its namespace and data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationCommand {
    /// Reservation Register; brings a [`crate::reservation::RegisterData`].
    Register {
        /// What.
        action: RegisterAction,
        /// The current key need not fit.
        ignore_key: bool,
        /// Whether registrations and the reservation are to survive a loss of power from now on; none: as before.
        persist: Option<bool>,
    },
    /// Reservation Acquire; brings a [`crate::reservation::AcquireData`].
    Acquire {
        /// What.
        action: AcquireAction,
        /// The reservation to take.
        kind: ReservationType,
    },
    /// Reservation Release; brings a [`crate::reservation::ReleaseData`].
    Release {
        /// What.
        action: ReleaseAction,
    },
    /// Reservation Report.
    Report {
        /// Bytes, a multiple of 4, at least 4.
        length: u64,
        /// With host identifiers of 16 bytes, else of 8.
        extended: bool,
    },
}

/// What Reservation Register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegisterAction {
    /// Registers the host with a key.
    Register,
    /// Takes the host's registration back.
    Unregister,
    /// Gives the host another key.
    Replace,
}

/// What Reservation Acquire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcquireAction {
    /// Takes a reservation that nobody holds.
    Acquire,
    /// Takes it from others, and their registrations too.
    Preempt,
    /// The same, and completes when none of their commands is under way any more.
    PreemptAndAbort,
}

/// What Reservation Release does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseAction {
    /// Gives the host's own reservation of this type back.
    Release(ReservationType),
    /// Removes the reservation and all registrations.
    Clear,
}

const IGNORE_KEY: u32 = 1 << 3;
const EXTENDED: u32 = 1;

impl ReservationCommand {
    /// Reads an entry whose opcode is one of these.
    pub(super) fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let invalid = Status::INVALID_FIELD.dnr();
        let cdw10 = sqe.cdw10.get();
        let [low, second, ..] = sqe.cdw10.to_bytes();
        let action = low & 7;
        let ignore_key = cdw10 & IGNORE_KEY != 0;
        let kind = || ReservationType::parse(second).ok_or(invalid);
        match sqe.opcode {
            io::RESERVATION_REGISTER => Ok(Self::Register {
                action: match action {
                    0 => RegisterAction::Register,
                    1 => RegisterAction::Unregister,
                    2 => RegisterAction::Replace,
                    _ => return Err(invalid),
                },
                ignore_key,
                persist: match cdw10 >> 30 {
                    0 => None,
                    2 => Some(false),
                    3 => Some(true),
                    _ => return Err(invalid),
                },
            }),
            // The bit exists here only to be refused.
            io::RESERVATION_ACQUIRE | io::RESERVATION_RELEASE if ignore_key => Err(invalid),
            io::RESERVATION_ACQUIRE => Ok(Self::Acquire {
                action: match action {
                    0 => AcquireAction::Acquire,
                    1 => AcquireAction::Preempt,
                    2 => AcquireAction::PreemptAndAbort,
                    _ => return Err(invalid),
                },
                kind: kind()?,
            }),
            io::RESERVATION_RELEASE => Ok(Self::Release {
                action: match action {
                    0 => ReleaseAction::Release(kind()?),
                    1 => ReleaseAction::Clear,
                    _ => return Err(invalid),
                },
            }),
            io::RESERVATION_REPORT => Ok(Self::Report {
                length: (u64::from(cdw10) + 1) * 4,
                extended: sqe.cdw11.get() & EXTENDED != 0,
            }),
            _ => Err(Status::INVALID_OPCODE.dnr()),
        }
    }

    /// Writes opcode and command dwords.
    pub(super) fn encode(self, sqe: &mut Sqe) {
        let kind_bits = |kind: ReservationType| u32::from(kind.code()) << 8;
        let (opcode, cdw10) = match self {
            Self::Register {
                action,
                ignore_key,
                persist,
            } => {
                let action = match action {
                    RegisterAction::Register => 0,
                    RegisterAction::Unregister => 1,
                    RegisterAction::Replace => 2,
                };
                let persist = match persist {
                    None => 0,
                    Some(false) => 2 << 30,
                    Some(true) => 3 << 30,
                };
                let ignore = if ignore_key { IGNORE_KEY } else { 0 };
                (io::RESERVATION_REGISTER, action | ignore | persist)
            }
            Self::Acquire { action, kind } => {
                let action = match action {
                    AcquireAction::Acquire => 0,
                    AcquireAction::Preempt => 1,
                    AcquireAction::PreemptAndAbort => 2,
                };
                (io::RESERVATION_ACQUIRE, action | kind_bits(kind))
            }
            Self::Release { action } => {
                let bits = match action {
                    ReleaseAction::Release(kind) => kind_bits(kind),
                    ReleaseAction::Clear => 1,
                };
                (io::RESERVATION_RELEASE, bits)
            }
            Self::Report { length, extended } => {
                sqe.cdw11 = U32::new(if extended { EXTENDED } else { 0 });
                let zero_based = (length / 4).saturating_sub(1);
                let dwords = u32::try_from(zero_based).unwrap_or(u32::MAX);
                (io::RESERVATION_REPORT, dwords)
            }
        };
        sqe.opcode = opcode;
        sqe.cdw10 = U32::new(cdw10);
    }
}
