//! Controller properties (section 3.1.3), read and written by fabrics commands.

/// Offset of the capabilities, 8 bytes.
pub const CAP: u32 = 0x00;
/// Offset of the version, 4 bytes.
pub const VS: u32 = 0x08;
/// Offset of the configuration, 4 bytes.
pub const CC: u32 = 0x14;
/// Offset of the status, 4 bytes.
pub const CSTS: u32 = 0x1c;
/// Offset of the subsystem reset, 4 bytes.
pub const NSSR: u32 = 0x20;

/// Offset of the time that the controller needs to become ready, 4 bytes.
pub const CRTO: u32 = 0x68;

/// What a host writes to [`NSSR`] to reset the subsystem: "NVMe".
pub const SUBSYSTEM_RESET: u32 = 0x4e56_4d65;

/// Version 2.0.0.
pub const VERSION_2_0: u32 = 0x0002_0000;
/// Version 1.4.0.
pub const VERSION_1_4: u32 = 0x0001_0400;

/// Controller capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities(pub u64);

impl Capabilities {
    const SUBSYSTEM_RESET: u64 = 1 << 36;
    const NVM_COMMAND_SET: u64 = 1 << 37;
    const COMMAND_SETS: u64 = 1 << 43;
    const READY_WITH_MEDIA: u64 = 1 << 59;

    /// Capabilities of a fabrics controller with the NVM command set, pages of 4 KiB, contiguous queues.
    /// `queue_entries` is the most entries of a queue, 2 to 65536; `timeout_500ms` how long the controller may need
    /// to become ready.
    #[must_use]
    pub const fn new(queue_entries: u32, timeout_500ms: u8) -> Self {
        const CONTIGUOUS_QUEUES: u64 = 1 << 16;
        let entries = queue_entries.saturating_sub(1) as u64 & 0xffff;
        let timeout = (timeout_500ms as u64) << 24;
        Self(entries | CONTIGUOUS_QUEUES | timeout | Self::NVM_COMMAND_SET)
    }

    /// The same of a controller of version 2.0: it says which command sets it has, and when it is ready with all media.
    #[must_use]
    pub const fn version_2(self) -> Self {
        Self(self.0 | Self::COMMAND_SETS | Self::READY_WITH_MEDIA)
    }

    /// The same with the subsystem reset.
    #[must_use]
    pub const fn with_subsystem_reset(self) -> Self {
        Self(self.0 | Self::SUBSYSTEM_RESET)
    }

    /// Whether writing [`SUBSYSTEM_RESET`] does what it says.
    #[must_use]
    pub fn has_subsystem_reset(self) -> bool {
        self.0 & Self::SUBSYSTEM_RESET != 0
    }

    /// Whether [`CRTO`] exists.
    #[must_use]
    pub fn has_ready_timeouts(self) -> bool {
        self.0 & Self::READY_WITH_MEDIA != 0
    }

    /// Most entries of a queue.
    #[must_use]
    pub fn queue_entries(self) -> u32 {
        let [a, b, ..] = self.0.to_le_bytes();
        u32::from(u16::from_le_bytes([a, b])) + 1
    }

    /// The longest time to wait for [`Status::is_ready`] to change, in units of 500 ms.
    #[must_use]
    pub fn timeout_500ms(self) -> u8 {
        let [_, _, _, timeout, ..] = self.0.to_le_bytes();
        timeout
    }

    /// The smallest memory page size, bytes: the unit of the transfer limit in Identify Controller.
    #[must_use]
    pub fn page_bytes_min(self) -> u64 {
        4096 << (self.0 >> 48 & 0xf)
    }
}

/// What a host asks for by shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Nothing.
    None,
    /// Take your time, keep everything.
    Normal,
    /// Power is going.
    Abrupt,
}

/// Controller configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Configuration(pub u32);

impl Configuration {
    const ENABLE: u32 = 1;
    const SHUTDOWN_SHIFT: u32 = 14;

    /// What a host writes to enable a controller: NVM command set, 4 KiB pages, entries of 64 and 16 bytes.
    #[must_use]
    pub const fn enabled() -> Self {
        Self(Self::ENABLE | 6 << 16 | 4 << 20)
    }

    /// The same with a request to shut down normally.
    #[must_use]
    pub const fn with_shutdown(self) -> Self {
        Self(self.0 & !(3 << Self::SHUTDOWN_SHIFT) | 1 << Self::SHUTDOWN_SHIFT)
    }

    /// Whether the controller is to work.
    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.0 & Self::ENABLE != 0
    }

    /// What is asked for.
    #[must_use]
    pub fn shutdown(self) -> Shutdown {
        match self.0 >> Self::SHUTDOWN_SHIFT & 3 {
            1 => Shutdown::Normal,
            2 => Shutdown::Abrupt,
            _ => Shutdown::None,
        }
    }

    /// The arbitration mechanism, 0 for round robin.
    #[must_use]
    pub fn arbitration(self) -> u32 {
        self.0 >> 11 & 7
    }

    /// The same with other command sets, as [`Self::command_set`] has them.
    #[must_use]
    pub const fn with_command_set(self, command_set: u32) -> Self {
        Self(self.0 & !(7 << 4) | (command_set & 7) << 4)
    }

    /// `command_set`: the NVM command set.
    pub const NVM: u32 = 0;
    /// `command_set`: all that the controller has.
    pub const ALL_COMMAND_SETS: u32 = 6;

    /// The I/O command set, 0 for NVM.
    #[must_use]
    pub fn command_set(self) -> u32 {
        self.0 >> 4 & 7
    }

    /// The memory page size, bytes.
    #[must_use]
    pub fn page_bytes(self) -> u64 {
        4096 << (self.0 >> 7 & 0xf)
    }

    /// The exponents of the sizes of submission and completion queue entries; 6 and 4 are the only ones, 0 stands
    /// for "not set".
    #[must_use]
    pub fn entry_sizes(self) -> (u32, u32) {
        (self.0 >> 16 & 0xf, self.0 >> 20 & 0xf)
    }
}

/// Controller status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    const READY: u32 = 1;
    const FATAL: u32 = 2;
    const SHUTDOWN_COMPLETE: u32 = 2 << 2;

    /// A status.
    #[must_use]
    pub const fn new(ready: bool, fatal: bool, shutdown_complete: bool) -> Self {
        let ready = if ready { Self::READY } else { 0 };
        let fatal = if fatal { Self::FATAL } else { 0 };
        let shutdown = if shutdown_complete {
            Self::SHUTDOWN_COMPLETE
        } else {
            0
        };
        Self(ready | fatal | shutdown)
    }

    /// Whether the controller works.
    #[must_use]
    pub fn is_ready(self) -> bool {
        self.0 & Self::READY != 0
    }

    /// Whether the controller failed.
    #[must_use]
    pub fn is_fatal(self) -> bool {
        self.0 & Self::FATAL != 0
    }

    /// Whether a shutdown is done.
    #[must_use]
    pub fn is_shutdown_complete(self) -> bool {
        self.0 >> 2 & 3 == 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let cap = Capabilities::new(128, 15);
        assert_eq!(cap.0, 0x0000_0020_0f01_007f);
        assert_eq!(
            (
                cap.queue_entries(),
                cap.timeout_500ms(),
                cap.page_bytes_min()
            ),
            (128, 15, 4096)
        );
        assert_eq!(Capabilities::new(65536, 0).queue_entries(), 65536);
        let two = cap.version_2().with_subsystem_reset();
        assert_eq!(two.0, 0x0800_0830_0f01_007f);
        assert!(two.has_subsystem_reset() && two.has_ready_timeouts());
        assert!(!cap.has_subsystem_reset() && !cap.has_ready_timeouts());
        let cc = Configuration::enabled();
        assert_eq!(cc.0, 0x0046_0001);
        assert!(cc.is_enabled());
        assert_eq!(
            (cc.command_set(), cc.page_bytes(), cc.entry_sizes()),
            (0, 4096, (6, 4))
        );
        assert_eq!(cc.with_shutdown().shutdown(), Shutdown::Normal);
        assert_eq!(cc.shutdown(), Shutdown::None);
        assert_eq!(Configuration(0x8000).shutdown(), Shutdown::Abrupt);
        assert_eq!(cc.with_command_set(6).0, 0x0046_0061);
        assert_eq!(Configuration(0x3800).arbitration(), 7);
        let csts = Status::new(true, false, true);
        assert!(csts.is_ready() && csts.is_shutdown_complete() && !csts.is_fatal());
        assert_eq!(csts.0, 9);
    }
}
