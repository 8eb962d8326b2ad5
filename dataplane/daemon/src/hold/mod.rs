//! `roadsteadd --hold`: a process that starts the daemon, keeps its block devices alive, and starts it again.
//!
//! It does nothing that could fail: no socket to the outside, no I/O. What it keeps is described in
//! [`roadstead_attach::holder`]. A daemon that was killed is started again at once, which is sooner than whoever started
//! the holder would do it. One that ends by itself is started again only while devices are kept that pods use;
//! otherwise its end is the holder's end, and whoever started it sees how. SIGTERM, SIGINT and SIGHUP go to the
//! daemon, and after a SIGTERM or SIGINT nothing is started again.
//!
//! A holder in the daemon's pod ends with the pod. `--holder` names the socket of another one, `roadsteadd --hold-at`,
//! which does nothing but keep what this one keeps ([`outer`]).

mod outer;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use roadstead_attach::holder::{Holder, Message, hand_over, kernel_resends};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::EXIT_USAGE;
use outer::{Outer, listen_to};

/// Tells the daemon that its standard input leads to a holder.
const VARIABLE: &str = "ROADSTEADD_HELD";
/// Name of the process in lists, so that nobody takes it for the daemon.
const PROCESS_NAME: &std::ffi::CStr = c"roadstead-hold";
/// First pause before the daemon is started again; doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// A daemon that ran for so long starts at once the next time.
const STEADY: Duration = Duration::from_secs(10);

/// Whether this process shall hold, and was not started by one that does.
pub(crate) fn wanted(hold: bool) -> bool {
    hold && std::env::var_os(VARIABLE).is_none()
}

/// What the holder of this daemon kept; none without a holder.
///
/// # Errors
/// When the holder is gone.
pub(crate) fn held() -> anyhow::Result<Option<(Holder, HashMap<String, OwnedFd>)>> {
    if std::env::var_os(VARIABLE).is_none() {
        return Ok(None);
    }
    // Without the holder there is nobody to hand over to, and nobody who passes signals on.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let release = rustix::system::uname();
    if !kernel_resends(&release.release().to_string_lossy()) {
        tracing::info!("this kernel cannot hand a FUSE device to a new daemon: nothing is held");
        return Ok(None);
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned()?;
    let (holder, held) = Holder::connect(socket).context("taking over from the holder")?;
    Ok(Some((holder, held)))
}

/// Runs as the daemon's holder; `outer` is the socket of one that outlives it.
///
/// # Errors
/// When the daemon cannot be started.
pub(crate) fn run(outer: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    rustix::thread::set_name(PROCESS_NAME)?;
    let (outer, kept) = Outer::connect(outer)?;
    let result = runtime()?.block_on(hold(&outer, kept));
    outer.finish();
    result
}

/// Runs as a holder that listens at `path`, until it is told to end.
///
/// # Errors
/// When it cannot listen there.
pub(crate) fn run_at(path: &Path) -> anyhow::Result<ExitCode> {
    rustix::thread::set_name(PROCESS_NAME)?;
    let path = path.to_owned();
    let (give, ended) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("hold".to_owned())
        .spawn(move || give.send(outer::serve(&path)))?;
    runtime()?.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(ExitCode::SUCCESS),
            _ = interrupt.recv() => Ok(ExitCode::SUCCESS),
            result = ended => result?.map(|()| ExitCode::SUCCESS),
        }
    })
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// How one daemon ended.
struct Ended {
    status: ExitStatus,
    /// Somebody asked for the end.
    asked: bool,
}

async fn hold(outer: &Outer, mut kept: HashMap<String, OwnedFd>) -> anyhow::Result<ExitCode> {
    let mut pause = PAUSE_MIN;
    loop {
        let since = Instant::now();
        let ended = one_daemon(&mut kept, outer).await?;
        let usage = ended.status.code() == Some(i32::from(EXIT_USAGE));
        let gave_up = ended.status.code().is_some() && kept.is_empty();
        if ended.asked || usage || gave_up {
            return Ok(exit_code(ended.status));
        }
        tracing::warn!(
            status = %ended.status,
            devices = kept.len(),
            "the daemon ended and is started again"
        );
        pause = if since.elapsed() > STEADY {
            PAUSE_MIN
        } else {
            (pause * 2).min(PAUSE_MAX)
        };
        tokio::time::sleep(pause).await;
    }
}

/// As a shell would tell it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let number = status.code().or(status.signal().map(|s| 128 + s));
    ExitCode::from(number.and_then(|n| u8::try_from(n).ok()).unwrap_or(1))
}

/// Starts a daemon and serves it until it has ended.
async fn one_daemon(kept: &mut HashMap<String, OwnedFd>, outer: &Outer) -> anyhow::Result<Ended> {
    let (ours, its) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let program = std::env::current_exe().context("finding this program")?;
    let mut child = Command::new(&program)
        .args(std::env::args_os().skip(1))
        .env(VARIABLE, "1")
        .stdin(Stdio::from(its))
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    // A daemon that dies at once takes nothing over; what it sent is read below all the same.
    let _ = hand_over(&ours, kept);
    let mut messages = listen(ours)?;
    let mut asked = false;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut listening = true;
    loop {
        tokio::select! {
            message = messages.recv(), if listening => match message {
                Some(message) => {
                    outer.tell(&message)?;
                    keep(kept, message);
                }
                None => listening = false,
            },
            _ = terminate.recv() => { asked = true; pass_on(&child, Signal::TERM); }
            _ = interrupt.recv() => { asked = true; pass_on(&child, Signal::INT); }
            _ = hang_up.recv() => pass_on(&child, Signal::HUP),
            // Only after its last message, which may say what to keep.
            status = child.wait(), if !listening => return Ok(Ended { status: status?, asked }),
        }
    }
}

/// Everything that the daemon says, until it says no more.
fn listen(socket: OwnedFd) -> std::io::Result<mpsc::UnboundedReceiver<Message>> {
    let (give, messages) = mpsc::unbounded_channel();
    let run = move || listen_to(&socket, |message| give.send(message).is_ok());
    std::thread::Builder::new()
        .name("listen".to_owned())
        .spawn(run)?;
    Ok(messages)
}

/// Does what the daemon says.
fn keep(kept: &mut HashMap<String, OwnedFd>, message: Message) {
    match message {
        Message::Hold { id, connection } => drop(kept.insert(id, connection)),
        Message::Release { id } => drop(kept.remove(&id)),
        Message::Ready => {}
    }
}

fn pass_on(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(pid) = pid.and_then(Pid::from_raw) {
        // It has ended already if this fails.
        let _ = rustix::process::kill_process(pid, signal);
    }
}
