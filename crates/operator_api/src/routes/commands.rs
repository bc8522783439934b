//! What changes something: each is an operation.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::how::{How, Wait};
use super::operations::begin;
use crate::access::Principal;
use crate::extract::{Json, Nothing, Path};
use crate::model::{
    Command, Compact, Exchange, Expand, NewPartition, Operation, PoolBounds, Relocate, Shrink, Stop,
};
use crate::problem::Problem;
use crate::server::App;

/// Most vCPUs of a partition, and letters of its name.
const MAX_VCPUS: u8 = 8;
const MAX_NAME: usize = 63;

/// Make a partition
///
/// Its image must have been built: `berth image build`.
#[utoipa::path(post, path = "/v1/partitions", tag = "administer", security(("token" = [])),
    params(Wait), request_body = NewPartition,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(new): Json<NewPartition>,
) -> Result<Response, Problem> {
    let invalid = |what| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", what);
    if !(1..=MAX_VCPUS).contains(&new.vcpus) {
        return Err(invalid(format!("a partition has 1 to {MAX_VCPUS} vCPUs, not {}", new.vcpus)));
    }
    if new.name.is_empty() || new.name.len() > MAX_NAME {
        return Err(invalid(format!("a partition's name has 1 to {MAX_NAME} letters")));
    }
    begin(&app, Command::Create { partition: new }, &by, how).await
}

/// Delete a partition that does not run, with its data disk
#[utoipa::path(delete, path = "/v1/partitions/{name}", tag = "administer", security(("token" = [])),
    params(("name" = String, Path), Wait),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Response, Problem> {
    app.check_partition(&name).await?;
    begin(&app, Command::Delete { name }, &by, how).await
}

/// Start a partition
#[utoipa::path(post, path = "/v1/partitions/{name}/start", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn start(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Response, Problem> {
    app.check_partition(&name).await?;
    begin(&app, Command::Start { name }, &by, how).await
}

/// Stop a partition; its range stays reserved for it
#[utoipa::path(post, path = "/v1/partitions/{name}/stop", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait), request_body = Option<Stop>,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Stop { now }): Json<Stop>,
) -> Result<Response, Problem> {
    app.check_partition(&name).await?;
    begin(&app, Command::Stop { name, now }, &by, how).await
}

/// Stop a partition and start it anew
#[utoipa::path(post, path = "/v1/partitions/{name}/restart", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait), request_body = Option<Stop>,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn restart(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Stop { now }): Json<Stop>,
) -> Result<Response, Problem> {
    app.check_partition(&name).await?;
    begin(&app, Command::Restart { name, now }, &by, how).await
}

/// Move a partition to another origin while its guest runs
#[utoipa::path(post, path = "/v1/partitions/{name}/move", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait), request_body = Relocate,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn relocate(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Relocate { to, mode }): Json<Relocate>,
) -> Result<Response, Problem> {
    app.check_partition(&name).await?;
    begin(&app, Command::Move { name, to, mode }, &by, how).await
}

/// Give a partition more storage while its guest runs
#[utoipa::path(post, path = "/v1/partitions/{name}/expand", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait), request_body = Expand,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn expand(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Expand { to, by: more, make_room }): Json<Expand>,
) -> Result<Response, Problem> {
    if to.is_some() == more.is_some() {
        let what = "say either its new size, `to`, or how much more, `by`";
        return Err(Problem::new(StatusCode::CONFLICT, "conflict", what));
    }
    app.check_partition(&name).await?;
    begin(&app, Command::Expand { name, to, by: more, make_room }, &by, how).await
}

/// Take storage from a partition while its guest runs
#[utoipa::path(post, path = "/v1/partitions/{name}/shrink", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait), request_body = Shrink,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn shrink(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Shrink { to }): Json<Shrink>,
) -> Result<Response, Problem> {
    app.check_partition(&name).await?;
    begin(&app, Command::Shrink { name, to }, &by, how).await
}

/// Let two partitions change places
#[utoipa::path(post, path = "/v1/exchange", tag = "operate", security(("token" = [])),
    params(Wait), request_body = Exchange,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn exchange(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(Exchange { a, b }): Json<Exchange>,
) -> Result<Response, Problem> {
    app.check_partition(&a).await?;
    app.check_partition(&b).await?;
    begin(&app, Command::Exchange { a, b }, &by, how).await
}

/// Move partitions together so that there is one free range
#[utoipa::path(post, path = "/v1/compact", tag = "operate", security(("token" = [])),
    params(Wait), request_body = Option<Compact>,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn compact(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(Compact { free }): Json<Compact>,
) -> Result<Response, Problem> {
    begin(&app, Command::Compact { free }, &by, how).await
}

/// Let a pool that gave up building machines try again
#[utoipa::path(post, path = "/v1/pools/{name}/resume", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn pool_resume(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Response, Problem> {
    app.check_pool(&name)?;
    begin(&app, Command::PoolResume { name }, &by, how).await
}

/// Keep more or fewer machines ready
#[utoipa::path(post, path = "/v1/pools/{name}/resize", tag = "operate", security(("token" = [])),
    params(("name" = String, Path), Wait), request_body = PoolBounds,
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn pool_resize(
    State(app): State<Arc<App>>,
    by: Principal,
    Path(name): Path<String>,
    how: How,
    Json(PoolBounds { min, max }): Json<PoolBounds>,
) -> Result<Response, Problem> {
    app.check_pool(&name)?;
    begin(&app, Command::PoolResize { name, min, max }, &by, how).await
}

/// Wait until every partition that starts with the host serves commands
///
/// It fails as soon as one of them has.
#[utoipa::path(post, path = "/v1/await", tag = "operate", security(("token" = [])),
    params(Wait),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn wait_up(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Response, Problem> {
    begin(&app, Command::Await, &by, how).await
}

/// End every partition, then the host
#[utoipa::path(post, path = "/v1/down", tag = "administer", security(("token" = [])),
    params(Wait),
    responses((status = 202, body = Operation), (status = 200, body = Operation, description = "It has ended")))]
pub(super) async fn down(
    State(app): State<Arc<App>>,
    by: Principal,
    how: How,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Response, Problem> {
    begin(&app, Command::Down, &by, how).await
}
