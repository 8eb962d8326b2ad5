//! Anything may happen at any time; an array says what must be.

use std::ops::Range as Blocks;

use proptest::prelude::*;
use roadstead_nvme::log::ana;

use super::*;
use crate::config::PathPolicy;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        kind: u8,
        lba: u64,
        blocks: u32,
    },
    Complete {
        index: usize,
        answer: u8,
    },
    Cut {
        path: usize,
        executed: u32,
    },
    /// What was left on a path takes effect.
    Haunt(usize),
    Dead {
        path: usize,
        dead: bool,
    },
    Ana {
        path: usize,
        state: u8,
    },
    Mute(bool),
    Silent {
        path: usize,
        silent: bool,
    },
    Advance(u64),
    Want(Vec<u16>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..4, 0..BLOCKS, 0u32..6)
            .prop_map(|(kind, lba, blocks)| Step::Submit { kind, lba, blocks }),
        8 => (0usize..8, 0u8..24).prop_map(|(index, answer)| Step::Complete { index, answer }),
        2 => (0..PLACES, any::<u32>()).prop_map(|(path, executed)| Step::Cut { path, executed }),
        2 => (0usize..8).prop_map(Step::Haunt),
        2 => (0..PLACES, any::<bool>()).prop_map(|(path, dead)| Step::Dead { path, dead }),
        1 => (0..PLACES, prop::sample::select(vec![
            ana::OPTIMIZED, ana::NON_OPTIMIZED, ana::INACCESSIBLE, ana::CHANGE,
        ])).prop_map(|(path, state)| Step::Ana { path, state }),
        1 => any::<bool>().prop_map(Step::Mute),
        1 => (0..PLACES, any::<bool>()).prop_map(|(path, silent)| Step::Silent { path, silent }),
        2 => prop_oneof![1u64..4000, 4000u64..40_000].prop_map(Step::Advance),
        1 => wanted().prop_map(Step::Want),
    ]
}

/// Some of all places, in any order.
fn wanted() -> impl Strategy<Value = Vec<u16>> {
    let all: Vec<u16> = (0..=u16::MAX).take(PLACES).collect();
    let any = Just(all).prop_shuffle();
    (any, 1..=PLACES).prop_map(|(places, count)| places[..count].to_vec())
}

fn policy() -> impl Strategy<Value = PathPolicy> {
    prop::sample::select(vec![
        PathPolicy::Nearest,
        PathPolicy::RoundRobin,
        PathPolicy::QueueDepth,
    ])
}

/// What must be: an array, changed when a write is submitted, for overlapping requests are not in flight together.
struct Model {
    store: Vec<u64>,
    busy: HashMap<u64, (Op, u64, u32)>,
    token: u64,
    checked: usize,
    wanted: Vec<u16>,
}

impl Model {
    fn range(lba: u64, blocks: u32) -> Blocks<usize> {
        let start = usize::try_from(lba).unwrap();
        start..start + blocks as usize
    }

    fn submit(&mut self, sim: &mut Sim, op: Op, lba: u64, blocks: u32) {
        let end = lba + u64::from(blocks);
        let mut busy = self.busy.values();
        if busy.any(|(_, l, b)| *l < end && lba < l + u64::from(*b)) {
            return;
        }
        self.token += 1;
        if sim.submit(op, lba, blocks, self.token).is_ok() {
            self.busy.insert(self.token, (op, lba, blocks));
            match op {
                WRITE => self.store[Self::range(lba, blocks)].fill(self.token),
                Op::WriteZeroes { .. } => self.store[Self::range(lba, blocks)].fill(0),
                _ => {}
            }
        }
    }

    /// Each request ends once and well, and what is read is what was written last.
    fn check(&mut self, sim: &Sim) -> Result<(), TestCaseError> {
        for done in &sim.done[self.checked..] {
            let (op, lba, blocks) = self.busy.remove(&done.token).expect("done once");
            prop_assert_eq!(done.result, Ok(()));
            if op == Op::Read {
                let expected = &self.store[Self::range(lba, blocks)];
                prop_assert_eq!(&sim.data[&done.token], expected);
            }
        }
        self.checked = sim.done.len();
        Ok(())
    }
}

fn act(sim: &mut Sim, model: &mut Model, step: Step) {
    match step {
        Step::Submit { kind, lba, blocks } => match kind {
            0 => model.submit(sim, Op::Read, lba, blocks),
            1 => model.submit(sim, WRITE, lba, blocks),
            2 => model.submit(sim, Op::WriteZeroes { deallocate: true }, lba, blocks),
            _ => model.submit(sim, Op::Flush, 0, 0),
        },
        Step::Complete { index, answer } => {
            let statuses = [
                Status::NAMESPACE_NOT_READY,
                Status::INTERNAL_PATH,
                Status::ANA_INACCESSIBLE,
                Status::ANA_TRANSITION,
            ];
            let status = statuses.get(usize::from(answer)).copied();
            sim.complete(index, status.unwrap_or(Status::SUCCESS));
        }
        Step::Cut { path, executed } => sim.cut(path, executed),
        Step::Haunt(index) => {
            if !sim.leftovers.is_empty() {
                let leftover = sim.leftovers.swap_remove(index % sim.leftovers.len());
                sim.execute(&leftover.command);
            }
        }
        Step::Dead { path, dead } => {
            sim.dead[path] = dead;
            if dead {
                sim.cut(path, 0);
            }
        }
        Step::Ana { path, state } => sim.set_ana(path, state),
        Step::Mute(mute) => {
            sim.mute = mute;
            sim.settle();
        }
        Step::Silent { path, silent } => {
            sim.silent[path] = silent;
            sim.settle();
        }
        Step::Advance(ms) => sim.advance(Duration::from_millis(ms)),
        Step::Want(places) => {
            sim.want(&places);
            model.wanted = places;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    /// Whatever breaks and when: each request is done once, reads see what the model says, and at the end the
    /// target holds what the model holds, also after the last leftover of a lost path took effect.
    #[test]
    fn nothing_is_lost_or_undone(
        steps in prop::collection::vec(step(), 1..120),
        policy in policy(),
        fences in any::<bool>(),
    ) {
        let mut config = config();
        config.limits.policy = policy;
        config.limits.ctrl_loss = Duration::MAX;
        let mut sim = Sim::with_fences(config, fences);
        let mut model = Model {
            store: vec![0; usize::try_from(BLOCKS).unwrap()],
            busy: HashMap::new(),
            token: 0,
            checked: 0,
            wanted: vec![0, 1],
        };
        for step in steps {
            act(&mut sim, &mut model, step);
            model.check(&sim)?;
        }
        sim.finish();
        model.check(&sim)?;
        sim.haunt(|_| true);
        prop_assert!(model.busy.is_empty());
        prop_assert_eq!(&sim.store, &model.store);
        // By then no copy of a write can take effect any more.
        sim.advance(seconds(60));
        prop_assert_eq!(&sim.host.order, &model.wanted);
        prop_assert_eq!(sim.states(), vec![PathState::Live; model.wanted.len()]);
    }
}
