//! The statement of the users' databases:
//!
//! ```toml
//! [database]
//! server = "/run/postgresql"    # directory of its socket, or "HOST"; ":PORT" may follow
//! credentials = "passwords"     # of its roles, as .pgpass has them; default: none
//! authority = "ca.pem"          # who vouches for the server: TLS; default: none
//! ```
//!
//! Machines of a `[[pool]]` with `database = true` have their user's database; without
//! a server it is a SQLite file among the user's files.

use std::path::PathBuf;

use database_manager::{Address, ServerSpec};
use serde::Deserialize;
use toml::Spanned;

use super::place::At;
use super::{HostFileError, PoolSpec};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDatabase {
    server: Spanned<String>,
    credentials: Option<PathBuf>,
    authority: Option<PathBuf>,
}

pub(super) fn database(at: &At<'_>, raw: RawDatabase) -> Result<ServerSpec, HostFileError> {
    let address: Address =
        raw.server.get_ref().parse().map_err(|error| at.error(&raw.server, error))?;
    if raw.authority.is_none() && !address.is_local() {
        let what = "a server that is not on this host needs `authority`, the file of a certificate \
                    that vouches for it";
        return Err(at.error(&raw.server, what));
    }
    Ok(ServerSpec { address, credentials: raw.credentials, authority: raw.authority })
}

/// Checks that machines that have databases can have them.
pub(super) fn check(server: Option<&ServerSpec>, pools: &[PoolSpec]) -> Result<(), HostFileError> {
    let without = |pool: &&PoolSpec| pool.user_database && !pool.user_files && server.is_none();
    match pools.iter().find(without) {
        None => Ok(()),
        Some(pool) => Err(HostFileError::Value {
            line: pool.line,
            what: format!(
                "pool \"{}\": `database = true` needs a [database] with a server, or `files = \
                 true` for a SQLite file",
                pool.config.name
            ),
        }),
    }
}
