//! Asymmetric namespace access (section 8.1): what the path through one controller to a group of namespaces is good for.

use crate::Status;
use crate::log::ana;

/// State of an ANA group on one controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnaState {
    /// Use this path.
    #[default]
    Optimized,
    /// Use this path if there is no better one.
    NonOptimized,
    /// This path does not work now.
    Inaccessible,
    /// This path will not work again.
    PersistentLoss,
    /// The state is changing; hosts wait, and give up after the transition time.
    Change,
}

impl AnaState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Optimized,
        Self::NonOptimized,
        Self::Inaccessible,
        Self::PersistentLoss,
        Self::Change,
    ];

    /// As in the ANA log.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Optimized => ana::OPTIMIZED,
            Self::NonOptimized => ana::NON_OPTIMIZED,
            Self::Inaccessible => ana::INACCESSIBLE,
            Self::PersistentLoss => ana::PERSISTENT_LOSS,
            Self::Change => ana::CHANGE,
        }
    }

    /// From the ANA log; none for a code that no specification has.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.code() == code)
    }

    /// The status of I/O on a namespace of the group; none where I/O works. The host must be able to try another path,
    /// so it is never "do not retry".
    #[must_use]
    pub fn refusal(self) -> Option<Status> {
        match self {
            Self::Optimized | Self::NonOptimized => None,
            Self::Inaccessible => Some(Status::ANA_INACCESSIBLE),
            Self::PersistentLoss => Some(Status::ANA_PERSISTENT_LOSS),
            Self::Change => Some(Status::ANA_TRANSITION),
        }
    }

    /// Whether I/O works.
    #[must_use]
    pub fn is_usable(self) -> bool {
        self.refusal().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_round_trip_and_refuse() {
        for state in AnaState::ALL {
            assert_eq!(AnaState::from_code(state.code()), Some(state));
            let works = matches!(state, AnaState::Optimized | AnaState::NonOptimized);
            assert_eq!(state.refusal().is_none(), works);
            if let Some(status) = state.refusal() {
                assert!(status.is_path_related() && !status.is_dnr());
            }
        }
        assert_eq!(AnaState::from_code(0), None);
        assert_eq!(AnaState::from_code(5), None);
    }
}
