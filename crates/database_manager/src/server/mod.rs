//! The broker's side of the server: it connects as the roles of the table, with
//! passwords that nobody else has.

mod address;
mod credentials;
mod handshake;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use identity::FileError;
use postgres_protocol::message::frontend;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::protocol::{CancelKey, Refusal};
use crate::table::Login;
pub use address::{Address, AddressError};
pub(crate) use handshake::Opened;
#[cfg(feature = "test-utils")]
pub(crate) use handshake::exercise_handshake;
pub(crate) use stream::Stream;

/// How long the server may take to let somebody in.
const OPEN: Duration = Duration::from_secs(20);
/// How long a connection is used over which nothing was said: less than the least
/// `authentication_timeout` that anybody sets.
const WAITS: Duration = Duration::from_secs(5);
/// How long it may take to hear that something is to be cancelled.
const CANCEL: Duration = Duration::from_secs(2);

/// Which server it is, and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerSpec {
    /// Where it listens.
    pub address: Address,
    /// A file of certificates (PEM) of those who vouch for the server: TLS is
    /// spoken with it then, and nothing else.
    pub authority: Option<PathBuf>,
    /// A file with the roles' passwords, in the form of `.pgpass`, private to its
    /// owner. It is read for each connection.
    pub credentials: Option<PathBuf>,
}

/// The server cannot be used as it is declared. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The file of certificates cannot be used.
    #[error("{} has no certificate in PEM form that can be used: {why}", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// TLS cannot be spoken.
    #[error("TLS cannot be spoken: {0}")]
    Tls(#[from] rustls::Error),
    /// What is said to the server could be read on its way.
    #[error(
        "the server {0} is not on this host; name a certificate in `authority`, so that TLS is \
         spoken with it"
    )]
    Open(Address),
}

/// There is no connection. The message is for the log: it says more than a guest
/// has to know.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("the database server {address} cannot be reached")]
    Unreachable { address: Address, source: io::Error },
    #[error("the database server did not answer within {} s", OPEN.as_secs())]
    Late,
    #[error("the database server {0}")]
    Protocol(&'static str),
    #[error("the database server refused: {message} ({code})")]
    Refused { code: String, message: String },
    #[error("the role {role} {why}; a guest could become another by it")]
    Unsafe { role: String, why: String },
    #[error(transparent)]
    Credentials(#[from] FileError),
    #[error("the file of credentials has no password for the role {role}")]
    NoPassword { role: String },
    #[error("the connection to the database server broke")]
    Broken(#[from] io::Error),
}

impl OpenError {
    /// Whether the server has as many connections as it takes, of all or of the role.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "53300")
    }

    /// What the guest is told.
    pub(crate) fn refusal(&self) -> Refusal {
        let by_host = |what: &str| {
            Refusal::new("28000", what.to_owned())
                .hint("The host's operator has to look at the log of its database manager.")
        };
        match self {
            Self::Unreachable { .. } | Self::Late | Self::Broken(_) | Self::Protocol(_) => {
                let text = "the database server cannot be used just now".to_owned();
                Refusal::new("57P03", text).hint("Try again later.")
            }
            // Who may log in how is the operator's business; all else is the user's.
            Self::Refused { code, .. } if code.starts_with("28") => {
                by_host("the database server does not let this login in")
            }
            Self::Refused { code, message } => Refusal::new(known(code), message.clone()),
            Self::Unsafe { .. } => by_host("this login would be more than one role"),
            Self::Credentials(_) | Self::NoPassword { .. } => {
                by_host("the host has no password for this login")
            }
        }
    }
}

/// Codes that clients act on, of those a server refuses with.
fn known(code: &str) -> &'static str {
    const KNOWN: [&str; 7] = ["3D000", "42501", "53300", "55000", "57P01", "57P02", "57P03"];
    KNOWN.into_iter().find(|known| *known == code).unwrap_or("08004")
}

/// See [`Server::dial`].
pub(crate) struct Dialled {
    stream: Stream,
    since: Instant,
}

/// A server that can be connected to.
pub(crate) struct Server {
    spec: ServerSpec,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Server {
    pub(crate) fn new(spec: ServerSpec) -> Result<Self, ServerError> {
        let tls = spec.authority.as_deref().map(trusting).transpose()?;
        if tls.is_none() && !spec.address.is_local() {
            return Err(ServerError::Open(spec.address));
        }
        Ok(Self { spec, tls })
    }

    /// A connection over which nobody has logged in yet: the server makes room for
    /// it meanwhile.
    pub(crate) async fn dial(&self) -> Result<Dialled, OpenError> {
        let stream = timeout(OPEN, self.connect()).await.unwrap_or(Err(OpenError::Late))?;
        Ok(Dialled { stream, since: Instant::now() })
    }

    /// A connection as the login's role that a guest may have: the role is one that
    /// can become no other, as is looked at each time. What was dialled before is
    /// used if the server waits at it still.
    pub(crate) async fn open(
        &self,
        login: &Login,
        parameters: &[(String, String)],
        dialled: Option<Dialled>,
    ) -> Result<Opened, OpenError> {
        let opened = async {
            let password = self.password(login)?;
            let waits = dialled.filter(|dialled| dialled.since.elapsed() < WAITS);
            let mut stream = match waits {
                Some(Dialled { stream, .. }) => stream,
                None => self.connect().await?,
            };
            let password = password.as_deref();
            let entered =
                handshake::enter_and_look(&mut stream, login, parameters, password).await?;
            Ok(Opened { stream, key: entered.key, settings: entered.settings })
        };
        timeout(OPEN, opened).await.unwrap_or(Err(OpenError::Late))
    }

    /// Whether a connection that was opened a while ago is as good as one that would be
    /// opened now; it is given the (plain) name of an application.
    pub(crate) async fn is_still_good(
        &self,
        opened: &mut Opened,
        application: Option<&str>,
    ) -> bool {
        let looked = timeout(OPEN, handshake::is_still_good(opened, application)).await;
        matches!(looked, Ok(Ok(true)))
    }

    /// Asks for an end of what runs in another connection. Whether anything does
    /// cannot be known.
    pub(crate) async fn cancel(&self, key: CancelKey) {
        let asked = async {
            let mut stream = self.connect().await?;
            let mut request = BytesMut::new();
            let (process, secret) = (signed(key.process), signed(key.secret));
            frontend::cancel_request(process, secret, &mut request);
            stream.write_all(&request).await?;
            stream.flush().await?;
            // It says nothing, and closes when it has heard.
            stream.read_u8().await.map(drop).or(Ok::<_, OpenError>(()))
        };
        if let Ok(Err(error)) = timeout(CANCEL, asked).await {
            tracing::debug!(%error, "what runs could not be cancelled");
        }
    }

    /// Ends another connection of the same role by force.
    pub(crate) async fn terminate(&self, login: &Login, process: u32) -> Result<(), OpenError> {
        let Opened { mut stream, .. } = self.open(login, &[], None).await?;
        let query = format!("SELECT pg_catalog.pg_terminate_backend({})", signed(process));
        let ended = handshake::ask(&mut stream, &query);
        timeout(OPEN, ended).await.unwrap_or(Err(OpenError::Late)).map(drop)
    }

    fn password(&self, login: &Login) -> Result<Option<String>, OpenError> {
        let Some(file) = &self.spec.credentials else { return Ok(None) };
        Ok(credentials::password(file, &self.spec.address, login)?)
    }

    async fn connect(&self) -> Result<Stream, OpenError> {
        let unreachable = |source| {
            let address = self.spec.address.clone();
            OpenError::Unreachable { address, source }
        };
        let stream = match &self.tls {
            None => stream::plain(&self.spec.address).await,
            Some(tls) => stream::encrypted(&self.spec.address, Arc::clone(tls)).await,
        };
        stream.map_err(unreachable)
    }
}

/// The same bits: PostgreSQL's numbers of processes have a sign.
fn signed(number: u32) -> i32 {
    i32::from_ne_bytes(number.to_ne_bytes())
}

/// A configuration of TLS that trusts those of this file and nobody else.
fn trusting(path: &Path) -> Result<Arc<rustls::ClientConfig>, ServerError> {
    let wrong = |why: String| ServerError::Authority { path: path.to_owned(), why };
    let text = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(wrong("there is none in it".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// There is nothing to measure: the server lets nobody in.
#[derive(Debug, thiserror::Error)]
#[error("no connection to {address}: {why}")]
pub struct MeasureError {
    /// The server.
    pub address: Address,
    /// Why not.
    pub why: String,
}

/// How long the server itself takes to let a login in: what a broker does besides is
/// measured against it.
///
/// # Errors
/// [`MeasureError`].
pub fn time_of_login(spec: &ServerSpec, login: &Login) -> Result<Duration, MeasureError> {
    let failed = |error: &dyn std::error::Error| MeasureError {
        address: spec.address.clone(),
        why: error.to_string(),
    };
    let server = Server::new(spec.clone()).map_err(|error| failed(&error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| failed(&error))?.block_on(async {
        let entered = async {
            let password = server.password(login)?;
            let started = Instant::now();
            let mut stream = server.connect().await?;
            handshake::enter(&mut stream, login, password.as_deref()).await?;
            let took = started.elapsed();
            stream.shutdown().await?;
            Ok(took)
        };
        let entered = timeout(OPEN, entered).await.unwrap_or(Err(OpenError::Late));
        entered.map_err(|error| failed(&error))
    })
}
