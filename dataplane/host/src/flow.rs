//! The life of requests: accepted, split into commands, sent, sent again, done.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use roadstead_nvme::Status;

use crate::request::{Done, IoError, Op, Refused, Request};

/// The pause before a command is repeated that the target answers with a passing error on a working path, and before
/// a path is used again that answered with a path-related error.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// Times beyond this are never reached: 100 years.
const TIME_MAX: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Most blocks of one command: its field is 16 bits, zero's based.
pub(crate) const COMMAND_BLOCKS_MAX: u32 = 1 << 16;

/// A piece of a request that one command carries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) request: u32,
    /// Blocks from the request's first.
    pub(crate) first: u32,
    pub(crate) blocks: u32,
    /// Order of submission.
    pub(crate) sequence: u64,
    /// When a passing error becomes a final one; set by the first.
    patience: Option<Instant>,
}

impl Part {
    pub(crate) fn whole(request: u32, blocks: u32, sequence: u64) -> Self {
        Self {
            request,
            first: 0,
            blocks,
            sequence,
            patience: None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    request: Request,
    /// Parts that are not done; 0: the entry is free.
    parts: u32,
    error: Option<IoError>,
}

/// What becomes of a command's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The part is done.
    Done,
    /// It will be sent again on this path.
    Retry,
    /// It will be sent again, if possible on another path: this one is of no use now.
    Failover,
}

/// All requests that are not done.
#[derive(Debug)]
pub(crate) struct Flow {
    entries: Vec<Entry>,
    free: Vec<u32>,
    requests_max: u32,
    /// How long a command is repeated that meets passing errors.
    patience: Duration,
    pending: VecDeque<Part>,
    /// In the order of their times.
    delayed: VecDeque<(Instant, Part)>,
    /// Not to be sent before [`Self::release`].
    held: Vec<Part>,
    sequence: u64,
}

impl Flow {
    pub(crate) fn new(requests_max: u32, patience: Duration) -> Self {
        Self {
            entries: Vec::new(),
            free: Vec::new(),
            requests_max,
            patience,
            pending: VecDeque::new(),
            delayed: VecDeque::new(),
            held: Vec::new(),
            sequence: 0,
        }
    }

    /// The number of the last request.
    pub(crate) fn last(&self) -> u64 {
        self.sequence
    }

    /// Requests that are not done.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn submit(&mut self, request: Request) -> Result<(), Refused> {
        let entry = Entry {
            request,
            parts: 1,
            error: None,
        };
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(slot) = self.entries.get_mut(index as usize) {
                    *slot = entry;
                }
                index
            }
            None => {
                let index = u32::try_from(self.entries.len()).map_err(|_| Refused::Full)?;
                if index >= self.requests_max {
                    return Err(Refused::Full);
                }
                self.entries.push(entry);
                index
            }
        };
        self.sequence += 1;
        self.pending
            .push_back(Part::whole(index, request.blocks, self.sequence));
        Ok(())
    }

    /// The next piece to send, of at most `blocks_max(op)` blocks.
    pub(crate) fn next(&mut self, blocks_max: impl Fn(Op) -> u32) -> Option<(Part, Request)> {
        let mut part = self.pending.pop_front()?;
        let entry = self.entries.get_mut(part.request as usize)?;
        let limit = blocks_max(entry.request.op).clamp(1, COMMAND_BLOCKS_MAX);
        if part.blocks > limit {
            let rest = Part {
                first: part.first + limit,
                blocks: part.blocks - limit,
                ..part
            };
            part.blocks = limit;
            entry.parts += 1;
            self.pending.push_front(rest);
        }
        Some((part, entry.request))
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Puts a piece back that could not be sent.
    pub(crate) fn put_back(&mut self, part: Part) {
        self.pending.push_front(part);
    }

    /// Sets a piece aside that must not be sent now.
    pub(crate) fn hold(&mut self, part: Part) {
        self.held.push(part);
    }

    /// Brings back what was set aside.
    pub(crate) fn release(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.requeue(held.into_iter());
    }

    /// The request that a piece is of.
    pub(crate) fn request(&self, part: &Part) -> Option<&Request> {
        Some(&self.entries.get(part.request as usize)?.request)
    }

    /// Takes in the target's answer to a piece.
    pub(crate) fn answered(
        &mut self,
        mut part: Part,
        status: Status,
        now: Instant,
        done: &mut VecDeque<Done>,
    ) -> Verdict {
        if status.is_success() {
            self.finish(part, None, done);
            return Verdict::Done;
        }
        let patience = *part.patience.get_or_insert(later(now, self.patience));
        if is_path_related(status) && now < patience {
            self.pending.push_front(part);
            return Verdict::Failover;
        }
        if is_passing(status) && now < patience {
            self.delayed.push_back((now + RETRY_PAUSE, part));
            return Verdict::Retry;
        }
        self.finish(part, Some(IoError::Status(status)), done);
        Verdict::Done
    }

    /// Ends a piece; with its last one the request is done.
    pub(crate) fn finish(&mut self, part: Part, error: Option<IoError>, done: &mut VecDeque<Done>) {
        let Some(entry) = self.entries.get_mut(part.request as usize) else {
            return;
        };
        entry.error = entry.error.or(error);
        entry.parts = entry.parts.saturating_sub(1);
        if entry.parts == 0 {
            done.push_back(Done {
                token: entry.request.token,
                result: entry.error.map_or(Ok(()), Err),
            });
            self.free.push(part.request);
        }
    }

    /// Takes back what was in flight on a lost connection, before everything that was never sent.
    pub(crate) fn requeue(&mut self, parts: impl Iterator<Item = Part>) {
        let mut parts: Vec<_> = parts.collect();
        parts.extend(self.delayed.drain(..).map(|(_, part)| part));
        parts.sort_unstable_by_key(|part| (part.sequence, part.first));
        for part in parts.into_iter().rev() {
            self.pending.push_front(part);
        }
    }

    /// Ends everything that is not in flight.
    pub(crate) fn fail_all(&mut self, error: IoError, done: &mut VecDeque<Done>) {
        let delayed = std::mem::take(&mut self.delayed);
        let pending = std::mem::take(&mut self.pending);
        let held = std::mem::take(&mut self.held);
        let waiting = pending.into_iter().chain(held);
        for part in waiting.chain(delayed.into_iter().map(|d| d.1)) {
            self.finish(part, Some(error), done);
        }
    }

    /// When the next delayed piece is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.delayed.front().map(|(at, _)| *at)
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        while let Some((at, part)) = self.delayed.front().copied()
            && at <= now
        {
            self.delayed.pop_front();
            self.pending.push_back(part);
        }
    }
}

/// `now` and so much more, or as late as can be said.
pub(crate) fn later(now: Instant, by: Duration) -> Instant {
    now.checked_add(by).unwrap_or(now + TIME_MAX)
}

/// Whether another path may give another answer.
fn is_path_related(status: Status) -> bool {
    status.is_path_related() && !status.is_dnr() && status.code() != Status::HOST_ABORTED.code()
}

/// Errors that the same command may not meet again.
fn is_passing(status: Status) -> bool {
    let passing = [
        Status::NAMESPACE_NOT_READY,
        Status::TRANSIENT_TRANSPORT,
        Status::ABORTED_SQ_DELETION,
        Status::ABORT_REQUESTED,
        Status::DATA_TRANSFER_ERROR,
        Status::COMMAND_ID_CONFLICT,
    ];
    !status.is_dnr() && passing.iter().any(|s| s.code() == status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    fn request(token: u64, blocks: u32) -> Request {
        Request {
            op: Op::Read,
            lba: 0,
            blocks,
            token,
        }
    }

    #[test]
    fn a_large_request_is_done_with_its_last_piece() {
        let now = Instant::now();
        let (mut flow, mut done) = (Flow::new(4, PATIENCE), VecDeque::new());
        flow.submit(request(9, 10)).unwrap();
        let mut pieces = Vec::new();
        while let Some((part, _)) = flow.next(|_| 4) {
            pieces.push(part);
        }
        let shape: Vec<_> = pieces.iter().map(|p| (p.first, p.blocks)).collect();
        assert_eq!(shape, [(0, 4), (4, 4), (8, 2)]);
        for (piece, status) in
            pieces
                .into_iter()
                .zip([Status::SUCCESS, Status::WRITE_FAULT, Status::SUCCESS])
        {
            assert!(done.is_empty());
            flow.answered(piece, status, now, &mut done);
        }
        let result = Err(IoError::Status(Status::WRITE_FAULT));
        assert_eq!(done, [Done { token: 9, result }]);
        assert_eq!(flow.len(), 0);
    }

    #[test]
    fn the_answer_decides() {
        let now = Instant::now();
        let table = [
            (Status::SUCCESS, Verdict::Done),
            (Status::WRITE_FAULT, Verdict::Done),
            (Status::LBA_OUT_OF_RANGE.dnr(), Verdict::Done),
            (Status::NAMESPACE_NOT_READY, Verdict::Retry),
            (Status::NAMESPACE_NOT_READY.dnr(), Verdict::Done),
            (Status::ANA_INACCESSIBLE, Verdict::Failover),
            (Status::INTERNAL_PATH, Verdict::Failover),
            (Status::INTERNAL_PATH.dnr(), Verdict::Done),
            (Status::HOST_ABORTED, Verdict::Done),
        ];
        for (status, wanted) in table {
            let (mut flow, mut done) = (Flow::new(4, PATIENCE), VecDeque::new());
            flow.submit(request(1, 1)).unwrap();
            let (part, _) = flow.next(|_| 1).unwrap();
            let verdict = flow.answered(part, status, now, &mut done);
            assert_eq!(verdict, wanted, "{status}");
            assert_eq!(done.is_empty(), wanted != Verdict::Done);
        }
    }

    #[test]
    fn retries_are_bounded() {
        let mut now = Instant::now();
        let (mut flow, mut done) = (Flow::new(4, PATIENCE), VecDeque::new());
        flow.submit(request(1, 1)).unwrap();
        let mut sent = 0;
        while done.is_empty() {
            let (part, _) = flow.next(|_| 1).unwrap();
            sent += 1;
            flow.answered(part, Status::NAMESPACE_NOT_READY, now, &mut done);
            assert!(!flow.has_pending(), "not before its time");
            now = flow.deadline().unwrap_or(now);
            flow.tick(now);
        }
        assert_eq!(sent, 5000 / 250 + 1);
    }

    #[test]
    fn a_path_related_status_is_repeated_for_a_bounded_time() {
        let now = Instant::now();
        let (mut flow, mut done) = (Flow::new(4, PATIENCE), VecDeque::new());
        flow.submit(request(1, 1)).unwrap();
        for (second, verdict) in [
            (0, Verdict::Failover),
            (4, Verdict::Failover),
            (5, Verdict::Done),
        ] {
            let (part, _) = flow.next(|_| 1).unwrap();
            let at = now + Duration::from_secs(second);
            assert_eq!(
                flow.answered(part, Status::INTERNAL_PATH, at, &mut done),
                verdict
            );
        }
        assert_eq!(later(now, Duration::MAX), now + TIME_MAX);
    }

    #[test]
    fn what_is_held_keeps_its_place() {
        let (mut flow, mut done) = (Flow::new(9, PATIENCE), VecDeque::new());
        for token in 0..4 {
            flow.submit(request(token, 1)).unwrap();
        }
        let (first, _) = flow.next(|_| 1).unwrap();
        flow.hold(first);
        let (second, of) = flow.next(|_| 1).unwrap();
        assert_eq!((of.token, flow.request(&second).unwrap().token), (1, 1));
        flow.hold(second);
        flow.release();
        let order: Vec<_> = std::iter::from_fn(|| flow.next(|_| 1)).collect();
        assert_eq!(
            order.iter().map(|(_, r)| r.token).collect::<Vec<_>>(),
            [0, 1, 2, 3]
        );
        flow.hold(order[0].0);
        flow.fail_all(IoError::Closed, &mut done);
        assert_eq!(done.len(), 1);
    }

    #[test]
    fn what_was_in_flight_goes_first_in_its_order() {
        let (mut flow, mut done) = (Flow::new(9, PATIENCE), VecDeque::new());
        for token in 0..5 {
            flow.submit(request(token, 1)).unwrap();
        }
        let mut sent: Vec<_> = (0..3).filter_map(|_| flow.next(|_| 1)).collect();
        sent.reverse();
        flow.requeue(sent.into_iter().map(|(part, _)| part));
        let order: Vec<_> = std::iter::from_fn(|| flow.next(|_| 1))
            .map(|(_, request)| request.token)
            .collect();
        assert_eq!(order, [0, 1, 2, 3, 4]);
        flow.fail_all(IoError::Closed, &mut done);
        assert!(done.is_empty(), "they are in flight again");
    }

    #[test]
    fn requests_are_bounded() {
        let mut flow = Flow::new(2, PATIENCE);
        assert!(flow.submit(request(0, 1)).is_ok() && flow.submit(request(1, 1)).is_ok());
        assert_eq!(flow.submit(request(2, 1)), Err(Refused::Full));
    }
}
