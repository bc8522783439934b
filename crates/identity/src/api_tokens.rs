//! Tokens of the operator's interface: what a program shows to be let in, and
//! the file that says which are good. The file holds hashes only; a token has
//! 256 random bits, so a plain hash of it tells nothing.

use std::path::Path;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::files::{FileError, read_private, replace_private};
use crate::random::{RandomError, random};

/// Most tokens of a host.
pub const MAX_API_TOKENS: usize = 1000;
/// Longest a token may be good.
pub const MAX_API_TOKEN_LIFETIME: Duration = Duration::from_secs(366 * 24 * 3600);
/// Longest text of a token.
pub const MAX_API_TOKEN: usize = 128;
/// Longest file of tokens, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// Longest remark of a token.
const MAX_NOTE: usize = 200;
/// How every token begins, so that whoever finds one knows what it is.
const PREFIX: &str = "berth_";

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// See everything, change nothing.
    Viewer,
    /// Also start, stop, move and resize what is there.
    Operator,
    /// Also make and delete partitions, and end the host.
    Administrator,
}

impl Role {
    /// As the command line and the interface write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

/// Tokens cannot be kept. The host's operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ApiTokenError {
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// Its text is not what such a file is.
    #[error("not a file of API tokens: {0}")]
    Malformed(String),
    /// A bound is exceeded.
    #[error("a host has at most {MAX_API_TOKENS} API tokens; revoke some")]
    TooMany,
    /// No time, or too long.
    #[error("an API token is good for 1 to {} days", MAX_API_TOKEN_LIFETIME.as_secs() / 86_400)]
    Lifetime,
    /// The remark is too long or not one line.
    #[error("a token's note is one line of at most {MAX_NOTE} characters")]
    Note,
    /// There is no such token.
    #[error("there is no API token {0}")]
    Unknown(String),
    /// The system gave no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// What is known of a token; not the token itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiToken {
    /// What it is called, in logs and to revoke it.
    pub id: String,
    /// What its bearer may do.
    pub role: Role,
    /// Until when, in seconds since 1970.
    pub expires: u64,
    /// What its maker wrote of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// SHA-256 of the secret.
    hash: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    token: Vec<ApiToken>,
}

/// The tokens of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiTokens(Vec<ApiToken>);

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotGood {
    /// It is none, or no longer one.
    #[error("this is no API token of this host")]
    Unknown,
    /// It was one.
    #[error("this API token has expired")]
    Expired,
}

impl ApiTokens {
    /// Reads the text of the file.
    ///
    /// # Errors
    /// [`ApiTokenError`] when it is malformed or too long.
    pub fn parse(text: &str) -> Result<Self, ApiTokenError> {
        let page: Page = toml::from_str(text)
            .map_err(|error| ApiTokenError::Malformed(error.message().to_owned()))?;
        if page.token.len() > MAX_API_TOKENS {
            return Err(ApiTokenError::TooMany);
        }
        Ok(Self(page.token))
    }

    /// Reads the file, which must be private to its owner; none without one.
    ///
    /// # Errors
    /// [`ApiTokenError`] as [`ApiTokens::parse`], or if it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ApiTokenError> {
        if !path.exists() {
            return Ok(Self::default());
        }
        Self::parse(&read_private(path, MAX_FILE)?)
    }

    /// Replaces the file as a whole, readable by its owner only.
    ///
    /// # Errors
    /// [`ApiTokenError`] if it cannot be written; the old one is still there.
    pub fn save(&self, path: &Path) -> Result<(), ApiTokenError> {
        let text = toml::to_string(&Page { token: self.0.clone() })
            .map_err(|error| ApiTokenError::Malformed(error.to_string()))?;
        Ok(replace_private(path, &text)?)
    }

    /// Makes a token at `now`, in seconds since 1970; its text is known to the
    /// caller only. Those that have expired are forgotten.
    ///
    /// # Errors
    /// [`ApiTokenError`] when a bound is exceeded.
    pub fn make(
        &mut self,
        role: Role,
        lifetime: Duration,
        note: &str,
        now: u64,
    ) -> Result<String, ApiTokenError> {
        if lifetime.as_secs() == 0 || lifetime > MAX_API_TOKEN_LIFETIME {
            return Err(ApiTokenError::Lifetime);
        }
        if note.chars().count() > MAX_NOTE || note.chars().any(char::is_control) {
            return Err(ApiTokenError::Note);
        }
        self.0.retain(|token| token.expires > now);
        if self.0.len() >= MAX_API_TOKENS {
            return Err(ApiTokenError::TooMany);
        }
        let id: String = random::<4>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = BASE64.encode(random::<32>()?);
        let expires = now.saturating_add(lifetime.as_secs());
        let (hash, note) = (hash(&secret), note.to_owned());
        self.0.push(ApiToken { id: id.clone(), role, expires, note, hash });
        Ok(format!("{PREFIX}{id}_{secret}"))
    }

    /// The token that `text` is, if it is good at `now`.
    ///
    /// # Errors
    /// [`NotGood`].
    pub fn check(&self, text: &str, now: u64) -> Result<&ApiToken, NotGood> {
        let fits = text.len() <= MAX_API_TOKEN;
        let rest = text.strip_prefix(PREFIX).filter(|_| fits).ok_or(NotGood::Unknown)?;
        let (id, secret) = rest.split_once('_').ok_or(NotGood::Unknown)?;
        let given = hash(secret);
        let right = |token: &&ApiToken| {
            token.id == id && bool::from(token.hash.as_bytes().ct_eq(given.as_bytes()))
        };
        let token = self.0.iter().find(right).ok_or(NotGood::Unknown)?;
        if token.expires > now { Ok(token) } else { Err(NotGood::Expired) }
    }

    /// Forgets a token.
    ///
    /// # Errors
    /// [`ApiTokenError::Unknown`].
    pub fn revoke(&mut self, id: &str) -> Result<(), ApiTokenError> {
        let before = self.0.len();
        self.0.retain(|token| token.id != id);
        if self.0.len() == before { Err(ApiTokenError::Unknown(id.to_owned())) } else { Ok(()) }
    }

    /// Every token, the oldest first.
    #[must_use]
    pub fn all(&self) -> &[ApiToken] {
        &self.0
    }
}

fn hash(secret: &str) -> String {
    BASE64.encode(Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_token_is_good_until_it_expires_or_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens");
        let mut tokens = ApiTokens::load(&path).unwrap();
        let text = tokens.make(Role::Operator, HOUR, "the pipeline's", 100).unwrap();
        let other = tokens.make(Role::Viewer, HOUR, "", 100).unwrap();
        tokens.save(&path).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        let secret = text.splitn(3, '_').nth(2).unwrap();
        assert!(!written.contains(secret), "the file tells the token");

        let mut tokens = ApiTokens::load(&path).unwrap();
        assert_eq!(tokens.check(&text, 3699).unwrap().role, Role::Operator);
        assert_eq!(tokens.check(&other, 3699).unwrap().role, Role::Viewer);
        assert_eq!(tokens.check(&text, 3700), Err(NotGood::Expired));
        let id = tokens.all()[0].id.clone();
        tokens.revoke(&id).unwrap();
        assert_eq!(tokens.check(&text, 200), Err(NotGood::Unknown));
        assert!(tokens.revoke(&id).is_err());
    }

    #[test]
    fn one_tokens_secret_is_no_other_ones() {
        let mut tokens = ApiTokens::default();
        let viewer = tokens.make(Role::Viewer, HOUR, "", 0).unwrap();
        tokens.make(Role::Administrator, HOUR, "", 0).unwrap();
        let secret = viewer.splitn(3, '_').nth(2).unwrap();
        let forged = format!("berth_{}_{secret}", tokens.all()[1].id);
        assert_eq!(tokens.check(&forged, 1), Err(NotGood::Unknown));
        for nonsense in ["", "berth_", "berth__", "x", &viewer[1..], &"berth_a_".repeat(99)] {
            assert_eq!(tokens.check(nonsense, 1), Err(NotGood::Unknown), "{nonsense}");
        }
    }

    #[test]
    fn bounds_hold() {
        let mut tokens = ApiTokens::default();
        assert!(tokens.make(Role::Viewer, Duration::ZERO, "", 0).is_err());
        assert!(tokens.make(Role::Viewer, 2 * MAX_API_TOKEN_LIFETIME, "", 0).is_err());
        assert!(tokens.make(Role::Viewer, HOUR, "two\nlines", 0).is_err());
        for _ in 0..MAX_API_TOKENS {
            tokens.make(Role::Viewer, HOUR, "", 0).unwrap();
        }
        assert!(matches!(tokens.make(Role::Viewer, HOUR, "", 0), Err(ApiTokenError::TooMany)));
        tokens.make(Role::Viewer, HOUR, "", 3600).unwrap();
        assert_eq!(tokens.all().len(), 1, "those that have expired are forgotten");
    }
}
