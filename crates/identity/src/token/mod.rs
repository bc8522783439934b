//! Signed tokens: JWTs with Ed25519 (RFC 7519, RFC 8037).

mod claims;
mod signer;
#[cfg(test)]
mod tests;
mod verifier;

use std::time::Duration;

pub use claims::{Claims, Machine};
pub use signer::{NewToken, SignError, Signer};
pub use verifier::{JwksError, Verifier, VerifyError};

/// How long a token is good for if nothing else is said.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// Longest a token may be good for, made here or elsewhere.
pub const MAX_LIFETIME: Duration = Duration::from_secs(3600);
/// Longest token, in bytes.
pub const MAX_TOKEN: usize = 8192;
/// Longest key set, in bytes.
pub const MAX_JWKS: usize = 64 << 10;
/// Most groups of a user.
pub const MAX_GROUPS: usize = 64;

/// The only algorithm that is made and accepted.
const ALGORITHM: &str = "EdDSA";
