//! A guest's console.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{sleep, timeout};
use utoipa::ToSchema;

use super::events::unbuffered;
use super::follow::place;
use super::operations::blocking;
use crate::access::Principal;
use crate::extract::{Json, Path};
use crate::problem::Problem;
use crate::server::App;
use crate::terminal::{COLUMNS, NotTyped, Row, Run, Terminal};

/// Time between two looks at who reads.
const SILENCE: Duration = Duration::from_secs(5);
/// Shortest time between two pictures.
const PAUSE: Duration = Duration::from_millis(30);
/// Bytes that are typed at once.
const MOST: usize = 4096;

/// Keys, as a terminal sends them.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Keys {
    /// At most 4096 bytes, in UTF-8.
    #[schema(max_length = 4096, example = "ls\r")]
    text: String,
}

/// What has changed on a screen.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Shown {
    /// Columns.
    columns: usize,
    /// Lines.
    lines: usize,
    /// Lines that are others than before.
    rows: Vec<Changed>,
    /// Column and line of the cursor, from 0.
    cursor: Option<[usize; 2]>,
    /// Arrow keys are sent as applications want them.
    application_keys: bool,
    /// Nothing runs there; these are the last words, and nothing follows.
    over: bool,
}

/// A line of a screen.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    /// Which, from 0.
    line: usize,
    /// What it shows, from its beginning.
    #[schema(inline)]
    runs: Vec<Run>,
}

/// A guest's console, as it changes
///
/// Server-sent events named `screen`, each with the lines that have changed (the
/// schema `Shown`). Of a partition that does not run, its last words. Whoever
/// reads slowly gets fewer pictures.
#[utoipa::path(get, path = "/v1/partitions/{name}/console", tag = "operate", security(("token" = [])),
    params(("name" = String, Path)),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn console(
    State(app): State<Arc<App>>,
    principal: Principal,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let place = place(&app)?;
    let terminal = terminal(&app, name).await?;
    let reader = Reader::new(app, principal, terminal, place);
    Ok(unbuffered(Sse::new(stream(reader)).into_response()))
}

/// Type into a guest's console
#[utoipa::path(post, path = "/v1/partitions/{name}/console/keys", tag = "operate", security(("token" = [])),
    params(("name" = String, Path)), request_body = Keys,
    responses((status = 204, description = "The machine has them")))]
pub(super) async fn keys(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    Json(Keys { text }): Json<Keys>,
) -> Result<StatusCode, Problem> {
    if text.len() > MOST {
        return Err(Problem::malformed(format!("at most {MOST} bytes are typed at once")));
    }
    let terminal = terminal(&app, name.clone()).await?;
    let conflict = |what| Problem::new(StatusCode::CONFLICT, "not-now", what);
    match terminal.type_in(text).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(NotTyped::Over) => {
            Err(conflict(format!("nothing runs in {name:?} that could read it")))
        }
        Err(NotTyped::Stuck) => Err(conflict(format!("the guest in {name:?} takes no keys"))),
    }
}

async fn terminal(app: &Arc<App>, name: String) -> Result<Arc<Terminal>, Problem> {
    app.check_partition(&name).await?;
    if let Some(terminal) = app.terminals.find(&name) {
        return Ok(terminal);
    }
    let asked = name.clone();
    let console = blocking(app, move |operator| operator.console(&asked)).await?;
    app.terminals.open(&name, console).ok_or_else(|| {
        Problem::too_many("as many consoles are open as there may be; close one in its page")
    })
}

struct Reader {
    app: Arc<App>,
    principal: Principal,
    terminal: Arc<Terminal>,
    changed: watch::Receiver<u64>,
    shown: Vec<Row>,
    ready: VecDeque<Event>,
    checked: Instant,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn new(
        app: Arc<App>,
        principal: Principal,
        terminal: Arc<Terminal>,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let mut changed = terminal.watch();
        changed.mark_changed();
        let (shown, ready, checked) = (Vec::new(), VecDeque::new(), Instant::now());
        let ended = false;
        Self { app, principal, terminal, changed, shown, ready, checked, ended, _place: place }
    }

    fn look(&mut self) {
        // First, so that whatever comes before the end is in the last picture.
        let over = self.terminal.is_over();
        let (rows, cursor, application_keys) = self.terminal.look();
        let differs = |(line, row): &(usize, &Row)| self.shown.get(*line) != Some(*row);
        let changed = rows.iter().enumerate().filter(differs);
        let changed = changed.map(|(line, row)| Changed { line, runs: row.clone() }).collect();
        let cursor = cursor.filter(|_| !over);
        let (columns, lines) = (COLUMNS, rows.len());
        let shown = Shown { columns, lines, rows: changed, cursor, application_keys, over };
        let data = serde_json::to_string(&shown).unwrap_or_default();
        self.ready.push_back(Event::default().event("screen").data(data));
        self.shown = rows;
        self.ended = over;
    }

    /// The next thing to say; `None` if the stream is to end.
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.ready.pop_front() {
            return Some(event);
        }
        if self.ended {
            return None;
        }
        // Who was let in may not be any more.
        if self.checked.elapsed() >= SILENCE {
            self.checked = Instant::now();
            if !self.app.gate.still(&self.principal).await {
                return None;
            }
        }
        match timeout(SILENCE, self.changed.changed()).await {
            Ok(changed) => changed.ok()?,
            Err(_) => return Some(Event::default().comment("")),
        }
        sleep(PAUSE).await;
        self.changed.mark_unchanged();
        self.look();
        self.ready.pop_front()
    }
}

fn stream(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) })
}
