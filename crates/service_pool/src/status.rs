//! What the operator sees of pools.

use std::fmt;
use std::time::Duration;

use crate::names::{ConversationId, MemberId, PoolName, Tpn, UserId};

/// What a machine of a pool is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberState {
    /// It is being made.
    Building,
    /// It is as captured and waits for a user.
    Free,
    /// It was given to a conversation and has not accepted yet.
    Assigned,
    /// It wears a user's id.
    InUse,
    /// It is being put back to what was captured.
    Cleaning,
    /// It must not be used; it is to be rebuilt.
    Broken,
    /// It is being destroyed and will not come back.
    Leaving,
}

impl MemberState {
    pub(crate) const COUNT: usize = Self::Leaving as usize + 1;
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Building => "building",
            Self::Free => "free",
            Self::Assigned => "assigned",
            Self::InUse => "in use",
            Self::Cleaning => "cleaning",
            Self::Broken => "broken",
            Self::Leaving => "leaving",
        })
    }
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its primary id.
    pub member: MemberId,
    /// What it is doing.
    pub state: MemberState,
    /// The program it serves at present.
    pub tpn: Option<Tpn>,
    /// The alternate user id it wears; none before it has accepted.
    pub user: Option<UserId>,
    /// The conversation it was given to.
    pub conversation: Option<ConversationId>,
    /// Since when it has been doing that, since start.
    pub since: Duration,
}

/// One pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its name.
    pub name: PoolName,
    /// Fewest machines.
    pub min: u16,
    /// Most machines.
    pub max: u16,
    /// Claims that wait.
    pub waiting: usize,
    /// Why nothing is built any more, if so.
    pub alarm: Option<String>,
    /// Its machines, by number.
    pub members: Vec<MemberStatus>,
}
