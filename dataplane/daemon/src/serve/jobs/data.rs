//! Reads, writes and zeroes.

use roadstead_pool::{InFlight, LookupError, Segments, VolumeReader};
use roadstead_ring::{BUF_MAX_BYTES, Extent, FileDone, Io, NotStarted};
use roadstead_target::IoError;

use super::super::drives::{Namespace, Path};
use super::program::Program;
use super::{Job, JobId, Jobs, Stage, Work, errors};

/// Rounds of asking for places and finding them taken away again by deallocations.
const ASKED_MAX: u32 = 8;

/// Lengths and positions within an I/O, which a buffer can hold.
fn index(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What a lookup found.
enum Places {
    /// All is where it belongs, or named in the list of extents.
    Found,
    /// Something that is to be written has no place.
    Missing,
    /// Another job has the volume for itself.
    Busy,
}

/// Looks the range of a job up, under its program's claim if it has one.
fn lookup<'a>(
    reader: &'a VolumeReader,
    program: Option<&Program>,
    in_flight: &InFlight,
    offset: u64,
    len: u64,
) -> Result<Option<Segments<'a>>, IoError> {
    let found = match program.and_then(Program::exclusive) {
        Some(exclusive) => reader.lookup_exclusive(in_flight, exclusive, offset, len),
        None => reader.lookup(in_flight, offset, len),
    };
    match found {
        Ok(segments) => Ok(Some(segments)),
        Err(LookupError::Busy) => Ok(None),
        Err(error) => Err(errors::of_lookup(error)),
    }
}

impl Job {
    /// Counts the job in and looks its range up. Pieces in memory are moved at once, holes are read as zeroes,
    /// pieces on a file drive are put into `extents`.
    fn find(&mut self, extents: &mut Vec<Extent>) -> Result<Places, IoError> {
        extents.clear();
        let namespace = self.namespace.as_ref().ok_or(IoError::Gone)?;
        let buf = self.buf.as_mut().ok_or(IoError::Unavailable)?;
        let in_flight = self.in_flight.insert(namespace.reader.begin());
        let (reader, program) = (&namespace.reader, self.program.as_deref());
        let Some(segments) = lookup(reader, program, in_flight, self.offset, self.len)? else {
            return Ok(Places::Busy);
        };
        let is_read = self.work == Work::Read;
        if !is_read
            && segments
                .clone()
                .any(|segment| segment.drive_offset.is_none())
        {
            return Ok(Places::Missing);
        }
        for segment in segments {
            let (start, len) = (index(segment.offset - self.offset), index(segment.len));
            let bytes = buf
                .get_mut(start..start + len)
                .ok_or(IoError::Unavailable)?;
            match (segment.drive_offset, &namespace.drive.path) {
                (None, _) => bytes.fill(0),
                (Some(offset_bytes), Path::File { .. }) => extents.push(Extent {
                    offset_bytes,
                    start,
                    len,
                }),
                (Some(offset), Path::Memory(memory)) => {
                    let moved = if is_read {
                        memory.read(offset, bytes)
                    } else {
                        memory.write(offset, bytes)
                    };
                    moved.map_err(|_| IoError::Unavailable)?;
                }
            }
        }
        Ok(Places::Found)
    }

    /// Counts the job in and finds what of its range has to be written to make it zero. Pieces in memory are
    /// zeroed at once.
    fn find_mapped(&mut self, extents: &mut Vec<Extent>) -> Result<Places, IoError> {
        extents.clear();
        let namespace = self.namespace.as_ref().ok_or(IoError::Gone)?;
        let in_flight = self.in_flight.insert(namespace.reader.begin());
        let (reader, program) = (&namespace.reader, self.program.as_deref());
        let Some(segments) = lookup(reader, program, in_flight, self.offset, self.len)? else {
            return Ok(Places::Busy);
        };
        for segment in segments {
            match (segment.drive_offset, &namespace.drive.path) {
                (None, _) => {}
                (Some(offset), Path::Memory(memory)) => {
                    memory
                        .zero(offset, index(segment.len))
                        .map_err(|_| IoError::Write)?;
                }
                (Some(offset), Path::File { .. }) => {
                    let step = BUF_MAX_BYTES as u64;
                    for at in (0..segment.len).step_by(BUF_MAX_BYTES) {
                        let len = index(step.min(segment.len - at));
                        // All of them are written from the same zeroes.
                        extents.push(Extent {
                            offset_bytes: offset + at,
                            start: 0,
                            len,
                        });
                    }
                }
            }
        }
        Ok(Places::Found)
    }

    /// Whether its drive takes no writes.
    fn is_faulted(&self) -> bool {
        self.namespace
            .as_ref()
            .is_none_or(|namespace| namespace.reader.volume().fault().is_some())
    }
}

impl Jobs {
    /// A read or a write.
    pub(super) fn transfer(&mut self, io: &mut Io, id: JobId) {
        let mut extents = std::mem::take(&mut self.extents);
        self.transfer_with(io, id, &mut extents);
        self.extents = extents;
    }

    fn transfer_with(&mut self, io: &mut Io, id: JobId, extents: &mut Vec<Extent>) {
        let Some(job) = self.get(id) else { return };
        if job.work == Work::Write && job.is_faulted() {
            return self.end_with(id, IoError::Unavailable);
        }
        match job.find(extents) {
            Ok(Places::Found) => self.start_drive(io, id, extents),
            Ok(Places::Missing) => {
                // What waits for space must not be counted in: the space may come from what was freed.
                job.release();
                job.asked += 1;
                if job.asked > ASKED_MAX {
                    return self.end_with(id, IoError::Unavailable);
                }
                self.ask_for_space(id);
            }
            Ok(Places::Busy) => self.park(id),
            Err(error) => self.end_with(id, error),
        }
    }

    /// Makes the range zero: whole extents of the volume become holes, the rest is written.
    pub(super) fn zero(&mut self, io: &mut Io, id: JobId) {
        let Some(job) = self.get(id) else { return };
        if job.is_faulted() {
            return self.end_with(id, IoError::Unavailable);
        }
        if job.asked == 0 {
            job.asked = 1;
            if self.free_whole_extents(id) {
                return;
            }
        }
        let mut extents = std::mem::take(&mut self.extents);
        self.zero_rest(io, id, &mut extents);
        self.extents = extents;
    }

    fn zero_rest(&mut self, io: &mut Io, id: JobId, extents: &mut Vec<Extent>) {
        let Some(job) = self.get(id) else { return };
        match job.find_mapped(extents) {
            Ok(Places::Busy) => return self.park(id),
            Ok(Places::Found | Places::Missing) => {}
            Err(error) => return self.end_with(id, error),
        }
        let longest = extents.iter().map(|extent| extent.len).max().unwrap_or(0);
        if longest > 0 {
            let Some(mut zeroes) = io.alloc(longest) else {
                job.release();
                self.hungry.push_back(id);
                return;
            };
            zeroes.fill(0);
            job.buf = Some(zeroes);
        }
        self.start_drive(io, id, extents);
    }

    fn start_drive(&mut self, io: &mut Io, id: JobId, extents: &[Extent]) {
        let Some(job) = self.get(id) else { return };
        let Some(namespace) = &job.namespace else {
            return;
        };
        job.stage = Stage::Drive;
        // With the map durable, durable data is all that Force Unit Access needs of a write.
        let is_read = job.work == Work::Read;
        job.durable = job.fua && !is_read && namespace.reader.volume().map_is_durable();
        job.expected = extents.iter().map(|extent| extent.len).sum();
        let (Path::File { file, .. }, true) = (&namespace.drive.path, job.expected > 0) else {
            return self.drive_done(io, id);
        };
        let Some(buf) = job.buf.take() else {
            return self.end_with(id, IoError::Unavailable);
        };
        let started = match job.work {
            Work::Read => io.read(*file, buf, extents, id.token()),
            _ => io.write(*file, buf, extents, job.durable, id.token()),
        };
        if let Err(NotStarted(buf)) = started {
            job.buf = buf;
            self.end_with(id, IoError::Unavailable);
        }
    }

    pub(super) fn transfer_done(&mut self, io: &mut Io, id: JobId, done: FileDone) {
        let Some(job) = self.get(id) else { return };
        job.buf = done.buf;
        let (doing, medium) = match job.work {
            Work::Read => ("reading", IoError::Read),
            _ => ("writing", IoError::Write),
        };
        match done.result {
            Ok(count) if count == job.expected => {}
            Ok(_) => job.fail(medium),
            Err(error) => {
                let (failure, fault) = errors::of_io(&error, doing, medium);
                job.fail(failure);
                if let (Some(fault), Some(namespace)) = (fault, &job.namespace) {
                    report(namespace, fault);
                }
            }
        }
        self.drive_done(io, id);
    }

    /// The drive has done its part.
    fn drive_done(&mut self, io: &mut Io, id: JobId) {
        let Some(job) = self.get(id) else { return };
        job.release();
        if job.program.is_some() {
            job.work = Work::Next;
            self.next_step(io, id);
        } else if job.fua && !job.durable && job.result.is_ok() {
            // What was read may be in the drive's cache alone, too.
            self.sync(io, id);
        } else {
            self.end(id);
        }
    }
}

fn report(namespace: &Namespace, fault: roadstead_pool::Fault) {
    let volume = namespace.reader.volume();
    tracing::error!(volume = volume.name(), %fault, "a drive failed");
    volume.report_fault(fault);
}
