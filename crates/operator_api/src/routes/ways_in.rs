//! Connections that become a guest's: commands in it, and its console.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::upgrade::OnUpgrade;

use super::follow::place;
use super::operations::blocking;
use crate::extract::{Json, Long, Nothing, Path};
use crate::model::Exec;
use crate::operator::{Console, WayIn, Wish};
use crate::problem::Problem;
use crate::server::App;
use crate::socket::join;

/// What a connection becomes that runs a command: frames of the agent's protocol.
const EXEC: &str = "berth-exec";
/// What it becomes for a console: what is said, and what is typed.
const CONSOLE: &str = "berth-console";
/// Longest wait for a guest that is still starting.
const MAX_WAIT: u32 = 600;
/// Time between two looks at such a guest: the shortest, and the longest.
const LOOK: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A connection that can become something else (RFC 9110, section 7.8).
pub(super) struct Upgrade {
    on: OnUpgrade,
    /// What its client wants of it.
    wanted: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let text = |name| parts.headers.get(name).and_then(|text: &HeaderValue| text.to_str().ok());
        let wanted = text(header::UPGRADE).unwrap_or_default().to_owned();
        let named = |one: &str| one.trim().eq_ignore_ascii_case("upgrade");
        let connection = text(header::CONNECTION).is_some_and(|all| all.split(',').any(named));
        match parts.extensions.remove::<OnUpgrade>().filter(|_| connection && !wanted.is_empty()) {
            Some(on) => Ok(Self { on, wanted }),
            None => Err(Problem::new(
                StatusCode::UPGRADE_REQUIRED,
                "upgrade-required",
                "this is a connection of its own: send `Connection: Upgrade` and `Upgrade`; \
                 `berth exec` and `berth console` do",
            )),
        }
    }
}

impl Upgrade {
    fn check(&self, protocol: &str) -> Result<(), Problem> {
        if self.wanted.eq_ignore_ascii_case(protocol) {
            return Ok(());
        }
        let what = format!("the connection can become {protocol} only");
        Err(Problem::new(StatusCode::UPGRADE_REQUIRED, "upgrade-required", what))
    }

    /// Answers that it becomes the guest's, which it then does.
    fn accept(self, app: &App, protocol: &'static str, way_in: WayIn) -> Result<Response, Problem> {
        let place = place(app)?;
        let on = self.on;
        tokio::spawn(async move {
            match on.await {
                Ok(upgraded) => join(upgraded, way_in).await,
                Err(error) => tracing::debug!(%error, "a connection did not become a guest's"),
            }
            drop(place);
        });
        let headers = [(header::UPGRADE, protocol), (header::CONNECTION, "upgrade")];
        Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
    }
}

/// Run a command in a guest
///
/// The connection becomes the command's: with `Connection: Upgrade` and `Upgrade:
/// berth-exec` it is answered with 101, and carries frames of the agent's protocol
/// from then on. A guest that is still starting is refused as `starting`, unless
/// `wait` says to wait for it.
#[utoipa::path(post, path = "/v1/partitions/{name}/exec", tag = "operate", security(("token" = [])),
    params(("name" = String, Path)), request_body = Exec,
    responses((status = 101, description = "The connection is the command's")))]
pub(super) async fn exec(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    upgrade: Upgrade,
    Long(exec): Long<Exec>,
) -> Result<Response, Problem> {
    upgrade.check(EXEC)?;
    if exec.wait > MAX_WAIT {
        return Err(Problem::malformed(format!("wait is 0 to {MAX_WAIT} seconds")));
    }
    let seconds = exec.wait;
    let way_in = wait(&app, &name, Wish::Exec(exec), seconds).await?;
    upgrade.accept(&app, EXEC, way_in)
}

/// A guest's console as it is, for a terminal
///
/// With `Connection: Upgrade` and `Upgrade: berth-console` it is answered with 101.
/// The connection then begins with the last 64 KiB, and what is sent on it is typed.
#[utoipa::path(post, path = "/v1/partitions/{name}/attach", tag = "operate", security(("token" = [])),
    params(("name" = String, Path)),
    responses((status = 101, description = "The connection is the console's")))]
pub(super) async fn attach(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
    upgrade: Upgrade,
    Json(Nothing {}): Json<Nothing>,
) -> Result<Response, Problem> {
    upgrade.check(CONSOLE)?;
    let way_in = wait(&app, &name, Wish::Console, 0).await?;
    upgrade.accept(&app, CONSOLE, way_in)
}

/// What a guest that does not run said last
#[utoipa::path(get, path = "/v1/partitions/{name}/last-words", tag = "operate", security(("token" = [])),
    params(("name" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn last_words(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let asked = name.clone();
    match blocking(&app, move |operator| operator.console(&asked)).await? {
        Console::Over(words) => {
            let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
            Ok((plain, String::from_utf8_lossy(&words).into_owned()).into_response())
        }
        Console::Live(_) => {
            let what = format!("{name:?} runs; look at its console");
            Err(Problem::new(StatusCode::CONFLICT, "not-now", what))
        }
    }
}

/// A way into a guest, once it serves commands.
async fn wait(app: &Arc<App>, name: &str, wish: Wish, seconds: u32) -> Result<WayIn, Problem> {
    let deadline = Instant::now() + Duration::from_secs(seconds.into());
    let wish = Arc::new(wish);
    loop {
        let mut news = app.station.watch();
        let (asked, wanted) = (name.to_owned(), Arc::clone(&wish));
        let found = blocking(app, move |operator| operator.way_in(&asked, &wanted)).await;
        match found {
            Err(problem) if problem.kind == "urn:berth:starting" && seconds > 0 => {
                if Instant::now() > deadline {
                    return Err(Problem::internal(format!(
                        "the guest in \"{name}\" does not serve commands after {seconds} s; look \
                         at `berth console {name}`"
                    )));
                }
            }
            found => return found,
        }
        tokio::time::sleep(LOOK.0).await;
        // A change that is missed is seen at the next look.
        let _ = tokio::time::timeout(LOOK.1, news.changed()).await;
    }
}
