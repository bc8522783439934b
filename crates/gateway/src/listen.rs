//! The sockets, and the thread that serves them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::{FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use crate::attach::Origin;
use crate::connection;
use crate::limits::Limits;
use crate::service::{Authority, Service};

/// Connections that the kernel keeps until they are taken.
const BACKLOG: i32 = 128;
/// Pause after a connection could not be taken, for want of descriptors.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// What serves connections.
#[derive(Clone)]
pub struct Gateway {
    pub(crate) authority: Arc<dyn Authority>,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) limits: Limits,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// The network side.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// Where to listen; port 0 for any.
    pub address: SocketAddr,
    /// Certificate and key, of [`tls`](crate::tls).
    pub tls: Arc<rustls::ServerConfig>,
}

/// Where a gateway listens, and its bounds.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Path of the local socket and its file mode, which decides who may
    /// connect.
    pub unix: Option<(PathBuf, u32)>,
    /// The network side.
    pub tcp: Option<Tcp>,
    /// Bounds.
    pub limits: Limits,
}

/// Why a gateway does not start. The operator is to blame.
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
    #[error("cannot start the gateway: {0}")]
    Thread(#[from] io::Error),
}

impl Gateway {
    /// A gateway to `service`, for the users of `authority`.
    pub fn new(authority: Arc<dyn Authority>, service: Arc<dyn Service>, limits: Limits) -> Self {
        Self { authority, service, limits }
    }

    /// Serves a local socket, for ever.
    pub async fn serve_unix(&self, listener: UnixListener) {
        let own = rustix::process::geteuid().as_raw();
        let places = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    complain(&error).await;
                    continue;
                }
            };
            // One too many is closed; it may try again.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let Ok(peer) = stream.peer_cred() else { continue };
            let gateway = self.clone();
            let origin = Origin::Local { uid: peer.uid(), own };
            tokio::spawn(async move {
                connection::serve(&gateway, stream, origin).await;
                drop(place);
            });
        }
    }

    /// Serves a network socket with TLS, for ever.
    pub async fn serve_tcp(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        let acceptor = TlsAcceptor::from(tls);
        let places = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    complain(&error).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let (gateway, acceptor) = (self.clone(), acceptor.clone());
            tokio::spawn(async move {
                // Small records are answers somebody waits for. A socket that
                // refuses is only slower.
                let _ = stream.set_nodelay(true);
                let handshake = acceptor.accept(stream);
                if let Ok(Ok(stream)) = timeout(gateway.limits.handshake, handshake).await {
                    connection::serve(&gateway, stream, Origin::Network).await;
                }
                drop(place);
            });
        }
    }
}

async fn complain(error: &io::Error) {
    tracing::warn!(%error, "a connection could not be taken");
    sleep(PAUSE).await;
}

/// A gateway on a thread of its own. Dropped, it ends, and its conversations
/// with it.
#[derive(Debug)]
pub struct Running {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    address: Option<SocketAddr>,
    socket: Option<PathBuf>,
}

impl Running {
    /// Makes the sockets and starts to serve them.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind then.
    pub fn start(
        settings: Settings,
        authority: Arc<dyn Authority>,
        service: Arc<dyn Service>,
    ) -> Result<Self, StartError> {
        let Settings { unix, tcp, limits } = settings;
        let gateway = Gateway::new(authority, service, limits);
        let tcp = match tcp {
            Some(Tcp { address, tls }) => {
                let listener = StdTcpListener::bind(address)
                    .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
                    .map_err(|source| StartError::Tcp { address, source })?;
                Some((listener, tls))
            }
            None => None,
        };
        let address = tcp.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = unix.as_ref().map(|(path, _)| path.clone());
        let unix = match unix {
            Some((path, mode)) => {
                Some(listen_unix(&path, mode).map_err(|source| StartError::Unix { path, source })?)
            }
            None => None,
        };
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("gateway".into()).spawn(move || {
            runtime.block_on(async move {
                let unix = async {
                    match unix.map(UnixListener::from_std) {
                        Some(Ok(listener)) => gateway.serve_unix(listener).await,
                        Some(Err(error)) => complain(&error).await,
                        None => {}
                    }
                    std::future::pending::<()>().await;
                };
                let tcp = async {
                    match tcp.map(|(listener, tls)| (TcpListener::from_std(listener), tls)) {
                        Some((Ok(listener), tls)) => gateway.serve_tcp(listener, tls).await,
                        Some((Err(error), _)) => complain(&error).await,
                        None => {}
                    }
                    std::future::pending::<()>().await;
                };
                // The sender that is dropped stops it as well.
                tokio::select! {
                    _ = stopped => {}
                    () = unix => {}
                    () = tcp => {}
                }
            });
            // Blocking work of an authority or a service is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread), address, socket })
    }

    /// Where the network side listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it happened.
            let _ = thread.join();
        }
        if let Some(socket) = &self.socket {
            // If it is gone already, so much the better.
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// A socket that nobody can connect to before its mode is set. A socket left
/// over at `path` is replaced.
fn listen_unix(path: &Path, mode: u32) -> io::Result<StdUnixListener> {
    match rustix::fs::lstat(path) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Socket => {
            std::fs::remove_file(path)?;
        }
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdUnixListener::from(socket))
}
