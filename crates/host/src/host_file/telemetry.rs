//! Where traces go, in the host file.
//!
//! ```toml
//! [telemetry]
//! otlp = "http://127.0.0.1:4318"   # an OpenTelemetry collector; default: nowhere
//! ```

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::HostFileError;

/// Port of OTLP by HTTP.
const PORT: u16 = 4318;
/// Longest address.
const MOST: usize = 253;

/// A collector, which is asked by HTTP without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where it takes traces.
    pub path: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    otlp: Option<Spanned<String>>,
}

impl RawTelemetry {
    /// Checks it; `wrong` makes an error of a place and what is wrong there.
    pub(super) fn check(
        &self,
        wrong: impl Fn(&Range<usize>, &str) -> HostFileError,
    ) -> Result<Option<Collector>, HostFileError> {
        let Some(otlp) = &self.otlp else { return Ok(None) };
        let what = "otlp: write an address like \"http://127.0.0.1:4318\"; for TLS, take a \
                    collector on this host that passes traces on";
        collector(otlp.get_ref()).map(Some).ok_or_else(|| wrong(&otlp.span(), what))
    }
}

fn collector(text: &str) -> Option<Collector> {
    let rest = text.strip_prefix("http://").filter(|rest| rest.len() <= MOST)?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => {
            (host, port.parse().ok()?)
        }
        _ => (authority, PORT),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~/:[]%".contains(c);
    if host.is_empty() || !rest.chars().all(fits) {
        return None;
    }
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "v1/traces" } else { path };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Collector { host: host.to_owned(), port, path: format!("/{path}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_http() {
        let of = |text| collector(text).map(|one| (one.host, one.port, one.path));
        let is = |host: &str, port, path: &str| Some((host.to_owned(), port, path.to_owned()));
        assert_eq!(of("http://127.0.0.1"), is("127.0.0.1", 4318, "/v1/traces"));
        assert_eq!(of("http://[::1]:99/"), is("::1", 99, "/v1/traces"));
        assert_eq!(of("http://[::1]"), is("::1", 4318, "/v1/traces"));
        assert_eq!(of("http://otel.example:1/a/b"), is("otel.example", 1, "/a/b"));
        for bad in
            ["", "otel:4318", "https://otel", "http://", "http://:1", "http://a:b", "http://a/\r\n"]
        {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
