//! What every request must be like, whoever sends it.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::problem::Problem;
use crate::server::App;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses what other pages make a browser send, also through names that they
/// let point here. Counts answers, and says how they are to be treated.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let mut response = match from_here(request.headers(), &app.names) {
        Ok(()) => match body_is_json(request.method(), request.headers()) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        },
        Err(what) => Problem::new(StatusCode::FORBIDDEN, "cross-site", what).into_response(),
    };
    app.station.metrics.answered(response.status().as_u16());
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a request comes from a page of ours, or from no page.
fn from_here(headers: &HeaderMap, names: &[String]) -> Result<(), &'static str> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(&header::HOST);
    if host.is_some_and(|host| !is_ours(host, names)) {
        return Err("the name in Host is none of this host's; use its address, or put the name \
                    into `names` of [api] in the host file");
    }
    if matches!(text(&SEC_FETCH_SITE), Some(site) if site != "same-origin" && site != "none") {
        return Err("a page of another origin sent this");
    }
    let Some(origin) = text(&header::ORIGIN) else { return Ok(()) };
    let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    if of.is_some() && of == host { Ok(()) } else { Err("a page of another origin sent this") }
}

/// Whether a name means this host and cannot be made to by somebody else's
/// name server: an address, `localhost`, or a name of the host file.
fn is_ours(host: &str, names: &[String]) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether what is sent, if anything, is said to be JSON: forms, which pages of
/// other origins can send, are not.
fn body_is_json(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    let empty = headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0")
        && !headers.contains_key(header::TRANSFER_ENCODING);
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    let json = |kind: &str| {
        let kind = kind.split(';').next().unwrap_or_default().trim();
        kind.eq_ignore_ascii_case("application/json")
    };
    if kind.map_or(empty, json) {
        return Ok(());
    }
    let what = "send JSON, and say so: `Content-Type: application/json`";
    Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(headers: &[(&'static str, &'static str)]) -> bool {
        let each = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        from_here(&each.collect(), &["berth.example".to_owned()]).is_ok()
    }

    #[test]
    fn only_pages_of_this_host_may_ask() {
        assert!(asks(&[]));
        assert!(asks(&[("host", "127.0.0.1:7601")]));
        assert!(asks(&[("host", "[::1]:7601"), ("origin", "http://[::1]:7601")]));
        assert!(asks(&[("host", "Berth.example"), ("sec-fetch-site", "same-origin")]));
        assert!(asks(&[("host", "localhost"), ("origin", "http://localhost")]));
        for (host, origin) in [
            ("localhost:1", "http://localhost:2"),
            ("localhost:1", "null"),
            ("localhost:1", "http://localhost:1.evil.example"),
            ("localhost:1", "ftp://localhost:1"),
            ("evil.example", "http://evil.example"),
        ] {
            assert!(!asks(&[("host", host), ("origin", origin)]), "{host} {origin}");
        }
        assert!(!asks(&[("host", "rebound.example:7601")]));
        assert!(!asks(&[("host", "127.0.0.1"), ("sec-fetch-site", "cross-site")]));
        assert!(!asks(&[("host", "127.0.0.1"), ("sec-fetch-site", "same-site")]));
    }
}
