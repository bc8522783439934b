//! What happens, as it happens (server-sent events).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use super::follow::place;
use crate::access::Principal;
use crate::events::Written;
use crate::problem::Problem;
use crate::server::App;

/// Silence on a stream before something is said all the same.
const SILENCE: Duration = Duration::from_secs(15);
/// Time between two looks whether its reader is still let in.
const CHECK: Duration = Duration::from_secs(1);
/// Events that a stream takes at once.
const BATCH: usize = 32;
/// Shortest time between two turns of a stream, unless more than [`BATCH`] wait:
/// many small writes cost both ends more than what is in them.
const GATHER: Duration = Duration::from_millis(50);

/// Everything there is, and then every change
///
/// Each event's `data` is one of the schema `Event`, its name says which. The
/// first is `everything`, unless `Last-Event-ID` names an event since which
/// nothing was forgotten. Who reads too slowly loses the stream, and begins
/// again.
#[utoipa::path(get, path = "/v1/events", tag = "look", security(("token" = [])),
    params(("Last-Event-ID" = Option<String>, Header)),
    responses((status = 200, body = String, content_type = "text/event-stream")))]
pub(super) async fn events(
    State(app): State<Arc<App>>,
    principal: Principal,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let place = place(&app)?;
    let seen = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let seen = seen.and_then(|id| resumed(&app, id));
    let reader = Reader::new(app, principal, place, seen);
    Ok(unbuffered(Sse::new(stream(reader)).into_response()))
}

/// A stream that nobody on its way keeps or collects.
pub(super) fn unbuffered(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // For proxies that would otherwise collect events before they pass them on.
    let buffering = HeaderName::from_static("x-accel-buffering");
    headers.insert(buffering, HeaderValue::from_static("no"));
    response
}

/// The number of an event of this run of the host, if it is still kept.
fn resumed(app: &App, id: &str) -> Option<u64> {
    let (epoch, number) = id.split_once('-')?;
    let number = number.parse().ok()?;
    let ours = epoch.parse() == Ok(app.station.epoch());
    (ours && app.station.events_after(number, 0).is_ok()).then_some(number)
}

struct Reader {
    app: Arc<App>,
    principal: Principal,
    news: watch::Receiver<u64>,
    seen: u64,
    ready: VecDeque<Event>,
    checked: Instant,
    /// When it took events last.
    taken: Instant,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    fn new(
        app: Arc<App>,
        principal: Principal,
        place: OwnedSemaphorePermit,
        seen: Option<u64>,
    ) -> Self {
        let news = app.station.watch();
        app.station.metrics.streams.inc();
        let (ready, checked) = (VecDeque::new(), Instant::now());
        let (taken, _place) = (checked, place);
        let mut reader = Self { app, principal, news, seen: 0, ready, checked, taken, _place };
        match seen {
            Some(seen) => reader.seen = seen,
            None => {
                let (number, event) = reader.app.station.everything();
                let data = serde_json::to_string(&event).unwrap_or_default();
                let name = event.name();
                let written = Written { number, name, operation: None, data: data.into() };
                reader.take(&written);
            }
        }
        reader
    }

    fn take(&mut self, event: &Written) {
        self.seen = event.number;
        let id = format!("{}-{}", self.app.station.epoch(), event.number);
        self.ready.push_back(Event::default().id(id).event(event.name).data(&*event.data));
    }

    /// Lets news come together for a moment, if the last were just sent.
    async fn gather(&mut self) {
        let rest = GATHER.saturating_sub(self.taken.elapsed());
        let (seen, many) = (self.seen, BATCH as u64);
        let enough = self.news.wait_for(|newest| newest.saturating_sub(seen) >= many);
        // Whether it was the time or the number that ran out, they are taken now.
        let _ = timeout(rest, enough).await;
        self.taken = Instant::now();
    }

    /// The next thing to say; `None` if the stream is to end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // Who was let in may not be any more.
            if self.checked.elapsed() >= CHECK {
                self.checked = Instant::now();
                if !self.app.gate.still(&self.principal).await {
                    return None;
                }
            }
            self.news.mark_unchanged();
            for event in self.app.station.events_after(self.seen, BATCH).ok()? {
                self.take(&event);
            }
            if !self.ready.is_empty() {
                continue;
            }
            match timeout(SILENCE, self.news.changed()).await {
                Ok(changed) => {
                    changed.ok()?;
                    self.gather().await;
                }
                Err(_) => return Some(Event::default().comment("")),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.app.station.metrics.streams.dec();
    }
}

fn stream(reader: Reader) -> impl Stream<Item = Result<Event, Infallible>> {
    unfold(reader, |mut reader| async move { Some((Ok(reader.next().await?), reader)) })
}
