//! A file, a block device or a partition.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, OFlags, fallocate};
use rustix::io::Errno;

use super::Media;
use crate::blocks::Blocks;

/// Zeroes written at once where the system cannot zero by itself.
const ZERO_CHUNK_BLOCKS: usize = 256;

/// A file or a block device. Reactors use [`FileMedia::file`] for their own I/O: one open file, so one
/// `fdatasync` covers what both have written.
#[derive(Debug)]
pub struct FileMedia {
    file: File,
    path: String,
    direct: bool,
    is_device: bool,
    block_bytes: u32,
}

fn flags(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

impl FileMedia {
    /// Opens a block device or partition for this process alone (`O_EXCL`: fails with `EBUSY` while it is
    /// mounted, swapped on or claimed by another), past the page cache.
    pub fn open_device(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(flags(OFlags::EXCL | OFlags::DIRECT | OFlags::CLOEXEC))
            .open(path)?;
        if !file.metadata()?.file_type().is_block_device() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a block device",
            ));
        }
        let block_bytes = rustix::fs::ioctl_blksszget(&file)?;
        Ok(Self {
            file,
            path: path.display().to_string(),
            direct: true,
            is_device: true,
            block_bytes,
        })
    }

    /// Opens a block device or a file to look at it: read only, and not for this process alone.
    pub fn open_to_look(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags(OFlags::CLOEXEC))
            .open(path)?;
        let is_device = file.metadata()?.file_type().is_block_device();
        let path = path.display().to_string();
        Ok(Self {
            file,
            path,
            direct: false,
            is_device,
            block_bytes: 512,
        })
    }

    /// Opens a regular file, made if it is not there and grown if it is smaller than `size_bytes`; never
    /// shrunk. Locked, so that no second daemon takes it. Past the page cache where the file system allows.
    pub fn open_file(path: &Path, size_bytes: u64) -> io::Result<Self> {
        let open = |extra: OFlags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(flags(OFlags::CLOEXEC | extra))
                .open(path)
        };
        let plain = open(OFlags::empty())?;
        let (file, direct) = match open(OFlags::DIRECT) {
            Ok(file) => (file, true),
            Err(_) => (plain, false),
        };
        let meta = file.metadata()?;
        if !meta.file_type().is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "not a regular file",
            ));
        }
        rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        let mut media = Self {
            file,
            path: path.display().to_string(),
            direct,
            is_device: false,
            block_bytes: 512,
        };
        media.grow(size_bytes)?;
        media.block_bytes = media.smallest_read()?;
        Ok(media)
    }

    /// The smallest read that the file takes: 512, or 4096 on a file system of such a device.
    fn smallest_read(&self) -> io::Result<u32> {
        let mut buffer = Blocks::new(1);
        match buffer
            .as_bytes_mut()
            .get_mut(..512)
            .map(|b| self.file.read_at(b, 0))
        {
            Some(Err(e)) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => Ok(4096),
            Some(Err(e)) => Err(e),
            _ => Ok(512),
        }
    }

    /// The open file, for the reactors' I/O (`try_clone` it).
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether I/O goes past the page cache: buffers, offsets and lengths must be aligned to
    /// [`Media::block_bytes`] then.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// Whether this is a block device.
    pub fn is_device(&self) -> bool {
        self.is_device
    }

    fn write_zeroes(&self, mut offset: u64, mut len: u64) -> io::Result<()> {
        let zeroes = Blocks::new(ZERO_CHUNK_BLOCKS);
        while len > 0 {
            let step = len.min(zeroes.as_bytes().len() as u64);
            let chunk = zeroes
                .as_bytes()
                .get(..crate::blocks::index(step))
                .unwrap_or_default();
            self.file.write_all_at(chunk, offset)?;
            offset += step;
            len -= step;
        }
        Ok(())
    }
}

/// The file system or the device cannot do this kind of `fallocate`.
fn unsupported(error: Errno) -> bool {
    matches!(
        error,
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::NODEV
    )
}

impl Media for FileMedia {
    fn path(&self) -> &str {
        &self.path
    }

    fn size_bytes(&self) -> io::Result<u64> {
        (&self.file).seek(SeekFrom::End(0))
    }

    fn grow(&self, size_bytes: u64) -> io::Result<()> {
        if self.is_device || self.size_bytes()? >= size_bytes {
            return Ok(());
        }
        self.file.set_len(size_bytes)?;
        self.file.sync_all()
    }

    fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        match fallocate(&self.file, FallocateFlags::ZERO_RANGE, offset, len) {
            Ok(()) => Ok(()),
            Err(e) if unsupported(e) => self.write_zeroes(offset, len),
            Err(e) => Err(e.into()),
        }
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.is_device {
            // There it may mean to write zeroes, for hours.
            return Ok(());
        }
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, punch, offset, len) {
            Err(e) if !unsupported(e) => Err(e.into()),
            _ => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}
