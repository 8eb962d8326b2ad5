//! Health and metrics over HTTP: GET of three fixed paths, one request a connection.
//!
//! Guaranteed: a client can hold one of `CONNECTIONS_MAX` places for `REQUEST_TIMEOUT` and a few kilobytes,
//! nothing more.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Requests at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 16;
/// Head of a request; longer ones are cut off.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How long a client may take for everything.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Pause after an address could not be had.
const LISTEN_PAUSE: Duration = Duration::from_millis(500);

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: &'static str,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn ok(body: impl Into<String>) -> Self {
        Self {
            status: "200 OK",
            body: body.into(),
        }
    }

    pub(crate) fn unavailable(body: impl Into<String>) -> Self {
        Self {
            status: "503 Service Unavailable",
            body: body.into(),
        }
    }

    pub(crate) fn not_found() -> Self {
        Self {
            status: "404 Not Found",
            body: "there are /healthz, /readyz and /metrics\n".into(),
        }
    }
}

/// Listens at `address`, tried until it works: volumes are served whether or not anyone can ask about them.
pub(crate) async fn listen(address: SocketAddr, what: &str) -> TcpListener {
    let mut is_known = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "listening for {what}");
                return listener;
            }
            Err(error) if is_known => tracing::debug!(%address, %error, "cannot listen"),
            Err(error) => {
                tracing::error!(%address, %error, "cannot listen for {what}; it is tried again");
                is_known = true;
            }
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

/// Answers requests for ever; `answer` gets the path.
pub(crate) async fn serve<F>(listener: TcpListener, answer: F)
where
    F: Fn(&str) -> Answer + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a metrics connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let answer = Arc::clone(&answer);
        tokio::spawn(async move {
            let _place = place;
            // A client that goes away or is too slow needs no answer.
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, one(stream, &*answer)).await;
        });
    }
}

async fn one(
    mut stream: TcpStream,
    answer: &(dyn Fn(&str) -> Answer + Send + Sync),
) -> std::io::Result<()> {
    let mut head = Vec::with_capacity(1 << 10);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let answer = match path_of(&head) {
        Some(path) => answer(path),
        None => Answer {
            status: "400 Bad Request",
            body: "only GET is understood\n".into(),
        },
    };
    let Answer { status, body } = answer;
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

/// The path of a GET, without its query.
fn path_of(head: &[u8]) -> Option<&str> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("GET"), Some(target), Some(version)) if version.starts_with("HTTP/1.") => {
            target.split('?').next()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let cases: [(&[u8], Option<&str>); 7] = [
            (
                b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
                Some("/metrics"),
            ),
            (b"GET /readyz?verbose HTTP/1.0\r\n\r\n", Some("/readyz")),
            (b"POST /metrics HTTP/1.1\r\n\r\n", None),
            (b"GET /metrics\r\n\r\n", None),
            (b"", None),
            (b"\r\n\r\n", None),
            (b"\xff\xfe", None),
        ];
        for (head, path) in cases {
            assert_eq!(path_of(head), path, "{head:?}");
        }
    }
}
