//! One operation in flight per volume.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The volumes that an operation runs for.
#[derive(Clone, Debug, Default)]
pub struct InFlight(Arc<Mutex<HashSet<String>>>);

/// An operation runs; dropping it makes room for the next one.
#[derive(Debug)]
pub struct Guard {
    owner: InFlight,
    key: String,
}

impl InFlight {
    /// Starts an operation for `key`, unless one runs.
    pub fn begin(&self, key: impl Into<String>) -> Option<Guard> {
        let key = key.into();
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(key.clone()).then(|| Guard {
            owner: self.clone(),
            key,
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut keys = self.owner.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_operation_waits_for_the_first() {
        let all = InFlight::default();
        let first = all.begin("a").unwrap();
        assert!(all.begin("a").is_none());
        assert!(all.begin("b").is_some());
        drop(first);
        assert!(all.begin("a").is_some());
    }
}
