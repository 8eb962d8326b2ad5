//! The state machine against a slow and obvious model.

use std::collections::BTreeMap;

use proptest::prelude::*;
use roadstead_nvme::Status;
use roadstead_nvme::command::{AcquireAction, RegisterAction, ReleaseAction};
use roadstead_nvme::reservation::{AcquireData, Notice, RegisterData, ReservationType};

use super::state::{Access, Effects, HostId, State};

const CONFLICT: Status = Status::RESERVATION_CONFLICT.dnr();
const INVALID: Status = Status::INVALID_FIELD.dnr();

/// What hosts 0 to 3 do, with keys 0 to 3.
#[derive(Clone, Debug)]
enum Step {
    Register(u8, RegisterAction, bool, Option<bool>, u64, u64),
    Acquire(u8, AcquireAction, ReservationType, u64, u64),
    Release(u8, ReleaseAction, u64),
}

fn kinds() -> impl Strategy<Value = ReservationType> {
    prop::sample::select(ReservationType::ALL.to_vec())
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let registers = prop::sample::select(vec![
        RegisterAction::Register,
        RegisterAction::Register,
        RegisterAction::Unregister,
        RegisterAction::Replace,
    ]);
    let persist = prop_oneof![Just(None), Just(Some(true)), Just(Some(false))];
    let acquires = prop::sample::select(vec![
        AcquireAction::Acquire,
        AcquireAction::Preempt,
        AcquireAction::PreemptAndAbort,
    ]);
    let releases = prop_oneof![
        3 => kinds().prop_map(ReleaseAction::Release),
        1 => Just(ReleaseAction::Clear),
    ];
    let (host, key) = (0..4_u8, 0..4_u64);
    let step = prop_oneof![
        4 => (host.clone(), registers, any::<bool>(), persist, key.clone(), key.clone())
            .prop_map(|(h, a, i, p, c, n)| Step::Register(h, a, i, p, c, n)),
        5 => (host.clone(), acquires, kinds(), key.clone(), key.clone())
            .prop_map(|(h, a, k, c, p)| Step::Acquire(h, a, k, c, p)),
        2 => (host, releases, key).prop_map(|(h, a, c)| Step::Release(h, a, c)),
    ];
    prop::collection::vec(step, 1..40)
}

fn id(host: u8) -> HostId {
    [host; 16]
}

/// The sentences of the specification, one by one, on a list of hosts.
#[derive(Clone, Default)]
struct Model {
    /// Key by host.
    keys: BTreeMap<u8, u64>,
    kind: Option<ReservationType>,
    /// Holders: one, or all registrants.
    holders: Vec<u8>,
    generation: u32,
    persist: bool,
}

type Told = Vec<(HostId, Notice)>;

impl Model {
    fn may(&self, host: u8) -> Access {
        let registered = self.keys.contains_key(&host);
        let holds = self.holders.contains(&host);
        let (read, write) = match self.kind {
            None => (true, true),
            Some(ReservationType::WriteExclusive) => (true, holds),
            Some(ReservationType::ExclusiveAccess) => (holds, holds),
            Some(
                ReservationType::WriteExclusiveRegistrants | ReservationType::WriteExclusiveAll,
            ) => (true, registered),
            Some(
                ReservationType::ExclusiveAccessRegistrants | ReservationType::ExclusiveAccessAll,
            ) => (registered, registered),
        };
        Access { read, write }
    }

    fn held_by_all(&self) -> bool {
        matches!(
            self.kind,
            Some(ReservationType::WriteExclusiveAll | ReservationType::ExclusiveAccessAll)
        )
    }

    fn everyone_but(&self, host: u8, notice: Notice) -> Told {
        let others = self.keys.keys().filter(|other| **other != host);
        others.map(|other| (id(*other), notice)).collect()
    }

    fn hold(&mut self, host: u8, kind: ReservationType) {
        self.kind = Some(kind);
        self.holders = vec![host];
        if self.held_by_all() {
            self.holders = self.keys.keys().copied().collect();
        }
    }

    fn let_go(&mut self) -> bool {
        let kind = self.kind.take();
        self.holders.clear();
        kind.is_some_and(ReservationType::is_for_registrants)
    }

    fn step(&mut self, step: &Step) -> Result<Told, Status> {
        match *step {
            Step::Register(host, action, ignore, persist, current, new) => {
                let told = self.register(host, action, ignore, current, new)?;
                self.generation += 1;
                self.persist = persist.unwrap_or(self.persist);
                Ok(told)
            }
            Step::Acquire(host, _, _, key, _) | Step::Release(host, _, key)
                if self.keys.get(&host) != Some(&key) =>
            {
                Err(CONFLICT)
            }
            Step::Acquire(host, AcquireAction::Acquire, kind, _, _) => {
                if self.kind.is_none() {
                    self.hold(host, kind);
                } else if self.kind != Some(kind) || !self.holders.contains(&host) {
                    return Err(CONFLICT);
                }
                Ok(Vec::new())
            }
            Step::Acquire(host, _, kind, _, victim) => {
                let told = self.preempt(host, kind, victim)?;
                self.generation += 1;
                Ok(told)
            }
            Step::Release(host, ReleaseAction::Clear, _) => {
                let told = self.everyone_but(host, Notice::ReservationPreempted);
                self.keys.clear();
                self.let_go();
                self.generation += 1;
                Ok(told)
            }
            Step::Release(host, ReleaseAction::Release(kind), _) => {
                if !self.holders.contains(&host) {
                    return Ok(Vec::new());
                }
                if self.kind != Some(kind) {
                    return Err(INVALID);
                }
                let told = self.everyone_but(host, Notice::ReservationReleased);
                Ok(if self.let_go() { told } else { Vec::new() })
            }
        }
    }

    fn register(
        &mut self,
        host: u8,
        action: RegisterAction,
        ignore: bool,
        current: u64,
        new: u64,
    ) -> Result<Told, Status> {
        let known = self.keys.get(&host).copied();
        if action != RegisterAction::Unregister && new == 0 {
            return Err(INVALID);
        }
        let is_known = known.is_some() && (ignore || known == Some(current));
        match action {
            RegisterAction::Register if known.is_none() || known == Some(new) => {
                self.keys.insert(host, new);
                if self.held_by_all() && !self.holders.contains(&host) {
                    self.holders.push(host);
                }
            }
            RegisterAction::Replace if is_known => {
                self.keys.insert(host, new);
            }
            RegisterAction::Unregister if is_known => {
                self.keys.remove(&host);
                self.holders.retain(|other| *other != host);
                if self.kind.is_some() && self.holders.is_empty() && self.let_go() {
                    return Ok(self.everyone_but(host, Notice::ReservationReleased));
                }
            }
            _ => return Err(CONFLICT),
        }
        Ok(Vec::new())
    }

    fn preempt(&mut self, host: u8, kind: ReservationType, victim: u64) -> Result<Told, Status> {
        let holder_key = match self.holders.first() {
            Some(holder) if !self.held_by_all() => self.keys.get(holder).copied(),
            _ => None,
        };
        if victim == 0 && self.kind.is_some() && !self.held_by_all() {
            return Err(INVALID);
        }
        let takes = (self.held_by_all() && victim == 0)
            || (self.kind.is_some() && holder_key == Some(victim));
        let gone: Vec<u8> = self
            .keys
            .iter()
            .filter(|(other, key)| {
                if takes {
                    **other != host && (victim == 0 || **key == victim)
                } else {
                    **key == victim
                }
            })
            .map(|(other, _)| *other)
            .collect();
        if !takes && gone.is_empty() {
            return Err(CONFLICT);
        }
        for other in &gone {
            self.keys.remove(other);
            self.holders.retain(|holder| holder != other);
        }
        let mut told = Vec::new();
        if takes {
            let old = self.kind;
            if self.let_go() && old != Some(kind) {
                told = self.everyone_but(host, Notice::ReservationReleased);
            }
            self.hold(host, kind);
        } else if self.kind.is_some() && self.holders.is_empty() {
            self.let_go();
        }
        let preempted = gone.into_iter().filter(|other| *other != host);
        told.extend(preempted.map(|other| (id(other), Notice::RegistrationPreempted)));
        Ok(told)
    }
}

fn run(state: &mut State, step: &Step) -> Result<Effects, Status> {
    match *step {
        Step::Register(host, action, ignore, persist, current, new) => {
            let data = RegisterData {
                current_key: current.into(),
                new_key: new.into(),
            };
            state.register(id(host), action, ignore, persist, &data)
        }
        Step::Acquire(host, action, kind, current, victim) => {
            let data = AcquireData {
                current_key: current.into(),
                preempt_key: victim.into(),
            };
            state.acquire(id(host), action, kind, &data)
        }
        Step::Release(host, action, key) => state.release(id(host), action, key),
    }
}

proptest! {
    #[test]
    fn the_state_machine_does_what_the_sentences_say(steps in steps()) {
        let (mut state, mut model) = (State::default(), Model::default());
        for step in &steps {
            let before = state.clone();
            let (ended, expected) = (run(&mut state, step), model.step(step));
            let told = ended.clone().map(|effects| {
                let mut told = effects.notices;
                told.sort_by_key(|(host, notice)| (*host, notice.code()));
                told
            });
            let expected = expected.map(|mut told| {
                told.sort_by_key(|(host, notice)| (*host, notice.code()));
                told
            });
            prop_assert_eq!(&told, &expected, "{:?}", step);
            if ended.is_err() {
                prop_assert_eq!(&state, &before, "what fails changes nothing");
            }
            for host in 0..5 {
                prop_assert_eq!(state.access(id(host)), model.may(host), "{} after {:?}", host, step);
                prop_assert_eq!(state.holds(id(host)), model.holders.contains(&host));
            }
            prop_assert_eq!(state.generation, model.generation);
            prop_assert_eq!(state.persists(), model.persist);
            prop_assert_eq!(state.held.map(|held| held.kind), model.kind);
        }
    }

    #[test]
    fn what_is_kept_is_what_was(steps in steps()) {
        let mut state = State::default();
        for step in &steps {
            let _ = run(&mut state, step);
            let bytes = state.to_bytes();
            prop_assert_eq!(bytes.is_empty(), !state.persists());
            let again = State::from_bytes(&bytes).unwrap();
            prop_assert_eq!(again.to_bytes(), bytes);
            if state.persists() {
                for host in 0..5 {
                    prop_assert_eq!(again.access(id(host)), state.access(id(host)));
                    prop_assert_eq!(again.holds(id(host)), state.holds(id(host)));
                }
                prop_assert_eq!(again.report(), state.report());
            }
        }
    }

    #[test]
    fn noise_is_no_state_or_a_possible_one(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(state) = State::from_bytes(&bytes) {
            prop_assert!(state.held.is_none() || !state.registrants.is_empty());
        }
    }
}

/// Who may do what, as the specification's table has it: rows are types; columns the holder, a registrant, another.
#[test]
fn access_by_type() {
    let (all, read, none) = ((true, true), (true, false), (false, false));
    for (kind, registrant, other) in [
        (ReservationType::WriteExclusive, read, read),
        (ReservationType::ExclusiveAccess, none, none),
        (ReservationType::WriteExclusiveRegistrants, all, read),
        (ReservationType::ExclusiveAccessRegistrants, all, none),
        (ReservationType::WriteExclusiveAll, all, read),
        (ReservationType::ExclusiveAccessAll, all, none),
    ] {
        let mut state = State::default();
        for host in [1, 2] {
            let step = Step::Register(host, RegisterAction::Register, false, None, 0, 9);
            run(&mut state, &step).unwrap();
        }
        let step = Step::Acquire(1, AcquireAction::Acquire, kind, 9, 0);
        run(&mut state, &step).unwrap();
        let may = |host| {
            let access = state.access(id(host));
            (access.read, access.write)
        };
        assert_eq!(
            (may(1), may(2), may(3)),
            (all, registrant, other),
            "{kind:?}"
        );
    }
}

#[test]
fn golden_bytes() {
    let mut state = State::default();
    assert_eq!(state.to_bytes(), []);
    for host in [1, 2] {
        let persist = Some(true);
        let step = Step::Register(host, RegisterAction::Register, false, persist, 0, 9);
        run(&mut state, &step).unwrap();
    }
    let kind = ReservationType::ExclusiveAccess;
    run(
        &mut state,
        &Step::Acquire(2, AcquireAction::Acquire, kind, 9, 0),
    )
    .unwrap();
    let mut expected = vec![1, 2, 1, 0, 2, 0, 0, 0];
    for host in [1_u8, 2] {
        expected.extend([host; 16]);
        expected.extend([9, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(state.to_bytes(), expected);
    expected[0] = 2;
    assert!(State::from_bytes(&expected).is_err(), "a newer version");
    expected[0] = 1;
    expected[2] = 2;
    assert!(State::from_bytes(&expected).is_err(), "no such holder");
    assert!(State::from_bytes(&expected[..40]).is_err());
}

#[test]
fn registrants_are_bounded() {
    let mut state = State::default();
    for host in 0..=u8::try_from(crate::limits::REGISTRANTS_MAX).unwrap() {
        let step = Step::Register(host, RegisterAction::Register, false, Some(true), 0, 9);
        let is_last = usize::from(host) == crate::limits::REGISTRANTS_MAX;
        assert_eq!(run(&mut state, &step).is_err(), is_last);
    }
    assert!(state.to_bytes().len() <= 2048, "what a volume keeps");
}
