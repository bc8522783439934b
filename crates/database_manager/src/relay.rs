//! Bytes both ways, until somebody has had enough.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::broker::lock;
use crate::protocol::{Frames, Refusal};
use crate::registry::Stop;
use crate::server::Stream;

/// Bytes on their way, for each direction.
const PIECE: usize = 16 << 10;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The guest has closed it.
    ByGuest,
    /// The server has.
    ByServer,
    /// Nothing was said for too long.
    Idle,
    /// It has lasted as long as it may.
    TooLong,
    /// The host or the table wants it.
    Stopped(Stop),
}

impl Ended {
    /// What the guest is told, if it is to hear of it.
    fn refusal(self) -> Option<Refusal> {
        let (code, text) = match self {
            Self::ByGuest | Self::ByServer | Self::Stopped(Stop::Over) => return None,
            Self::Idle => ("57P05", "nothing was said here for as long as is allowed"),
            Self::TooLong => ("57P01", "this connection has lasted as long as is allowed"),
            Self::Stopped(Stop::Revoked) => ("57P01", "this user's login was taken back"),
        };
        Some(Refusal::new(code, text.to_owned()))
    }
}

/// A guest and its server.
pub(crate) struct Relay {
    guest: BufReader<UnixStream>,
    server: Stream,
    /// What the guest was told by the server.
    told: Mutex<Frames>,
    /// When something was said last.
    last: Mutex<Instant>,
}

impl Relay {
    pub(crate) fn new(guest: BufReader<UnixStream>, server: Stream) -> Self {
        let (told, last) = (Mutex::default(), Mutex::new(Instant::now()));
        Self { guest, server, told, last }
    }

    /// Passes on what is said until either side closes, or nothing was said for
    /// `idle`.
    pub(crate) async fn run(&mut self, idle: Option<Duration>) -> Ended {
        let Self { guest, server, told, last } = self;
        let (mut guest_says, mut to_guest) = tokio::io::split(guest);
        let (mut server_says, mut to_server) = tokio::io::split(server);
        let said = || *lock(last) = Instant::now();
        let hears = |bytes: &[u8]| lock(told).pass(bytes);
        tokio::select! {
            _ = pass(&mut guest_says, &mut to_server, said, |_| {}) => Ended::ByGuest,
            _ = pass(&mut server_says, &mut to_guest, said, hears) => Ended::ByServer,
            () = silence(last, idle) => Ended::Idle,
        }
    }

    /// Tells the guest why this ends, if a message can begin now.
    pub(crate) async fn say_why(&mut self, ended: Ended, limit: Duration) {
        let between = lock(&self.told).between();
        if let Some(refusal) = ended.refusal().filter(|_| between) {
            // A guest that does not listen misses it.
            let _ = timeout(limit, self.guest.write_all(&refusal.encode())).await;
        }
    }

    /// Closes the guest's end; what is left is the server's.
    pub(crate) fn leave(self) -> Stream {
        self.server
    }
}

/// Copies until the end of `from`; also ends when `to` takes no more.
async fn pass(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    said: impl Fn(),
    hears: impl Fn(&[u8]),
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else {
            return Ok(());
        };
        said();
        // Before it is written: one that is cut off in the middle has no end.
        hears(piece);
        to.write_all(piece).await?;
        to.flush().await?;
        said();
    }
}

/// Waits until nothing was said for that long.
async fn silence(last: &Mutex<Instant>, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        let until = *lock(last) + limit;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until).await;
    }
}
