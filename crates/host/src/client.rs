//! A client of the host: what the command line uses.

use std::io;
use std::os::unix::net::UnixStream;

use crate::control::{LineError, Lines, Reply, Request, send};
use crate::state_dir::{StateDir, StateDirError};

/// Why the host gave no answer. The operator is to blame, or the host.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// Nobody listens.
    #[error(
        "no host runs on {path}; start one with `berth up`, or name its directory with --state-dir"
    )]
    NoHost {
        /// The state directory.
        path: std::path::PathBuf,
    },
    /// The socket is somebody else's.
    #[error("the host on {path} cannot be reached: {source}")]
    Unreachable {
        /// The state directory.
        path: std::path::PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The request cannot be sent.
    #[error("the request cannot be sent: {0}")]
    Send(#[source] io::Error),
    /// The answer cannot be read.
    #[error(transparent)]
    Answer(#[from] LineError),
    /// The host ended without an answer.
    #[error("the host ended before it answered; look at its log")]
    HostEnded,
    /// The host refused.
    #[error("{0}")]
    Refused(String),
}

/// A connection with a request on its way.
#[derive(Debug)]
pub struct Client {
    lines: Lines<UnixStream>,
}

/// A connection that has become a session.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub stream: UnixStream,
    /// What was already read of it.
    pub read: Vec<u8>,
}

impl Client {
    /// Sends `request` to the host on `dir`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn request(dir: &StateDir, request: &Request) -> Result<Self, ClientError> {
        dir.check()?;
        let path = dir.path().to_owned();
        let mut stream =
            UnixStream::connect(dir.control_socket()).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NoHost { path }
                }
                _ => ClientError::Unreachable { path, source },
            })?;
        send(&mut stream, request).map_err(ClientError::Send)?;
        Ok(Self { lines: Lines::new(stream) })
    }

    /// Waits for the answer; `hear` gets notes and progress.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn answer(&mut self, mut hear: impl FnMut(&Reply)) -> Result<Reply, ClientError> {
        loop {
            match self.lines.receive::<Reply>()? {
                None => return Err(ClientError::HostEnded),
                Some(note @ (Reply::Note { .. } | Reply::Copying { .. } | Reply::Plan(_))) => {
                    hear(&note);
                }
                Some(Reply::Refused { message }) => return Err(ClientError::Refused(message)),
                Some(reply) => return Ok(reply),
            }
        }
    }

    /// Another handle of the connection, by which the client can say that it
    /// waits for no more than what is in hand ([`UnixStream::shutdown`]).
    ///
    /// # Errors
    /// When there are no more file descriptors.
    pub fn connection(&self) -> io::Result<UnixStream> {
        self.lines.stream().try_clone()
    }

    /// Waits until the host has gone.
    pub fn wait_for_end(self) {
        let (mut stream, _) = self.lines.into_rest();
        // Whatever ends the connection ends the waiting.
        let _ = io::copy(&mut stream, &mut io::sink());
    }

    /// The connection, once [`Reply::Attached`] has come.
    #[must_use]
    pub fn into_session(self) -> Session {
        let (stream, read) = self.lines.into_rest();
        Session { stream, read }
    }
}
