//! Who asks, and what they may do.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use identity::{ApiTokens, NotGood, Role};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever may open the local socket is the administrator.
    Local,
    /// By a bearer token.
    Token,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Principal {
    /// The token's id, or `local`.
    pub(crate) id: String,
    pub(crate) role: Role,
    /// The token, to see whether it is still good.
    token: Option<Arc<str>>,
}

/// The tokens that are good: those of the file, and those of browsers that
/// followed a link, which end with the host.
#[derive(Debug)]
pub(crate) struct Gate {
    path: PathBuf,
    file: Mutex<Read>,
    links: Mutex<ApiTokens>,
    sessions: Mutex<ApiTokens>,
}

#[derive(Debug, Default)]
struct Read {
    tokens: Arc<ApiTokens>,
    at: Option<Instant>,
}

fn seconds() -> u64 {
    now() / 1000
}

impl Gate {
    pub(crate) fn new(path: PathBuf) -> Self {
        let (file, links, sessions) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { path, file, links, sessions }
    }

    /// The tokens of the file, read anew if that is some time ago.
    async fn tokens(&self) -> Arc<ApiTokens> {
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            if file.at.is_some_and(|at| at.elapsed() < BELIEVED) {
                return Arc::clone(&file.tokens);
            }
            // Whoever asks meanwhile need not read it too, but the first time
            // somebody has to.
            if file.at.is_some() {
                file.at = Some(Instant::now());
            }
        }
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || ApiTokens::load(&path));
        let tokens = match read.await {
            Ok(Ok(tokens)) => tokens,
            Ok(Err(error)) => {
                tracing::error!(%error, "nobody is let in by a token of {}", self.path.display());
                ApiTokens::default()
            }
            Err(_) => ApiTokens::default(),
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        *file = Read { tokens: Arc::new(tokens), at: Some(Instant::now()) };
        Arc::clone(&file.tokens)
    }

    async fn check(&self, text: &str) -> Result<(String, Role), NotGood> {
        let good = |tokens: &ApiTokens| {
            tokens.check(text, seconds()).map(|token| (token.id.clone(), token.role))
        };
        let session = good(&self.sessions.lock().unwrap_or_else(PoisonError::into_inner));
        match session {
            Err(NotGood::Unknown) => good(&*self.tokens().await),
            other => other,
        }
    }

    /// Whether somebody who was let in still would be.
    pub(crate) async fn still(&self, principal: &Principal) -> bool {
        match &principal.token {
            None => true,
            Some(token) => self.check(token).await.is_ok(),
        }
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
    let access = request.extensions().get::<Access>().copied().unwrap_or(Access::Token);
    let principal = match access {
        Access::Local => Principal { id: "local".into(), role: Role::Administrator, token: None },
        Access::Token => match identify(&app.gate, request.headers()).await {
            Ok(principal) => principal,
            Err(problem) => return problem.into_response(),
        },
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
    Ok(Principal { id, role, token: Some(text.into()) })
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
