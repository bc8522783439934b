//! One connection to the host, made when it is needed and kept.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use operator_api::Problem;
use rustls::pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::error::ClientError;
use crate::events::Events;
use crate::place::{Place, directory};
use crate::refused;

/// How long it may take to reach the host.
const REACH: Duration = Duration::from_secs(30);
/// How long an answer may take; what takes longer is followed.
const ANSWER: Duration = Duration::from_secs(180);
/// How long who is followed may say nothing: it says something every few seconds.
const SILENCE: Duration = Duration::from_secs(120);
/// Bytes of an answer.
const MOST: usize = 64 << 20;

/// A connection, or what it takes to have one.
#[derive(Debug)]
pub(crate) struct Connection {
    place: Place,
    pub(crate) runtime: Runtime,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    sender: SendRequest<Full<Bytes>>,
    /// Ends with the connection.
    task: JoinHandle<()>,
}

/// A command that is followed.
#[derive(Debug)]
pub(crate) struct Followed {
    body: Incoming,
    events: Events,
    ready: VecDeque<String>,
}

impl Connection {
    pub(crate) fn new(place: &Place) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { place: place.clone(), runtime, open: None })
    }

    /// The answer to a question.
    pub(crate) fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let request = self.request(method, path, Some(body))?;
        let bytes = self.answer(request)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Asks for something that is answered with nothing.
    pub(crate) fn tell(&mut self, method: Method, path: &str) -> Result<(), ClientError> {
        let request = self.request(method, path, None::<&()>)?;
        self.answer(request).map(drop)
    }

    /// The answer as it is.
    pub(crate) fn text(&mut self, path: &str) -> Result<Bytes, ClientError> {
        let request = self.request(Method::GET, path, None::<&()>)?;
        self.answer(request)
    }

    /// Begins a command that is followed.
    pub(crate) fn follow(
        &mut self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Followed, ClientError> {
        let mut request = self.request(method, path, Some(body))?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let body = self.response(request)?.into_body();
        Ok(Followed { body, events: Events::default(), ready: VecDeque::new() })
    }

    /// What it says next; `None` at its end.
    pub(crate) fn next(&mut self, followed: &mut Followed) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(data) = followed.ready.pop_front() {
                return Ok(Some(data));
            }
            let frame = self.runtime.block_on(timeout_of(SILENCE, followed.body.frame()))?;
            let Some(frame) = frame else { return Ok(None) };
            let Ok(bytes) = frame?.into_data() else { continue };
            let Followed { events, ready, .. } = followed;
            let taken = events.take(&bytes, |data| ready.push_back(data));
            taken.map_err(|_| ClientError::Malformed("an event is too long".to_owned()))?;
        }
    }

    /// Waits until the other end is gone.
    pub(crate) fn wait_for_end(self) {
        if let Some(Open { sender, task }) = self.open {
            // However it ends, it has.
            let _ = self.runtime.block_on(task);
            drop(sender);
        }
    }

    /// A request with a body of JSON, if any.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let reads = method == Method::GET;
        let (host, token) = match &self.place {
            Place::Local(_) => ("localhost".to_owned(), None),
            Place::Remote(remote) => (remote.authority(), remote.token.as_ref()),
        };
        let mut request = Request::builder().method(method).uri(path).header(HOST, host);
        if let Some(token) = token {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| ClientError::Settings("a token is one line of letters".to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let body = match body.filter(|_| !reads) {
            None => Bytes::new(),
            Some(body) => {
                request = request.header(CONTENT_TYPE, "application/json");
                serde_json::to_vec(body)?.into()
            }
        };
        let request = request.body(Full::new(body));
        request.map_err(|error| ClientError::Settings(error.to_string()))
    }

    /// Sends a request, and has the bytes of its answer.
    fn answer(&mut self, request: Request<Full<Bytes>>) -> Result<Bytes, ClientError> {
        let response = self.response(request)?;
        self.runtime.block_on(bytes(response))
    }

    /// Sends a request; what is refused is an error.
    pub(crate) fn response(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, ClientError> {
        let Self { place, runtime, open } = self;
        runtime.block_on(async {
            let sender = opened(place, open).await?;
            let response = timeout_of(ANSWER, sender.send_request(request)).await??;
            let status = response.status();
            if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(response);
            }
            let body = bytes(response).await?;
            let problem: Problem = serde_json::from_slice(&body)
                .map_err(|_| ClientError::Malformed(format!("status {status}")))?;
            Err(refused(problem))
        })
    }
}

async fn timeout_of<T>(limit: Duration, what: impl Future<Output = T>) -> Result<T, ClientError> {
    timeout(limit, what).await.map_err(|_| ClientError::Silent(limit.as_secs()))
}

async fn bytes(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let body = Limited::new(response.into_body(), MOST).collect();
    match timeout_of(ANSWER, body).await? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<hyper::Error>() => Err(ClientError::Ended),
        Err(error) => Err(ClientError::Malformed(error.to_string())),
    }
}

/// The connection that is open, or a new one.
async fn opened<'a>(
    place: &Place,
    open: &'a mut Option<Open>,
) -> Result<&'a mut SendRequest<Full<Bytes>>, ClientError> {
    // The host closes one that was not used for long.
    let usable = match open {
        Some(Open { sender, .. }) => sender.ready().await.is_ok(),
        None => false,
    };
    if !usable {
        *open = None;
    }
    match open {
        Some(Open { sender, .. }) => Ok(sender),
        None => {
            let made = timeout_of(REACH, connect(place)).await??;
            let Open { sender, .. } = open.insert(made);
            sender.ready().await?;
            Ok(sender)
        }
    }
}

async fn connect(place: &Place) -> Result<Open, ClientError> {
    let unreachable = |source| ClientError::Unreachable { place: place.name(), source };
    match place {
        Place::Local(socket) => {
            let stream = UnixStream::connect(socket).await;
            let stream = stream.map_err(|source| match source.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NoHost { path: directory(socket) }
                }
                _ => unreachable(source),
            })?;
            speak(stream).await
        }
        Place::Remote(remote) => {
            let name = ServerName::try_from(remote.host.clone());
            let name = name.map_err(|error| ClientError::Settings(error.to_string()))?;
            let stream = TcpStream::connect((remote.host.as_str(), remote.port)).await;
            let stream = stream.map_err(unreachable)?;
            // One that refuses is only slower.
            let _ = stream.set_nodelay(true);
            let tls = TlsConnector::from(Arc::clone(&remote.tls));
            speak(tls.connect(name, stream).await.map_err(unreachable)?).await
        }
    }
}

async fn speak<S>(stream: S) -> Result<Open, ClientError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    let task = tokio::spawn(async move {
        // Whoever waits for an answer learns of its end there.
        let _ = connection.with_upgrades().await;
    });
    Ok(Open { sender, task })
}
