//! The listeners, and the threads that serve them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdTcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use identity::ClientCertificate;
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::access::{Access, Gate};
use crate::operator::Operator;
use crate::problem::Problem;
use crate::routes::router;
use crate::socket::{Impatient, STALL, listen_unix, serve};
use crate::station::Station;
use crate::terminal::Terminals;

/// For the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a connection could not be taken, for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Threads that serve; what may block has others.
const THREADS: usize = 2;
/// Questions and operations that the host is at, at once.
const QUESTIONS: usize = 16;
/// Threads for what may block.
const BLOCKING: usize = 64;

/// The network side.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// Where to listen; port 0 for any.
    pub address: SocketAddr,
    /// Certificate and key.
    pub tls: Arc<rustls::ServerConfig>,
}

/// Where the station listens, and its bounds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Path of the local socket.
    pub socket: PathBuf,
    /// The network side.
    pub tcp: Option<Tcp>,
    /// Names of this host that browsers and clients may use, beside its
    /// addresses.
    pub names: Vec<String>,
    /// The file of API tokens.
    pub tokens: PathBuf,
    /// The file of clients that show certificates, if any are let in.
    pub clients: Option<PathBuf>,
    /// Connections at once, for each listener.
    pub connections: usize,
    /// Event streams at once.
    pub streams: usize,
    /// How long a client may take none of what it is sent.
    pub stall: Duration,
    /// The keys that verify what this host's machines say of themselves (RFC 7517),
    /// as JSON: whoever asks gets them.
    pub jwks: String,
}

impl Settings {
    /// A station on this socket only.
    #[must_use]
    pub fn local(socket: PathBuf, tokens: PathBuf) -> Self {
        Self {
            socket,
            tcp: None,
            names: Vec::new(),
            tokens,
            clients: None,
            connections: 2048,
            streams: 1500,
            stall: STALL,
            jwks: "{\"keys\":[]}".to_owned(),
        }
    }
}

/// Why the station does not start. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The local socket cannot be made.
    #[error("cannot make the socket {path}: {source}")]
    Unix {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The network address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no thread for it.
    #[error("cannot start the operator's station: {0}")]
    Thread(#[from] io::Error),
}

/// What routes have in common.
pub(crate) struct App {
    pub(crate) station: Arc<Station>,
    pub(crate) operator: Arc<dyn Operator>,
    pub(crate) gate: Gate,
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) questions: Semaphore,
    pub(crate) terminals: Terminals,
    pub(crate) names: Vec<String>,
    connections: usize,
    stall: Duration,
    /// Whether the network side has it.
    pub(crate) has_tls: bool,
    pub(crate) jwks: axum::body::Bytes,
    /// Where browsers on this host come in, once somebody has asked.
    door: Mutex<Option<SocketAddr>>,
}

impl App {
    pub(crate) fn no_partition(&self, name: &str) -> Problem {
        let snapshot = self.station.snapshot();
        let names = snapshot.state().host.partitions.iter().map(|one| one.name.as_str());
        let mut names: Vec<_> = names.collect();
        names.sort_unstable();
        let known = names.join(", ");
        let known = if known.is_empty() { "none" } else { &known };
        Problem::not_found(format!("there is no partition {name:?}; there are: {known}"))
    }

    pub(crate) fn no_pool(&self, name: &str) -> Problem {
        Problem::not_found(format!("there is no pool {name:?}; /v1/pools lists all there are"))
    }

    /// The port of the loopback where browsers on this host come in: they cannot
    /// open the local socket. It is listened on from the first time on.
    pub(crate) fn door(self: &Arc<Self>) -> Result<SocketAddr, String> {
        let mut door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(address) = *door {
            return Ok(address);
        }
        let fail = |error: io::Error| format!("cannot listen on the loopback: {error}");
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into()).map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let listener = TcpListener::from_std(listener).map_err(fail)?;
        tokio::spawn(serve_tcp(Arc::clone(self), listener, None));
        tracing::info!(%address, "browsers on this host are let in by link");
        Ok(*door.insert(address))
    }

    /// Whether that is where browsers on this host come in.
    pub(crate) fn is_door(&self, host: &str) -> bool {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner);
        door.is_some_and(|address| host == address.to_string())
    }

    /// Whether there is such a partition; asks the host if none was heard of.
    pub(crate) async fn check_partition(self: &Arc<Self>, name: &str) -> Result<(), Problem> {
        let known = |app: &Self| {
            let snapshot = app.station.snapshot();
            snapshot.state().host.partitions.iter().any(|one| one.name == name)
        };
        if known(self) {
            return Ok(());
        }
        let operator = Arc::clone(&self.operator);
        // Whether or not it could, what there is then is what there is.
        let _ = tokio::task::spawn_blocking(move || operator.refresh()).await;
        if known(self) { Ok(()) } else { Err(self.no_partition(name)) }
    }

    pub(crate) fn check_pool(&self, name: &str) -> Result<(), Problem> {
        let snapshot = self.station.snapshot();
        let known = snapshot.state().pools.iter().any(|one| one.name == name);
        if known { Ok(()) } else { Err(self.no_pool(name)) }
    }
}

/// A station on threads of its own. Dropped, it ends, and its connections with
/// it.
pub struct Running {
    runtime: Option<Runtime>,
    address: Option<SocketAddr>,
    socket: PathBuf,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Running {
    /// Makes the sockets and starts to serve them.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start(
        settings: Settings,
        station: Arc<Station>,
        operator: Arc<dyn Operator>,
    ) -> Result<Self, StartError> {
        let Settings { socket, tcp, names, tokens, clients, connections, streams, stall, jwks } =
            settings;
        let tcp = match tcp {
            None => None,
            Some(Tcp { address, tls }) => {
                let fail = |source| StartError::Tcp { address, source };
                Some((bind(address).map_err(fail)?, tls))
            }
        };
        let address = tcp.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING)
            .thread_name("api")
            .enable_all()
            .build()?;
        let fail = |source| StartError::Unix { path: socket.clone(), source };
        let unix = listen_unix(&socket).map_err(fail)?;
        let app = Arc::new(App {
            station,
            operator,
            gate: Gate::new(tokens, clients),
            streams: Arc::new(Semaphore::new(streams)),
            questions: Semaphore::new(QUESTIONS),
            terminals: Terminals::default(),
            names,
            connections,
            stall,
            has_tls: tcp.is_some(),
            jwks: jwks.into(),
            door: Mutex::default(),
        });
        let entered = runtime.enter();
        let unix = UnixListener::from_std(unix).map_err(fail)?;
        runtime.spawn(serve_unix(Arc::clone(&app), unix));
        if let Some((listener, tls)) = tcp {
            let listener = TcpListener::from_std(listener)?;
            runtime.spawn(serve_tcp(Arc::clone(&app), listener, Some(TlsAcceptor::from(tls))));
        }
        drop(entered);
        Ok(Self { runtime: Some(runtime), address, socket })
    }

    /// Where the network side listens.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Ends, but leaves connections open: whoever has one learns by its end that
    /// the process has ended.
    pub fn leave(mut self) {
        let _ = std::fs::remove_file(&self.socket);
        std::mem::forget(self.runtime.take());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // What the host is at is not waited for.
            runtime.shutdown_background();
        }
        // If it is gone already, so much the better.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn bind(address: SocketAddr) -> io::Result<StdTcpListener> {
    let listener = StdTcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A place for one more connection; one too many is closed and may try again.
fn place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(places).try_acquire_owned().ok()
}

async fn serve_unix(app: Arc<App>, listener: UnixListener) {
    let router = router(&app);
    let places = Arc::new(Semaphore::new(app.connections));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                complain(&error).await;
                continue;
            }
        };
        let Some(place) = place(&places) else { continue };
        let (router, stall) = (router.clone(), app.stall);
        tokio::spawn(async move {
            serve(Impatient::new(stream, stall), router, Access::Local).await;
            drop(place);
        });
    }
}

async fn serve_tcp(app: Arc<App>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    let router = router(&app);
    let places = Arc::new(Semaphore::new(app.connections));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                complain(&error).await;
                continue;
            }
        };
        let Some(place) = place(&places) else { continue };
        // A socket that refuses is only slower.
        let _ = stream.set_nodelay(true);
        let stream = Impatient::new(stream, app.stall);
        let (router, tls) = (router.clone(), tls.clone());
        tokio::spawn(async move {
            match tls {
                None => serve(stream, router, Access::Token).await,
                Some(tls) => {
                    if let Ok(Ok(stream)) = timeout(HANDSHAKE, tls.accept(stream)).await {
                        let access = shown(stream.get_ref().1);
                        serve(stream, router, access).await;
                    }
                }
            }
            drop(place);
        });
    }
}

/// How whoever is at the other end proves who he is.
fn shown(connection: &rustls::ServerConnection) -> Access {
    let first = connection.peer_certificates().and_then(|chain| chain.first());
    match first.and_then(|certificate| ClientCertificate::read(certificate)) {
        Some(certificate) => Access::Certificate(Arc::new(certificate)),
        None => Access::Token,
    }
}

async fn complain(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be taken");
    sleep(PAUSE).await;
}
