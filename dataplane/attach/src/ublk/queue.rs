//! The server of a device: one thread that takes requests from the kernel, hands them to the volume, and gives the
//! results back. A tag has one buffer; the kernel copies a write's data into it, and a read's out of it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use tracing::{error, warn};
use zerocopy::IntoBytes;

use super::wire::{Descriptor, IoCommand, io as command};
use crate::remote::errno;
use crate::volume::Volume;

/// In the place of a tag: somebody has results.
const WOKEN: u64 = u64::MAX;

/// A request that the volume is done with.
struct Finished {
    tag: u16,
    result: Result<u32, Errno>,
    buffer: Vec<u8>,
}

/// What becomes of a tag.
enum Tag {
    /// The kernel may write to the buffer until it sends a request.
    Fetching(Vec<u8>),
    /// The volume has the buffer.
    Busy,
    /// The kernel has taken the tag back.
    Over,
}

/// The kernel's list of requests, by tag.
struct Descriptors {
    start: NonNull<Descriptor>,
    count: u16,
}

impl Descriptors {
    fn new(device: &File, count: u16) -> io::Result<Self> {
        let length = Self::length(count);
        // SAFETY: a new mapping at a place of the kernel's choice; the kernel made it for this many descriptors.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                ProtFlags::READ,
                MapFlags::SHARED | MapFlags::POPULATE,
                device,
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        Ok(Self { start, count })
    }

    fn length(count: u16) -> usize {
        let page = rustix::param::page_size();
        (usize::from(count) * size_of::<Descriptor>()).next_multiple_of(page)
    }

    fn get(&self, tag: u16) -> Option<Descriptor> {
        if tag >= self.count {
            return None;
        }
        // SAFETY: within the mapping, which lives as long as `self`; the kernel wrote it before it completed the
        // tag's command, and does not write again before the tag's next one.
        Some(unsafe { self.start.add(usize::from(tag)).as_ptr().read_volatile() })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; no reference into it exists.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), Self::length(self.count)) };
    }
}

/// The server's state, on its thread.
pub(super) struct Queue<V> {
    ring: IoUring,
    device: File,
    descriptors: Descriptors,
    tags: Vec<Tag>,
    live: usize,
    volume: V,
    finished: (Sender<Finished>, Receiver<Finished>),
    wake: Arc<OwnedFd>,
    /// Where the kernel puts the number of wakes.
    wakes: Box<[u8; 8]>,
}

impl<V: Volume> Queue<V> {
    /// For a device with this many tags, each with requests of `request_bytes_max` at most. It is to run on the thread
    /// that makes it.
    pub(super) fn new(
        device: File,
        depth: u16,
        request_bytes_max: usize,
        volume: V,
    ) -> io::Result<Self> {
        // A command for each tag, and one for the wakes.
        let entries = (u32::from(depth) + 1).next_power_of_two();
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_coop_taskrun()
            .dontfork()
            .build(entries)?;
        let descriptors = Descriptors::new(&device, depth)?;
        let mut queue = Self {
            ring,
            device,
            descriptors,
            tags: Vec::new(),
            live: 0,
            volume,
            finished: channel(),
            wake: Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?),
            wakes: Box::new([0; 8]),
        };
        for tag in 0..depth {
            queue.tags.push(Tag::Over);
            queue.fetch(tag, command::FETCH, 0, vec![0; request_bytes_max])?;
            queue.live += 1;
        }
        queue.listen()?;
        Ok(queue)
    }

    /// Serves until the kernel has taken every tag back.
    pub(super) fn run(&mut self) -> io::Result<()> {
        while self.live > 0 {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            while let Some(entry) = self.next() {
                match u16::try_from(entry.user_data()) {
                    Ok(tag) => self.arrived(tag, entry.result())?,
                    Err(_) => self.listen()?,
                }
            }
            while let Ok(finished) = self.finished.1.try_recv() {
                self.give_back(finished)?;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Option<cqueue::Entry> {
        self.ring.completion().next()
    }

    /// Asks for the next wake.
    fn listen(&mut self) -> io::Result<()> {
        let length = 8;
        let entry = opcode::Read::new(Fd(self.wake.as_raw_fd()), self.wakes.as_mut_ptr(), length);
        let entry = entry.build().user_data(WOKEN);
        self.push(&entry)
    }

    /// Gives the tag's buffer to the kernel, with the result of its last request, for its next one.
    fn fetch(&mut self, tag: u16, code: u32, result: i32, mut buffer: Vec<u8>) -> io::Result<()> {
        let command = IoCommand {
            queue: 0,
            tag,
            result,
            address: buffer.as_mut_ptr() as u64,
        };
        let mut place = [0; size_of::<IoCommand>()];
        place.copy_from_slice(command.as_bytes());
        let entry = opcode::UringCmd16::new(Fd(self.device.as_raw_fd()), code)
            .cmd(place)
            .build()
            .user_data(tag.into());
        if let Some(slot) = self.tags.get_mut(usize::from(tag)) {
            *slot = Tag::Fetching(buffer);
        }
        self.push(&entry)
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the files are open as long as the ring; memory named in a command is `wakes`, or a tag's buffer that
        // stays in `tags` until the kernel has completed the tag's command. Both outlive the ring: see `Drop`.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.map_err(|_| io::Error::other("more commands than tags"))
    }

    /// The kernel has completed a tag's command: a request is there, or never will be.
    fn arrived(&mut self, tag: u16, result: i32) -> io::Result<()> {
        let Some(slot) = self.tags.get_mut(usize::from(tag)) else {
            return Ok(());
        };
        if result < 0 {
            // ENODEV is the device's end.
            if result != -Errno::NODEV.raw_os_error() {
                warn!(tag, error = %io::Error::from_raw_os_error(-result), "a tag is lost");
            }
            *slot = Tag::Over;
            self.live -= 1;
            return Ok(());
        }
        let Tag::Fetching(buffer) = std::mem::replace(slot, Tag::Busy) else {
            return Ok(());
        };
        let block_bytes = self.volume.block_bytes();
        let asked = self.descriptors.get(tag).and_then(|d| d.asked(block_bytes));
        let fits = |bytes: u32| usize::try_from(bytes).is_ok_and(|bytes| bytes <= buffer.len());
        let Some(asked) = asked.filter(|asked| fits(asked.data_bytes)) else {
            return self.give_back(Finished {
                tag,
                result: Err(Errno::OPNOTSUPP),
                buffer,
            });
        };
        let (finished, wake) = (self.finished.0.clone(), Arc::clone(&self.wake));
        let done = move |result: Result<(), _>, buffer: Vec<u8>| {
            let result = result.map(|()| asked.data_bytes).map_err(errno);
            // Nobody listens any more: the device is gone.
            if finished
                .send(Finished {
                    tag,
                    result,
                    buffer,
                })
                .is_ok()
            {
                let _ = rustix::io::write(wake.as_fd(), &1_u64.to_ne_bytes());
            }
        };
        self.volume
            .submit(asked.op, asked.lba, asked.blocks, buffer, Box::new(done));
        Ok(())
    }

    fn give_back(&mut self, finished: Finished) -> io::Result<()> {
        let result = match finished.result {
            Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
            Err(errno) => -errno.raw_os_error(),
        };
        let Finished { tag, buffer, .. } = finished;
        self.fetch(tag, command::COMMIT_AND_FETCH, result, buffer)
    }
}

impl<V> Drop for Queue<V> {
    /// After an error the kernel may still hold commands that name memory of this: that memory is given up.
    fn drop(&mut self) {
        for tag in self.tags.drain(..) {
            if let Tag::Fetching(buffer) = tag {
                buffer.leak();
            }
        }
        Box::leak(std::mem::replace(&mut self.wakes, Box::new([0; 8])));
        if self.live > 0 {
            error!(tags = self.live, "a device is no longer served");
        }
    }
}
