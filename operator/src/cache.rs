//! The objects of one kind, kept up to date by a watch.
//!
//! An entry is always some version that the API had. The response to an own write replaces an older entry at once,
//! so the next plan does not decide on what it just changed; whatever the watch says later wins by its version.
//! An object that cannot be parsed keeps its last good version and is counted and logged; it never stops the watch.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{StreamExt, TryStreamExt};
use kube::core::{DeserializeGuard, Resource};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, utils::StreamBackoff};
use kube::{Api, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::causes::whole;

/// The objects of one kind by name.
#[derive(Clone)]
pub struct Cache<V> {
    inner: Arc<Mutex<Inner<V>>>,
    wake: Arc<Notify>,
}

struct Inner<V> {
    listed: bool,
    entries: BTreeMap<String, Entry<V>>,
    /// Entries of a list that is still coming.
    incoming: BTreeMap<String, Entry<V>>,
    invalid: BTreeMap<String, String>,
}

struct Entry<V> {
    uid: String,
    version: u64,
    value: Arc<V>,
}

impl<V> Clone for Entry<V> {
    fn clone(&self) -> Self {
        Entry {
            uid: self.uid.clone(),
            version: self.version,
            value: self.value.clone(),
        }
    }
}

impl<V: PartialEq> Cache<V> {
    /// An empty cache that wakes `wake` when an entry changes.
    pub fn new(wake: Arc<Notify>) -> Self {
        let inner = Inner {
            listed: false,
            entries: BTreeMap::new(),
            incoming: BTreeMap::new(),
            invalid: BTreeMap::new(),
        };
        Cache {
            inner: Arc::new(Mutex::new(inner)),
            wake,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner<V>> {
        // No code panics while it holds the lock; if it did, the entries would still be whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The whole list was there at least once.
    pub fn is_listed(&self) -> bool {
        self.lock().listed
    }

    /// Every entry by name.
    pub fn all(&self) -> BTreeMap<String, Arc<V>> {
        let inner = self.lock();
        inner
            .entries
            .iter()
            .map(|(name, entry)| (name.clone(), entry.value.clone()))
            .collect()
    }

    /// How many objects cannot be parsed.
    pub fn invalid_count(&self) -> usize {
        self.lock().invalid.len()
    }

    /// Takes in the response to an own write, unless the watch was faster or the object is gone.
    pub fn observe<K: Resource>(&self, object: &K, value: V) {
        let (name, new) = entry(object, value);
        let mut inner = self.lock();
        if let Some(old) = inner.entries.get_mut(&name)
            && old.uid == new.uid
            && old.version < new.version
        {
            *old = new;
        }
    }

    fn apply<K, F>(&self, kind: &str, event: Event<DeserializeGuard<K>>, parse: &F)
    where
        K: Resource + Clone,
        F: Fn(&K) -> V,
    {
        let mut inner = self.lock();
        let changed = match event {
            Event::Init => {
                inner.incoming.clear();
                false
            }
            Event::InitApply(object) => {
                if let Some((name, entry)) = inner.accept(kind, object, parse) {
                    inner.incoming.insert(name, entry);
                }
                false
            }
            Event::InitDone => inner.replace(),
            Event::Apply(object) => match inner.accept(kind, object, parse) {
                Some((name, entry)) => inner.insert(name, entry),
                None => false,
            },
            Event::Delete(object) => {
                let name = object.meta().name.clone().unwrap_or_default();
                inner.invalid.remove(&name);
                inner.entries.remove(&name).is_some()
            }
        };
        drop(inner);
        if changed {
            self.wake.notify_one();
        }
    }
}

impl<V: PartialEq> Inner<V> {
    /// Parses an object; an invalid one gives its last good version, if there is one.
    fn accept<K, F>(
        &mut self,
        kind: &str,
        object: DeserializeGuard<K>,
        parse: &F,
    ) -> Option<(String, Entry<V>)>
    where
        K: Resource + Clone,
        F: Fn(&K) -> V,
    {
        let name = object.meta().name.clone().unwrap_or_default();
        match object.0 {
            Ok(object) => {
                self.invalid.remove(&name);
                let value = parse(&object);
                Some(entry(&object, value))
            }
            Err(invalid) => {
                let error = invalid.error.clone();
                if self.invalid.insert(name.clone(), error.clone()) != Some(error) {
                    warn!(kind, name, error = %invalid.error, "the object cannot be understood; its last good version counts");
                }
                let good = self.entries.get(&name)?.clone();
                (Some(&good.uid) == invalid.metadata.uid.as_ref()).then_some((name, good))
            }
        }
    }

    /// Puts a newer entry in; whether that changes anything that a plan could see.
    fn insert(&mut self, name: String, new: Entry<V>) -> bool {
        match self.entries.get(&name) {
            Some(old) if old.uid == new.uid && old.version > new.version => false,
            Some(old) => {
                let changed = old.uid != new.uid || *old.value != *new.value;
                self.entries.insert(name, new);
                changed
            }
            None => {
                self.entries.insert(name, new);
                true
            }
        }
    }

    /// Replaces everything by the list that came, but for entries that are newer than the list.
    fn replace(&mut self) -> bool {
        let incoming = std::mem::take(&mut self.incoming);
        self.entries.retain(|name, _| incoming.contains_key(name));
        self.invalid.retain(|name, _| incoming.contains_key(name));
        for (name, entry) in incoming {
            self.insert(name, entry);
        }
        self.listed = true;
        true
    }
}

fn entry<K: Resource, V>(object: &K, value: V) -> (String, Entry<V>) {
    let meta = object.meta();
    let version = meta.resource_version.as_deref().unwrap_or_default();
    (
        meta.name.clone().unwrap_or_default(),
        Entry {
            uid: meta.uid.clone().unwrap_or_default(),
            // Versions of one kind of object are comparable numbers (as of Kubernetes 1.35 by contract, before in fact).
            version: version.parse().unwrap_or_default(),
            value: Arc::new(value),
        },
    )
}

/// Watches objects of kind `K` for ever and keeps `cache` at their parsed values.
pub async fn watch<K, V, F>(
    cache: Cache<V>,
    api: Api<DeserializeGuard<K>>,
    config: watcher::Config,
    parse: F,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    V: PartialEq,
    F: Fn(&K) -> V,
{
    let kind = K::kind(&()).into_owned();
    let events: StreamBackoff<_, _> = watcher(api, config)
        .modify(|object| object.managed_fields_mut().clear())
        .default_backoff();
    let mut events = std::pin::pin!(events.into_stream());
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => cache.apply(&kind, event, &parse),
            // A watch's place in history is gone: it lists anew.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => {
                debug!(kind, "the watch starts anew");
            }
            // The watcher itself goes on, after a growing delay.
            Err(error) => warn!(
                kind,
                error = whole(&error),
                "the watch broke off; it is made again"
            ),
        }
    }
}
