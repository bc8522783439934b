//! Why a host gave no answer.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use operator_api::Problem;

/// Why the host gave no answer, or none that helps. The operator is to blame, or the
/// host.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the local socket.
    #[error(
        "no host runs on {path}; start one with `berth up`, or name its directory with --state-dir"
    )]
    NoHost {
        /// The state directory.
        path: PathBuf,
    },
    /// The host cannot be reached.
    #[error("the host {place} cannot be reached: {source}")]
    Unreachable {
        /// Its directory or address.
        place: String,
        /// Why.
        source: io::Error,
    },
    /// What is to be used to reach it cannot be.
    #[error("{0}")]
    Settings(String),
    /// There is no thread, or no memory, for the connection.
    #[error("the request cannot be sent: {0}")]
    System(#[from] io::Error),
    /// The connection ended without an answer.
    #[error("the host ended before it answered; look at its log")]
    Ended,
    /// The other end of TLS ended the connection, and said why.
    #[error(
        "the host ended the connection ({0}); show a certificate that an authority of \
         client_authorities in its [api] gave and that has not expired, or a token"
    )]
    TurnedAway(String),
    /// It takes longer than anything should.
    #[error("the host has said nothing for {0} s; look at its log")]
    Silent(u64),
    /// What it says is not understood.
    #[error("the host answered something else: {0}; is it of another version? restart it")]
    Malformed(String),
    /// The host refused, or could not do it.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
}

impl From<serde_json::Error> for ClientError {
    fn from(error: serde_json::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl From<hyper::Error> for ClientError {
    fn from(error: hyper::Error) -> Self {
        if error.is_parse() {
            return Self::Malformed(error.to_string());
        }
        alert(&error).map_or(Self::Ended, Self::TurnedAway)
    }
}

/// What the other end of TLS said when it ended the connection. It looks at a client's
/// certificate when the client thinks the connection made, so this comes late.
fn alert(error: &hyper::Error) -> Option<String> {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        match inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::AlertReceived(alert)) => return Some(format!("{alert:?}")),
            _ => cause = error.source(),
        }
    }
    None
}

impl ClientError {
    /// The problem, if it is one of this kind.
    #[must_use]
    pub fn problem(&self, kind: &str) -> Option<&Problem> {
        match self {
            Self::Refused(problem) if problem.kind.strip_prefix("urn:berth:") == Some(kind) => {
                Some(problem)
            }
            _ => None,
        }
    }
}
