//! Status codes (section 3.3.3.2.1 and the Fabrics and NVM Command Set specifications).

use core::fmt;

/// A status field without its phase bit: bits 7:0 code, 10:8 type, 12:11 retry delay, 13 more, 14 do not retry.
/// Values that this build does not know survive unchanged.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u16);

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Status {
            $($(#[$doc])* #[doc = concat!("Code ", stringify!($value), ": ", $text, ".")] pub const $name: Self = Self($value);)*

            /// The status in words, without flags; none for an unknown one.
            #[must_use]
            pub fn text(self) -> Option<&'static str> {
                match self.code() {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

statuses! {
    SUCCESS = 0x000, "success";
    INVALID_OPCODE = 0x001, "invalid command opcode";
    INVALID_FIELD = 0x002, "invalid field in command";
    COMMAND_ID_CONFLICT = 0x003, "command identifier conflict";
    DATA_TRANSFER_ERROR = 0x004, "data transfer error";
    INTERNAL = 0x006, "internal error";
    ABORT_REQUESTED = 0x007, "command abort requested";
    ABORTED_SQ_DELETION = 0x008, "command aborted, submission queue deleted";
    ABORTED_FAILED_FUSED = 0x009, "command aborted, the other half of the fused pair failed";
    ABORTED_MISSING_FUSED = 0x00a, "command aborted, the other half of the fused pair is missing";
    INVALID_NAMESPACE = 0x00b, "invalid namespace or format";
    COMMAND_SEQUENCE = 0x00c, "command sequence error";
    SGL_DESCRIPTOR_INVALID = 0x00d, "invalid SGL segment descriptor";
    SGL_COUNT_INVALID = 0x00e, "invalid number of SGL descriptors";
    SGL_LENGTH_INVALID = 0x00f, "data SGL length invalid";
    SGL_TYPE_INVALID = 0x011, "SGL descriptor type invalid";
    ATOMIC_WRITE_UNIT_EXCEEDED = 0x014, "atomic write unit exceeded";
    SGL_OFFSET_INVALID = 0x016, "SGL offset invalid";
    HOST_ID_INCONSISTENT = 0x018, "host identifier inconsistent format";
    KEEP_ALIVE_EXPIRED = 0x019, "keep alive timer expired";
    KEEP_ALIVE_INVALID = 0x01a, "keep alive timeout invalid";
    NAMESPACE_WRITE_PROTECTED = 0x020, "namespace is write protected";
    TRANSIENT_TRANSPORT = 0x022, "transient transport error";
    LBA_OUT_OF_RANGE = 0x080, "LBA out of range";
    CAPACITY_EXCEEDED = 0x081, "capacity exceeded";
    NAMESPACE_NOT_READY = 0x082, "namespace not ready";
    RESERVATION_CONFLICT = 0x083, "reservation conflict";
    INVALID_QUEUE_ID = 0x101, "invalid queue identifier";
    ABORT_LIMIT = 0x103, "abort command limit exceeded";
    AER_LIMIT = 0x105, "asynchronous event request limit exceeded";
    INVALID_LOG_PAGE = 0x109, "invalid log page";
    FEATURE_NOT_SAVEABLE = 0x10d, "feature identifier not saveable";
    FEATURE_NOT_CHANGEABLE = 0x10e, "feature not changeable";
    FEATURE_NOT_NAMESPACE_SPECIFIC = 0x10f, "feature not namespace specific";
    CROSS_CONTROLLER_RESET_LIMIT = 0x141, "cross-controller reset limit exceeded";
    CONNECT_INCOMPATIBLE_FORMAT = 0x180, "incompatible format of Connect";
    CONNECT_CONTROLLER_BUSY = 0x181, "controller busy";
    CONNECT_INVALID_PARAMETERS = 0x182, "invalid Connect parameters";
    CONNECT_RESTART_DISCOVERY = 0x183, "restart discovery";
    CONNECT_INVALID_HOST = 0x184, "host is not allowed on this subsystem";
    DISCOVER_RESTART = 0x190, "discovery log changed while it was read";
    AUTHENTICATION_REQUIRED = 0x191, "authentication required";
    WRITE_FAULT = 0x280, "write fault";
    UNRECOVERED_READ = 0x281, "unrecovered read error";
    COMPARE_FAILURE = 0x285, "compare failure";
    ACCESS_DENIED = 0x286, "access denied";
    DEALLOCATED_BLOCK = 0x287, "deallocated or unwritten logical block";
    INTERNAL_PATH = 0x300, "internal path error";
    ANA_PERSISTENT_LOSS = 0x301, "asymmetric access persistent loss";
    ANA_INACCESSIBLE = 0x302, "asymmetric access inaccessible";
    ANA_TRANSITION = 0x303, "asymmetric access transition";
    HOST_PATH = 0x370, "host path error";
    HOST_ABORTED = 0x371, "command aborted by host";
}

impl Status {
    /// Code 0x183 of an I/O command: it asks for more than the controller's limits of its kind allow. Fabrics commands
    /// mean [`Self::CONNECT_RESTART_DISCOVERY`] by this number.
    pub const COMMAND_SIZE_LIMIT: Self = Self(0x183);
    /// Code 0x187 of a Copy: its source and its destination overlap.
    pub const OVERLAPPING_RANGE: Self = Self(0x187);

    const CODE: u16 = 0x07ff;
    const MORE: u16 = 1 << 13;
    const DNR: u16 = 1 << 14;

    /// Type and code without the flags.
    #[must_use]
    pub fn code(self) -> u16 {
        self.0 & Self::CODE
    }

    /// The same status with "do not retry".
    #[must_use]
    pub const fn dnr(self) -> Self {
        Self(self.0 | Self::DNR)
    }

    /// The same status with "more information in the error log".
    #[must_use]
    pub const fn more(self) -> Self {
        Self(self.0 | Self::MORE)
    }

    /// The same status without "more information in the error log".
    #[must_use]
    pub const fn without_more(self) -> Self {
        Self(self.0 & !Self::MORE)
    }

    /// Whether the error log says more.
    #[must_use]
    pub fn is_more(self) -> bool {
        self.0 & Self::MORE != 0
    }

    /// Whether the medium failed, or refused: status type 2.
    #[must_use]
    pub fn is_media_error(self) -> bool {
        self.code() >> 8 == 2
    }

    /// Whether repeating the command is pointless.
    #[must_use]
    pub fn is_dnr(self) -> bool {
        self.0 & Self::DNR != 0
    }

    /// Whether the command was done.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.code() == 0
    }

    /// Whether another path to the same namespace may do the command: status type 3 (path related).
    #[must_use]
    pub fn is_path_related(self) -> bool {
        self.code() >> 8 == 3
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dnr = if self.is_dnr() { ", do not retry" } else { "" };
        match self.text() {
            Some(text) => write!(f, "{text} (status {:#05x}{dnr})", self.code()),
            None => write!(f, "unknown status {:#05x}{dnr}", self.code()),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({self})")
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_do_not_change_the_code() {
        let status = Status::INVALID_FIELD.dnr().more();
        assert_eq!((status.code(), status.0), (2, 0x6002));
        assert!(status.is_more());
        assert_eq!(status.without_more(), Status::INVALID_FIELD.dnr());
        assert!(status.is_dnr() && !status.is_success());
        assert_eq!(
            status.to_string(),
            "invalid field in command (status 0x002, do not retry)"
        );
        assert_eq!(Status(0x7bc).to_string(), "unknown status 0x7bc");
        assert!(Status::ANA_INACCESSIBLE.is_path_related());
        assert!(Status::WRITE_FAULT.is_media_error() && !Status::INTERNAL.is_media_error());
    }
}
