//! Who a browser is.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Principal;
use crate::extract::Json;
use crate::problem::Problem;
use crate::server::App;

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Whoami {
    /// The token's id, or `local`.
    id: String,
    /// `viewer`, `operator` or `administrator`.
    role: String,
}

/// A link that `berth open` printed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    /// What follows `#key=`.
    key: String,
}

/// A token for one browser.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Session {
    /// To be sent as bearer token.
    token: String,
    /// What its bearer may do.
    role: String,
    /// Until when, in seconds since 1970.
    expires: u64,
}

/// Whom this host takes you for
#[utoipa::path(get, path = "/v1/whoami", tag = "look", security(("token" = [])),
    responses((status = 200, body = Whoami)))]
pub(super) async fn whoami(principal: Principal) -> Answer<Whoami> {
    let role = principal.role.as_str().to_owned();
    Answer(Whoami { id: principal.id, role })
}

/// Exchange the key of a link, which is good once, for a token
#[utoipa::path(post, path = "/v1/session", tag = "look", request_body = Link,
    responses((status = 200, body = Session)))]
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    Json(Link { key }): Json<Link>,
) -> Result<Answer<Session>, Problem> {
    let (token, role, expires) = app.gate.follow(&key)?;
    Ok(Answer(Session { token, role: role.as_str().to_owned(), expires }))
}
