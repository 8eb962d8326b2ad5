//! Many commands at once, in every mode, against a slow and obvious model; and noise.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

mod common;

use std::collections::BTreeMap;

use common::{BLOCK, BLOCKS, Done, HOST, Host, Options, SUBSYSTEM, registry};
use proptest::prelude::*;
use roadstead_nvme::command::{Blocks, DsmRange};
use roadstead_nvme::fabrics::CNTLID_DYNAMIC;
use roadstead_nvme::{DataPointer, IoCommand, Status};
use roadstead_target::limits;
use roadstead_target::tcp::Close;
use zerocopy::IntoBytes;

/// What a host does.
#[derive(Clone, Debug)]
enum Step {
    Read {
        start: u64,
        count: u32,
    },
    Write {
        start: u64,
        count: u32,
        fill: u8,
    },
    Zero {
        start: u64,
        count: u32,
    },
    Discard {
        ranges: Vec<(u64, u32)>,
    },
    Flush,
    /// The drive ends one of the I/Os in flight.
    Finish {
        which: usize,
    },
    /// The socket's output is sent.
    Hear,
}

/// Ranges near both ends of a small volume; some do not fit.
fn range() -> impl Strategy<Value = (u64, u32)> {
    let start = prop_oneof![6 => 0..64_u64, 2 => BLOCKS - 40..BLOCKS + 2, 1 => any::<u64>()];
    (start, prop_oneof![8 => 1..40_u32, 1 => 2040..2060_u32])
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => range().prop_map(|(start, count)| Step::Read { start, count }),
        4 => (range(), any::<u8>()).prop_map(|((start, count), fill)| Step::Write { start, count, fill }),
        1 => range().prop_map(|(start, count)| Step::Zero { start, count }),
        1 => prop::collection::vec(range(), 1..5).prop_map(|ranges| Step::Discard { ranges }),
        1 => Just(Step::Flush),
        6 => any::<usize>().prop_map(|which| Step::Finish { which }),
        2 => Just(Step::Hear),
    ];
    prop::collection::vec(step, 1..60)
}

fn options() -> impl Strategy<Value = (Options, Option<usize>)> {
    let modes = any::<[bool; 6]>();
    let chunk = prop_oneof![Just(usize::MAX), 1..200_usize, 4000..9000_usize];
    let in_capsule = prop_oneof![Just(0), Just(4096), Just(16384_u32)];
    let max_data = prop_oneof![Just(4096), Just(1_u32 << 20)];
    let buffers = prop_oneof![Just(None), (1..4_usize).prop_map(Some)];
    (modes, chunk, in_capsule, max_data, buffers, 0..32_u8).prop_map(
        |(mode, chunk, in_capsule, max_data, buffers, alignment)| {
            let [
                header_digest,
                data_digest,
                flow_control,
                immediate,
                reluctant,
                _,
            ] = mode;
            let options = Options {
                header_digest,
                data_digest,
                alignment,
                flow_control,
                in_capsule,
                max_data,
                chunk,
                immediate,
                reluctant,
                entries: 64,
                ..Options::default()
            };
            (options, buffers)
        },
    )
}

fn fits(start: u64, count: u32) -> bool {
    start
        .checked_add(u64::from(count))
        .is_some_and(|end| end <= BLOCKS)
}

/// The status that the specification wants.
fn expected(step: &Step) -> Status {
    let (start, count) = match step {
        Step::Read { start, count }
        | Step::Write { start, count, .. }
        | Step::Zero { start, count } => (*start, *count),
        Step::Discard { ranges } => {
            let all_fit = ranges.iter().all(|(start, count)| fits(*start, *count));
            return if all_fit {
                Status::SUCCESS
            } else {
                Status::LBA_OUT_OF_RANGE.dnr()
            };
        }
        Step::Flush | Step::Finish { .. } | Step::Hear => return Status::SUCCESS,
    };
    if !fits(start, count) {
        Status::LBA_OUT_OF_RANGE.dnr()
    } else if !matches!(step, Step::Zero { .. }) && count > 2048 {
        Status::INVALID_FIELD.dnr()
    } else {
        Status::SUCCESS
    }
}

fn begin(host: &mut Host, step: &Step) -> Option<u16> {
    let bytes = |count: u32| usize::try_from(u64::from(count) * BLOCK).unwrap();
    match step {
        Step::Read { start, count } => {
            let blocks = Blocks {
                start: *start,
                count: *count,
            };
            let mut sqe = IoCommand::Read {
                nsid: 1,
                blocks,
                fua: false,
            }
            .encode(0);
            sqe.dptr = DataPointer::Transport {
                length: u32::try_from(bytes(*count)).unwrap(),
            }
            .encode();
            Some(host.start(sqe, &[]))
        }
        Step::Write { start, count, fill } => {
            let blocks = Blocks {
                start: *start,
                count: *count,
            };
            let sqe = IoCommand::Write {
                nsid: 1,
                blocks,
                fua: *fill > 200,
            }
            .encode(0);
            Some(host.start(sqe, &vec![*fill; bytes(*count)]))
        }
        Step::Zero { start, count } => {
            let blocks = Blocks {
                start: *start,
                count: *count,
            };
            let sqe = IoCommand::WriteZeroes {
                nsid: 1,
                blocks,
                fua: false,
                deallocate: true,
                all: false,
            }
            .encode(0);
            Some(host.start(sqe, &[]))
        }
        Step::Discard { ranges } => {
            let list: Vec<DsmRange> = ranges
                .iter()
                .map(|(start, count)| DsmRange::new(*start, *count))
                .collect();
            let count = u16::try_from(list.len()).unwrap();
            let sqe = IoCommand::DatasetManagement {
                nsid: 1,
                ranges: count,
                deallocate: true,
            }
            .encode(0);
            Some(host.start(sqe, list.as_slice().as_bytes()))
        }
        Step::Flush => Some(host.start(IoCommand::Flush { nsid: 1 }.encode(0), &[])),
        Step::Finish { which } => {
            let pending = host.memory.pending.len();
            if pending > 0 {
                let (tag, request, buffer) = host.memory.pending.remove(which % pending).unwrap();
                host.finish(tag, &request, buffer);
                host.pump();
            }
            None
        }
        Step::Hear => {
            host.deaf = false;
            host.pump();
            host.deaf = true;
            None
        }
    }
}

fn check(step: &Step, done: &Done, flow_control: bool) {
    assert_eq!(done.status, expected(step), "{step:?}");
    if let (Step::Read { count, .. }, true) = (step, done.status.is_success()) {
        assert_eq!(
            done.data.len(),
            usize::try_from(u64::from(*count) * BLOCK).unwrap()
        );
        assert_eq!(done.sqhd.is_some(), flow_control);
    } else {
        assert!(done.data.is_empty() && done.sqhd.is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Commands in flight at once each complete once with the right status, and memory stays bounded.
    #[test]
    fn all_complete(steps in steps(), (options, buffers) in options()) {
        let registry = registry();
        let (_admin, mut host) = Host::pair(&registry, options);
        host.memory.buffers = buffers;
        host.deaf = true;
        let mut begun = BTreeMap::new();
        for step in &steps {
            if host.connection.in_flight() + 2 > usize::from(options.entries) {
                break;
            }
            if let Some(cid) = begin(&mut host, step) {
                begun.insert(cid, step);
            }
        }
        host.deaf = false;
        host.settle();
        prop_assert_eq!(&host.closed, &None);
        prop_assert_eq!(host.connection.in_flight(), 0);
        prop_assert!(!host.connection.is_waiting());
        prop_assert_eq!(host.memory.buffers, buffers);
        prop_assert_eq!(host.done.len(), begun.len());
        for done in &host.done {
            let step = begun.remove(&done.cid).unwrap();
            check(step, done, options.flow_control);
        }
    }

    /// One command after the other: what is read is what the model holds.
    #[test]
    fn data_is_kept(steps in steps(), (options, buffers) in options()) {
        let registry = registry();
        let (_admin, mut host) = Host::pair(&registry, options);
        host.memory.buffers = buffers;
        let mut model = vec![0_u8; usize::try_from(BLOCKS * BLOCK).unwrap()];
        for step in &steps {
            let Some(cid) = begin(&mut host, step) else {
                host.deaf = false;
                continue;
            };
            host.settle();
            let done = host.done.pop_front().unwrap();
            prop_assert_eq!(done.cid, cid);
            check(step, &done, options.flow_control);
            if !done.status.is_success() {
                continue;
            }
            let place = |start: u64, count: u32| {
                let start = usize::try_from(start * BLOCK).unwrap();
                start..start + usize::try_from(u64::from(count) * BLOCK).unwrap()
            };
            match step {
                Step::Read { start, count } => prop_assert!(done.data == model[place(*start, *count)]),
                Step::Write { start, count, fill } => model[place(*start, *count)].fill(*fill),
                Step::Zero { start, count } => model[place(*start, *count)].fill(0),
                Step::Discard { ranges } => ranges.iter().for_each(|(start, count)| model[place(*start, *count)].fill(0)),
                Step::Flush | Step::Finish { .. } | Step::Hear => {}
            }
        }
    }

    /// Noise never panics: it is taken, or the connection ends with a termination request.
    #[test]
    fn noise_is_taken_or_ends_the_connection(
        stage in 0..4_u8,
        noise in prop::collection::vec(any::<u8>(), 0..2000),
        (options, _) in options(),
    ) {
        let registry = registry();
        let mut host = match stage {
            0 => Host::raw(&registry, options),
            1 => Host::initialised(&registry, options),
            2 => Host::admin(&registry, options),
            _ => Host::pair(&registry, options).0,
        };
        host.deaf = true;
        host.send_bytes(&noise);
        host.tick();
        assert_ended_well(&host)?;
    }

    /// So does a real conversation with flipped bits: a host's bytes are taken down, changed and replayed.
    #[test]
    fn broken_conversations_are_taken_or_end_the_connection(
        steps in steps(),
        (options, _) in options(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let registry = registry();
        let mut scribe = Host::initialised(&registry, Options { chunk: usize::MAX, ..options });
        scribe.deaf = true;
        // Nothing is given to a connection that is said to be closed, so what is sent stays in the backlog.
        scribe.closed = Some(Close::Closed);
        for step in &steps {
            begin(&mut scribe, step);
        }
        let mut bytes = scribe.backlog;
        prop_assume!(!bytes.is_empty());
        for (index, value) in &flips {
            let at = index.index(bytes.len());
            bytes[at] ^= value;
        }
        let (admin, mut host) = Host::pair(&registry, options);
        host.deaf = true;
        host.send_bytes(&bytes);
        while let Some((tag, request, buffer)) = host.memory.pending.pop_front() {
            host.finish(tag, &request, buffer);
        }
        host.tick();
        assert_ended_well(&host)?;
        drop(admin);
    }
}

/// The connection lives, or its last words are a termination request.
fn assert_ended_well(host: &Host) -> Result<(), TestCaseError> {
    match &host.closed {
        None | Some(Close::Host(_)) => {}
        Some(Close::Protocol(fatal)) => {
            let term = roadstead_tcp::PduWriter::term(roadstead_tcp::Role::Controller, fatal);
            prop_assert!(host.wire.bytes.ends_with(&term));
        }
        Some(other) => prop_assert!(false, "{:?}", other),
    }
    Ok(())
}

/// A host that sends commands and does not listen costs no more than the bounds.
#[test]
fn a_deaf_host_costs_bounded_memory() {
    for immediate in [false, true] {
        let registry = registry();
        let options = Options {
            immediate,
            flow_control: false,
            entries: 128,
            ..Options::default()
        };
        let (_admin, mut host) = Host::pair(&registry, options);
        host.deaf = true;
        let blocks = Blocks {
            start: 0,
            count: 256,
        };
        let mut read = IoCommand::Read {
            nsid: 1,
            blocks,
            fua: false,
        }
        .encode(0);
        read.dptr = DataPointer::Transport { length: 256 * 512 }.encode();
        let mut cids = Vec::new();
        for _ in 0..100 {
            cids.push(host.start(read, &[]));
            while let Some((tag, request, buffer)) = host.memory.pending.pop_front() {
                host.finish(tag, &request, buffer);
            }
        }
        assert!(host.connection.is_waiting());
        // What is small has no buffer, so the output itself stops the host.
        let flush = IoCommand::Flush { nsid: 1 }.encode(0);
        let most = limits::BUFFERED_BYTES_MAX + 4096;
        assert!(host.wire.most <= most, "{}", host.wire.most);
        for _ in 0..20 {
            cids.push(host.start(flush, &[]));
        }
        assert!(host.wire.most <= most, "{}", host.wire.most);
        host.deaf = false;
        host.settle();
        assert_eq!((host.done.len(), &host.closed), (cids.len(), &None));
        assert!(host.done.iter().all(|done| done.status.is_success()));
    }
}

/// So does one that floods with commands that complete at once.
#[test]
fn a_flood_of_answers_stops_at_the_bound() {
    let registry = registry();
    let mut host = Host::admin(&registry, Options::default());
    host.deaf = true;
    let identify = roadstead_nvme::AdminCommand::Identify {
        cns: 1,
        cntlid: 0,
        nsid: 0,
        command_set: 0,
    }
    .encode(0);
    for _ in 0..3000 {
        host.start(identify, &[]);
    }
    assert!(host.wire.most < limits::OUTPUT_BYTES_MAX + 8192);
    assert!(!host.backlog.is_empty());
    host.deaf = false;
    host.settle();
    assert_eq!((host.done.len(), &host.closed), (3000, &None));
}

#[test]
fn many_hosts_share_a_volume() {
    let registry = registry();
    let mut pairs: Vec<(Host, Host)> = (0..8)
        .map(|_| Host::pair(&registry, Options::default()))
        .collect();
    assert_eq!(registry.controllers().len(), 8);
    for (_, io) in &mut pairs {
        assert_eq!(io.read(0, 8).status, Status::SUCCESS);
    }
    let mut late = Host::initialised(&registry, Options::default());
    assert_eq!(late.connect(0, CNTLID_DYNAMIC, SUBSYSTEM, HOST).result, 9);
}
