//! What a token says.

use serde::{Deserialize, Serialize};
use service_pool::{ConversationId, Group, MemberId, PoolName, Tpn, UserId};

use crate::text;

/// What a token says. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who made the token.
    #[serde(rename = "iss")]
    pub issuer: String,
    /// The user; of a machine's token, the alternate user id it wears.
    #[serde(rename = "sub", with = "text")]
    pub user: UserId,
    /// The groups of that user.
    #[serde(with = "text::list", default)]
    pub groups: Vec<Group>,
    /// Whom the token is for.
    #[serde(rename = "aud")]
    pub audience: String,
    /// When it was made.
    #[serde(rename = "iat")]
    pub issued: u64,
    /// From when on it is good; with 0, from the beginning.
    #[serde(rename = "nbf", default)]
    pub not_before: u64,
    /// From when on it is no good.
    #[serde(rename = "exp")]
    pub expires: u64,
    /// Its own id; empty if its maker gave none.
    #[serde(rename = "jti", default)]
    pub id: String,
    /// The machine that wears the id; none in a user's own token.
    #[serde(rename = "berth", default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// Which machine, in which conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The conversation.
    #[serde(with = "text")]
    pub conversation: ConversationId,
    /// The machine's primary id.
    #[serde(rename = "machine", with = "text")]
    pub member: MemberId,
    /// Its pool.
    #[serde(with = "text")]
    pub pool: PoolName,
    /// The program.
    #[serde(with = "text")]
    pub tpn: Tpn,
}
