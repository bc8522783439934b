//! Where traces go, in the host file.
//!
//! ```toml
//! [telemetry]
//! otlp = "http://127.0.0.1:4318"   # an OpenTelemetry collector; default: nowhere
//! authority = "ca.pem"   # who vouches for one at https:; default: the system's
//! ```

use std::ops::Range;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::HostFileError;

/// Whom the system trusts, on Debian.
const SYSTEM: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Port of OTLP by HTTP.
const PORT: u16 = 4318;
/// Longest address.
const MOST: usize = 253;

/// A collector, which is asked by HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Where it takes traces.
    pub path: String,
    /// PEM file of those who vouch for it, with TLS; none: without.
    pub authority: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTelemetry {
    otlp: Option<Spanned<String>>,
    authority: Option<Spanned<PathBuf>>,
}

impl RawTelemetry {
    /// Checks it; `wrong` makes an error of a place and what is wrong there.
    pub(super) fn check(
        &self,
        wrong: impl Fn(&Range<usize>, &str) -> HostFileError,
    ) -> Result<Option<Collector>, HostFileError> {
        let (otlp, found) = match (&self.otlp, &self.authority) {
            (None, None) => return Ok(None),
            (None, Some(authority)) => {
                return Err(wrong(&authority.span(), "authority: there is no otlp that it is for"));
            }
            (Some(otlp), _) => (otlp, collector(otlp.get_ref())),
        };
        let what = "otlp: write an address like \"http://127.0.0.1:4318\"";
        let mut found = found.ok_or_else(|| wrong(&otlp.span(), what))?;
        match (&mut found.authority, &self.authority) {
            (Some(of), Some(named)) => of.clone_from(named.get_ref()),
            (None, Some(named)) => {
                let what = "authority: write https: in otlp, or leave it out";
                return Err(wrong(&named.span(), what));
            }
            (_, None) => {}
        }
        Ok(Some(found))
    }
}

fn collector(text: &str) -> Option<Collector> {
    let (rest, authority) = match text.strip_prefix("https://") {
        Some(rest) => (rest, Some(PathBuf::from(SYSTEM))),
        None => (text.strip_prefix("http://")?, None),
    };
    let rest = Some(rest).filter(|rest| rest.len() <= MOST)?;
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => {
            (host, port.parse().ok()?)
        }
        _ => (place, PORT),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~/:[]%".contains(c);
    if host.is_empty() || !rest.chars().all(fits) {
        return None;
    }
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "v1/traces" } else { path };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Collector { host: host.to_owned(), port, path: format!("/{path}"), authority })
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
        assert_eq!(of("https://otel.example"), is("otel.example", 4318, "/v1/traces"));
        let tls = |text| collector(text).unwrap().authority.is_some();
        assert!(tls("https://otel.example") && !tls("http://otel.example"));
        for bad in
            ["", "otel:4318", "ftp://otel", "http://", "https://:1", "http://a:b", "http://a/\r\n"]
        {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
