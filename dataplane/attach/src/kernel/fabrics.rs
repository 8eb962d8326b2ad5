//! The kernel's /dev/nvme-fabrics: one line of options written, one line of answer read.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::{HostIdentity, PathSpec};

/// Pause between two tries to connect again.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);
/// Keep-alive time-out.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// The same when there is another path: the shortest that the kernel knows, by which it finds a dark one itself where
/// our watch does not.
const KEEP_ALIVE_SHORT: Duration = Duration::from_secs(1);
/// Most I/O queues asked for; the target may give fewer.
const IO_QUEUES_MAX: usize = 8;

/// The kernel's answer to a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connected {
    /// N of /dev/nvmeN.
    pub(super) instance: u32,
    /// The controller's id at the target.
    pub(super) cntlid: u32,
}

/// What to connect to.
pub(super) struct Options<'a> {
    pub(super) nqn: &'a str,
    pub(super) path: &'a PathSpec,
    pub(super) host: &'a HostIdentity,
    pub(super) ctrl_loss_timeout: Duration,
    /// I/O can go over another path.
    pub(super) has_other: bool,
    pub(super) cpus: usize,
}

impl Options<'_> {
    /// The option string, comma-separated as the kernel parses it. There may be keys in it.
    fn to_line(&self) -> String {
        let mut line = format!(
            "nqn={},transport={},traddr={},trsvcid={},hostnqn={},hostid={},\
             nr_io_queues={},keep_alive_tmo={},reconnect_delay={},ctrl_loss_tmo={}",
            self.nqn,
            self.path.transport,
            self.path.address,
            self.path.port,
            self.host.nqn,
            self.host.id,
            self.cpus.clamp(1, IO_QUEUES_MAX),
            if self.has_other {
                KEEP_ALIVE_SHORT.as_secs()
            } else {
                KEEP_ALIVE.as_secs()
            },
            RECONNECT_DELAY.as_secs(),
            self.ctrl_loss_timeout.as_secs(),
        );
        if let Some(keys) = &self.host.keys {
            // Base64 has no commas.
            line += &format!(",dhchap_secret={}", keys.host.text());
            if let Some(controller) = &keys.controller {
                line += &format!(",dhchap_ctrl_secret={}", controller.text());
            }
        }
        line
    }
}

/// Makes the kernel connect. Blocks while it does.
///
/// # Errors
/// The kernel's: EALREADY when it has this connection, ECONNREFUSED and the like, or the NVMe status of a
/// refused Connect command as EIO or similar (dmesg has the status). Failed authentication is ECONNREFUSED.
pub(super) fn connect(device: &Path, options: &Options<'_>) -> io::Result<Connected> {
    let mut file = OpenOptions::new().read(true).write(true).open(device)?;
    let line = options.to_line();
    let written = file.write(line.as_bytes())?;
    if written != line.len() {
        return Err(io::Error::other(
            "the kernel took only a part of the options",
        ));
    }
    let mut answer = [0; 128];
    let length = file.read(&mut answer)?;
    let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default());
    parse_answer(&text)
        .ok_or_else(|| io::Error::other(format!("answer {text:?} names no controller")))
}

/// Why the kernel did not connect, in words.
pub(super) fn explain(error: &io::Error, has_keys: bool) -> String {
    match (error.raw_os_error(), has_keys) {
        // The kernel's name for every NVMe status.
        (Some(libc::EIO), _) => {
            "the target refuses the connection; the kernel's log has its status".into()
        }
        (Some(libc::EINVAL), true) => {
            format!("{error}; the kernel may not know DH-HMAC-CHAP (CONFIG_NVME_HOST_AUTH)")
        }
        (Some(libc::ECONNREFUSED), true) => {
            format!("{error}; if authentication failed, the kernel's log says so")
        }
        _ => error.to_string(),
    }
}

fn parse_answer(text: &str) -> Option<Connected> {
    let field = |name: &str| {
        text.trim()
            .split(',')
            .find_map(|part| part.strip_prefix(name)?.strip_prefix('='))
            .and_then(|value| value.parse().ok())
    };
    Some(Connected {
        instance: field("instance")?,
        cntlid: field("cntlid")?,
    })
}

#[cfg(test)]
mod tests {
    use roadstead_nvme::dhchap::{Keys, Secret};
    use roadstead_nvme::{Portal, Transport};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_option_line_is_what_the_kernel_parses() {
        let line = |transport| {
            let path = Portal {
                transport,
                address: "10.0.0.1:4420".parse().unwrap(),
            };
            line_to(path.into(), false)
        };
        assert_eq!(
            line(Transport::Tcp),
            "nqn=nqn.2026-11.io.roadstead:example,transport=tcp,traddr=10.0.0.1,trsvcid=4420,\
             hostnqn=nqn.2014-08.org.nvmexpress:uuid:h,hostid=00000000-0000-0000-0000-000000000001,\
             nr_io_queues=8,keep_alive_tmo=5,reconnect_delay=2,ctrl_loss_tmo=600"
        );
        assert!(line(Transport::Rdma).contains(",transport=rdma,traddr=10.0.0.1,trsvcid=4420,"));
        let path = "10.0.0.1:4420".parse::<Portal>();
        assert!(line_to(path.unwrap().into(), true).contains(",keep_alive_tmo=1,"));
    }

    #[test]
    fn keys_are_options() {
        let key = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";
        let secret = Secret::parse(key).unwrap();
        let keys = |controller| {
            Some(Keys {
                host: secret.clone(),
                controller,
            })
        };
        let path: PathSpec = "10.0.0.1:4420".parse::<Portal>().unwrap().into();
        let plain = line_to(path, false);
        let one = line_with(path, false, keys(None));
        assert_eq!(one, format!("{plain},dhchap_secret={key}"));
        let both = line_with(path, false, keys(Some(secret.clone())));
        assert_eq!(both, format!("{one},dhchap_ctrl_secret={key}"));
    }

    fn line_to(path: PathSpec, has_other: bool) -> String {
        line_with(path, has_other, None)
    }

    fn line_with(path: PathSpec, has_other: bool, keys: Option<Keys>) -> String {
        let options = Options {
            nqn: "nqn.2026-11.io.roadstead:example",
            path: &path,
            host: &HostIdentity {
                nqn: "nqn.2014-08.org.nvmexpress:uuid:h".into(),
                id: Uuid::from_u128(1),
                keys,
            },
            ctrl_loss_timeout: Duration::from_secs(600),
            has_other,
            cpus: 64,
        };
        options.to_line()
    }

    #[test]
    fn errors_of_authentication_are_explained() {
        let table = [
            (libc::EIO, true, "its status"),
            (libc::EINVAL, true, "CONFIG_NVME_HOST_AUTH"),
            (libc::EINVAL, false, "(os error 22)"),
            (libc::ECONNREFUSED, true, "authentication"),
            (libc::ECONNREFUSED, false, "(os error 111)"),
        ];
        for (number, has_keys, words) in table {
            let said = explain(&io::Error::from_raw_os_error(number), has_keys);
            assert!(said.contains(words), "{said}");
        }
    }

    #[test]
    fn the_answer_is_parsed() {
        let table = [
            ("instance=3,cntlid=17\n", Some((3, 17))),
            ("instance=0,cntlid=1", Some((0, 1))),
            ("instance=-1,cntlid=0\n", None),
            ("instance=1\n", None),
            ("", None),
        ];
        for (text, wanted) in table {
            let got = parse_answer(text).map(|c| (c.instance, c.cntlid));
            assert_eq!(got, wanted, "{text:?}");
        }
    }
}
