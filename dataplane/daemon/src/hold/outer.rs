//! A holder outside of the pod: what the holder in the pod keeps is kept there, too, and outlives the pod.
//!
//! The messages are those between daemon and holder ([`roadstead_attach::holder`]); they must stay as they are, as the
//! outer holder may be of another version. When it is restarted, it gets everything again.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use roadstead_attach::holder::{Holder, Message, hand_over, receive};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect,
    listen, socket_with,
};

use super::keep;

/// How often a holder that is away is looked for, and one that is there is looked after.
const LOOK: Duration = Duration::from_secs(1);
/// Connections that wait for their turn: that of a daemon that is going, and of its successor.
const BACKLOG: i32 = 4;

fn socket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

fn connected(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = socket()?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// Listens at `path` and keeps what it is given, for one holder in a pod after the other: the next has its turn when the
/// one before it has ended, so that nothing of what that said is missed.
///
/// # Errors
/// When another holder listens there, or nobody can.
pub(super) fn serve(path: &Path) -> anyhow::Result<()> {
    let what = || format!("listening at {}", path.display());
    ensure!(
        connected(path).is_err(),
        "another holder listens at {}",
        path.display()
    );
    if let Err(error) = std::fs::remove_file(path) {
        ensure!(error.kind() == ErrorKind::NotFound, "{}: {error}", what());
    }
    let listener = socket().with_context(what)?;
    bind(&listener, &SocketAddrUnix::new(path)?).with_context(what)?;
    listen(&listener, BACKLOG).with_context(what)?;
    tracing::info!(path = %path.display(), "holding");
    let mut kept = HashMap::new();
    loop {
        let client = accept_with(&listener, SocketFlags::CLOEXEC).with_context(what)?;
        // One that is gone already takes nothing over; what it said is read all the same.
        let _ = hand_over(&client, &kept);
        listen_to(&client, |message| {
            keep(&mut kept, message);
            true
        });
        tracing::info!(devices = kept.len(), "the holder in the pod is gone");
    }
}

/// Everything that is said on a socket, as long as somebody wants to hear it.
pub(super) fn listen_to(socket: &OwnedFd, mut take: impl FnMut(Message) -> bool) {
    loop {
        match receive(socket) {
            Ok(Some(message)) => {
                if !take(message) {
                    return;
                }
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                tracing::error!(%error, "a message that makes no sense");
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            _ => return,
        }
    }
}

/// The way to the outer holder; without one, what is said here goes nowhere.
pub(super) struct Outer(Option<(mpsc::Sender<Message>, JoinHandle<()>)>);

impl Outer {
    /// Takes over what the holder at `path` keeps. Waits for the one before this one to end. If nobody listens there,
    /// nothing is kept, and whoever listens there later is given what is kept by then.
    ///
    /// # Errors
    /// When there is no thread to be had, or what is kept cannot be copied.
    pub(super) fn connect(
        path: Option<PathBuf>,
    ) -> anyhow::Result<(Self, HashMap<String, OwnedFd>)> {
        let Some(path) = path else {
            return Ok((Self(None), HashMap::new()));
        };
        let (holder, kept) = match taken_over(&path) {
            Some((holder, kept)) => (Some(holder), kept),
            None => (None, HashMap::new()),
        };
        let (send, messages) = mpsc::channel();
        let mut link = Link {
            path,
            holder,
            kept: copy(&kept)?,
        };
        let thread = std::thread::Builder::new()
            .name("outer".to_owned())
            .spawn(move || link.run(&messages))?;
        Ok((Self(Some((send, thread))), kept))
    }

    /// Returns when everything has been passed on.
    pub(super) fn finish(self) {
        if let Some((send, thread)) = self.0 {
            drop(send);
            // It has nothing to say.
            let _ = thread.join();
        }
    }

    /// Passes a message on.
    ///
    /// # Errors
    /// When its descriptor cannot be copied.
    pub(super) fn tell(&self, message: &Message) -> std::io::Result<()> {
        let Some((send, _)) = &self.0 else {
            return Ok(());
        };
        let copy = match message {
            Message::Hold { id, connection } => Message::Hold {
                id: id.clone(),
                connection: connection.try_clone()?,
            },
            Message::Release { id } => Message::Release { id: id.clone() },
            Message::Ready => return Ok(()),
        };
        // Its thread ends with the process.
        let _ = send.send(copy);
        Ok(())
    }
}

fn copy(kept: &HashMap<String, OwnedFd>) -> std::io::Result<HashMap<String, OwnedFd>> {
    let one = |(id, connection): (&String, &OwnedFd)| Ok((id.clone(), connection.try_clone()?));
    kept.iter().map(one).collect()
}

fn taken_over(path: &Path) -> Option<(Holder, HashMap<String, OwnedFd>)> {
    let socket = connected(path)
        .inspect_err(|error| {
            tracing::warn!(path = %path.display(), %error,
                "no holder listens: until one does, devices do not outlive this pod");
        })
        .ok()?;
    Holder::connect(socket)
        .inspect_err(|error| tracing::warn!(%error, "the holder ended"))
        .ok()
}

struct Link {
    path: PathBuf,
    holder: Option<Holder>,
    /// What the holder should keep.
    kept: HashMap<String, OwnedFd>,
}

impl Link {
    fn run(&mut self, messages: &mpsc::Receiver<Message>) {
        loop {
            match messages.recv_timeout(LOOK) {
                Ok(message) => self.pass_on(message),
                Err(mpsc::RecvTimeoutError::Timeout) => self.look(),
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn pass_on(&mut self, message: Message) {
        let sent = match (&self.holder, &message) {
            (Some(holder), Message::Hold { id, connection }) => holder.hold(id, connection),
            (Some(holder), Message::Release { id }) => holder.release(id),
            _ => Ok(()),
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "the holder is gone");
            self.holder = None;
        }
        keep(&mut self.kept, message);
    }

    /// Finds a holder again, and gives it everything.
    fn look(&mut self) {
        if self.holder.as_ref().is_some_and(is_there) {
            return;
        }
        self.holder = None;
        let Ok(socket) = connected(&self.path) else {
            return;
        };
        let Ok((holder, theirs)) = Holder::connect(socket) else {
            return;
        };
        let mut stale = theirs.keys().filter(|id| !self.kept.contains_key(*id));
        let mut kept = self.kept.iter();
        let told = stale
            .try_for_each(|id| holder.release(id))
            .and_then(|()| kept.try_for_each(|(id, connection)| holder.hold(id, connection)));
        match told {
            Ok(()) => {
                tracing::info!(devices = self.kept.len(), "a holder keeps the devices");
                self.holder = Some(holder);
            }
            Err(error) => tracing::warn!(%error, "the holder is gone again"),
        }
    }
}

/// A holder says nothing after its greeting: what can be read is its end.
fn is_there(holder: &Holder) -> bool {
    let mut byte = [0];
    let read = rustix::net::recv(holder.as_fd(), &mut byte[..], RecvFlags::DONTWAIT);
    matches!(read, Err(rustix::io::Errno::AGAIN))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};
    use std::time::Instant;

    use super::*;

    fn file(text: &str) -> OwnedFd {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.into()
    }

    fn held(path: &Path) -> Vec<String> {
        let started = Instant::now();
        let (_, kept) = loop {
            if let Some(got) = taken_over(path) {
                break got;
            }
            assert!(started.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(10));
        };
        let mut ids: Vec<_> = kept.into_keys().collect();
        ids.sort();
        ids
    }

    fn started(path: &Path) {
        let path = path.to_owned();
        std::thread::spawn(move || serve(&path));
    }

    #[test]
    fn what_is_held_outlives_who_said_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hold.sock");
        started(&path);
        assert!(held(&path).is_empty());
        let (outer, kept) = Outer::connect(Some(path.clone())).unwrap();
        assert!(kept.is_empty());
        for id in ["a", "b"] {
            let (id, connection) = (id.into(), file(id));
            outer.tell(&Message::Hold { id, connection }).unwrap();
        }
        outer.tell(&Message::Release { id: "a".into() }).unwrap();
        drop(outer);
        assert_eq!(held(&path), ["b"]);
        assert!(serve(&path).is_err(), "a second holder at the same place");
    }

    #[test]
    fn a_holder_that_comes_late_is_given_everything() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hold.sock");
        let (outer, kept) = Outer::connect(Some(path.clone())).unwrap();
        assert!(kept.is_empty());
        let (id, connection) = ("a".into(), file("a"));
        outer.tell(&Message::Hold { id, connection }).unwrap();
        let listener = socket().unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, BACKLOG).unwrap();
        let client = accept_with(&listener, SocketFlags::CLOEXEC).unwrap();
        // It kept something of a daemon that is gone: that is let go.
        hand_over(&client, &HashMap::from([("old".to_owned(), file("old"))])).unwrap();
        let mut said = Vec::new();
        listen_to(&client, |message| {
            said.push(match message {
                Message::Hold { id, .. } => format!("+{id}"),
                Message::Release { id } => format!("-{id}"),
                Message::Ready => "ready".into(),
            });
            said.len() < 2
        });
        assert_eq!(said, ["-old", "+a"]);
    }
}
