//! How a question is answered: at once, when it has ended, word by word, or with
//! what is new.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::extract::Query;
use crate::problem::Problem;

/// Longest that an answer waits for an operation.
const MAX_WAIT: u32 = 60;
/// What is accepted by who wants to hear of every step.
const STREAM: &str = "text/event-stream";

/// How long to wait for the end.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    /// Seconds to wait for the end of the operation before answering; none without.
    #[param(minimum = 0, maximum = 60)]
    wait: Option<u32>,
}

/// How new what is said has to be.
#[derive(Debug, Clone, Copy, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Fresh {
    /// Ask the host first; without, it is what the host told last, which is as good
    /// as new.
    #[serde(default)]
    #[param(required = false)]
    pub(super) fresh: bool,
}

/// How whoever asks wants to hear of an operation.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    /// Once, after this time or its end.
    Once(Option<Duration>),
    /// Of every step, until its end.
    Followed,
}

impl<S: Send + Sync> FromRequestParts<S> for How {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Query(Wait { wait }) = Query::from_request_parts(parts, state).await?;
        if wait.is_some_and(|seconds| seconds > MAX_WAIT) {
            return Err(Problem::malformed(format!("wait is 0 to {MAX_WAIT} seconds")));
        }
        let accepted = parts.headers.get(header::ACCEPT).and_then(|text| text.to_str().ok());
        let first = accepted.unwrap_or_default().split([',', ';']).next().unwrap_or_default();
        if first.trim().eq_ignore_ascii_case(STREAM) {
            return Ok(Self::Followed);
        }
        Ok(Self::Once(wait.map(|seconds| Duration::from_secs(seconds.into()))))
    }
}
