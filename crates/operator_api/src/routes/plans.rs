//! What something would do. Nothing changes.

use std::sync::Arc;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::operations::blocking;
use crate::extract::Json;
use crate::model::{Compact, CompactPlan, Exchange, ExchangePlan, MovePlan, ResizePlan};
use crate::operator::NewSize;
use crate::problem::Problem;
use crate::server::App;

/// A move to think about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanMove {
    /// The partition.
    name: String,
    /// Its new origin.
    to: u64,
}

/// A resize to think about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanResize {
    /// The partition.
    name: String,
    /// Its new size; or else `by` says how much more.
    to: Option<u64>,
    /// How much more.
    by: Option<u64>,
    /// Refuse whatever is not this; without, both will do.
    only: Option<Direction>,
    /// Move neighbours out of the way first.
    #[serde(default)]
    make_room: bool,
}

/// Whether a partition gets more or less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    /// More.
    Expand,
    /// Less.
    Shrink,
}

impl PlanResize {
    fn size(&self) -> Result<NewSize, Problem> {
        match (self.to, self.by, self.only) {
            (Some(to), None, None) => Ok(NewSize::Exactly(to)),
            (Some(to), None, Some(Direction::Expand)) => Ok(NewSize::UpTo(to)),
            (Some(to), None, Some(Direction::Shrink)) => Ok(NewSize::DownTo(to)),
            (None, Some(by), None | Some(Direction::Expand)) => Ok(NewSize::By(by)),
            _ => {
                let what = "say either the new size, `to`, or how much more, `by`";
                Err(Problem::new(StatusCode::CONFLICT, "conflict", what))
            }
        }
    }
}

/// What moving a partition would do, or who is in the way
#[utoipa::path(post, path = "/v1/plans/move", tag = "plan", security(("token" = [])),
    request_body = PlanMove,
    responses((status = 200, body = MovePlan)))]
pub(super) async fn relocate(
    State(app): State<Arc<App>>,
    Json(PlanMove { name, to }): Json<PlanMove>,
) -> Result<Answer<MovePlan>, Problem> {
    blocking(&app, move |operator| operator.plan_move(&name, to)).await.map(Answer)
}

/// What an exchange would do, or who is in the way
#[utoipa::path(post, path = "/v1/plans/exchange", tag = "plan", security(("token" = [])),
    request_body = Exchange,
    responses((status = 200, body = ExchangePlan)))]
pub(super) async fn exchange(
    State(app): State<Arc<App>>,
    Json(exchange): Json<Exchange>,
) -> Result<Answer<ExchangePlan>, Problem> {
    blocking(&app, move |operator| operator.plan_exchange(&exchange)).await.map(Answer)
}

/// What another size would take, or who is in the way
#[utoipa::path(post, path = "/v1/plans/resize", tag = "plan", security(("token" = [])),
    request_body = PlanResize,
    responses((status = 200, body = ResizePlan)))]
pub(super) async fn resize(
    State(app): State<Arc<App>>,
    Json(plan): Json<PlanResize>,
) -> Result<Answer<ResizePlan>, Problem> {
    let size = plan.size()?;
    let PlanResize { name, make_room, .. } = plan;
    let ask = blocking(&app, move |operator| operator.plan_resize(&name, size, make_room));
    ask.await.map(Answer)
}

/// Which moves would make one free range
#[utoipa::path(post, path = "/v1/plans/compact", tag = "plan", security(("token" = [])),
    request_body = Option<Compact>,
    responses((status = 200, body = CompactPlan)))]
pub(super) async fn compact(
    State(app): State<Arc<App>>,
    Json(Compact { free }): Json<Compact>,
) -> Result<Answer<CompactPlan>, Problem> {
    blocking(&app, move |operator| operator.plan_compact(free)).await.map(Answer)
}
