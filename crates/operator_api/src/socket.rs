//! Connections, and the bounds they live in.

use std::io;
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::fs::{FileType, Mode};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::time::{Sleep, sleep};

use crate::access::Access;
use crate::operator::WayIn;

/// For the head of a request, also from the answer to the one before.
const HEAD: Duration = Duration::from_secs(30);
/// Bytes of a request's head.
const MAX_HEAD: usize = 32 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// How long a client may take none of what it is sent.
pub(crate) const STALL: Duration = Duration::from_secs(20);
/// Connections that the kernel keeps until they are taken.
const BACKLOG: i32 = 1024;

/// The interface, as one connection reaches it.
struct Reached {
    router: TowerToHyperService<Router>,
    access: Access,
}

impl Service<Request<Incoming>> for Reached {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.access.clone());
        self.router.call(request)
    }
}

/// Serves one connection until it ends.
pub(crate) async fn serve<S>(stream: S, router: Router, access: Access)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .half_close(false);
    let service = Reached { router: TowerToHyperService::new(router), access };
    // Whoever breaks off, or sends what is no HTTP, is told so by the end of
    // the connection.
    let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of the interface ended");
    }
}

/// Joins a connection that has become a guest's to the guest. One of the local
/// socket is given away as it is; what comes by the network is copied.
pub(crate) async fn join(upgraded: Upgraded, way_in: WayIn) {
    let joined = match upgraded.downcast::<TokioIo<Impatient<UnixStream>>>() {
        Ok(parts) => give(parts.io.into_inner().stream, &parts.read_buf, way_in).await,
        Err(upgraded) => copy(upgraded, way_in).await,
    };
    if let Err(error) = joined {
        tracing::debug!(%error, "a connection that was a guest's ended");
    }
}

async fn give(stream: UnixStream, early: &[u8], way_in: WayIn) -> io::Result<()> {
    if !early.is_empty() {
        return Err(io::Error::other("its client did not wait for its answer"));
    }
    let stream = stream.into_std()?;
    stream.set_nonblocking(false)?;
    tokio::task::spawn_blocking(move || way_in(stream)).await?
}

async fn copy(upgraded: Upgraded, way_in: WayIn) -> io::Result<()> {
    let (ours, guests) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    tokio::task::spawn_blocking(move || way_in(guests)).await??;
    let mut ours = UnixStream::from_std(ours)?;
    tokio::io::copy_bidirectional(&mut TokioIo::new(upgraded), &mut ours).await.map(drop)
}

/// A stream that fails when its peer takes nothing for too long.
pub(crate) struct Impatient<S> {
    stream: S,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Impatient<S> {
    pub(crate) fn new(stream: S, patience: Duration) -> Self {
        Self { stream, patience, stalled: None }
    }

    fn judge<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(context, polled)
    }
}

/// A socket for its owner only, which nobody can connect to before that holds.
/// A socket left over at `path` is replaced.
pub(crate) fn listen_unix(path: &Path) -> io::Result<StdUnixListener> {
    match rustix::fs::lstat(path) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Socket => {
            std::fs::remove_file(path)?;
        }
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::fs::chmod(path, Mode::from_raw_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdUnixListener::from(socket))
}
