//! Where programs connect to their user's database: a Unix socket and a port, with
//! names that are the same in every machine.
//!
//! Nothing of what they say is looked at here: each connection is a stream to the
//! host, which alone knows whose database it is.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use agent_protocol::{DATABASE_PORT, FIRST_GUEST_STREAM, StreamId};

use crate::sys::{self, POLLIN, PollFd};

/// The directory where PostgreSQL's programs look for their server.
pub(crate) const DIRECTORY: &str = "/run/postgresql";
/// The name of the host, for programs that want one.
const NAME: &str = "database";
const HOSTS: &str = "/etc/hosts";
/// How Debian's clients come to the directory, and where it leads.
const OLD_WAYS: [(&str, &str); 2] = [("/var/run", "/run"), ("/var/run/postgresql", DIRECTORY)];

#[derive(Default)]
pub(crate) struct Database {
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
    /// How many streams there were.
    begun: StreamId,
}

impl Database {
    /// Listens from now on: at `directory`, and at the loopback interface
    /// `with_loopback`. The error says what does not work.
    pub(crate) fn open(&mut self, directory: &Path, with_loopback: bool) -> io::Result<()> {
        let path = directory.join(format!(".s.PGSQL.{DATABASE_PORT}"));
        fs::create_dir_all(directory)?;
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
        self.unix = Some(listener);
        if with_loopback {
            let listener = TcpListener::bind(("127.0.0.1", DATABASE_PORT))?;
            listener.set_nonblocking(true)?;
            self.tcp = Some(listener);
            for (link, target) in OLD_WAYS {
                // One that is there is as good.
                let _ = symlink(target, link);
            }
            let mut hosts = OpenOptions::new().append(true).create(true).open(HOSTS)?;
            hosts.write_all(format!("127.0.0.1 {NAME}\n").as_bytes())?;
        }
        Ok(())
    }

    /// Adds what to wait for.
    pub(crate) fn poll_fds(&self, fds: &mut Vec<PollFd>) {
        fds.extend(self.unix.iter().map(|listener| PollFd::new(listener, POLLIN)));
        fds.extend(self.tcp.iter().map(|listener| PollFd::new(listener, POLLIN)));
    }

    /// A program that has connected, if there is one, and the stream for it.
    pub(crate) fn accept(&mut self) -> Option<(StreamId, OwnedFd)> {
        loop {
            let unix = self.unix.as_ref().and_then(|listener| listener.accept().ok());
            let socket = unix.map(|(socket, _)| OwnedFd::from(socket)).or_else(|| {
                let tcp = self.tcp.as_ref().and_then(|listener| listener.accept().ok());
                tcp.map(|(socket, _)| {
                    // What a client asks it waits for the answer of.
                    let _ = socket.set_nodelay(true);
                    OwnedFd::from(socket)
                })
            })?;
            if sys::set_nonblocking(socket.as_fd()).is_ok() {
                let stream = FIRST_GUEST_STREAM | self.begun;
                self.begun = (self.begun + 1) % FIRST_GUEST_STREAM;
                return Some((stream, socket));
            }
        }
    }
}
