//! Fused pairs of one queue: Compare, and Write right behind it (section 3.4.2).
//!
//! Each half brings its data by itself, in its capsule or when it is asked. When both are here, they are one I/O. A half
//! that cannot be done any more is completed when its data came, since the host was asked for it and will send it.

use roadstead_nvme::{Sqe, Status};

use crate::io::{IoOp, IoRequest};
use crate::queue::Tag;

/// What a command is in a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Alone,
    First,
    Second,
}

impl Part {
    /// As the entry says it.
    pub(crate) fn of(sqe: &Sqe) -> Self {
        match sqe.flags & Sqe::FLAGS_FUSE_MASK {
            Sqe::FLAGS_FUSE_FIRST => Self::First,
            Sqe::FLAGS_FUSE_SECOND => Self::Second,
            _ => Self::Alone,
        }
    }
}

/// The first half that the next command may belong to.
#[derive(Debug, Default, PartialEq, Eq)]
enum Open {
    #[default]
    None,
    /// It was refused.
    Refused,
    Pair(Pair),
}

#[derive(Debug, PartialEq, Eq)]
struct Pair {
    /// The Compare.
    request: IoRequest,
    halves: [Half; 2],
}

#[derive(Debug, PartialEq, Eq)]
struct Half {
    tag: Tag,
    /// Once it is here.
    data: Option<Vec<u8>>,
}

/// What became of data.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    /// It is of no pair.
    Foreign,
    /// The other half is not here yet.
    Wait,
    /// The command ends so.
    Failed(Status),
    /// Both halves are here.
    Whole(IoRequest),
}

/// The pairs of a queue; as many as it has entries at most.
#[derive(Debug, Default)]
pub(crate) struct Fuse {
    open: Open,
    /// Both commands came, but not all data.
    coming: Vec<Pair>,
    /// The pairs' I/O is being done: its tag, and the halves'.
    running: Vec<(Tag, [Tag; 2])>,
    /// Halves that fail when their data came.
    lost: Vec<(Tag, Status)>,
    /// Halves whose data is here, and that have failed since.
    failed: Vec<(Tag, Status)>,
}

const FAILED: Status = Status::ABORTED_FAILED_FUSED.dnr();
const MISSING: Status = Status::ABORTED_MISSING_FUSED.dnr();

impl Fuse {
    /// A command comes that was checked with this result; fused ones brought a request whose data is to come. The
    /// status to refuse it with, if any.
    pub(crate) fn enter(
        &mut self,
        tag: Tag,
        part: Part,
        checked: Result<Option<&IoRequest>, Status>,
    ) -> Result<(), Status> {
        if part == Part::Alone && self.open == Open::None {
            return checked.map(|_| ());
        }
        let open = std::mem::take(&mut self.open);
        match (part, open) {
            (Part::Second, Open::Pair(pair)) => self.second(tag, pair, checked),
            (Part::Second, Open::Refused) => checked.and(Err(FAILED)),
            (Part::Second, Open::None) => checked.and(Err(MISSING)),
            (Part::Alone | Part::First, open) => {
                if let Open::Pair(pair) = open {
                    let [first, _] = pair.halves;
                    self.fail(first, MISSING);
                }
                if part == Part::First {
                    self.first(tag, checked)
                } else {
                    checked.map(|_| ())
                }
            }
        }
    }

    fn first(
        &mut self,
        tag: Tag,
        checked: Result<Option<&IoRequest>, Status>,
    ) -> Result<(), Status> {
        self.open = Open::Refused;
        let request = checked?.ok_or(Status::INVALID_FIELD.dnr())?;
        let half = |tag| Half { tag, data: None };
        self.open = Open::Pair(Pair {
            request: request.clone(),
            halves: [half(tag), half(tag)],
        });
        Ok(())
    }

    fn second(
        &mut self,
        tag: Tag,
        mut pair: Pair,
        checked: Result<Option<&IoRequest>, Status>,
    ) -> Result<(), Status> {
        let is_same = |request: &IoRequest| {
            let of = |request: &IoRequest| (request.nsid, request.offset, request.length);
            of(request) == of(&pair.request)
        };
        let refusal = match checked {
            Ok(Some(request)) if is_same(request) => {
                pair.request.fua |= request.fua;
                let [_, second] = &mut pair.halves;
                second.tag = tag;
                self.coming.push(pair);
                return Ok(());
            }
            Ok(_) => Status::INVALID_FIELD.dnr(),
            Err(status) => status,
        };
        let [first, _] = pair.halves;
        // Ranges that differ are an error of both.
        let status = if checked.is_ok() { refusal } else { FAILED };
        self.fail(first, status);
        Err(refusal)
    }

    /// A half fails: at once when its data is here, else with it.
    fn fail(&mut self, half: Half, status: Status) {
        match half.data {
            Some(_) => self.failed.push((half.tag, status)),
            None => self.lost.push((half.tag, status)),
        }
    }

    /// All data of a command came.
    pub(crate) fn arrive(&mut self, tag: Tag, data: &[u8]) -> Arrived {
        if let Some(index) = self.lost.iter().position(|(lost, _)| *lost == tag) {
            return Arrived::Failed(self.lost.swap_remove(index).1);
        }
        if let Open::Pair(Pair {
            halves: [first, _], ..
        }) = &mut self.open
            && first.tag == tag
        {
            first.data = Some(data.to_vec());
            return Arrived::Wait;
        }
        let Some(index) = self.position(tag) else {
            return Arrived::Foreign;
        };
        let mut pair = self.coming.swap_remove(index);
        for half in &mut pair.halves {
            if half.tag == tag {
                half.data = Some(data.to_vec());
            }
        }
        match pair.halves {
            [
                Half {
                    tag: first,
                    data: Some(expected),
                },
                Half {
                    tag: second,
                    data: Some(new),
                },
            ] => {
                self.running.push((tag, [first, second]));
                Arrived::Whole(IoRequest {
                    op: IoOp::CompareAndWrite {
                        expected: expected.into_boxed_slice(),
                        new: new.into_boxed_slice(),
                    },
                    ..pair.request
                })
            }
            halves => {
                self.coming.push(Pair { halves, ..pair });
                Arrived::Wait
            }
        }
    }

    fn position(&self, tag: Tag) -> Option<usize> {
        let is_its = |pair: &Pair| pair.halves.iter().any(|half| half.tag == tag);
        self.coming.iter().position(is_its)
    }

    /// The data of a command came damaged; it is completed already.
    pub(crate) fn lose(&mut self, tag: Tag) {
        self.lost.retain(|(lost, _)| *lost != tag);
        if matches!(&self.open, Open::Pair(pair) if pair.halves.iter().any(|half| half.tag == tag))
        {
            self.open = Open::Refused;
        }
        if let Some(index) = self.position(tag) {
            let pair = self.coming.swap_remove(index);
            let other = pair.halves.into_iter().find(|half| half.tag != tag);
            if let Some(other) = other {
                self.fail(other, FAILED);
            }
        }
    }

    /// The next half that fails although its data is here.
    pub(crate) fn next_failed(&mut self) -> Option<(Tag, Status)> {
        self.failed.pop()
    }

    /// The I/O `tag` ended with this status; if it was a pair's, how its halves end.
    pub(crate) fn end(&mut self, tag: Tag, status: Status) -> Option<[(Tag, Status); 2]> {
        let index = self.running.iter().position(|(io, _)| *io == tag)?;
        let (_, [first, second]) = self.running.swap_remove(index);
        let (one, two) = match Status(status.code()) {
            Status::SUCCESS => (status, status),
            // The comparison was good.
            Status::WRITE_FAULT | Status::CAPACITY_EXCEEDED => (Status::SUCCESS, status),
            _ => (status, FAILED),
        };
        Some([(first, one), (second, two)])
    }
}

#[cfg(test)]
#[path = "fuse_tests.rs"]
mod tests;
