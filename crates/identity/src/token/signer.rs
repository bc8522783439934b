//! Making tokens.

use std::path::Path;
use std::time::Duration;

use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use ed25519_dalek::{Signer as _, SigningKey};
use service_pool::{Group, UserId};

use super::{ALGORITHM, Claims, MAX_GROUPS, MAX_LIFETIME, MAX_TOKEN, Machine};
use crate::files::{FileError, create_private, read_private};
use crate::random::{RandomError, random};

/// A token cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The key file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The key file does not hold a key.
    #[error("the file holds no signing key; restore it, or remove it to get a new key")]
    NotAKey,
    /// The system gave no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// The token would be good for longer than any may be, or for no time.
    #[error("a token is good for 1 to {} seconds", MAX_LIFETIME.as_secs())]
    Lifetime,
    /// The token would be too long.
    #[error("the token is longer than {MAX_TOKEN} bytes or names over {MAX_GROUPS} groups")]
    TooLong,
}

/// What a new token is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// The user.
    pub user: UserId,
    /// The user's groups.
    pub groups: Vec<Group>,
    /// Whom it is for.
    pub audience: String,
    /// How long it is good, counted in whole seconds.
    pub lifetime: Duration,
    /// The machine that wears the id.
    pub machine: Option<Machine>,
}

/// Makes tokens with a host's key.
pub struct Signer {
    key: SigningKey,
    issuer: String,
}

impl Signer {
    /// Reads the host's key, or makes one at first use. The file is private to
    /// its owner. `issuer` is what tokens name as their maker.
    ///
    /// # Errors
    /// [`SignError`] when the file cannot be used or holds something else.
    pub fn open(path: &Path, issuer: &str) -> Result<Self, SignError> {
        if !path.exists() {
            let text = format!("{}\n", BASE64.encode(random::<32>()?));
            // If another made it meanwhile, that one counts.
            create_private(path, &text)?;
        }
        let text = read_private(path, 64)?;
        let seed = BASE64.decode(text.trim_end()).map_err(|_| SignError::NotAKey)?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| SignError::NotAKey)?;
        Ok(Self { key: SigningKey::from_bytes(&seed), issuer: issuer.to_owned() })
    }

    /// What tokens call the key: the public key itself.
    #[must_use]
    pub fn key_id(&self) -> String {
        BASE64.encode(self.key.verifying_key().as_bytes())
    }

    /// The key set that verifies these tokens, as JSON.
    #[must_use]
    pub fn jwks(&self) -> String {
        let x = self.key_id();
        let key = serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "alg": ALGORITHM, "use": "sig", "kid": x, "x": x,
        });
        serde_json::json!({ "keys": [key] }).to_string()
    }

    /// A token made at `now`, in seconds since 1970.
    ///
    /// # Errors
    /// [`SignError`] when a bound is exceeded.
    pub fn sign(&self, new: NewToken, now: u64) -> Result<String, SignError> {
        let lifetime = new.lifetime.as_secs();
        if lifetime == 0 || new.lifetime > MAX_LIFETIME {
            return Err(SignError::Lifetime);
        }
        if new.groups.len() > MAX_GROUPS {
            return Err(SignError::TooLong);
        }
        let claims = Claims {
            issuer: self.issuer.clone(),
            user: new.user,
            groups: new.groups,
            audience: new.audience,
            issued: now,
            not_before: now,
            expires: now.saturating_add(lifetime),
            id: BASE64.encode(random::<16>()?),
            machine: new.machine,
        };
        let header =
            serde_json::json!({ "alg": ALGORITHM, "typ": "JWT", "kid": self.key_id() }).to_string();
        let token = encode(&self.key, &header, &serde_json::json!(claims).to_string());
        if token.len() > MAX_TOKEN { Err(SignError::TooLong) } else { Ok(token) }
    }
}

// Not derived: a key is not to get into a log.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer").field("key_id", &self.key_id()).finish_non_exhaustive()
    }
}

/// Header and claims, signed (RFC 7515, section 3.1).
pub(super) fn encode(key: &SigningKey, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", BASE64.encode(header), BASE64.encode(claims));
    let signature = key.sign(signed.as_bytes()).to_bytes();
    format!("{signed}.{}", BASE64.encode(signature))
}
