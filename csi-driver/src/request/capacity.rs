//! Sizes of volumes: whole MiB.

use super::{FileSystem, RequestError};
use crate::proto::csi::CapacityRange;

/// What sizes are rounded up to, in bytes.
pub const MIB: u64 = 1 << 20;

/// The smallest volume, in bytes.
pub const VOLUME_SIZE_MIN_BYTES: u64 = MIB;

/// The smallest volume that mkfs.xfs accepts, in bytes.
const XFS_SIZE_MIN_BYTES: u64 = 300 * MIB;

/// The size of a volume for which none was asked, in bytes.
const DEFAULT_SIZE_BYTES: u64 = 1 << 30;

/// The size to make, and which other sizes satisfy the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The size to make, in bytes: a multiple of [`MIB`].
    pub size_bytes: u64,
    required_bytes: u64,
    limit_bytes: u64,
}

impl Capacity {
    /// Chooses the size: what is required, rounded up to a whole MiB and to what the file system needs.
    ///
    /// # Errors
    /// [`RequestError::BadRange`], [`RequestError::NoSizeInRange`].
    pub fn parse(
        range: Option<&CapacityRange>,
        fs: Option<FileSystem>,
    ) -> Result<Self, RequestError> {
        let raw = range.copied().unwrap_or_default();
        let bad_range = RequestError::BadRange {
            required_bytes: raw.required_bytes,
            limit_bytes: raw.limit_bytes,
        };
        let (Ok(required_bytes), Ok(limit)) = (
            u64::try_from(raw.required_bytes),
            u64::try_from(raw.limit_bytes),
        ) else {
            return Err(bad_range);
        };
        let limit_bytes = if limit == 0 { u64::MAX } else { limit };
        if limit_bytes < required_bytes {
            return Err(bad_range);
        }
        let minimum_bytes = match fs {
            Some(FileSystem::Xfs) => XFS_SIZE_MIN_BYTES,
            Some(FileSystem::Ext4) | None => VOLUME_SIZE_MIN_BYTES,
        };
        let wanted = if required_bytes == 0 {
            DEFAULT_SIZE_BYTES.min(limit_bytes / MIB * MIB)
        } else {
            required_bytes
        };
        // required_bytes comes from an i64, so rounding it up cannot overflow.
        let size_bytes = wanted.max(minimum_bytes).div_ceil(MIB) * MIB;
        if size_bytes > limit_bytes || i64::try_from(size_bytes).is_err() {
            return Err(RequestError::NoSizeInRange {
                required_bytes: raw.required_bytes,
                limit_bytes: raw.limit_bytes,
                minimum_bytes,
            });
        }
        Ok(Self {
            size_bytes,
            required_bytes,
            limit_bytes,
        })
    }

    /// A volume of this size satisfies the request.
    pub fn accepts(&self, size_bytes: u64) -> bool {
        (self.required_bytes..=self.limit_bytes).contains(&size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GIB: i64 = 1 << 30;
    const MI: i64 = 1 << 20;

    fn size(required: i64, limit: i64, fs: Option<FileSystem>) -> Option<u64> {
        let range = CapacityRange {
            required_bytes: required,
            limit_bytes: limit,
        };
        Capacity::parse(Some(&range), fs).ok().map(|c| c.size_bytes)
    }

    #[test]
    fn sizes() {
        let mib = |n: u64| Some(n * MIB);
        let xfs = Some(FileSystem::Xfs);
        let ext4 = Some(FileSystem::Ext4);
        for (required, limit, fs, expected) in [
            (0, 0, None, mib(1024)),
            (0, 100 * MI, None, mib(100)),
            (0, 100 * MI + 1, None, mib(100)),
            (0, MI - 1, None, None),
            (1, 0, ext4, mib(1)),
            (MI, 0, ext4, mib(1)),
            (MI + 1, 0, ext4, mib(2)),
            (MI + 1, 2 * MI - 1, ext4, None),
            (MI + 1, 2 * MI, ext4, mib(2)),
            (10 * GIB, 10 * GIB, ext4, mib(10 * 1024)),
            (100 * MI, 0, xfs, mib(300)),
            (100 * MI, 200 * MI, xfs, None),
            (301 * MI, 0, xfs, mib(301)),
            (-1, 0, None, None),
            (0, -1, None, None),
            (2 * GIB, GIB, None, None),
            (i64::MAX, 0, None, None),
        ] {
            assert_eq!(
                size(required, limit, fs),
                expected,
                "{required}..{limit} {fs:?}"
            );
        }
        assert_eq!(Capacity::parse(None, None).unwrap().size_bytes, 1024 * MIB);
    }

    proptest! {
        /// Against the definition: a chosen size is a whole MiB within the range, and the smallest such one.
        #[test]
        fn chosen_size_is_the_smallest_in_range(
            required in 1..(1_i64 << 40),
            room in 0..(8 * MI),
            xfs in any::<bool>(),
        ) {
            let fs = xfs.then_some(FileSystem::Xfs);
            let floor = if xfs { XFS_SIZE_MIN_BYTES } else { MIB };
            let limit = required + room;
            let model = (0..).map(|i| (u64::try_from(required).unwrap() / MIB + i) * MIB)
                .find(|s| *s >= u64::try_from(required).unwrap() && *s >= floor)
                .filter(|s| *s <= u64::try_from(limit).unwrap());
            prop_assert_eq!(size(required, limit, fs), model);
        }
    }
}
