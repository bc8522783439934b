//! Refusals on the wire: problem details (RFC 9457) that say what to do.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::model::Relocated;
use crate::operator::{Refusal, Why};

/// What went wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Which kind, as a name that stays: `urn:berth:...`.
    #[serde(rename = "type")]
    #[schema(example = "urn:berth:conflict")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// Cause and remedy.
    pub detail: String,
    /// What else there is to say of it.
    #[serde(flatten)]
    pub more: Box<More>,
}

/// What else there is to say of a problem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct More {
    /// Partitions that use the range.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_the_way: Vec<String>,
    /// Devices still busy when the limit ran out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub busy_devices: Vec<String>,
    /// Partitions that were moved before, and stay where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<Relocated>,
    /// How many moves of the plan were not done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u32>,
}

impl Problem {
    /// One with this status.
    pub(crate) fn new(status: StatusCode, kind: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:berth:{kind}"),
            title: kind.replace('-', " "),
            status: status.as_u16(),
            detail: detail.into(),
            more: Box::default(),
        }
    }

    /// The request cannot be understood.
    pub(crate) fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// There is no such thing.
    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", detail)
    }

    /// As much is under way as there may be.
    pub(crate) fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "too-many", detail)
    }

    /// Our fault.
    pub(crate) fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, kind) = match refusal.why {
            Why::Unknown => (StatusCode::NOT_FOUND, "not-found"),
            Why::Conflict => (StatusCode::CONFLICT, "conflict"),
            Why::NotNow => (StatusCode::CONFLICT, "not-now"),
            Why::Starting => (StatusCode::CONFLICT, "starting"),
            Why::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid"),
            Why::Ending => (StatusCode::SERVICE_UNAVAILABLE, "ending"),
            Why::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        let Refusal { why: _, reason, in_the_way, busy_devices, moved, left } = refusal;
        let more = Box::new(More { in_the_way, busy_devices, moved, left });
        Self { more, ..Self::new(status, kind, reason) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"berth\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
