//! Ways in: programs in guests, tokens, links.

use std::collections::BTreeMap;

use identity::Role;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A command to run in a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Program and arguments.
    #[schema(example = json!(["uname", "-a"]))]
    pub argv: Vec<String>,
    /// Variables for it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Directory to start in; the home directory if it is empty.
    #[serde(default)]
    pub cwd: String,
    /// Seconds to wait for a guest that is still starting.
    #[serde(default)]
    #[schema(maximum = 600)]
    pub wait: u32,
}

/// A token to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What its bearer may do.
    #[schema(value_type = RoleName)]
    pub role: Role,
    /// How long it is good.
    #[serde(default = "month")]
    #[schema(default = 30, minimum = 1, maximum = 366)]
    pub days: u16,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 200, pattern = r"^[^\x00-\x1f\x7f-\x9f]*$")]
    pub note: String,
}

const fn month() -> u16 {
    30
}

/// `viewer`, `operator` or `administrator`.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
#[expect(dead_code, reason = "it only describes `identity::Role`")]
pub(crate) enum RoleName {
    /// Sees everything.
    Viewer,
    /// Also changes what is there.
    Operator,
    /// Also makes and deletes, and ends the host.
    Administrator,
}

/// A token that was made. It is said this once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MadeToken {
    /// To be sent as bearer token.
    pub token: String,
    /// Until when it is good, in seconds since 1970.
    pub expires: u64,
}

/// A token, but for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// What its bearer may do.
    #[schema(value_type = RoleName)]
    pub role: Role,
    /// Until when it is good, in seconds since 1970.
    pub expires: u64,
    /// What it is for.
    pub note: String,
}

/// A link to be made for a browser.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewLink {
    /// What the browser may do.
    #[schema(value_type = RoleName)]
    pub role: Role,
}

/// A link for a browser, good once and soon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MadeLink {
    /// The link.
    pub url: String,
}
