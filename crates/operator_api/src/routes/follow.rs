//! An operation that whoever asked for it follows to its end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::events::unbuffered;
use crate::access::Principal;
use crate::model::{Operation, OperationState};
use crate::problem::Problem;
use crate::server::App;

/// Silence before something is said all the same.
const SILENCE: Duration = Duration::from_secs(5);
/// Time between two looks whether its reader is still let in.
const CHECK: Duration = Duration::from_secs(1);
/// Events that are looked through at once.
const BATCH: usize = 256;

/// A place among the streams.
pub(super) fn place(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    Arc::clone(&app.streams)
        .try_acquire_owned()
        .map_err(|_| Problem::too_many("as many streams are open as there may be; try again later"))
}

/// Every step of an operation that has just begun, as the event with number
/// `seen` says; the last one says how it ended.
pub(super) fn follow(
    app: &Arc<App>,
    principal: &Principal,
    operation: &Operation,
    seen: u64,
    place: OwnedSemaphorePermit,
) -> Response {
    let mut follower = Follower {
        app: Arc::clone(app),
        principal: principal.clone(),
        id: operation.id,
        cancels: operation.command.can_be_cancelled(),
        news: app.station.watch(),
        seen,
        ready: VecDeque::new(),
        checked: Instant::now(),
        ended: false,
        _place: place,
    };
    follower.news.mark_changed();
    follower.say(serde_json::to_string(operation).unwrap_or_default().as_str());
    unbuffered(Sse::new(stream(follower)).into_response())
}

struct Follower {
    app: Arc<App>,
    principal: Principal,
    id: u64,
    /// Who leaves it does not want it any more.
    cancels: bool,
    news: watch::Receiver<u64>,
    seen: u64,
    ready: VecDeque<Event>,
    checked: Instant,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    fn say(&mut self, operation: &str) {
        self.ready.push_back(Event::default().event("operation").data(operation));
    }

    /// Takes what was said of the operation since it looked last.
    fn look(&mut self) {
        // First, so that whatever comes before the end is not missed.
        let state = self.app.station.operation(self.id);
        loop {
            let Ok(events) = self.app.station.events_after(self.seen, BATCH) else {
                // So much has happened that steps are forgotten: only what it is now.
                self.seen = self.app.station.newest();
                if let Some(now) = self.app.station.operation(self.id) {
                    self.ended = now.state != OperationState::Running;
                    self.say(&serde_json::to_string(&now).unwrap_or_default());
                }
                return;
            };
            let Some(last) = events.last() else { break };
            self.seen = last.number;
            let id = Some(self.id);
            for event in events.iter().filter(|event| event.operation == id) {
                self.say(&event.data);
            }
        }
        self.ended = state.is_none_or(|one| one.state != OperationState::Running);
    }

    /// The next thing to say; `None` if the stream is to end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            if self.checked.elapsed() >= CHECK {
                self.checked = Instant::now();
                if !self.app.gate.still(&self.principal).await {
                    return None;
                }
            }
            match timeout(SILENCE, self.news.changed()).await {
                Ok(changed) => {
                    changed.ok()?;
                    self.look();
                }
                Err(_) => return Some(Event::default().comment("")),
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if self.cancels && !self.ended {
            self.app.station.cancel(self.id);
        }
    }
}

fn stream(follower: Follower) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(follower, |mut follower| async move { Some((Ok(follower.next().await?), follower)) })
}
