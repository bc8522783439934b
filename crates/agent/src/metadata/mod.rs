//! Where programs ask who the machine is now: HTTP on a Unix socket and on
//! the loopback interface.
//!
//! Nothing is answered here but nonsense: each request goes to the host, which
//! alone knows. Programs are bounded in number, bytes and time, so that none
//! of them can keep the agent from its work.

mod http;

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use agent_protocol::{MAX_METADATA_REQUESTS, Message};

use crate::link::Link;
use crate::sys::{self, POLLIN, POLLOUT, PollFd};
use http::Request;

/// How long a program may take to ask, the host to answer, and the program to
/// read the answer, all together.
const LIMIT: Duration = Duration::from_secs(10);

/// Where a program can ask that cannot use Unix sockets.
const ADDRESS: (&str, u16) = ("127.0.0.1", 80);

#[derive(Default)]
pub(crate) struct Metadata {
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
    asking: BTreeMap<u32, Asking>,
    next: u32,
}

/// One program's connection.
struct Asking {
    connection: File,
    state: State,
    until: Instant,
}

enum State {
    Reading(Vec<u8>),
    Waiting,
    /// What is left of the answer.
    Writing(Vec<u8>),
}

impl Metadata {
    /// Listens from now on, if it does not yet: at `directory`, and at the
    /// loopback interface `with_loopback`. The error says what does not work.
    pub(crate) fn open(&mut self, directory: &Path, with_loopback: bool) -> io::Result<()> {
        if self.unix.is_none() {
            let path = directory.join("metadata.sock");
            fs::create_dir_all(directory)?;
            let _ = fs::remove_file(&path);
            let listener = UnixListener::bind(&path)?;
            listener.set_nonblocking(true)?;
            fs::set_permissions(&path, Permissions::from_mode(0o666))?;
            self.unix = Some(listener);
        }
        if self.tcp.is_none() && with_loopback {
            let listener = TcpListener::bind(ADDRESS)?;
            listener.set_nonblocking(true)?;
            self.tcp = Some(listener);
        }
        Ok(())
    }

    /// Adds what to wait for.
    pub(crate) fn poll_fds(&self, fds: &mut Vec<PollFd>) {
        // Who comes when there are too many waits in the socket's queue.
        if self.asking.len() < MAX_METADATA_REQUESTS {
            fds.extend(self.unix.iter().map(|listener| PollFd::new(listener, POLLIN)));
            fds.extend(self.tcp.iter().map(|listener| PollFd::new(listener, POLLIN)));
        }
        for asking in self.asking.values() {
            match asking.state {
                State::Reading(_) => fds.push(PollFd::new(&asking.connection, POLLIN)),
                State::Writing(_) => fds.push(PollFd::new(&asking.connection, POLLOUT)),
                // Whether it still listens shows when the answer is there.
                State::Waiting => {}
            }
        }
    }

    /// When to take the next turn at the latest.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.asking.values().map(|asking| asking.until).min()
    }

    /// Moves what can be moved.
    pub(crate) fn turn(&mut self, link: &mut Link) {
        self.accept();
        let mut ended = Vec::new();
        for (id, asking) in &mut self.asking {
            if !asking.turn(*id, link) {
                ended.push(*id);
            }
        }
        for id in ended {
            self.asking.remove(&id);
        }
    }

    /// Ends those whose time is over. Says whether a turn is due.
    pub(crate) fn expire(&mut self) -> bool {
        let now = Instant::now();
        let mut due = false;
        self.asking.retain(|_, asking| {
            let over = now >= asking.until;
            due |= over;
            match asking.state {
                _ if !over => true,
                State::Reading(_) => asking.end(408),
                State::Waiting => asking.end(504),
                State::Writing(_) => false,
            }
        });
        due
    }

    /// The host's answer. One that came too late is nobody's.
    pub(crate) fn answer(&mut self, id: u32, status: u16, body: &[u8], link: &mut Link) {
        let Some(asking) = self.asking.get_mut(&id) else { return };
        if matches!(asking.state, State::Waiting) {
            asking.state = State::Writing(http::answer(status, body));
            self.turn(link);
        }
    }

    fn accept(&mut self) {
        while self.asking.len() < MAX_METADATA_REQUESTS {
            let unix = self.unix.as_ref().and_then(|listener| listener.accept().ok());
            let connection = unix.map(|(connection, _)| OwnedFd::from(connection)).or_else(|| {
                let tcp = self.tcp.as_ref().and_then(|listener| listener.accept().ok());
                tcp.map(|(connection, _)| OwnedFd::from(connection))
            });
            let Some(connection) = connection else { return };
            if sys::set_nonblocking(connection.as_fd()).is_err() {
                continue;
            }
            let (state, until) = (State::Reading(Vec::new()), Instant::now() + LIMIT);
            let asking = Asking { connection: File::from(connection), state, until };
            // Far fewer are there than numbers, so this one is free.
            self.asking.insert(self.next, asking);
            self.next = self.next.wrapping_add(1);
        }
    }
}

impl Asking {
    /// Goes on as far as it can without waiting; whether it is not over.
    fn turn(&mut self, id: u32, link: &mut Link) -> bool {
        if let State::Reading(head) = &mut self.state {
            if !read(&mut self.connection, head) {
                return false;
            }
            match http::request(head) {
                Request::More => return true,
                Request::Get(path) => {
                    self.state = State::Waiting;
                    link.say(0, &Message::MetadataRequest { id, path });
                }
                Request::Refused(status) => self.state = State::Writing(http::refusal(status)),
            }
        }
        match &mut self.state {
            State::Writing(rest) => write(&mut self.connection, rest),
            _ => true,
        }
    }

    /// Says why there is no answer, to who still reads; whether some is left.
    fn end(&mut self, status: u16) -> bool {
        let _ = write(&mut self.connection, &mut http::refusal(status));
        false
    }
}

/// Reads what is there, to the bound of a head; false when nothing will come.
fn read(connection: &mut File, head: &mut Vec<u8>) -> bool {
    let mut buffer = [0; http::MAX_HEAD];
    while head.len() < http::MAX_HEAD {
        match connection.read(&mut buffer) {
            Ok(0) => return false,
            Ok(count) => head.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

/// Writes what can be written; whether something is left.
fn write(connection: &mut File, rest: &mut Vec<u8>) -> bool {
    while !rest.is_empty() {
        match connection.write(rest) {
            Ok(0) => return false,
            Ok(count) => drop(rest.drain(..count)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    false
}
