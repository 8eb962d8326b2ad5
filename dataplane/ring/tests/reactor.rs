//! The reactor against real sockets and files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use roadstead_ring::{
    Event, Extent, Handler, Io, IoBuf, Mailbox, Reactor, ReactorConfig, SocketId, mailbox,
};

type Job = Box<dyn FnOnce(&mut Io) + Send>;

/// Echoes, with back-pressure above `limit` queued bytes; runs jobs; tells what happened.
struct Echo {
    limit: usize,
    log: Sender<String>,
    file_jobs: VecDeque<IoBuf>,
}

impl Handler for Echo {
    type Message = Job;

    fn event(&mut self, io: &mut Io, event: Event<'_>) {
        match event {
            Event::Accepted { stream, .. } => {
                assert!(stream.peer().is_some());
                io.adopt(stream, 7).unwrap();
            }
            Event::Received {
                socket,
                token,
                data,
            } => {
                assert_eq!(token, 7);
                if data.starts_with(b"quit") {
                    io.output(socket).unwrap().put(b"bye");
                    io.finish(socket);
                    return;
                }
                if let Some(output) = io.output(socket) {
                    output.put(data);
                }
                if io.queued_bytes(socket) > self.limit {
                    io.pause(socket);
                    self.say(format!(
                        "paused {}",
                        io.queued_bytes(socket) <= self.limit + (8 << 20)
                    ));
                }
            }
            Event::Sent {
                socket,
                queued_bytes,
                ..
            } if queued_bytes < self.limit / 2 => io.resume(socket),
            Event::Sent { .. } => {}
            Event::Closed { error, .. } => {
                self.say(format!("closed {:?}", error.map(|e| e.kind())));
            }
            Event::Connected { socket, .. } => {
                self.say(format!("connected {}", io.queued_bytes(socket)))
            }
            Event::ListenerClosed { .. } => self.say("listener closed".into()),
            Event::Timer { token, .. } => self.say(format!("timer {token}")),
            Event::Readable { token } => self.say(format!("readable {token}")),
            Event::File(done) => {
                self.say(format!(
                    "file {} {:?}",
                    done.token,
                    done.result.map_err(|e| e.kind())
                ));
                self.file_jobs.extend(done.buf);
            }
        }
    }

    fn message(&mut self, io: &mut Io, job: Job) {
        job(io);
    }
}

impl Echo {
    fn say(&self, what: String) {
        let _ = self.log.send(what);
    }
}

struct Running {
    mail: Mailbox<Job>,
    log: Receiver<String>,
    address: SocketAddr,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Running {
    fn start(config: ReactorConfig, limit: usize) -> Self {
        let (mail, inbox) = mailbox::<Job>().unwrap();
        let (log, events) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let mut reactor = Reactor::new(&config, inbox).unwrap();
            let listener = reactor.io().listen(([127, 0, 0, 1], 0).into(), 1).unwrap();
            tell.send(reactor.io().listener_address(listener).unwrap())
                .unwrap();
            let mut echo = Echo {
                limit,
                log,
                file_jobs: VecDeque::new(),
            };
            reactor.run(&mut echo).unwrap();
        });
        let address = told.recv().unwrap();
        Self {
            mail,
            log: events,
            address,
            thread: Some(thread),
        }
    }

    fn job(&self, job: impl FnOnce(&mut Io) + Send + 'static) {
        assert!(self.mail.send(Box::new(job)).is_ok());
    }

    fn expect(&self, want: &str) {
        loop {
            let got = self.log.recv_timeout(Duration::from_secs(20)).expect(want);
            if got == want {
                return;
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.mail.send(Box::new(|io| io.stop()));
        if let Some(thread) = self.thread.take() {
            let result = thread.join();
            assert!(result.is_ok() || std::thread::panicking());
        }
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect()
}

#[test]
fn echoes_to_many_connections() {
    let config = ReactorConfig {
        recv_buffers: 4,
        recv_buffer_bytes: 4096,
        ..ReactorConfig::default()
    };
    let server = Running::start(config, 1 << 30);
    let data = pattern(300_000);
    let mut clients: Vec<_> = (0..50)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.write_all(&data[i..i + 20_000]).unwrap();
    }
    for (i, client) in clients.iter_mut().enumerate() {
        let mut back = vec![0; 20_000];
        client.read_exact(&mut back).unwrap();
        assert!(back == data[i..i + 20_000]);
    }
    let mut reader = clients[0].try_clone().unwrap();
    let want = data.clone();
    let check = std::thread::spawn(move || {
        let mut back = vec![0; want.len()];
        reader.read_exact(&mut back).unwrap();
        assert!(back == want);
    });
    clients[0].write_all(&data).unwrap();
    check.join().unwrap();
    clients.pop();
    server.expect("closed None");
}

#[test]
fn a_peer_that_does_not_read_is_held_back() {
    let limit = 1 << 20;
    let server = Running::start(ReactorConfig::default(), limit);
    let mut client = TcpStream::connect(server.address).unwrap();
    let mut writer = client.try_clone().unwrap();
    let data = pattern(64 << 20);
    let want = data.clone();
    let sender = std::thread::spawn(move || writer.write_all(&data));
    server.expect("paused true");
    let mut back = vec![0; want.len()];
    client.read_exact(&mut back).unwrap();
    assert!(back == want);
    sender.join().unwrap().unwrap();
}

#[test]
fn a_connection_within_the_machine_is_one_like_the_others() {
    let limit = 1 << 20;
    let server = Running::start(ReactorConfig::default(), limit);
    let (mut near, far) = UnixStream::pair().unwrap();
    server.job(move |io| assert!(io.adopt(far.into(), 7).is_ok()));
    let data = pattern(16 << 20);
    let (mut writer, want) = (near.try_clone().unwrap(), data.clone());
    let sender = std::thread::spawn(move || writer.write_all(&data));
    server.expect("paused true");
    let mut back = vec![0; want.len()];
    near.read_exact(&mut back).unwrap();
    assert!(back == want);
    sender.join().unwrap().unwrap();
    near.write_all(b"quit").unwrap();
    let mut last = Vec::new();
    near.read_to_end(&mut last).unwrap();
    assert_eq!(last, b"bye");
    drop(near);
    server.expect("closed None");

    // The far end neither reads nor closes.
    let (mut near, far) = UnixStream::pair().unwrap();
    let (tell, told) = channel();
    server.job(move |io| {
        let socket = io.adopt(far.into(), 7).unwrap();
        io.output(socket).unwrap().put(&pattern(16 << 20));
        tell.send(socket).unwrap();
    });
    let socket: SocketId = told.recv().unwrap();
    near.read_exact(&mut [0]).unwrap();
    server.job(move |io| io.close(socket));
    server.expect("closed None");
    let mut came = Vec::new();
    near.read_to_end(&mut came).unwrap();
    assert!(came.len() < 8 << 20, "{} bytes came", came.len());
}

#[test]
fn finish_sends_what_is_queued_and_close_drops_a_stuck_connection() {
    let server = Running::start(ReactorConfig::default(), 1 << 20);
    let mut client = TcpStream::connect(server.address).unwrap();
    client.write_all(b"quit").unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert_eq!(back, b"bye");
    drop(client);
    server.expect("closed None");

    // The far end neither reads nor closes: the send in flight cannot end by itself.
    let stuck = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stuck.local_addr().unwrap();
    let (tell, told) = channel();
    server.job(move |io| {
        let socket = io.connect(address, 7).unwrap();
        for _ in 0..64 {
            let mut buf = io.alloc(1 << 20).unwrap();
            buf.fill(1);
            let Some(output) = io.output(socket) else {
                panic!("no output")
            };
            output.put_buf(buf, 0, 1 << 20);
        }
        tell.send(socket).unwrap();
    });
    let socket: SocketId = told.recv().unwrap();
    let (mut far, _) = stuck.accept().unwrap();
    server.expect(&format!("connected {}", 64 << 20));
    assert_eq!(far.peek(&mut [0]).unwrap(), 1, "the send has begun");
    server.job(move |io| {
        assert!(io.queued_bytes(socket) > 0);
        assert!(io.pool().used_bytes() > 0);
        io.close(socket);
        assert!(io.output(socket).is_none());
    });
    server.expect("closed None");
    // What the far end had not taken in does not follow later: the connection was reset.
    let mut came = Vec::new();
    let end = far.read_to_end(&mut came);
    assert_eq!(
        end.map_err(|error| error.kind()),
        Err(std::io::ErrorKind::ConnectionReset),
        "{} bytes came",
        came.len()
    );
    let (tell, told) = channel();
    server.job(move |io| {
        tell.send((io.pool().used_bytes(), io.queued_bytes(socket)))
            .unwrap()
    });
    assert_eq!(
        told.recv().unwrap(),
        (0, 0),
        "buffers are back, the old name finds nothing"
    );
    drop(far);
}

#[test]
fn connect_failures_and_listener_close() {
    let server = Running::start(ReactorConfig::default(), 1 << 20);
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    server.job(move |io| {
        io.connect(closed, 1).unwrap();
    });
    server.expect("closed Some(ConnectionRefused)");
    let own = server.address;
    server.job(move |io| {
        let error = io.listen(own, 2).unwrap_err();
        assert!(
            error.to_string().contains("cannot listen on 127.0.0.1:"),
            "{error}"
        );
        let listener = io.listen(([127, 0, 0, 1], 0).into(), 3).unwrap();
        io.close_listener(listener);
        io.close_listener(listener);
    });
    server.expect("listener closed");
}

#[test]
fn timers_fire_in_order_unless_cancelled() {
    let server = Running::start(ReactorConfig::default(), 1 << 20);
    let start = Instant::now();
    server.job(|io| {
        io.set_timer(Duration::from_millis(60), 3).unwrap();
        let gone = io.set_timer(Duration::from_millis(20), 2).unwrap();
        io.set_timer(Duration::from_millis(10), 1).unwrap();
        io.cancel_timer(gone);
    });
    let next = || server.log.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!((next(), next()), ("timer 1".into(), "timer 3".into()));
    assert!(start.elapsed() >= Duration::from_millis(60));
}

#[test]
fn files_are_read_written_synced_and_zeroed() {
    let server = Running::start(ReactorConfig::default(), 1 << 20);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("drive");
    let file = std::fs::File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.set_len(1 << 20).unwrap();
    let fd = Arc::new(std::os::fd::OwnedFd::from(file));
    let data = pattern(300_000);
    let written = data.clone();
    let (tell, told) = channel();
    let extent = |offset_bytes, start, len| Extent {
        offset_bytes,
        start,
        len,
    };
    server.job(move |io| {
        let file = io.add_file(fd).unwrap();
        let mut buf = io.alloc(written.len()).unwrap();
        buf.copy_from_slice(&written);
        let parts = [
            extent(4096, 0, 200_000),
            extent(500_000, 200_000, usize::MAX),
        ];
        io.write(file, buf, &parts, true, 10).unwrap();
        tell.send(file).unwrap();
    });
    let file = told.recv().unwrap();
    server.expect("file 10 Ok(300000)");
    let now = std::fs::read(&path).unwrap();
    assert!(now[4096..204_096] == data[..200_000] && now[500_000..600_000] == data[200_000..]);
    server.job(move |io| io.sync_data(file, 11).unwrap());
    server.expect("file 11 Ok(0)");
    server.job(move |io| io.punch(file, 4096, 8192, 12).unwrap());
    server.expect("file 12 Ok(0)");
    let now = std::fs::read(&path).unwrap();
    assert!(now[4096..12288].iter().all(|&b| b == 0) && now[12288..204_096] == data[8192..200_000]);
    server.job(move |io| {
        let buf = io.alloc(8192).unwrap();
        let parts = [extent(0, 0, 4096), extent((1 << 20) - 1000, 4096, 4096)];
        io.read(file, buf, &parts, 13).unwrap();
    });
    server.expect("file 13 Ok(5096)");
    server.job(move |io| {
        // Removed with a read in flight: the read ends well, a later one is refused with its buffer.
        let buf = io.alloc(4096).unwrap();
        io.read(file, buf, &[extent(0, 0, 4096)], 14).unwrap();
        io.remove_file(file);
        let buf = io.alloc(4096).unwrap();
        let refused = io.read(file, buf, &[extent(0, 0, 4096)], 15).unwrap_err();
        assert!(refused.0.is_some());
    });
    server.expect("file 14 Ok(4096)");
}

#[test]
fn dropping_a_busy_reactor_ends_everything() {
    let server = Running::start(ReactorConfig::default(), 1 << 20);
    let mut clients: Vec<_> = (0..20)
        .map(|_| TcpStream::connect(server.address).unwrap())
        .collect();
    for client in &mut clients {
        client.write_all(&[1; 1000]).unwrap();
        let mut back = [0; 1000];
        client.read_exact(&mut back).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    }
    let address = server.address;
    drop(server);
    for client in &mut clients {
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
    }
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn an_idle_reactor_sleeps() {
    let server = Running::start(ReactorConfig::default(), 1 << 20);
    let mut client = TcpStream::connect(server.address).unwrap();
    let mut back = [0; 1];
    client.write_all(&[1]).unwrap();
    client.read_exact(&mut back).unwrap();
    let (tell, told) = channel();
    let cpu = move |tell: &Sender<Duration>| {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        let nanos = u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap();
        tell.send(Duration::from_nanos(nanos)).unwrap();
    };
    let second = tell.clone();
    server.job(move |_| cpu(&tell));
    let before = told.recv().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    server.job(move |_| cpu(&second));
    let used = told.recv().unwrap() - before;
    assert!(
        used < Duration::from_micros(2500),
        "half a second of idleness cost {used:?}"
    );
}

#[test]
fn a_watched_descriptor_tells_of_every_byte_until_it_is_let_go() {
    let server = Running::start(ReactorConfig::default(), 1 << 20);
    let (mut near, far) = UnixStream::pair().unwrap();
    let (tell, told) = channel();
    let watched = far.try_clone().unwrap();
    server.job(move |io| tell.send(io.watch(watched.as_fd(), 42).unwrap()).unwrap());
    let watch = told.recv().unwrap();
    for _ in 0..3 {
        near.write_all(b"x").unwrap();
        server.expect("readable 42");
        (&far).read_exact(&mut [0]).unwrap();
    }
    server.job(move |io| io.unwatch(watch));
    server.job(|io| drop(io.set_timer(Duration::from_millis(20), 9)));
    near.write_all(b"x").unwrap();
    server.expect("timer 9");
    assert!(server.log.try_recv().is_err());
}
