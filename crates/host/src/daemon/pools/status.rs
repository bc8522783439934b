//! What the operator sees of pools.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use operator_api::model::Waiting;

use super::driver::Driver;
use crate::control::{PoolMember, PoolStatus};

/// Claims that are told of one by one.
const MOST_WAITING: usize = 200;

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
