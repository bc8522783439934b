//! What there is. None of it asks the host: it is what the host told last.

use std::sync::Arc;

use axum::Json as Answer;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, header};

use super::how::Fresh;
use super::operations::blocking;
use crate::extract::{Path, Query};
use crate::model::{self, AuditPage, AuditQuery, Partition, Pool};
use crate::operator::Operator;
use crate::problem::Problem;
use crate::server::App;

/// Most records of the audit log at once.
const MAX_PAGE: u16 = 500;
/// Longest text that is searched for.
const MAX_SEARCH: usize = 100;

/// Main storage, partitions, pools, and who waits
#[utoipa::path(get, path = "/v1/status", tag = "look", security(("token" = [])),
    params(Fresh),
    responses((status = 200, body = model::State)))]
pub(super) async fn status(
    State(app): State<Arc<App>>,
    Query(Fresh { fresh }): Query<Fresh>,
) -> Result<([(HeaderName, &'static str); 1], Bytes), Problem> {
    if fresh {
        let refresh = |operator: &dyn Operator| {
            operator.refresh();
            Ok(())
        };
        blocking(&app, refresh).await?;
    }
    Ok(([(header::CONTENT_TYPE, "application/json")], app.station.snapshot().json()))
}

/// Every partition, by ascending origin
#[utoipa::path(get, path = "/v1/partitions", tag = "look", security(("token" = [])),
    responses((status = 200, body = [Partition])))]
pub(super) async fn partitions(State(app): State<Arc<App>>) -> Answer<Vec<Partition>> {
    Answer(app.station.snapshot().state().host.partitions.clone())
}

/// One partition
#[utoipa::path(get, path = "/v1/partitions/{name}", tag = "look", security(("token" = [])),
    params(("name" = String, Path)),
    responses((status = 200, body = Partition)))]
pub(super) async fn partition(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Answer<Partition>, Problem> {
    let snapshot = app.station.snapshot();
    let found = snapshot.state().host.partitions.iter().find(|one| one.name == name);
    found.cloned().map(Answer).ok_or_else(|| app.no_partition(&name))
}

/// Every pool and its machines
#[utoipa::path(get, path = "/v1/pools", tag = "look", security(("token" = [])),
    responses((status = 200, body = [Pool])))]
pub(super) async fn pools(State(app): State<Arc<App>>) -> Answer<Vec<Pool>> {
    Answer(app.station.snapshot().state().pools.clone())
}

/// One pool and its machines
#[utoipa::path(get, path = "/v1/pools/{name}", tag = "look", security(("token" = [])),
    params(("name" = String, Path)),
    responses((status = 200, body = Pool)))]
pub(super) async fn pool(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Answer<Pool>, Problem> {
    let snapshot = app.station.snapshot();
    let found = snapshot.state().pools.iter().find(|one| one.name == name);
    found.cloned().map(Answer).ok_or_else(|| app.no_pool(&name))
}

/// Who wore which machine, and who was refused; the newest first
#[utoipa::path(get, path = "/v1/audit", tag = "look", security(("token" = [])),
    params(AuditQuery),
    responses((status = 200, body = AuditPage)))]
pub(super) async fn audit(
    State(app): State<Arc<App>>,
    Query(query): Query<AuditQuery>,
) -> Result<Answer<AuditPage>, Problem> {
    if query.limit.is_some_and(|limit| limit == 0 || limit > MAX_PAGE) {
        return Err(Problem::malformed(format!("limit is 1 to {MAX_PAGE}")));
    }
    if query.before.is_some_and(|before| i64::try_from(before).is_err()) {
        return Err(Problem::malformed("before is the `next` of another page"));
    }
    if query.q.as_ref().is_some_and(|text| text.chars().count() > MAX_SEARCH) {
        return Err(Problem::malformed(format!("q has at most {MAX_SEARCH} characters")));
    }
    blocking(&app, move |operator| operator.audit(&query)).await.map(Answer)
}

/// Measurements, in the text format of OpenMetrics
#[utoipa::path(get, path = "/metrics", tag = "look", security(("token" = [])),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
) -> ([(HeaderName, &'static str); 1], String) {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let told = app.station.snapshot();
    ([(header::CONTENT_TYPE, kind)], app.station.metrics.text(told.state()))
}

/// How long whoever has the keys may do without asking again.
const KEYS_LAST: &str = "public, max-age=300";

/// The public keys that verify the tokens of this host's machines
#[utoipa::path(get, path = "/.well-known/jwks.json", tag = "identity",
    responses((status = 200, body = serde_json::Value, content_type = "application/jwk-set+json")))]
pub(super) async fn jwks(State(app): State<Arc<App>>) -> ([(HeaderName, &'static str); 2], Bytes) {
    let kind = (header::CONTENT_TYPE, "application/jwk-set+json");
    ([kind, (header::CACHE_CONTROL, KEYS_LAST)], app.jwks.clone())
}
