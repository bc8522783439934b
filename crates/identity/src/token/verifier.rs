//! Checking tokens.

use std::collections::BTreeMap;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use ed25519_dalek::{Signature, VerifyingKey};
use serde::Deserialize;

use super::{ALGORITHM, Claims, MAX_GROUPS, MAX_JWKS, MAX_LIFETIME, MAX_TOKEN};

/// How far the clock of a token's maker may be ahead, in seconds.
const AHEAD: u64 = 30;
/// Most keys of one set.
const MAX_KEYS: usize = 64;

/// A key set cannot be used. Whoever made it is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Too long or too many keys.
    #[error("a key set has at most {MAX_KEYS} keys and {MAX_JWKS} bytes")]
    TooLong,
    /// Not a key set at all.
    #[error("not a key set: {0}")]
    Malformed(String),
    /// An Ed25519 key that is none, without a `kid`, or one of a `kid` twice.
    #[error("key {0} of the set, counted from 0, is not an Ed25519 key with a kid of its own")]
    Key(usize),
    /// No Ed25519 key.
    #[error("the set has no Ed25519 key")]
    NoKey,
}

/// Why a token is refused: for the host's own log, not for whoever presents it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Not a token, or too long.
    #[error("not a token of this kind")]
    Malformed,
    /// Another algorithm, or something that must be understood and is not.
    #[error("the token is not signed by Ed25519 alone")]
    Algorithm,
    /// Signed by a key that is not in the set.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// Made by somebody else.
    #[error("the token was made by another issuer")]
    Issuer,
    /// Meant for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// Its time has not come.
    #[error("the token is not good yet")]
    Early,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It is good for longer than a token may be.
    #[error("the token is good for more than {} seconds", MAX_LIFETIME.as_secs())]
    Lifetime,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kty: String,
    crv: Option<String>,
    kid: Option<String>,
    x: Option<String>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: String,
    // Extensions that must be understood; none is.
    crit: Option<serde_json::Value>,
}

/// Checks tokens of one issuer against its key set.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: BTreeMap<String, VerifyingKey>,
    issuer: String,
}

impl Verifier {
    /// A verifier of tokens that `issuer` signed with a key of the set `jwks`,
    /// JSON as RFC 7517 has it. Keys of other kinds are passed over.
    ///
    /// # Errors
    /// [`JwksError`] when the set is malformed or has no usable key.
    pub fn new(jwks: &str, issuer: &str) -> Result<Self, JwksError> {
        if jwks.len() > MAX_JWKS {
            return Err(JwksError::TooLong);
        }
        let set: KeySet =
            serde_json::from_str(jwks).map_err(|error| JwksError::Malformed(error.to_string()))?;
        if set.keys.len() > MAX_KEYS {
            return Err(JwksError::TooLong);
        }
        let mut keys = BTreeMap::new();
        for (place, key) in set.keys.into_iter().enumerate() {
            if key.kty != "OKP" || key.crv.as_deref() != Some("Ed25519") {
                continue;
            }
            let (kid, key) = verifying_key(key).ok_or(JwksError::Key(place))?;
            if keys.insert(kid, key).is_some() {
                return Err(JwksError::Key(place));
            }
        }
        if keys.is_empty() {
            return Err(JwksError::NoKey);
        }
        Ok(Self { keys, issuer: issuer.to_owned() })
    }

    /// What `token` says, if it is good for `audience` at `now`, in seconds
    /// since 1970.
    ///
    /// # Errors
    /// [`VerifyError`]; whoever presents the token is to be told only that it
    /// is refused.
    pub fn verify(&self, token: &str, audience: &str, now: u64) -> Result<Claims, VerifyError> {
        if token.len() > MAX_TOKEN {
            return Err(VerifyError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(VerifyError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(VerifyError::Malformed)?;
        let header: Header = json(header)?;
        if header.alg != ALGORITHM || header.crit.is_some() {
            return Err(VerifyError::Algorithm);
        }
        let key = self.keys.get(&header.kid).ok_or(VerifyError::UnknownKey)?;
        let signature = BASE64.decode(signature).map_err(|_| VerifyError::Malformed)?;
        let signature = Signature::from_slice(&signature).map_err(|_| VerifyError::Malformed)?;
        key.verify_strict(signed.as_bytes(), &signature).map_err(|_| VerifyError::Signature)?;
        let claims: Claims = json(claims)?;
        self.check(&claims, audience, now)?;
        Ok(claims)
    }

    fn check(&self, claims: &Claims, audience: &str, now: u64) -> Result<(), VerifyError> {
        if claims.groups.len() > MAX_GROUPS {
            return Err(VerifyError::Malformed);
        }
        if claims.issuer != self.issuer {
            return Err(VerifyError::Issuer);
        }
        if claims.audience != audience {
            return Err(VerifyError::Audience);
        }
        if claims.expires <= now {
            return Err(VerifyError::Expired);
        }
        if claims.issued.max(claims.not_before) > now.saturating_add(AHEAD) {
            return Err(VerifyError::Early);
        }
        if claims.expires.saturating_sub(claims.issued) > MAX_LIFETIME.as_secs() {
            return Err(VerifyError::Lifetime);
        }
        Ok(())
    }
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, VerifyError> {
    let bytes = BASE64.decode(part).map_err(|_| VerifyError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| VerifyError::Malformed)
}

fn verifying_key(key: Key) -> Option<(String, VerifyingKey)> {
    let bytes: [u8; 32] = BASE64.decode(key.x?).ok()?.try_into().ok()?;
    let point = VerifyingKey::from_bytes(&bytes).ok().filter(|point| !point.is_weak())?;
    Some((key.kid?, point))
}
