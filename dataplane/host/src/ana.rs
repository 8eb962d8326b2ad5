//! Asymmetric namespace access (section 8.1) as a host sees it: what a path is good for.

use roadstead_nvme::Status;
use roadstead_nvme::log::{AnaGroup, AnaHeader, ana};
use zerocopy::FromBytes;

/// What the controller of a path can do with the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Optimized,
    NonOptimized,
    Inaccessible,
    PersistentLoss,
    /// The state is changing.
    Change,
}

impl Access {
    /// From the ANA log; a code that no specification has is not relied on.
    fn from_code(code: u8) -> Self {
        match code & 0xf {
            ana::OPTIMIZED => Self::Optimized,
            ana::NON_OPTIMIZED => Self::NonOptimized,
            ana::PERSISTENT_LOSS => Self::PersistentLoss,
            ana::CHANGE => Self::Change,
            _ => Self::Inaccessible,
        }
    }

    /// What the status of a command says, if it is about ANA.
    pub(crate) fn from_status(status: Status) -> Option<Self> {
        let table = [
            (Status::ANA_INACCESSIBLE, Self::Inaccessible),
            (Status::ANA_PERSISTENT_LOSS, Self::PersistentLoss),
            (Status::ANA_TRANSITION, Self::Change),
        ];
        let mut table = table.into_iter();
        table.find_map(|(s, access)| (s.code() == status.code()).then_some(access))
    }

    /// Whether commands may be sent.
    pub(crate) fn is_usable(self) -> bool {
        matches!(self, Self::Optimized | Self::NonOptimized)
    }

    /// For reports; nothing for the best state.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Optimized => "",
            Self::NonOptimized => "ANA state non-optimized",
            Self::Inaccessible => "ANA state inaccessible",
            Self::PersistentLoss => "ANA state persistent loss",
            Self::Change => "ANA state change",
        }
    }
}

/// The state of a group in a log page; `None` when the page does not have it.
pub(crate) fn group_state(page: &[u8], group: u32) -> Option<Access> {
    let (header, mut rest) = AnaHeader::read_from_prefix(page).ok()?;
    for _ in 0..header.groups.get() {
        let (head, namespaces) = AnaGroup::read_from_prefix(rest).ok()?;
        if head.id.get() == group {
            return Some(Access::from_code(head.state));
        }
        let list = usize::try_from(head.namespaces.get())
            .ok()?
            .checked_mul(4)?;
        rest = namespaces.get(list..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log page with these groups and states, each with the given namespaces.
    fn page(groups: &[(u32, u8, &[u32])]) -> Vec<u8> {
        let mut page = vec![0; 16];
        page[8] = u8::try_from(groups.len()).unwrap();
        for (id, state, namespaces) in groups {
            page.extend(id.to_le_bytes());
            page.extend(u32::try_from(namespaces.len()).unwrap().to_le_bytes());
            page.extend([0; 8]);
            page.push(*state);
            page.extend([0; 15]);
            page.extend(namespaces.iter().flat_map(|nsid| nsid.to_le_bytes()));
        }
        page
    }

    #[test]
    fn the_group_of_the_namespace_is_found() {
        let log = page(&[(1, 3, &[4, 5]), (2, 2, &[]), (7, 15, &[9]), (8, 0x31, &[])]);
        let table = [
            (1, Some(Access::Inaccessible)),
            (2, Some(Access::NonOptimized)),
            (7, Some(Access::Change)),
            (8, Some(Access::Optimized)),
            (3, None),
        ];
        for (group, state) in table {
            assert_eq!(group_state(&log, group), state);
        }
        assert_eq!(group_state(&log[..60], 7), None, "cut off");
        assert_eq!(
            group_state(&page(&[(1, 9, &[])]), 1),
            Some(Access::Inaccessible)
        );
        let lying = page(&[(1, 1, &[])])
            .into_iter()
            .map(|b| if b == 0 { 0xff } else { b });
        assert_eq!(group_state(&lying.collect::<Vec<_>>(), 2), None);
    }
}
