//! Asymmetric namespace access (section 8.1) as a host sees it, in what a controller says.

use roadstead_nvme::log::{AnaGroup, AnaHeader};
use roadstead_nvme::{AnaState, Status};
use zerocopy::FromBytes;

/// From the ANA log; a code that no specification has is not relied on.
fn from_log(code: u8) -> AnaState {
    AnaState::from_code(code & 0xf).unwrap_or(AnaState::Inaccessible)
}

/// What the status of a command says, if it is about ANA.
pub(crate) fn from_status(status: Status) -> Option<AnaState> {
    let says = |state: &AnaState| state.refusal().is_some_and(|s| s.code() == status.code());
    AnaState::ALL.into_iter().find(says)
}

/// The state of a group in a log page; `None` when the page does not have it.
pub(crate) fn group_state(page: &[u8], group: u32) -> Option<AnaState> {
    let (header, mut rest) = AnaHeader::read_from_prefix(page).ok()?;
    for _ in 0..header.groups.get() {
        let (head, namespaces) = AnaGroup::read_from_prefix(rest).ok()?;
        if head.id.get() == group {
            return Some(from_log(head.state));
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
            (1, Some(AnaState::Inaccessible)),
            (2, Some(AnaState::NonOptimized)),
            (7, Some(AnaState::Change)),
            (8, Some(AnaState::Optimized)),
            (3, None),
        ];
        for (group, state) in table {
            assert_eq!(group_state(&log, group), state);
        }
        assert_eq!(group_state(&log[..60], 7), None, "cut off");
        assert_eq!(
            group_state(&page(&[(1, 9, &[])]), 1),
            Some(AnaState::Inaccessible)
        );
        let lying = page(&[(1, 1, &[])])
            .into_iter()
            .map(|b| if b == 0 { 0xff } else { b });
        assert_eq!(group_state(&lying.collect::<Vec<_>>(), 2), None);
    }
}
