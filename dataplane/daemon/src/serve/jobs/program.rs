//! Commands of several steps: Verify, Compare, Copy, Compare and Write, and keeping reservations.
//!
//! A program does one read, write or zeroing after the other by the ways of the simple commands, each a piece of its
//! whole. Its buffers come from the reactor's pool while it holds none, so programs cannot wait for each other; what
//! compares holds the host's data already, and uses a small buffer that is there for it alone.

use roadstead_pool::{Command, Exclusive, Reply};
use roadstead_ring::{BufPool, Io, IoBuf};
use roadstead_target::{ByteRange, IoError, IoOp, IoRequest, SharedReservations};

use super::super::drives::Path;
use super::super::worker::Message;
use super::{JobId, Jobs, Work, errors};

/// Bytes that are copied or verified at once.
const PIECE_BYTES: u64 = 256 << 10;
/// Bytes that are compared at once; one command of a reactor compares at a time.
pub(super) const SCRATCH_BYTES: usize = 64 << 10;

/// A command of several steps.
pub(super) struct Program {
    kind: Kind,
    /// What is still to be read, the next range last.
    rest: Vec<ByteRange>,
    /// The step that was begun last, until its end was looked at.
    last: Option<Work>,
    fua: bool,
}

enum Kind {
    Verify,
    Copy {
        /// Where the next piece goes.
        target: u64,
    },
    Compare {
        expected: IoBuf,
        /// How much of it was equal.
        done: usize,
    },
    CompareAndWrite {
        expected: Box<[u8]>,
        new: Box<[u8]>,
        exclusive: Option<Exclusive>,
    },
    Save(SharedReservations),
}

/// What to do next.
enum Next {
    Run(Work),
    End(Result<(), IoError>),
}

impl Program {
    /// The program for a request, if it needs one; with the host's data, if it brought any.
    pub(super) fn of(request: &IoRequest, buf: &mut Option<IoBuf>) -> Option<Self> {
        let own = ByteRange {
            offset: request.offset,
            length: u64::from(request.length),
        };
        let (kind, rest) = match &request.op {
            IoOp::Verify => (Kind::Verify, vec![own]),
            IoOp::Copy { sources } => {
                let target = request.offset;
                let rest = sources.iter().rev().copied().collect();
                (Kind::Copy { target }, rest)
            }
            IoOp::Compare => {
                let expected = buf.take()?;
                (Kind::Compare { expected, done: 0 }, vec![own])
            }
            IoOp::CompareAndWrite { expected, new } => {
                let kind = Kind::CompareAndWrite {
                    expected: expected.clone(),
                    new: new.clone(),
                    exclusive: None,
                };
                (kind, vec![own])
            }
            IoOp::SaveReservations { reservations } => {
                (Kind::Save(reservations.clone()), Vec::new())
            }
            IoOp::Read
            | IoOp::Write
            | IoOp::Flush
            | IoOp::WriteZeroes { .. }
            | IoOp::ZeroAll
            | IoOp::Deallocate { .. } => return None,
        };
        Some(Self {
            kind,
            rest,
            last: None,
            fua: request.fua,
        })
    }

    /// The claim under which its lookups are made.
    pub(super) fn exclusive(&self) -> Option<&Exclusive> {
        match &self.kind {
            Kind::CompareAndWrite { exclusive, .. } => exclusive.as_ref(),
            _ => None,
        }
    }

    /// Takes the end of the last step in: `buf` has what was read, `len` is how much was moved. What to do with the
    /// same bytes now, if anything.
    fn take_in(&mut self, buf: Option<&mut IoBuf>, len: u64) -> Option<Next> {
        let last = self.last.take()?;
        match (&mut self.kind, last) {
            (Kind::Copy { .. }, Work::Read) => return Some(Next::Run(Work::Write)),
            (Kind::Copy { target }, _) => *target += len,
            (Kind::Compare { expected, done }, _) => {
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                let part = expected.get(*done..done.saturating_add(len));
                if part.is_none() || part != buf.as_deref().and_then(|buf| buf.get(..len)) {
                    return Some(Next::End(Err(IoError::Miscompare)));
                }
                *done += len;
            }
            (Kind::CompareAndWrite { expected, new, .. }, Work::Read) => {
                let Some(buf) = buf else {
                    return Some(Next::End(Err(IoError::Unavailable)));
                };
                if buf[..] != expected[..] {
                    return Some(Next::End(Err(IoError::Miscompare)));
                }
                buf.copy_from_slice(new);
                return Some(Next::Run(Work::Write));
            }
            // Others may see it now; making it durable needs no claim.
            (Kind::CompareAndWrite { exclusive, .. }, _) => *exclusive = None,
            (Kind::Verify | Kind::Save(_), _) => {}
        }
        None
    }

    /// Takes `len` bytes off the front of what is still to be read.
    fn advance(&mut self, len: u64) {
        if let Some(range) = self.rest.last_mut() {
            range.offset += len;
            range.length = range.length.saturating_sub(len);
            if range.length == 0 {
                self.rest.pop();
            }
        }
    }
}

impl Jobs {
    /// The small buffer of those that compare.
    pub(super) fn scratch() -> BufPool {
        BufPool::new(SCRATCH_BYTES)
    }

    /// The next step of a job's program.
    pub(super) fn next_step(&mut self, io: &mut Io, id: JobId) {
        let Some(job) = self.get(id) else { return };
        if !job.is_wanted() {
            return self.end_with(id, IoError::Unavailable);
        }
        let (len, is_good) = (job.len, job.result.is_ok());
        let Some(program) = &mut job.program else {
            return self.end_with(id, IoError::Unavailable);
        };
        if !is_good {
            return self.end(id);
        }
        match program.take_in(job.buf.as_mut(), len) {
            Some(Next::Run(work)) => {
                program.last = Some(work);
                let offset = match program.kind {
                    Kind::Copy { target } => target,
                    _ => job.offset,
                };
                return self.run(io, id, work, offset, len);
            }
            Some(Next::End(result)) => {
                job.result = result;
                return self.end(id);
            }
            None => {}
        }
        match program.kind {
            Kind::Verify | Kind::Copy { .. } => self.next_piece(io, id),
            Kind::Compare { .. } => self.next_compare(io, id),
            Kind::CompareAndWrite { .. } => self.compare_and_write(io, id),
            Kind::Save(_) => self.save(io, id),
        }
    }

    /// Begins a step.
    fn run(&mut self, io: &mut Io, id: JobId, work: Work, offset: u64, len: u64) {
        let Some(job) = self.get(id) else { return };
        (job.work, job.offset, job.len, job.asked) = (work, offset, len, 0);
        self.step(io, id);
    }

    /// All steps are done.
    fn finish(&mut self, io: &mut Io, id: JobId) {
        let Some(job) = self.get(id) else { return };
        if job.program.as_ref().is_some_and(|program| program.fua) {
            self.sync(io, id);
        } else {
            self.end(id);
        }
    }

    /// Verify and Copy: the next piece, a hole or something to read.
    fn next_piece(&mut self, io: &mut Io, id: JobId) {
        loop {
            let Some(job) = self.get(id) else { return };
            let (Some(program), Some(namespace)) = (&mut job.program, &job.namespace) else {
                return self.end_with(id, IoError::Unavailable);
            };
            let Some(range) = program.rest.last().copied() else {
                return self.finish(io, id);
            };
            let reader = &namespace.reader;
            let in_flight = reader.begin();
            let first = reader
                .lookup(&in_flight, range.offset, range.length)
                .map(|mut segments| segments.next());
            reader.end(in_flight);
            let segment = match first {
                Ok(Some(segment)) => segment,
                Ok(None) => return self.end_with(id, IoError::Unavailable),
                Err(roadstead_pool::LookupError::Busy) => return self.park(id),
                Err(error) => return self.end_with(id, errors::of_lookup(error)),
            };
            let is_hole = segment.drive_offset.is_none();
            let is_memory = matches!(namespace.drive.path, Path::Memory(_));
            match program.kind {
                Kind::Copy { target } if is_hole => {
                    program.advance(segment.len);
                    program.last = Some(Work::Zero);
                    return self.run(io, id, Work::Zero, target, segment.len);
                }
                // Memory does not fail by being read.
                Kind::Verify if is_hole || is_memory => program.advance(segment.len),
                _ => {
                    let len = segment.len.min(PIECE_BYTES);
                    let Some(buf) = io.alloc(usize::try_from(len).unwrap_or(0)) else {
                        self.hungry.push_back(id);
                        return;
                    };
                    job.buf = Some(buf);
                    program.advance(len);
                    program.last = Some(Work::Read);
                    return self.run(io, id, Work::Read, range.offset, len);
                }
            }
        }
    }

    fn next_compare(&mut self, io: &mut Io, id: JobId) {
        let scratch = self.scratch.clone();
        let Some(job) = self.get(id) else { return };
        let Some(program) = &mut job.program else {
            return;
        };
        let Some(range) = program.rest.last().copied() else {
            return self.finish(io, id);
        };
        let len = range.length.min(SCRATCH_BYTES as u64);
        let size = usize::try_from(len).unwrap_or(0);
        match &mut job.buf {
            Some(buf) => buf.set_len(size),
            None => job.buf = scratch.alloc(size.max(SCRATCH_BYTES)),
        }
        let Some(buf) = &mut job.buf else {
            self.hungry.push_back(id);
            return;
        };
        buf.set_len(size);
        program.advance(len);
        program.last = Some(Work::Read);
        self.run(io, id, Work::Read, range.offset, len);
    }

    fn compare_and_write(&mut self, io: &mut Io, id: JobId) {
        let scratch = self.scratch.clone();
        let Some(job) = self.get(id) else { return };
        let (Some(program), Some(namespace)) = (&mut job.program, &job.namespace) else {
            return;
        };
        let Some(range) = program.rest.last().copied() else {
            return self.finish(io, id);
        };
        let Kind::CompareAndWrite { exclusive, .. } = &mut program.kind else {
            return;
        };
        // The buffer first: whoever has the volume for itself must not wait for anything that others hold.
        if job.buf.is_none() {
            job.buf = scratch.alloc(SCRATCH_BYTES);
            let Some(buf) = &mut job.buf else {
                self.hungry.push_back(id);
                return;
            };
            buf.set_len(usize::try_from(range.length).unwrap_or(0));
        }
        if exclusive.is_none() {
            *exclusive = namespace.reader.volume().try_exclusive();
        }
        if !exclusive.as_mut().is_some_and(Exclusive::poll) {
            return self.park(id);
        }
        program.advance(range.length);
        program.last = Some(Work::Read);
        self.run(io, id, Work::Read, range.offset, range.length);
    }

    fn save(&mut self, io: &mut Io, id: JobId) {
        let mailbox = self.mailbox.clone();
        let Some(job) = self.get(id) else { return };
        // The drive's thread has done it.
        if job.asked > 0 {
            return self.finish(io, id);
        }
        let (Some(program), Some(namespace)) = (&job.program, &job.namespace) else {
            return;
        };
        let Kind::Save(reservations) = &program.kind else {
            return;
        };
        job.asked = 1;
        let reply = Reply::new(move |result| {
            // A reactor that has ended needs no answer.
            let _ = mailbox.send(Message::Space { job: id, result });
        });
        let SharedReservations(reservations) = reservations.clone();
        let bytes = Box::new(move || reservations.to_bytes());
        let uuid = namespace.reader.volume().uuid();
        job.stage = super::Stage::Space;
        self.submit(id, Command::Note(uuid, bytes, reply));
    }
}
