//! Who users are, and proofs of who a machine is now.
//!
//! [`Users`] are the users of a host with their groups and password hashes. A
//! [`Signer`] makes short-lived tokens that say whose id a machine wears; a
//! [`Verifier`] checks such tokens, and those that users present instead of a
//! password. A [`Subject`] is whom managers grant something to. [`ApiTokens`] and
//! [`ApiClients`] say who may use the operator's interface. The
//! [`AuditLog`] keeps who wore which machine from when to when.
//!
//! Parsing and checking are pure; each type says which of its functions touch
//! files.

mod api_clients;
mod api_tokens;
mod audit;
mod audit_page;
mod files;
mod random;
mod subject;
mod text;
mod token;
mod users;

pub use api_clients::{ApiClientError, ApiClients, ClientCertificate, MAX_API_CLIENTS};
pub use api_tokens::{
    ApiToken, ApiTokenError, ApiTokens, MAX_API_TOKEN, MAX_API_TOKEN_LIFETIME, MAX_API_TOKENS,
    NotGood, Role,
};
pub use audit::{
    AuditError, AuditLog, AuditReader, DatabaseLogin, Entry, Flush, MAX_CLAIM, MAX_LINE, PoolText,
    Record,
};
pub use audit_page::{AuditPage, audit_page};
pub use files::{FileError, read_private, replace_private};
pub use random::RandomError;
pub use subject::Subject;
pub use token::{
    Claims, DEFAULT_LIFETIME, JwksError, MAX_GROUPS, MAX_JWKS, MAX_LIFETIME, MAX_TOKEN, Machine,
    NewToken, SignError, Signer, Verifier, VerifyError,
};
pub use users::{MAX_PASSWORD, MAX_USERS, MAX_USERS_FILE, MIN_PASSWORD, Users, UsersError};
