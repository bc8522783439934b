//! Who is let in: tokens, and links for browsers.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use identity::{ApiTokenError, ApiTokens};

use crate::access::Principal;
use crate::extract::{Json, Nothing, Path};
use crate::model::{MadeLink, MadeToken, NewLink, NewToken, TokenInfo};
use crate::problem::Problem;
use crate::server::App;

const DAY: u64 = 86_400;
/// Longest life of a token, in days.
const MAX_DAYS: u16 = 366;

/// Does something about the file of tokens, on a thread that may wait.
async fn with_tokens<T: Send + 'static>(
    app: &Arc<App>,
    act: impl FnOnce(&mut ApiTokens, u64) -> Result<T, ApiTokenError> + Send + 'static,
) -> Result<T, Problem> {
    let app = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || app.gate.change_tokens(act)).await;
    let done = done.map_err(|_| Problem::internal("the tokens cannot be kept; look at the log"))?;
    done.map_err(|error| match error {
        ApiTokenError::File(_) | ApiTokenError::Malformed(_) => {
            Problem::internal(error.to_string())
        }
        other => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", other.to_string()),
    })
}

/// Make a token; the host keeps its hash only
#[utoipa::path(post, path = "/v1/tokens", tag = "administer", security(("token" = [])),
    request_body = NewToken,
    responses((status = 200, body = MadeToken)))]
pub(super) async fn make(
    State(app): State<Arc<App>>,
    Json(NewToken { role, days, note }): Json<NewToken>,
) -> Result<Answer<MadeToken>, Problem> {
    if days == 0 || days > MAX_DAYS {
        let what = format!("days is 1 to {MAX_DAYS}");
        return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", what));
    }
    let lifetime = u64::from(days) * DAY;
    let make = move |tokens: &mut ApiTokens, now: u64| {
        let token = tokens.make(role, Duration::from_secs(lifetime), &note, now)?;
        Ok(MadeToken { token, expires: now + lifetime })
    };
    with_tokens(&app, make).await.map(Answer)
}

/// Every token there is, but for itself
#[utoipa::path(get, path = "/v1/tokens", tag = "administer", security(("token" = [])),
    responses((status = 200, body = [TokenInfo])))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Answer<Vec<TokenInfo>>, Problem> {
    let list = |tokens: &mut ApiTokens, _: u64| {
        let each = tokens.all().iter().map(|token| TokenInfo {
            id: token.id.clone(),
            role: token.role,
            expires: token.expires,
            note: token.note.clone(),
        });
        Ok(each.collect())
    };
    with_tokens(&app, list).await.map(Answer)
}

/// Make a token good no more
#[utoipa::path(delete, path = "/v1/tokens/{id}", tag = "administer", security(("token" = [])),
    params(("id" = String, Path)),
    responses((status = 204, description = "It is good no more")))]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Json(Nothing {}): Json<Nothing>,
) -> Result<StatusCode, Problem> {
    with_tokens(&app, move |tokens, _| tokens.revoke(&id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Make a link that lets a browser in, once and within two minutes
///
/// Asked for on the local socket, it leads to a port of this host's loopback, which
/// is listened on from then on; asked for elsewhere, to where it was asked for.
#[utoipa::path(post, path = "/v1/links", tag = "administer", security(("token" = [])),
    request_body = NewLink,
    responses((status = 200, body = MadeLink)))]
pub(super) async fn link(
    State(app): State<Arc<App>>,
    by: Principal,
    headers: HeaderMap,
    Json(NewLink { role }): Json<NewLink>,
) -> Result<Answer<MadeLink>, Problem> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let failed = |reason| Problem::internal(format!("no browser can be let in: {reason}"));
    let from = host.filter(|host| !by.is_local() && app.has_tls && !app.is_door(host));
    let base = match from {
        Some(host) => format!("https://{host}"),
        None => format!("http://{}", app.door().map_err(failed)?),
    };
    let key = app.gate.link(role).map_err(failed)?;
    // What follows the # is never sent, so no log has it.
    Ok(Answer(MadeLink { url: format!("{base}/#key={key}") }))
}
