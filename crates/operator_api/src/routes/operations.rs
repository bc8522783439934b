//! Commands that take their time are resources.

use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::follow::{follow, place};
use super::how::{How, Wait};
use crate::access::Principal;
use crate::extract::{Json, Nothing, Path};
use crate::model::{Command, Operation, OperationState, Outcome};
use crate::operator::{Operator, Refusal, Why};
use crate::problem::Problem;
use crate::server::App;
use crate::station::Station;

/// An operation once: 202 while it is under way, and where it is.
type Once = (StatusCode, [(HeaderName, String); 1], Answer<Operation>);

/// Asks the host on a thread that may wait.
pub(super) async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    ask: impl FnOnce(&dyn Operator) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Problem> {
    let _place = app.questions.acquire().await;
    let operator = Arc::clone(&app.operator);
    let asked = tokio::task::spawn_blocking(move || ask(&*operator)).await;
    let asked = asked.map_err(|_| Problem::internal("the host could not answer; look at its log"));
    Ok(asked??)
}

/// Begins a command.
pub(super) async fn begin(
    app: &Arc<App>,
    command: Command,
    by: &Principal,
    how: How,
) -> Result<Response, Problem> {
    let followed = match how {
        How::Followed => Some(place(app)?),
        How::Once(_) => None,
    };
    let (operation, seen, progress) = app.station.begin(command, &by.id)?;
    let id = operation.id;
    tracing::info!(operation = id, by = by.id, command = ?operation.command, "asked");
    let followed = followed.map(|place| follow(app, by, &operation, seen, place));
    let (operator, command) = (Arc::clone(&app.operator), operation.command);
    let unfinished = Unfinished { station: Arc::clone(&app.station), id };
    // The thread itself says how it ended: nobody has to be woken for that.
    tokio::task::spawn_blocking(move || {
        let done = operator.carry_out(&command, &progress);
        let result = match &done {
            Ok(_) => "done",
            Err(refusal) if refusal.why == Why::Failed => "failed",
            Err(_) => "refused",
        };
        unfinished.station.metrics.command(command.kind(), result);
        // Whoever hears of the end finds what it led to.
        operator.refresh_after(&command);
        unfinished.finish(done.map_err(Problem::from));
    });
    match (followed, how) {
        (Some(followed), _) => Ok(followed),
        (None, How::Once(wait)) => answer(app, id, wait).await.map(IntoResponse::into_response),
        (None, How::Followed) => answer(app, id, None).await.map(IntoResponse::into_response),
    }
}

/// An operation that has not ended; dropped, it has failed.
struct Unfinished {
    station: Arc<Station>,
    id: u64,
}

impl Unfinished {
    fn finish(self, result: Result<Outcome, Problem>) {
        self.station.finish(self.id, result);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ended = Problem::internal("its thread ended; look at the host's log");
            self.station.finish(self.id, Err(ended));
        }
    }
}

async fn answer(app: &Arc<App>, id: u64, wait: Option<Duration>) -> Result<Once, Problem> {
    if let Some(wait) = wait {
        // It goes on whether or not it is waited for.
        let _ = tokio::time::timeout(wait, app.station.end_of(id)).await;
    }
    let operation = app.station.operation(id).ok_or_else(|| unknown(id))?;
    let status = match operation.state {
        OperationState::Running => StatusCode::ACCEPTED,
        OperationState::Succeeded | OperationState::Failed => StatusCode::OK,
    };
    Ok((status, [(header::LOCATION, format!("/v1/operations/{id}"))], Answer(operation)))
}

fn unknown(id: u64) -> Problem {
    Problem::not_found(format!("there is no operation {id}, or it ended long ago"))
}

/// Operations under way and the last that ended, the oldest first
#[utoipa::path(get, path = "/v1/operations", tag = "operations", security(("token" = [])),
    responses((status = 200, body = [Operation])))]
pub(super) async fn operations(State(app): State<Arc<App>>) -> Answer<Vec<Operation>> {
    Answer(app.station.operations())
}

/// One operation, once it has ended or the wait is over
#[utoipa::path(get, path = "/v1/operations/{id}", tag = "operations", security(("token" = [])),
    params(("id" = u64, Path), Wait),
    responses((status = 200, body = Operation), (status = 202, body = Operation, description = "It is under way")))]
pub(super) async fn operation(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    how: How,
) -> Result<Response, Problem> {
    let wait = match how {
        How::Once(wait) => wait,
        How::Followed => {
            let what = "only whoever begins an operation follows it; /v1/events tells of all";
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "not-acceptable", what));
        }
    };
    answer(&app, id, wait).await.map(IntoResponse::into_response)
}

/// Ask an operation to end at the next point where it can
///
/// Compactions and moves that make room end after the move in hand; what was
/// moved stays where it is. Any other operation goes on.
#[utoipa::path(post, path = "/v1/operations/{id}/cancel", tag = "operations", security(("token" = [])),
    params(("id" = u64, Path)),
    responses((status = 200, body = Operation)))]
pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    Path(id): Path<u64>,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Answer<Operation>, Problem> {
    app.station.cancel(id).map(Answer).ok_or_else(|| unknown(id))
}
