//! What the operator sees of pools.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::driver::Driver;
use crate::control::{PoolMember, PoolStatus};

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

    /// Seconds since 1970 of a moment after the driver's start.
    fn wall_clock(&self, at: Duration) -> u64 {
        let ago = self.started.elapsed().saturating_sub(at);
        let then = SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH);
        then.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}
