//! What changes while connected: events, and looks at the namespace and its ANA state.

use std::time::Instant;

use roadstead_nvme::event::AsyncEvent;
use roadstead_nvme::{Cqe, Status, log};

use super::Host;
use super::control::{CID_EVENT, UNKNOWN_COMMAND, refused};
use crate::action::Action;
use crate::admin::{Control, NamespaceData};
use crate::ana::group_state;
use crate::association::Look;
use crate::setup::{NO_ANA_GROUP, SetUpError};

impl Host {
    /// An event occurred. Reading the log page that it names makes it occur again.
    pub(super) fn event(&mut self, index: usize, event: AsyncEvent) {
        self.send(index, 0, CID_EVENT, Control::async_event());
        match event.log_page {
            log::id::ANA => self.look_at(index, &[Look::Namespace, Look::Ana]),
            log::id::CHANGED_NAMESPACES => {
                let changed = Look::Log(log::id::CHANGED_NAMESPACES);
                self.look_at(index, &[changed, Look::Namespace, Look::Ana]);
            }
            other => self.look_at(index, &[Look::Log(other)]),
        }
    }

    /// Asks the target what the namespace is now; [`Action::Changed`] comes if it changed.
    pub fn look(&mut self) {
        for index in 0..self.paths.len() {
            self.look_at(index, &[Look::Namespace, Look::Ana]);
        }
    }

    /// Whether a look at the namespace is under way.
    pub fn is_looking(&self) -> bool {
        let mut associations = self.paths.iter().filter_map(|p| p.association.as_ref());
        associations.any(|association| !association.looks.is_empty())
    }

    /// Reads these from the path's controller, if it has one: connecting reads them anyhow.
    pub(super) fn look_at(&mut self, index: usize, wanted: &[Look]) {
        let association = self.association(index);
        if let Some(command) = association.and_then(|a| a.look(wanted)) {
            self.send_sequence(index, command);
        }
    }

    pub(super) fn look_completed(
        &mut self,
        index: usize,
        cqe: &Cqe,
        data: &[u8],
        now: Instant,
    ) -> Result<(), SetUpError> {
        let association = self.association(index).ok_or(UNKNOWN_COMMAND)?;
        match association.looks.pop_front().ok_or(UNKNOWN_COMMAND)? {
            // It was read for its event only.
            Look::Log(_) => {}
            Look::Namespace => self.namespace_seen(index, cqe.status(), data)?,
            Look::Ana => {
                refused("Get Log Page (ANA)", cqe.status())?;
                let ana_state = group_state(data, association.ana_group).ok_or(NO_ANA_GROUP)?;
                association.set_ana_state(ana_state, now);
            }
        }
        let association = self.association(index);
        if let Some(command) = association.and_then(|a| a.look_command()) {
            self.send_sequence(index, command);
        }
        Ok(())
    }

    fn namespace_seen(
        &mut self,
        index: usize,
        status: Status,
        data: &[u8],
    ) -> Result<(), SetUpError> {
        let is_gone = status.code() == Status::INVALID_NAMESPACE.code();
        if !is_gone {
            refused("Identify Namespace", status)?;
        }
        // An inactive namespace is all zeros.
        let seen = NamespaceData::parse(data).filter(|seen| !is_gone && seen.blocks > 0);
        let info = self.info.as_mut().ok_or(UNKNOWN_COMMAND)?;
        let Some(seen) = seen else {
            return Err(SetUpError::Gone { nsid: info.nsid });
        };
        if seen.block_bytes != info.block_bytes {
            return Err(SetUpError::Invalid(
                "the namespace's block size has changed",
            ));
        }
        info.cache_epoch = seen.cache_epoch;
        if self.cache.seen(seen.cache_epoch, self.flow.last()) {
            self.actions.push_back(Action::CacheLost);
        }
        if (seen.blocks, seen.read_only) != (info.blocks, info.read_only) {
            info.blocks = seen.blocks;
            info.read_only = seen.read_only;
            self.actions.push_back(Action::Changed(*info));
        }
        if let Some(association) = self.association(index) {
            association.ana_group = seen.ana_group;
        }
        Ok(())
    }
}
