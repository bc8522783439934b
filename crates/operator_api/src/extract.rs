//! What a request says, read within bounds.

use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::access::Principal;
use crate::problem::Problem;

/// Bytes of a request's body.
pub(crate) const MAX_BODY: usize = 64 << 10;
/// Beyond this, not every whole number can be told from its neighbours.
const WHOLE: f64 = 9_007_199_254_740_992.0;
/// How long it may take to come.
const BODY: Duration = Duration::from_secs(10);

/// A body of JSON; none counts as `{}`.
pub(crate) struct Json<T>(pub(crate) T);

/// A body that may be longer than others: JSON can take six bytes to write one.
pub(crate) struct Long<T>(pub(crate) T);

/// Bytes of such a body.
const MAX_LONG: usize = 512 << 10;

/// A body that says nothing: none, or `{}`. It is read, since an answer to what
/// was not read may be lost.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

fn too_long(most: usize) -> Problem {
    let what = format!("a request has at most {most} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", what)
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read(request, MAX_BODY).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Long<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read(request, MAX_LONG).await.map(Self)
    }
}

async fn read<T: DeserializeOwned>(request: Request, most: usize) -> Result<T, Problem> {
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most as u64) {
        return Err(too_long(most));
    }
    let body = Limited::new(request.into_body(), most).collect();
    let body = tokio::time::timeout(BODY, body).await.map_err(|_| {
        let what = format!("the request did not come within {} s", BODY.as_secs());
        Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", what)
    })?;
    let bytes = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(too_long(most)),
        Err(error) => return Err(Problem::malformed(format!("it cannot be read: {error}"))),
    };
    understand(&bytes).map_err(|error| {
        let what = format!("{error}; /v1/openapi.json says what is expected");
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", what)
    })
}

fn understand<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    let none = bytes.is_empty() || bytes.trim_ascii() == b"null";
    let mut value: Value = serde_json::from_slice(if none { b"{}" } else { bytes })?;
    if !value.is_object() {
        // What is made of names is not made of places.
        return Err(serde::de::Error::custom("a body is an object"));
    }
    make_whole(&mut value);
    if is_too_large(&value) {
        let what = format!("a number is larger than {}", i64::MAX);
        return Err(serde::de::Error::custom(what));
    }
    serde_json::from_value(value)
}

/// JSON knows one kind of number: `2.0` is as whole as `2`. Whoever writes
/// numbers otherwise than the parser does is understood all the same.
fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|n| n.fract() == 0.0 && (0.0..WHOLE).contains(n));
            if let Some(whole) = whole {
                // Checked to be one.
                *value = Value::from(whole as u64);
            }
        }
        // The parser bounds how deep this goes.
        Value::Array(all) => all.iter_mut().for_each(make_whole),
        Value::Object(all) => all.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// Whether a number is none of the interface's, which are of 63 bits so that
/// every language has them.
fn is_too_large(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64().is_some_and(|n| i64::try_from(n).is_err()),
        Value::Array(all) => all.iter().any(is_too_large),
        Value::Object(all) => all.values().any(is_too_large),
        _ => false,
    }
}

/// What follows the question mark.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query.map(|query| Self(query.0)).map_err(|error| Problem::malformed(error.body_text()))
    }
}

/// What the path names.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        // A path that cannot be read names nothing.
        path.map(|path| Self(path.0)).map_err(|error| Problem::not_found(error.body_text()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let principal = parts.extensions.get::<Self>().cloned();
        principal.ok_or_else(|| Problem::internal("nobody was asked who this is"))
    }
}
