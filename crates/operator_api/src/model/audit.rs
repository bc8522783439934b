//! The audit log, page by page.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which records are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Only records with this text in user, machine, program, pool, conversation
    /// or ending. Capitals count as small letters.
    #[param(max_length = 100)]
    pub q: Option<String>,
    /// Only older ones than this place: `next` of the page before.
    pub before: Option<u64>,
    /// How many at most; 50 without.
    #[param(minimum = 1, maximum = 500)]
    pub limit: Option<u16>,
}

/// Some records of the audit log, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditPage {
    /// The records.
    pub entries: Vec<AuditEntry>,
    /// Where older ones begin, if there may be any.
    pub next: Option<u64>,
    /// Lines passed over that are no records.
    pub damaged: u64,
}

/// A record: a machine was somebody, somebody got no machine, or was turned away
/// before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// `worn`, `refused`, `turned-away` or `database`.
    pub record: String,
    /// Who; of somebody who was turned away, who they said they were, or nothing.
    pub user: String,
    /// The program; empty for `database`.
    pub tpn: String,
    /// The conversation; none of somebody who was turned away.
    pub conversation: Option<String>,
    /// The machine that was worn.
    pub machine: Option<String>,
    /// The pool that a refused claim named.
    pub pool: Option<String>,
    /// When the machine accepted; none if it never did.
    pub from: Option<u64>,
    /// When the conversation ended, or the claim was refused, or the last connection
    /// was over.
    pub at: u64,
    /// How it ended, why it was refused, the sense code they were told, or as whom which
    /// databases were used.
    pub how: String,
}
