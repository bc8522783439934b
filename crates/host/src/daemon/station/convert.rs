//! The host's words in those of the interface, which stay as they are when
//! the host's change.

use operator_api::model::{
    self, CompactPlan, ExchangePlan, MemberState, MovePlan, Outcome, Pool, Relocated, ResizePlan,
};
use operator_api::{Refusal, Why};

use crate::daemon::Shared;
use crate::daemon::board::CommandError;
use crate::daemon::pools::{PoolMember, PoolStatus};
use crate::outcomes::{self, CompactOutcome, ExchangeOutcome, MoveOutcome, Plan, ResizeOutcome};

/// The pools.
pub(super) fn pools(shared: &Shared, pools: Vec<PoolStatus>) -> Vec<Pool> {
    let limit = |name: &str| {
        let specs = shared.config.file.pools.iter();
        let named = specs.filter(|spec| spec.config.name.as_str() == name);
        named.map(|spec| spec.config.max).max().unwrap_or(0)
    };
    let member = |member: PoolMember| model::PoolMember {
        name: member.name,
        state: member_state(&member.state),
        visited: member.visited,
        tpn: member.tpn,
        user: member.user,
        conversation: member.conversation,
        since: member.since.saturating_mul(1000),
        put_back_times: member.put_back.map_or(0, |last| last.times),
        put_back_micros: member.put_back.map(|last| last.micros),
        first_output_micros: member.put_back.and_then(|last| last.first_output_us),
        put_back_bytes: member.put_back.map(|last| last.bytes),
    };
    let pool = |pool: PoolStatus| Pool {
        limit: limit(&pool.name),
        name: pool.name,
        min: pool.min,
        max: pool.max,
        waiting: u32::try_from(pool.waiting).unwrap_or(u32::MAX),
        alarm: pool.alarm,
        members: pool.members.into_iter().map(member).collect(),
    };
    pools.into_iter().map(pool).collect()
}

fn member_state(text: &str) -> MemberState {
    let found = MemberState::ALL.into_iter().find(|one| one.as_str() == text.replace(' ', "_"));
    // Nothing is promised of a state that nobody knows.
    found.unwrap_or(MemberState::Broken)
}

const fn why(error: &CommandError) -> Why {
    match error {
        CommandError::Unknown { .. } | CommandError::Missing(_) => Why::Unknown,
        CommandError::Invalid(_) => Why::Invalid,
        CommandError::Starting(_) => Why::Starting,
        CommandError::Busy { .. }
        | CommandError::Running(_)
        | CommandError::NotRunning { .. }
        | CommandError::StillRunning(_) => Why::NotNow,
        CommandError::Create { .. } | CommandError::Refused(_) => Why::Conflict,
        CommandError::Closing => Why::Ending,
        CommandError::Start { .. }
        | CommandError::Stop { .. }
        | CommandError::NotReady { .. }
        | CommandError::Worker { .. }
        | CommandError::Journal(_)
        | CommandError::Delete { .. } => Why::Failed,
    }
}

pub(super) fn refusal(error: &CommandError) -> Refusal {
    Refusal::new(why(error), error.to_string())
}

fn conflict(reason: String, in_the_way: Vec<String>, busy_devices: Vec<String>) -> Refusal {
    Refusal { in_the_way, busy_devices, ..Refusal::new(Why::Conflict, reason) }
}

fn unexpected() -> Refusal {
    Refusal::new(Why::Failed, "the host answered something else than was asked")
}

fn relocated(all: Vec<outcomes::Relocated>) -> Vec<Relocated> {
    let one = |one: outcomes::Relocated| Relocated {
        name: one.name,
        from: one.from,
        to: one.to,
        size: one.size,
    };
    all.into_iter().map(one).collect()
}

pub(super) fn plan(plan: Plan) -> CompactPlan {
    let Plan { moves, bytes, free_origin, free_size, least } = plan;
    CompactPlan { moves: relocated(moves), bytes, free_origin, free_size, least }
}

pub(super) fn moved(outcome: MoveOutcome) -> Result<Outcome, Refusal> {
    match outcome {
        MoveOutcome::Moved { from, to, bytes, direction, pause_us, copy_bytes_per_second } => {
            Ok(Outcome::Moved { from, to, bytes, direction, pause_us, copy_bytes_per_second })
        }
        MoveOutcome::WouldMove { .. } => Err(unexpected()),
        MoveOutcome::Refused { reason, in_the_way, busy_devices } => {
            Err(conflict(reason, in_the_way, busy_devices))
        }
    }
}

pub(super) fn would_move(outcome: MoveOutcome) -> Result<MovePlan, Refusal> {
    match outcome {
        MoveOutcome::WouldMove { from, to, bytes, direction } => {
            Ok(MovePlan { from, to, bytes, direction })
        }
        other => moved(other).and_then(|_| Err(unexpected())),
    }
}

pub(super) fn exchanged(outcome: ExchangeOutcome) -> Result<Outcome, Refusal> {
    match outcome {
        ExchangeOutcome::Exchanged { partitions, bytes, pause_us, copy_bytes_per_second } => {
            let partitions = relocated(partitions);
            Ok(Outcome::Exchanged { partitions, bytes, pause_us, copy_bytes_per_second })
        }
        ExchangeOutcome::WouldExchange { .. } => Err(unexpected()),
        ExchangeOutcome::Refused { reason, in_the_way, busy_devices } => {
            Err(conflict(reason, in_the_way, busy_devices))
        }
    }
}

pub(super) fn would_exchange(outcome: ExchangeOutcome) -> Result<ExchangePlan, Refusal> {
    match outcome {
        ExchangeOutcome::WouldExchange { partitions } => {
            Ok(ExchangePlan { partitions: relocated(partitions) })
        }
        other => exchanged(other).and_then(|_| Err(unexpected())),
    }
}

pub(super) fn resized(outcome: ResizeOutcome) -> Result<Outcome, Refusal> {
    match outcome {
        ResizeOutcome::Resized { from, to, guest_bytes, kept, moved, pause_us, .. } => {
            let moved = relocated(moved);
            Ok(Outcome::Resized { from, to, guest_bytes, kept, moved, pause_us })
        }
        ResizeOutcome::WouldResize { .. } => Err(unexpected()),
        ResizeOutcome::Refused { reason, in_the_way, busy_devices, moved } => {
            let moved = relocated(moved);
            Err(Refusal { moved, ..conflict(reason, in_the_way, busy_devices) })
        }
    }
}

pub(super) fn would_resize(outcome: ResizeOutcome) -> Result<ResizePlan, Refusal> {
    match outcome {
        ResizeOutcome::WouldResize { from, to, moves, .. } => {
            Ok(ResizePlan { from, to, moves: relocated(moves) })
        }
        other => resized(other).and_then(|_| Err(unexpected())),
    }
}

pub(super) fn compacted(outcome: CompactOutcome) -> Result<Outcome, Refusal> {
    match outcome {
        CompactOutcome::Compacted { plan: done } => Ok(Outcome::Compacted { plan: plan(done) }),
        CompactOutcome::WouldCompact { .. } => Err(unexpected()),
        CompactOutcome::Stopped { reason, moved, left } => {
            let (moved, left) = (relocated(moved), u32::try_from(left).ok());
            Err(Refusal { moved, left, ..Refusal::new(Why::Conflict, reason) })
        }
        CompactOutcome::Refused { reason, in_the_way } => {
            Err(conflict(reason, in_the_way, Vec::new()))
        }
    }
}

pub(super) fn would_compact(outcome: CompactOutcome) -> Result<CompactPlan, Refusal> {
    match outcome {
        CompactOutcome::WouldCompact { plan: would } => Ok(plan(would)),
        other => compacted(other).and_then(|_| Err(unexpected())),
    }
}
