//! What the operator sees of pools.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use operator_api::model::Waiting;

use super::driver::Driver;

/// Claims that are told of one by one.
const MOST_WAITING: usize = 200;

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolStatus {
    /// Its name.
    pub(crate) name: String,
    /// Fewest machines.
    pub(crate) min: u16,
    /// Most machines.
    pub(crate) max: u16,
    /// Claims that wait for one.
    pub(crate) waiting: usize,
    /// Why it builds no more machines, if so.
    pub(crate) alarm: Option<String>,
    /// Its machines, by number.
    pub(crate) members: Vec<PoolMember>,
}

/// A machine of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolMember {
    /// Its primary id.
    pub(crate) name: String,
    /// `free`, `in use`, `cleaning` and so on.
    pub(crate) state: String,
    /// Whether somebody used it by its primary id: it is put back before it
    /// serves a conversation.
    pub(crate) visited: bool,
    /// The program it serves.
    pub(crate) tpn: Option<String>,
    /// The alternate user id it wears.
    pub(crate) user: Option<String>,
    /// The conversation.
    pub(crate) conversation: Option<String>,
    /// Since when it is in this state, in seconds since 1970.
    pub(crate) since: u64,
    /// What the last putting back took.
    pub(crate) put_back: Option<MemberPutBack>,
}

/// What it took to make a machine of a pool again what was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MemberPutBack {
    /// Bytes that were put back, those that are zero again included.
    pub(crate) bytes: u64,
    /// Microseconds from the host's order to the worker's report.
    pub(crate) micros: u64,
    /// How often it was put back since the host started, this time included.
    pub(crate) times: u64,
    /// Microseconds that the machine had taken in the conversation before, from its
    /// waking to its program's first output.
    pub(crate) first_output_us: Option<u64>,
}

impl Driver {
    pub(super) fn status(&self) -> Vec<PoolStatus> {
        let pools = self.manager.status().into_iter().map(|pool| PoolStatus {
            alarm: pool.alarm.or_else(|| self.alarms.get(&pool.name).cloned()),
            name: pool.name.to_string(),
            min: pool.min,
            max: pool.max,
            waiting: pool.waiting,
            members: pool
                .members
                .into_iter()
                .map(|member| PoolMember {
                    visited: self.visited.contains(&member.member),
                    name: member.member.to_string(),
                    state: member.state.to_string(),
                    tpn: member.tpn.map(|tpn| tpn.to_string()),
                    user: member.user.map(|user| user.to_string()),
                    conversation: member.conversation.map(|id| id.to_string()),
                    since: self.wall_clock(member.since),
                    put_back: self.put_back.get(&member.member).copied(),
                })
                .collect(),
        });
        pools.collect()
    }

    /// Who waits for a machine, the oldest claims first.
    pub(super) fn waiting(&self) -> Vec<Waiting> {
        let waiting = self.conversations.iter().filter(|(_, one)| one.member.is_none());
        let waiting = waiting.take(MOST_WAITING).map(|(id, one)| Waiting {
            user: one.user.to_string(),
            tpn: one.tpn.to_string(),
            pool: one.pool.as_ref().map(ToString::to_string),
            since: self.measures.since(*id),
        });
        waiting.collect()
    }

    /// Seconds since 1970 of a moment after the driver's start.
    fn wall_clock(&self, at: Duration) -> u64 {
        let ago = self.started.elapsed().saturating_sub(at);
        let then = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
        then.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}
