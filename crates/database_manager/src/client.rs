//! The machine's end of a session.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::wire;

/// Asks the database manager for connections. Whose they are is not its to say.
pub struct Client {
    /// Held from a question to its answer.
    asking: Mutex<Asking>,
}

struct Asking {
    socket: OwnedFd,
    last: u64,
}

impl Client {
    /// The machine's process, with its end of [`session_pair`](crate::session_pair).
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { asking: Mutex::new(Asking { socket, last: 0 }) }
    }

    /// A connection for a program of the guest's: bytes of PostgreSQL's protocol
    /// both ways.
    ///
    /// # Errors
    /// When the session has ended, no more connections are to be had, or nothing
    /// was heard within `limit`.
    pub fn connect(&self, limit: Duration) -> io::Result<UnixStream> {
        let deadline = Instant::now() + limit;
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        asking.last += 1;
        let Asking { socket, last } = &*asking;
        wire::ask(socket.as_fd(), *last)?;
        loop {
            match wire::answered(socket.as_fd()) {
                // One that came too late for who asked is nobody's.
                Ok(Some((number, _))) if number != *last => {}
                Ok(Some((_, Some(stream)))) => return Ok(stream),
                Ok(Some((_, None))) => {
                    let why = "this machine has as many connections as it can";
                    return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
                }
                Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(socket, deadline)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits until there is something to read.
fn wait(socket: &OwnedFd, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
    let mut waited = [PollFd::new(socket, PollFlags::IN)];
    match poll(&mut waited, Some(&timeout)) {
        Ok(0) => Err(io::ErrorKind::TimedOut.into()),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
