//! Who asks, and what they may do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use identity::{ApiClients, ApiTokenError, ApiTokens, ClientCertificate, NotGood, Role};

use crate::problem::Problem;
use crate::server::App;
use crate::station::now;

/// How long the file of tokens is believed before it is looked at again.
const BELIEVED: Duration = Duration::from_secs(1);
/// How long a browser has to follow its link.
const LINK: Duration = Duration::from_secs(120);
/// How long a browser stays let in.
const SESSION: Duration = Duration::from_secs(12 * 3600);

/// How a connection's requests prove who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever may open the local socket is the administrator.
    Local,
    /// By a bearer token.
    Token,
    /// By this certificate, which one of the authorities gave; or by a token.
    Certificate(Arc<ClientCertificate>),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The token's id, whose the certificate is, or `local`.
    pub(crate) id: String,
    pub(crate) role: Role,
    /// To see whether it is still good.
    proof: Proof,
}

impl Principal {
    /// Whether it came by the local socket.
    pub(crate) fn is_local(&self) -> bool {
        self.proof == Proof::Local
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    Local,
    Token(Arc<str>),
    Certificate(Arc<ClientCertificate>),
}

/// The tokens and certificates that are good: those of the files, and those of
/// browsers that followed a link, which end with the host.
#[derive(Debug)]
pub(crate) struct Gate {
    tokens: Believed<ApiTokens>,
    clients: Option<Believed<ApiClients>>,
    /// Held while the file of tokens is changed.
    changing: Mutex<()>,
    links: Mutex<ApiTokens>,
    sessions: Mutex<ApiTokens>,
}

/// A file that is read anew when that is some time ago.
#[derive(Debug)]
struct Believed<T> {
    path: PathBuf,
    read: Mutex<Read<T>>,
}

#[derive(Debug, Default)]
struct Read<T> {
    content: Arc<T>,
    at: Option<Instant>,
}

impl<T: Default + Send + Sync + 'static> Believed<T> {
    fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::default() }
    }

    /// What the file says; nothing if it cannot be read.
    async fn content<E: std::error::Error + Send + 'static>(
        &self,
        load: impl FnOnce(&Path) -> Result<T, E> + Send + 'static,
    ) -> Arc<T> {
        {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            if read.at.is_some_and(|at| at.elapsed() < BELIEVED) {
                return Arc::clone(&read.content);
            }
            // Whoever asks meanwhile need not read it too, but the first time
            // somebody has to.
            if read.at.is_some() {
                read.at = Some(Instant::now());
            }
        }
        let path = self.path.clone();
        let content = match tokio::task::spawn_blocking(move || load(&path)).await {
            Ok(Ok(content)) => content,
            Ok(Err(error)) => {
                tracing::error!(%error, "nobody is let in by {}", self.path.display());
                T::default()
            }
            Err(_) => T::default(),
        };
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        *read = Read { content: Arc::new(content), at: Some(Instant::now()) };
        Arc::clone(&read.content)
    }
}

fn seconds() -> u64 {
    now() / 1000
}

impl Gate {
    pub(crate) fn new(tokens: PathBuf, clients: Option<PathBuf>) -> Self {
        let (links, sessions) = (Mutex::default(), Mutex::default());
        let (tokens, clients) = (Believed::new(tokens), clients.map(Believed::new));
        Self { tokens, clients, changing: Mutex::default(), links, sessions }
    }

    /// What the bearer of a certificate may do, if anything.
    async fn role_of(&self, certificate: &ClientCertificate) -> Option<Role> {
        let clients = self.clients.as_ref()?.content(ApiClients::load).await;
        // A connection can outlive it.
        certificate.is_good_at(seconds()).then(|| clients.role(certificate))?
    }

    async fn check(&self, text: &str) -> Result<(String, Role), NotGood> {
        let good = |tokens: &ApiTokens| {
            tokens.check(text, seconds()).map(|token| (token.id.clone(), token.role))
        };
        let session = good(&self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        match session {
            Err(NotGood::Unknown) => good(&*self.tokens.content(ApiTokens::load).await),
            other => other,
        }
    }

    /// Whether somebody who was let in still would be.
    pub(crate) async fn still(&self, principal: &Principal) -> bool {
        match &principal.proof {
            Proof::Local => true,
            Proof::Token(token) => self.check(token).await.is_ok(),
            Proof::Certificate(certificate) => {
                self.role_of(certificate).await.is_some_and(|role| role >= principal.role)
            }
        }
    }

    /// Does something about the file of tokens, and keeps what came of it. One at
    /// a time.
    pub(crate) fn change_tokens<T>(
        &self,
        act: impl FnOnce(&mut ApiTokens, u64) -> Result<T, ApiTokenError>,
    ) -> Result<T, ApiTokenError> {
        let _turn = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let path = &self.tokens.path;
        let mut tokens = ApiTokens::load(path)?;
        let before = tokens.clone();
        let done = act(&mut tokens, seconds())?;
        if tokens != before {
            tokens.save(path)?;
            // It counts at once.
            self.tokens.read.lock().unwrap_or_else(PoisonError::into_inner).at = None;
        }
        Ok(done)
    }

    /// A secret that lets one browser in, once and soon.
    pub(crate) fn link(&self, role: Role) -> Result<String, String> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.make(role, LINK, "", seconds()).map_err(|error| error.to_string())
    }

    /// What a link is exchanged for: a token, its role, and until when it is
    /// good.
    pub(crate) fn follow(&self, link: &str) -> Result<(String, Role, u64), Problem> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let now = seconds();
        let found = links.check(link, now).map(|one| (one.id.clone(), one.role));
        let (id, role) = found.map_err(|_| {
            let what = "this link was used already or is too old; `berth open` makes a new one";
            Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", what)
        })?;
        // Once only; it was there a moment ago.
        let _ = links.revoke(&id);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let token = sessions.make(role, SESSION, "", now);
        let token = token.map_err(|error| Problem::too_many(error.to_string()))?;
        Ok((token, role, now + SESSION.as_secs()))
    }
}

/// The text of a bearer token (RFC 6750).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Finds out who asks; nobody else goes on from here.
pub(crate) async fn authenticate(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let access = request.extensions().get::<Access>().cloned().unwrap_or(Access::Token);
    let principal = match access {
        Access::Local => {
            Ok(Principal { id: "local".into(), role: Role::Administrator, proof: Proof::Local })
        }
        // Who shows a token is who that says.
        Access::Certificate(certificate) if bearer(request.headers()).is_none() => {
            by_certificate(&app.gate, certificate).await
        }
        Access::Token | Access::Certificate(_) => identify(&app.gate, request.headers()).await,
    };
    let principal = match principal {
        Ok(principal) => principal,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(principal);
    next.run(request).await
}

async fn identify(gate: &Gate, headers: &HeaderMap) -> Result<Principal, Problem> {
    let refused = |what: String| Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", what);
    let text = bearer(headers).ok_or_else(|| {
        refused("send a token as `Authorization: Bearer ...`; `berth api token` makes one".into())
    })?;
    let (id, role) = gate
        .check(text)
        .await
        .map_err(|error| refused(format!("{error}; `berth api token` makes a new one")))?;
    Ok(Principal { id, role, proof: Proof::Token(text.into()) })
}

async fn by_certificate(
    gate: &Gate,
    certificate: Arc<ClientCertificate>,
) -> Result<Principal, Problem> {
    let id = certificate.id();
    let role = gate.role_of(&certificate).await.ok_or_else(|| {
        let what = format!(
            "the {id} lets nobody in; write its common name or fingerprint into the file that \
             `clients` in [api] names, or send a token"
        );
        Problem::new(StatusCode::UNAUTHORIZED, "unauthenticated", what)
    })?;
    Ok(Principal { id, role, proof: Proof::Certificate(certificate) })
}

async fn need(least: Role, request: Request, next: Next) -> Response {
    match request.extensions().get::<Principal>() {
        Some(principal) if principal.role >= least => next.run(request).await,
        Some(principal) => {
            let (has, least) = (principal.role.as_str(), least.as_str());
            let what = format!(
                "this needs the role {least}, and this token has {has}; \
                 `berth api token --role {least}` makes one"
            );
            Problem::new(StatusCode::FORBIDDEN, "forbidden", what).into_response()
        }
        None => Problem::internal("nobody was asked who this is").into_response(),
    }
}

/// Lets operators and administrators through.
pub(crate) async fn operators(request: Request, next: Next) -> Response {
    need(Role::Operator, request, next).await
}

/// Lets administrators through.
pub(crate) async fn administrators(request: Request, next: Next) -> Response {
    need(Role::Administrator, request, next).await
}
