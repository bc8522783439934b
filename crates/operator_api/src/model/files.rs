//! Who may reach which users' files and databases.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Spaces of users' files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileSpaces {
    /// By name.
    pub spaces: Vec<FileSpace>,
    /// Whether there are more; name one to see it.
    pub more: bool,
}

/// A space of users' files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FileSpace {
    /// Its name.
    pub name: String,
    /// Whose own it is.
    pub owner: Option<String>,
    /// Bytes it may hold.
    pub most_bytes: u64,
    /// Files it may hold.
    pub most_files: u64,
    /// Bytes it holds, if it was asked for by name.
    pub bytes: Option<u64>,
    /// Files it holds, if it was asked for by name.
    pub files: Option<u64>,
    /// Who else may reach it.
    pub grants: Vec<FileGrant>,
}

/// Who may reach what of a space.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileGrant {
    /// Who: `user:ID` or `group:NAME`.
    #[schema(example = "user:bob")]
    pub to: String,
    /// The directory; all of the space if it is empty.
    #[serde(default)]
    pub path: String,
    /// To change it, not only to read.
    #[serde(default)]
    pub write: bool,
}

/// A grant that is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FileRevoke {
    /// From whom: `user:ID` or `group:NAME`.
    #[schema(example = "user:bob")]
    pub from: String,
    /// The directory, as it was granted.
    #[serde(default)]
    pub path: String,
}

/// A space to be there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSpace {
    /// Its name; a user's own is called as the user is.
    #[schema(example = "team")]
    pub name: String,
    /// Whose own it is.
    pub owner: Option<String>,
}

/// What a space may hold; without bounds, what the host file says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SpaceBounds {
    /// Bytes in files.
    pub bytes: Option<u64>,
    /// Files, directories and links.
    pub files: Option<u64>,
}

/// Who is which role of which database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DatabaseLogins {
    /// Users first, by name.
    pub logins: Vec<DatabaseLogin>,
    /// Whether there are more.
    pub more: bool,
}

/// Who is which role of which database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseLogin {
    /// Who: `user:ID` or `group:NAME`.
    #[schema(example = "user:alice")]
    pub of: String,
    /// The database.
    #[schema(example = "mail")]
    pub database: String,
    /// The role, which can log in and become no other.
    #[schema(example = "alice")]
    pub role: String,
    /// Connections of each user at once, in all machines together; at most 1000.
    #[serde(default = "usual_connections")]
    #[schema(default = 16, maximum = 65_535)]
    pub connections: u16,
    /// Seconds for which nothing may be said in a connection; none: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295_u32)]
    pub idle: Option<u32>,
    /// Seconds that a connection may last; none: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, maximum = 4_294_967_295_u32)]
    pub lifetime: Option<u32>,
}

const fn usual_connections() -> u16 {
    16
}

/// A login that is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseRevoke {
    /// From whom: `user:ID` or `group:NAME`.
    #[schema(example = "user:alice")]
    pub from: String,
}
