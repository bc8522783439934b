//! Clients of the operator's interface that show a certificate instead of a
//! token: what is read of one, and the file that says who may do what.
//!
//! ```toml
//! [[client]]
//! common_name = "grafana"        # of whatever certificate the authorities gave him
//! role = "viewer"
//!
//! [[client]]
//! fingerprint = "9f:86:d0:..."   # SHA-256 of one certificate
//! role = "administrator"
//! ```

use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::api_tokens::Role;
use crate::files::{FileError, read_private};

/// Most clients of a host.
pub const MAX_API_CLIENTS: usize = 1000;
/// Longest file of clients, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Longest common name (RFC 5280, appendix A.1).
const MAX_NAME: usize = 64;

/// The file of clients cannot be used. The host's operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ApiClientError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its text is not what such a file is.
    #[error("not a file of API clients: {0}")]
    Malformed(String),
    /// A bound is exceeded.
    #[error("a host has at most {MAX_API_CLIENTS} API clients")]
    TooMany,
    /// A client is not told from others by exactly one thing.
    #[error("client {0}: write a common_name or a fingerprint (64 digits, as of SHA-256)")]
    Client(usize),
}

/// What is read of a certificate. Whether it is genuine was decided before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The common name of its subject, if it has exactly one.
    pub common_name: Option<String>,
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// From when it is good, in seconds since 1970.
    pub not_before: u64,
    /// Until when.
    pub not_after: u64,
}

impl ClientCertificate {
    /// Reads a certificate (X.509, DER); `None` if it is none.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (rest, certificate) = X509Certificate::from_der(der).ok()?;
        if !rest.is_empty() {
            return None;
        }
        let mut names = certificate.subject().iter_common_name();
        let name = names.next().and_then(|name| name.as_str().ok());
        let common_name = name.filter(|_| names.next().is_none()).map(str::to_owned);
        let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
        let validity = certificate.validity();
        Some(Self {
            common_name,
            fingerprint: Sha256::digest(der).into(),
            not_before: seconds(validity.not_before.timestamp()),
            not_after: seconds(validity.not_after.timestamp()),
        })
    }

    /// Whether it is good at `now`, in seconds since 1970.
    #[must_use]
    pub const fn is_good_at(&self, now: u64) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// As logs and operations call its bearer.
    #[must_use]
    pub fn id(&self) -> String {
        let hash: String =
            self.fingerprint.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        match &self.common_name {
            Some(name) => format!("certificate of {name}"),
            None => format!("certificate {hash}"),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    client: Vec<RawClient>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClient {
    common_name: Option<String>,
    fingerprint: Option<String>,
    role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Name(String),
    Fingerprint([u8; 32]),
}

/// The clients of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiClients(Vec<(Known, Role)>);

impl ApiClients {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// [`ApiClientError`] when it is malformed or too long.
    pub fn parse(text: &str) -> Result<Self, ApiClientError> {
        let page: Page = toml::from_str(text)
            .map_err(|error| ApiClientError::Malformed(error.message().to_owned()))?;
        if page.client.len() > MAX_API_CLIENTS {
            return Err(ApiClientError::TooMany);
        }
        let known = |(place, raw): (usize, RawClient)| {
            let known = match (raw.common_name, raw.fingerprint) {
                (Some(name), None) if !name.is_empty() && name.len() <= MAX_NAME => {
                    Some(Known::Name(name))
                }
                (None, Some(text)) => fingerprint(&text).map(Known::Fingerprint),
                _ => None,
            };
            known.map(|known| (known, raw.role)).ok_or(ApiClientError::Client(place + 1))
        };
        page.client.into_iter().enumerate().map(known).collect::<Result<_, _>>().map(Self)
    }

    /// Reads the file, which must be private to its owner.
    ///
    /// # Errors
    /// [`ApiClientError`] as [`ApiClients::parse`], or if it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ApiClientError> {
        Self::parse(&read_private(path, MAX_FILE)?)
    }

    /// What the bearer of a certificate may do: as its fingerprint says, else
    /// its common name; the first of several counts.
    #[must_use]
    pub fn role(&self, certificate: &ClientCertificate) -> Option<Role> {
        let of = |wanted: Known| {
            self.0.iter().find(|(known, _)| *known == wanted).map(|(_, role)| *role)
        };
        let by_name = || of(Known::Name(certificate.common_name.clone()?));
        of(Known::Fingerprint(certificate.fingerprint)).or_else(by_name)
    }
}

/// 32 bytes in hexadecimal digits, with colons between them or not.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    if text.len() > 95 || !text.is_ascii() {
        return None;
    }
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, place) in bytes.iter_mut().zip((0..64).step_by(2)) {
        let digits = digits.get(place..place + 2)?;
        *byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.contains('+'))?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(name: Option<&str>, first: u8) -> ClientCertificate {
        let mut fingerprint = [0; 32];
        fingerprint[0] = first;
        let common_name = name.map(str::to_owned);
        ClientCertificate { common_name, fingerprint, not_before: 1, not_after: 2 }
    }

    #[test]
    fn a_fingerprint_counts_before_a_name_and_nobody_else_is_known() {
        let clients = ApiClients::parse(&format!(
            "[[client]]\ncommon_name = \"a\"\nrole = \"viewer\"\n\
             [[client]]\nfingerprint = \"FF{}\"\nrole = \"operator\"\n",
            ":00".repeat(31)
        ))
        .unwrap();
        assert_eq!(clients.role(&certificate(Some("a"), 1)), Some(Role::Viewer));
        assert_eq!(clients.role(&certificate(Some("a"), 255)), Some(Role::Operator));
        assert_eq!(clients.role(&certificate(None, 255)), Some(Role::Operator));
        assert_eq!(clients.role(&certificate(Some("A"), 1)), None);
        assert_eq!(clients.role(&certificate(None, 1)), None);
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for text in [
            "[[client]]\nrole = \"viewer\"",
            "[[client]]\ncommon_name = \"\"\nrole = \"viewer\"",
            "[[client]]\ncommon_name = \"a\"\nfingerprint = \"00\"\nrole = \"viewer\"",
            "[[client]]\nfingerprint = \"00\"\nrole = \"viewer\"",
            "[[client]]\ncommon_name = \"a\"\nrole = \"root\"",
            "[[client]]\ncommon_name = \"a\"",
            "x = 1",
        ] {
            assert!(ApiClients::parse(text).is_err(), "{text}");
        }
        assert_eq!(fingerprint(&"+f".repeat(32)), None);
        assert_eq!(fingerprint(&"ä".repeat(32)), None);
        assert!(ApiClients::parse("").unwrap().0.is_empty());
    }

    #[test]
    fn what_is_no_certificate_is_none() {
        for bytes in [&b""[..], b"\x30\x00", b"\x30\x84\xff\xff\xff\xff", &[0x30; 4096]] {
            assert_eq!(ClientCertificate::read(bytes), None);
        }
    }
}
