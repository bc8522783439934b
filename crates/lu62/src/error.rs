//! Why a call did not do what it should.

use std::io;
use std::path::PathBuf;

use conversation::ReturnCode;
use conversation::half_session::VerbError;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the fields are what the messages say")]
pub enum ConnectError {
    /// The local socket.
    #[error("cannot connect to {path}: {source}")]
    Socket { path: PathBuf, source: io::Error },
    /// The network host, or its certificate.
    #[error("cannot connect to {address}: {source}")]
    Host { address: String, source: io::Error },
    /// An address that is none.
    #[error("{address} is not NAME:PORT")]
    Name { address: String },
    /// The file of trusted certificates cannot be read.
    #[error("cannot read {path}: {source}")]
    TrustFile { path: PathBuf, source: io::Error },
    /// It has none that could be trusted.
    #[error("{path} has no certificate in PEM form that could be trusted")]
    Trust { path: PathBuf },
    /// TLS itself.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The call was wrong, and nothing has changed: the caller is to blame.
    #[error(transparent)]
    Verb(#[from] VerbError),
    /// The partner's news, as CPI-C's return code.
    #[error("{} (CPI-C code {}){}", code.meaning(), code.number(), because(log))]
    Code {
        /// The code.
        code: ReturnCode,
        /// What the partner said besides; empty for nothing.
        log: String,
    },
    /// The partner did not answer in the time that was set.
    #[error("the partner did not answer in time")]
    Timeout,
}

fn because(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}

impl CallError {
    /// CPI-C's return code of the call.
    pub fn return_code(&self) -> ReturnCode {
        match self {
            Self::Connect(ConnectError::Socket { .. } | ConnectError::Host { .. }) => {
                ReturnCode::AllocateFailureRetry
            }
            Self::Connect(_) => ReturnCode::AllocateFailureNoRetry,
            Self::Verb(error) => error.return_code(),
            Self::Code { code, .. } => *code,
            Self::Timeout => ReturnCode::OperationIncomplete,
        }
    }
}
