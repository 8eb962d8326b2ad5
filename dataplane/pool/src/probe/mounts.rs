//! Who uses a block device, by the kernel's tables. Parsing only.

use std::str::FromStr;

/// Major and minor number of a block device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Numbers {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl FromStr for Numbers {
    type Err = ();

    /// Parses `259:0`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let (major, minor) = text.trim().split_once(':').ok_or(())?;
        let number = |text: &str| text.parse().map_err(|_| ());
        Ok(Self {
            major: number(major)?,
            minor: number(minor)?,
        })
    }
}

/// A line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device numbers; of no block device for file systems that span several, such as btrfs.
    pub numbers: Numbers,
    /// The mount point.
    pub at: String,
    /// What is mounted; a path for block devices.
    pub source: String,
}

/// The mounts in a mountinfo table. Lines that are none are left out.
pub fn mountinfo(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (place, system) = line.split_once(" - ")?;
    let mut fields = place.split(' ').skip(2);
    let numbers = fields.next()?.parse().ok()?;
    let at = unescape(fields.nth(1)?);
    let source = unescape(system.split(' ').nth(1)?);
    Some(Mount {
        numbers,
        at,
        source,
    })
}

/// The paths in `/proc/swaps`.
pub fn swaps(text: &str) -> Vec<String> {
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(unescape)
        .collect()
}

/// Undoes the kernel's `\040` for blanks and the like.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail
            .first_chunk::<3>()
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(byte));
        rest = if code.is_some() {
            tail.get(3..).unwrap_or_default()
        } else {
            tail
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_read() {
        let text = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
                    36 35 98:0 /mnt1 /mnt/two\\040words rw,noatime master:1 shared:2 - ext3 /dev/root rw\n\
                    40 27 0:45 /@ /srv rw - btrfs /dev/nvme0n1p2 rw\n\
                    garbage\n\
                    41 27 x:1 / /a rw - ext4 /dev/a rw\n";
        let found = mountinfo(text);
        let expected = [
            (254, 0, "/", "/dev/vda"),
            (98, 0, "/mnt/two words", "/dev/root"),
            (0, 45, "/srv", "/dev/nvme0n1p2"),
        ];
        assert_eq!(found.len(), expected.len());
        for (mount, (major, minor, at, source)) in found.iter().zip(expected) {
            assert_eq!(mount.numbers, Numbers { major, minor });
            assert_eq!((mount.at.as_str(), mount.source.as_str()), (at, source));
        }
    }

    #[test]
    fn swaps_are_read() {
        let text = "Filename\t\tType\t\tSize\tUsed\tPriority\n/dev/sda2 partition\t8388604\t0\t-2\n/swap\\040file file 1 0 -3\n";
        assert_eq!(swaps(text), ["/dev/sda2", "/swap file"]);
        assert!(swaps("").is_empty());
    }

    #[test]
    fn only_whole_escapes_are_undone() {
        for (text, expected) in [
            ("a\\040b", "a b"),
            ("a\\04", "a\\04"),
            ("\\", "\\"),
            ("\\134x", "\\x"),
            ("\\999", "\\999"),
        ] {
            assert_eq!(unescape(text), expected);
        }
    }
}
