//! Who may reach which users' files and databases.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::response::Response;

use super::how::{How, Wait};
use super::operations::{begin, blocking};
use crate::access::Principal;
use crate::extract::{Json, Path};
use crate::model::{
    Command, DatabaseLogin, DatabaseLogins, DatabaseRevoke, FileGrant, FileRevoke, FileSpace,
    FileSpaces, NewSpace, Operation, SpaceBounds,
};
use crate::operator::Operator;
use crate::problem::Problem;
use crate::server::App;

/// Spaces of users' files
#[utoipa::path(get, path = "/v1/files", tag = "look", security(("token" = [])),
    responses((status = 200, body = FileSpaces)))]
pub(super) async fn spaces(State(app): State<Arc<App>>) -> Result<Answer<FileSpaces>, Problem> {
    blocking(&app, |operator| operator.file_spaces(None)).await.map(Answer)
}

/// A space of users' files, and what it holds
#[utoipa::path(get, path = "/v1/files/{space}", tag = "look", security(("token" = [])),
    params(("space" = String, Path, pattern = "^[A-Za-z0-9_@$#][A-Za-z0-9._@$#-]{0,63}$")),
    responses((status = 200, body = FileSpace)))]
pub(super) async fn space(
    State(app): State<Arc<App>>,
    Path(space): Path<String>,
) -> Result<Answer<FileSpace>, Problem> {
    let name = space.clone();
    let found = blocking(&app, move |operator| operator.file_spaces(Some(&name))).await?;
    let unknown = || Problem::not_found(format!("there is no space {space:?}"));
    found.spaces.into_iter().next().map(Answer).ok_or_else(unknown)
}

/// Have a space: a user's own, or one with a name only
#[utoipa::path(post, path = "/v1/files", tag = "administer", security(("token" = [])),
    params(Wait), request_body = NewSpace,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn add(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(space): Json<NewSpace>,
) -> Result<Response, Problem> {
    begin(&app, Command::FilesAdd { space }, &by, how).await
}

/// Let somebody reach a space, or a directory in it
#[utoipa::path(post, path = "/v1/files/{space}/grant", tag = "administer", security(("token" = [])),
    params(("space" = String, Path), Wait), request_body = FileGrant,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn grant(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(space): Path<String>,
    how: How,
    Json(grant): Json<FileGrant>,
) -> Result<Response, Problem> {
    begin(&app, Command::FilesGrant { space, grant }, &by, how).await
}

/// Take a grant back
#[utoipa::path(post, path = "/v1/files/{space}/revoke", tag = "administer", security(("token" = [])),
    params(("space" = String, Path), Wait), request_body = FileRevoke,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(space): Path<String>,
    how: How,
    Json(revoke): Json<FileRevoke>,
) -> Result<Response, Problem> {
    begin(&app, Command::FilesRevoke { space, revoke }, &by, how).await
}

/// Bound what a space may hold; without bounds, as the host file does
#[utoipa::path(post, path = "/v1/files/{space}/quota", tag = "administer", security(("token" = [])),
    params(("space" = String, Path), Wait), request_body = Option<SpaceBounds>,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn quota(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(space): Path<String>,
    how: How,
    Json(bounds): Json<SpaceBounds>,
) -> Result<Response, Problem> {
    begin(&app, Command::FilesQuota { space, bounds }, &by, how).await
}

/// Who is which role of which database
#[utoipa::path(get, path = "/v1/databases", tag = "look", security(("token" = [])),
    responses((status = 200, body = DatabaseLogins)))]
pub(super) async fn logins(State(app): State<Arc<App>>) -> Result<Answer<DatabaseLogins>, Problem> {
    blocking(&app, Operator::database_logins).await.map(Answer)
}

/// Give a user or a group a login, in the place of the one it had
#[utoipa::path(post, path = "/v1/databases/grant", tag = "administer", security(("token" = [])),
    params(Wait), request_body = DatabaseLogin,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn give_login(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(login): Json<DatabaseLogin>,
) -> Result<Response, Problem> {
    begin(&app, Command::DatabaseGrant { login }, &by, how).await
}

/// Take a login back; connections by it end
#[utoipa::path(post, path = "/v1/databases/revoke", tag = "administer", security(("token" = [])),
    params(Wait), request_body = DatabaseRevoke,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn take_login(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(DatabaseRevoke { from }): Json<DatabaseRevoke>,
) -> Result<Response, Problem> {
    begin(&app, Command::DatabaseRevoke { from }, &by, how).await
}
