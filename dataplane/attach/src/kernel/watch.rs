//! Finds dark paths of the kernel's host faster than the kernel does.
//!
//! The kernel notices that a link is dark by its keep-alive, whose shortest time-out is a second: with the second that it
//! takes to look at time-outs and the pause between two keep-alives, I/O waits for up to 2.6 s. Here a thread for each portal
//! asks one of its controllers every [`INTERVAL`], which gives the portal's round trip, too. A portal that is silent while
//! another answers is dark, and the kernel is made to see it: every controller there that has a sibling at the one that
//! answers gets a Keep Alive with the shortest time-out.
//!
//! Guaranteed: nothing is done to a path without another that answers; a portal that was only slow and answers before the
//! kernel looks loses nothing. Left out: more than [`PORTALS_MAX`] portals, for which the kernel's keep-alive remains.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::warn;

use super::pulse::Pulses;
use crate::PathSpec;
use crate::names::attribute;

/// Pause between two probes of a portal.
const INTERVAL: Duration = Duration::from_millis(100);
/// Time-out of a probe. Not a verdict: the kernel's keep-alive gives one earlier.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time-out of what makes the kernel look: none is shorter.
const VERDICT_TIMEOUT: Duration = Duration::from_millis(1);
/// Most portals that are probed, with a thread each.
const PORTALS_MAX: usize = 64;
/// Most controllers that are given up at a time, with a thread each for about a second.
const CONDEMNED_MAX: usize = 256;
/// A probe's thread needs little.
const STACK_BYTES: usize = 128 << 10;

/// One connection of an attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) path: PathSpec,
    /// The controller's directory in sysfs.
    pub(super) dir: Arc<Path>,
}

impl Link {
    fn is_live(&self) -> bool {
        attribute(&self.dir, "state").as_deref() == Some("live")
    }
}

/// Sends a Keep Alive over the device with a time-out; whether it was answered.
type KeepAlive = dyn Fn(&Path, Duration) -> bool + Send + Sync;

/// The watch over all attachments. Its threads end when nothing is to be watched.
#[derive(Clone)]
pub(super) struct Watch(Arc<Inner>);

struct Inner {
    dev: PathBuf,
    keep_alive: Box<KeepAlive>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By attachment.
    links: HashMap<String, Vec<Link>>,
    pulses: Pulses,
    /// Portals that have a thread.
    probed: HashSet<PathSpec>,
    /// Controllers that are being given up.
    condemned: HashSet<Arc<Path>>,
}

impl Watch {
    /// Over controllers whose devices are in `dev`.
    pub(super) fn new(dev: PathBuf, keep_alive: Box<KeepAlive>) -> Self {
        Self(Arc::new(Inner {
            dev,
            keep_alive,
            table: Mutex::default(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connections that an attachment has now.
    pub(super) fn follow(&self, id: &str, links: Vec<Link>) {
        let mut table = self.lock();
        for link in &links {
            let is_new = !table.probed.contains(&link.path);
            if is_new && table.probed.len() < PORTALS_MAX {
                let (watch, portal) = (self.clone(), link.path);
                if spawn("probe", move || watch.probe(portal)) {
                    table.probed.insert(portal);
                }
            }
        }
        table.links.insert(id.to_owned(), links);
    }

    /// The attachment is gone.
    pub(super) fn forget(&self, id: &str) {
        self.lock().links.remove(id);
    }

    /// The usual round trip of a Keep Alive to a portal.
    pub(super) fn round_trip(&self, portal: &PathSpec) -> Option<Duration> {
        self.lock().pulses.round_trip(portal)
    }

    /// Probes a portal as long as there are connections to it.
    fn probe(&self, portal: PathSpec) {
        while let Some(links) = self.links_to(&portal) {
            if let Some(link) = links.iter().find(|link| link.is_live()) {
                self.lock().pulses.sent(portal, Instant::now());
                if self.keep_alive(&link.dir, PROBE_TIMEOUT) {
                    let dark = self.lock().pulses.answered(portal, Instant::now());
                    for dark in dark {
                        self.give_up(&dark, &portal);
                    }
                } else {
                    self.lock().pulses.unanswered(&portal);
                }
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// `None`: there are none, and the portal is not probed any more.
    fn links_to(&self, portal: &PathSpec) -> Option<Vec<Link>> {
        let mut table = self.lock();
        let links = table.links.values().flatten();
        let found: Vec<_> = links.filter(|l| l.path == *portal).cloned().collect();
        if found.is_empty() {
            table.probed.remove(portal);
            table.pulses.forget(portal);
            return None;
        }
        Some(found)
    }

    /// Has the kernel see that `dark` does not answer, wherever I/O can go over `bright` instead.
    fn give_up(&self, dark: &PathSpec, bright: &PathSpec) {
        let mut doomed: Vec<Link> = Vec::new();
        let pairs: Vec<(Link, Link)> = {
            let table = self.lock();
            let find =
                |links: &[Link], path: &PathSpec| links.iter().find(|l| l.path == *path).cloned();
            let pair = |links: &Vec<Link>| Some((find(links, dark)?, find(links, bright)?));
            table.links.values().filter_map(pair).collect()
        };
        // The state is a file: not under the lock.
        for (lost, other) in pairs {
            if lost.is_live() && other.is_live() {
                doomed.push(lost);
            }
        }
        let mut table = self.lock();
        let mut count = 0;
        for link in doomed {
            let has_room = table.condemned.len() < CONDEMNED_MAX;
            if has_room && table.condemned.insert(Arc::clone(&link.dir)) {
                let (watch, dir) = (self.clone(), Arc::clone(&link.dir));
                let run = move || {
                    watch.keep_alive(&dir, VERDICT_TIMEOUT);
                    watch.lock().condemned.remove(&dir);
                };
                if spawn("verdict", run) {
                    count += 1;
                } else {
                    table.condemned.remove(&link.dir);
                }
            }
        }
        drop(table);
        if count > 0 {
            warn!(portal = %dark, controllers = count,
                "no answer while {bright} answers: the kernel shall use other paths");
        }
    }

    fn keep_alive(&self, controller: &Path, timeout: Duration) -> bool {
        controller
            .file_name()
            .is_some_and(|name| (self.0.keep_alive)(&self.0.dev.join(name), timeout))
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> bool {
    let thread = std::thread::Builder::new()
        .name(name.into())
        .stack_size(STACK_BYTES)
        .spawn(run);
    if let Err(error) = &thread {
        warn!(%error, "no thread to watch a path: the kernel's keep-alive remains");
    }
    thread.is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::mpsc;

    use roadstead_nvme::Portal;

    use super::*;

    /// A watch over two controllers, nvme0 at the first portal and nvme1 at the second, of one attachment, or of one each.
    /// `silent` are the devices that do not answer for as long as the test runs. Devices that were given up arrive.
    fn watch(silent: &'static [&'static str], one_each: bool) -> (Watch, mpsc::Receiver<PathBuf>) {
        let root = tempfile::tempdir().unwrap().keep();
        let (send, given_up) = mpsc::channel();
        let keep_alive = move |device: &Path, timeout: Duration| {
            let is_silent = silent.iter().any(|name| device.ends_with(name));
            if timeout == VERDICT_TIMEOUT {
                send.send(device.to_owned()).unwrap();
            } else if is_silent {
                std::thread::sleep(Duration::from_secs(60));
            }
            !is_silent
        };
        let watch = Watch::new("/dev".into(), Box::new(keep_alive));
        let mut links = Vec::new();
        let portals = ["rdma:10.7.0.1:4420", "10.8.0.1:4420"];
        for (name, portal) in ["nvme0", "nvme1"].into_iter().zip(portals) {
            let dir: Arc<Path> = root.join(name).into();
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("state"), "live\n").unwrap();
            let path = portal.parse::<Portal>().unwrap().into();
            links.push(Link { path, dir });
        }
        match one_each {
            true => links
                .into_iter()
                .zip(["a", "b"])
                .for_each(|(link, id)| watch.follow(id, vec![link])),
            false => watch.follow("a", links),
        }
        (watch, given_up)
    }

    const LONG: Duration = Duration::from_secs(30);
    /// Silence is noticed in half of it.
    const SHORT: Duration = Duration::from_millis(800);

    #[test]
    fn a_silent_path_is_given_up_while_another_answers() {
        let (watch, given_up) = watch(&["nvme0"], false);
        assert_eq!(
            given_up.recv_timeout(LONG).unwrap(),
            Path::new("/dev/nvme0")
        );
        let answering = "10.8.0.1:4420".parse::<Portal>().unwrap().into();
        assert!(watch.round_trip(&answering).is_some());
    }

    #[test]
    fn nothing_is_given_up_when_all_are_silent_or_none_is_or_it_is_the_only_path() {
        let (_all, of_all) = watch(&["nvme0", "nvme1"], false);
        let (_none, of_none) = watch(&[], false);
        let (_only, of_only) = watch(&["nvme0"], true);
        assert!(of_all.recv_timeout(SHORT).is_err());
        assert!(of_none.try_recv().is_err());
        assert!(of_only.try_recv().is_err());
    }

    #[test]
    fn threads_end_with_what_they_watch() {
        let (watch, _given_up) = watch(&[], false);
        assert_eq!(watch.lock().probed.len(), 2);
        watch.forget("a");
        let started = Instant::now();
        while !watch.lock().probed.is_empty() {
            assert!(started.elapsed() < LONG);
            std::thread::sleep(INTERVAL);
        }
    }
}
