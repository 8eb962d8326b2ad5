//! Who is registered and who holds what.

use std::collections::{BTreeMap, BTreeSet};

use roadstead_nvme::Status;
use roadstead_nvme::command::{AcquireAction, RegisterAction, ReleaseAction};
use roadstead_nvme::reservation::{AcquireData, Notice, RegisterData, ReservationType};

use crate::limits;

/// A host identifier.
pub(crate) type HostId = [u8; 16];

/// Registrations and the reservation of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Keys by host, at most [`limits::REGISTRANTS_MAX`].
    pub(super) registrants: BTreeMap<HostId, u64>,
    pub(super) held: Option<Held>,
    /// Counts registrations, preemptions and clearings.
    pub(super) generation: u32,
    /// All of this survives a loss of power.
    pub(super) persist: bool,
}

/// A reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) kind: ReservationType,
    /// A registrant; types that all registrants hold do not look at it.
    pub(super) holder: HostId,
}

/// What a host may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Access {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        read: true,
        write: true,
    };
}

/// What a change means for other hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effects {
    /// Whom to tell what.
    pub(crate) notices: Vec<(HostId, Notice)>,
    /// Whose registrations were preempted.
    pub(crate) preempted: BTreeSet<HostId>,
}

const CONFLICT: Status = Status::RESERVATION_CONFLICT.dnr();
const INVALID: Status = Status::INVALID_FIELD.dnr();

impl State {
    /// Reservation Register.
    pub(crate) fn register(
        &mut self,
        host: HostId,
        action: RegisterAction,
        ignore_key: bool,
        persist: Option<bool>,
        data: &RegisterData,
    ) -> Result<Effects, Status> {
        let (current, new) = (data.current_key.get(), data.new_key.get());
        let known = self.registrants.get(&host).copied();
        let is_allowed = known.is_some_and(|key| ignore_key || key == current);
        let mut effects = Effects::default();
        match action {
            RegisterAction::Register | RegisterAction::Replace if new == 0 => return Err(INVALID),
            RegisterAction::Register => match known {
                Some(key) if key != new => return Err(CONFLICT),
                None if self.registrants.len() >= limits::REGISTRANTS_MAX => {
                    return Err(Status::INTERNAL.dnr());
                }
                _ => self.set_key(host, new),
            },
            RegisterAction::Unregister | RegisterAction::Replace if !is_allowed => {
                return Err(CONFLICT);
            }
            RegisterAction::Replace => self.set_key(host, new),
            RegisterAction::Unregister => self.unregister(host, &mut effects),
        }
        self.persist = persist.unwrap_or(self.persist);
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    fn set_key(&mut self, host: HostId, key: u64) {
        self.registrants.insert(host, key);
    }

    fn unregister(&mut self, host: HostId, effects: &mut Effects) {
        self.registrants.remove(&host);
        let Some(held) = self.held else { return };
        let is_over = if held.kind.is_held_by_all() {
            self.registrants.is_empty()
        } else {
            held.holder == host
        };
        if is_over {
            self.held = None;
            self.tell_released(held.kind, host, effects);
        }
    }

    /// A reservation that gave rights to registrants is no more.
    fn tell_released(&self, kind: ReservationType, by: HostId, effects: &mut Effects) {
        if kind.is_for_registrants() {
            self.tell_others(by, Notice::ReservationReleased, effects);
        }
    }

    fn tell_others(&self, by: HostId, notice: Notice, effects: &mut Effects) {
        let others = self.registrants.keys().filter(|host| **host != by);
        effects.notices.extend(others.map(|host| (*host, notice)));
    }

    fn check_key(&self, host: HostId, key: u64) -> Result<(), Status> {
        match self.registrants.get(&host) {
            Some(known) if *known == key => Ok(()),
            _ => Err(CONFLICT),
        }
    }

    /// Whether a host holds the reservation.
    pub(super) fn holds(&self, host: HostId) -> bool {
        self.held.is_some_and(|held| {
            if held.kind.is_held_by_all() {
                self.registrants.contains_key(&host)
            } else {
                held.holder == host
            }
        })
    }

    /// Reservation Acquire.
    pub(crate) fn acquire(
        &mut self,
        host: HostId,
        action: AcquireAction,
        kind: ReservationType,
        data: &AcquireData,
    ) -> Result<Effects, Status> {
        self.check_key(host, data.current_key.get())?;
        if action != AcquireAction::Acquire {
            let effects = self.preempt(host, kind, data.preempt_key.get())?;
            self.generation = self.generation.wrapping_add(1);
            return Ok(effects);
        }
        match self.held {
            None => self.held = Some(Held { kind, holder: host }),
            Some(held) if held.kind == kind && self.holds(host) => {}
            Some(_) => return Err(CONFLICT),
        }
        Ok(Effects::default())
    }

    fn preempt(
        &mut self,
        host: HostId,
        kind: ReservationType,
        key: u64,
    ) -> Result<Effects, Status> {
        let taken = match self.held {
            Some(held) if held.kind.is_held_by_all() => (key == 0).then_some(held),
            Some(held) => {
                let is_holders = self.registrants.get(&held.holder) == Some(&key);
                if key == 0 {
                    return Err(INVALID);
                }
                is_holders.then_some(held)
            }
            None => None,
        };
        let mut effects = Effects::default();
        if let Some(old) = taken {
            // Whoever takes a reservation stays registered, be its key the one that goes.
            self.remove(
                |other, its| other != host && (key == 0 || its == key),
                &mut effects,
            );
            self.held = Some(Held { kind, holder: host });
            if old.kind != kind {
                self.tell_released(old.kind, host, &mut effects);
            }
        } else {
            self.remove(|_, its| its == key, &mut effects);
            if effects.preempted.is_empty() {
                return Err(CONFLICT);
            }
            if self.registrants.is_empty() {
                self.held = None;
            }
        }
        let preempted = effects.preempted.iter().filter(|other| **other != host);
        let notices = preempted.map(|other| (*other, Notice::RegistrationPreempted));
        effects.notices.extend(notices);
        Ok(effects)
    }

    fn remove(&mut self, goes: impl Fn(HostId, u64) -> bool, effects: &mut Effects) {
        self.registrants.retain(|host, key| {
            let is_going = goes(*host, *key);
            if is_going {
                effects.preempted.insert(*host);
            }
            !is_going
        });
    }

    /// Reservation Release.
    pub(crate) fn release(
        &mut self,
        host: HostId,
        action: ReleaseAction,
        key: u64,
    ) -> Result<Effects, Status> {
        self.check_key(host, key)?;
        let mut effects = Effects::default();
        match (action, self.held) {
            (ReleaseAction::Clear, _) => {
                self.tell_others(host, Notice::ReservationPreempted, &mut effects);
                self.registrants.clear();
                self.held = None;
                self.generation = self.generation.wrapping_add(1);
            }
            (ReleaseAction::Release(kind), Some(held)) if self.holds(host) => {
                if held.kind != kind {
                    return Err(INVALID);
                }
                self.held = None;
                self.tell_released(kind, host, &mut effects);
            }
            // Not its own: nothing to do, and no error.
            (ReleaseAction::Release(_), _) => {}
        }
        Ok(effects)
    }

    /// What a host may do.
    pub(crate) fn access(&self, host: HostId) -> Access {
        let Some(held) = self.held else {
            return Access::ALL;
        };
        let is_registered = self.registrants.contains_key(&host);
        if self.holds(host) || (is_registered && held.kind.is_for_registrants()) {
            return Access::ALL;
        }
        Access {
            read: !held.kind.is_exclusive_access(),
            write: false,
        }
    }

    /// Whether all of this survives a loss of power.
    pub(crate) fn persists(&self) -> bool {
        self.persist
    }

    /// Makes all of this survive a loss of power, or not.
    pub(crate) fn set_persist(&mut self, persist: bool) {
        self.persist = persist;
    }
}
