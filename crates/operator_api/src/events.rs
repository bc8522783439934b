//! What happens, in the order it happened. There is one bounded record of it
//! for everybody who listens: a listener that falls behind its beginning has
//! lost its place, and nothing is kept for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{HostState, Operation, Partition, Pool, PoolMember, State, Waiting};

/// Events that are kept.
pub(crate) const KEPT: usize = 1024;

/// What is said on `/v1/events`; its name is the event's.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Event {
    /// `everything`: what there is; first, unless the listener has seen it.
    Everything(Box<Everything>),
    /// `host`: main storage or the host itself has changed; without partitions.
    Host(HostState),
    /// `partition`: one is there or has changed.
    Partition(Partition),
    /// `partition_gone`: one is no more.
    PartitionGone(Gone),
    /// `pool`: one has changed; without its machines.
    Pool(Pool),
    /// `member`: a machine of a pool is there or has changed.
    Member(Member),
    /// `member_gone`: one is no more.
    MemberGone(GoneMember),
    /// `waiting`: who waits for machines.
    Waiting(Vec<Waiting>),
    /// `operation`: one has begun, gone on or ended.
    Operation(Box<Operation>),
    /// `measured`: something took its time.
    Measured(Measured),
}

/// What there is.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Everything {
    /// Main storage and pools.
    #[serde(flatten)]
    pub state: State,
    /// Operations, the newest last.
    pub operations: Vec<Operation>,
    /// What was measured of late, the newest last.
    pub measured: Vec<Measured>,
}

/// A partition that is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Gone {
    /// Its name.
    pub name: String,
}

/// A machine of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Member {
    /// The pool.
    pub pool: String,
    /// The machine.
    pub member: PoolMember,
}

/// A machine of a pool that is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct GoneMember {
    /// The pool.
    pub pool: String,
    /// The machine.
    pub name: String,
}

/// Something that took its time.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Measured {
    /// What: `pause`, `claim`, `wait`, `first_byte`, `reset` or `refill`.
    pub what: Quantity,
    /// Of which partition or machine; empty if of none.
    pub of: String,
    /// Seconds.
    pub seconds: f64,
    /// When it ended.
    pub at: u64,
}

/// What takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// A guest stood still while it was moved, exchanged or resized.
    Pause,
    /// From a user's claim to a machine that accepted.
    Claim,
    /// From a user's claim to a machine that was given.
    Wait,
    /// From a user's claim to the first byte of the program.
    FirstByte,
    /// A machine was put back to what was captured.
    Reset,
    /// A machine was made.
    Refill,
}

impl Event {
    /// As the stream calls it.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Everything(_) => "everything",
            Self::Host(_) => "host",
            Self::Partition(_) => "partition",
            Self::PartitionGone(_) => "partition_gone",
            Self::Pool(_) => "pool",
            Self::Member(_) => "member",
            Self::MemberGone(_) => "member_gone",
            Self::Waiting(_) => "waiting",
            Self::Operation(_) => "operation",
            Self::Measured(_) => "measured",
        }
    }
}

/// An event as it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) number: u64,
    pub(crate) name: &'static str,
    /// The operation that it is about, if it is about one.
    pub(crate) operation: Option<u64>,
    pub(crate) data: Arc<str>,
}

/// The last events.
#[derive(Debug, Default)]
pub(crate) struct Record {
    kept: VecDeque<Written>,
    last: u64,
}

/// A listener has fallen behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Behind;

impl Record {
    pub(crate) fn push(&mut self, event: &Event) {
        let Ok(data) = serde_json::to_string(event) else { return };
        self.last += 1;
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        let (number, name) = (self.last, event.name());
        let operation = match event {
            Event::Operation(operation) => Some(operation.id),
            _ => None,
        };
        self.kept.push_back(Written { number, name, operation, data: data.into() });
    }

    /// Number of the newest event.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// At most `most` events after number `seen`.
    pub(crate) fn after(&self, seen: u64, most: usize) -> Result<Vec<Written>, Behind> {
        let first = self.last - self.kept.len() as u64;
        let skip = seen.checked_sub(first).filter(|_| seen <= self.last).ok_or(Behind)?;
        let skip = usize::try_from(skip).map_err(|_| Behind)?;
        Ok(self.kept.iter().skip(skip).take(most).cloned().collect())
    }
}

fn by_name(partitions: &[Partition]) -> BTreeMap<&str, &Partition> {
    partitions.iter().map(|one| (one.name.as_str(), one)).collect()
}

/// What is different from what was told last.
#[derive(Debug, Default)]
pub struct Changes {
    /// Main storage or the host itself, without partitions, if different.
    pub host: Option<HostState>,
    /// Names of partitions that are no more.
    pub gone: Vec<String>,
    /// Partitions that are new or different.
    pub partitions: Vec<Partition>,
    /// All pools and who waits, different or not; `None` for as they were.
    pub pools: Option<(Vec<Pool>, Vec<Waiting>)>,
}

impl Changes {
    /// Nothing is different.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { host, gone, partitions, pools } = self;
        host.is_none() && gone.is_empty() && partitions.is_empty() && pools.is_none()
    }

    /// Makes `state` what there is now. What is to be told of it.
    pub(crate) fn apply(self, state: &mut State) -> Vec<Event> {
        let Self { host, gone, partitions, pools } = self;
        let mut events = Vec::new();
        if let Some(host) = host {
            let partitions = std::mem::take(&mut state.host.partitions);
            state.host = HostState { partitions, ..host.clone() };
            events.push(Event::Host(HostState { partitions: Vec::new(), ..host }));
        }
        let has = &mut state.host.partitions;
        for name in gone {
            has.retain(|one| one.name != name);
            events.push(Event::PartitionGone(Gone { name }));
        }
        for partition in partitions {
            match has.iter_mut().find(|one| one.name == partition.name) {
                Some(one) => one.clone_from(&partition),
                None => has.push(partition.clone()),
            }
            events.push(Event::Partition(partition));
        }
        has.sort_by_key(|one| one.origin);
        if let Some((pools, waiting)) = pools {
            events.extend(in_pools(&state.pools, &pools));
            if state.waiting != waiting {
                events.push(Event::Waiting(waiting.clone()));
            }
            (state.pools, state.waiting) = (pools, waiting);
        }
        events
    }
}

/// What is different between two states.
pub(crate) fn differences(old: &State, new: &State) -> Vec<Event> {
    let mut events = Vec::new();
    let bare = |host: &HostState| HostState { partitions: Vec::new(), ..host.clone() };
    if bare(&old.host) != bare(&new.host) {
        events.push(Event::Host(bare(&new.host)));
    }
    let (before, after) = (by_name(&old.host.partitions), by_name(&new.host.partitions));
    for gone in old.host.partitions.iter().filter(|one| !after.contains_key(one.name.as_str())) {
        events.push(Event::PartitionGone(Gone { name: gone.name.clone() }));
    }
    let other = |one: &&Partition| before.get(one.name.as_str()).is_none_or(|was| *was != *one);
    events.extend(new.host.partitions.iter().filter(other).cloned().map(Event::Partition));
    events.extend(in_pools(&old.pools, &new.pools));
    if old.waiting != new.waiting {
        events.push(Event::Waiting(new.waiting.clone()));
    }
    events
}

fn in_pools(old: &[Pool], new: &[Pool]) -> Vec<Event> {
    let mut events = Vec::new();
    for pool in new {
        let was = old.iter().find(|was| was.name == pool.name);
        let bare = |pool: &Pool| Pool { members: Vec::new(), ..pool.clone() };
        if was.map(bare).as_ref() != Some(&bare(pool)) {
            events.push(Event::Pool(bare(pool)));
        }
        let before = was.map_or(&[][..], |was| &was.members);
        for gone in before.iter().filter(|one| pool.members.iter().all(|m| m.name != one.name)) {
            let (pool, name) = (pool.name.clone(), gone.name.clone());
            events.push(Event::MemberGone(GoneMember { pool, name }));
        }
        for member in pool.members.iter().filter(|one| !before.contains(one)) {
            let (pool, member) = (pool.name.clone(), member.clone());
            events.push(Event::Member(Member { pool, member }));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(record: &Record, seen: u64) -> Result<Vec<u64>, Behind> {
        Ok(record.after(seen, 4096)?.iter().map(|one| one.number).collect())
    }

    fn partition(name: &str, origin: u64) -> Partition {
        Partition {
            name: name.to_owned(),
            origin,
            size: 1,
            gap: 0,
            state: crate::model::PartitionState::Stopped,
            vcpus: 1,
            engine: "soft".to_owned(),
            image: "minimal".to_owned(),
            ready: false,
            reason: None,
            pool: None,
            change: None,
        }
    }

    #[test]
    fn changes_lead_to_the_same_as_a_whole_state() {
        let host = |partitions| HostState { free: 7, partitions, ..HostState::default() };
        let old = State {
            host: host(vec![partition("a", 0), partition("b", 1), partition("c", 2)]),
            ..State::default()
        };
        let (moved, new) = (partition("a", 9), partition("d", 4));
        let wanted = State {
            host: HostState {
                free: 6,
                ..host(vec![partition("c", 2), new.clone(), moved.clone()])
            },
            ..State::default()
        };
        let changes = Changes {
            host: Some(HostState { free: 6, ..HostState::default() }),
            gone: vec!["b".to_owned()],
            partitions: vec![new, moved],
            pools: Some((Vec::new(), Vec::new())),
        };
        let mut state = old.clone();
        let events = changes.apply(&mut state);
        assert_eq!(state, wanted);
        assert_eq!(events, differences(&old, &wanted));
        assert!(Changes::default().apply(&mut state).is_empty());
        assert_eq!(state, wanted);
    }

    #[test]
    fn who_falls_behind_is_told_and_nobody_else_is_concerned() {
        let mut record = Record::default();
        assert_eq!(numbers(&record, 0), Ok(vec![]));
        for _ in 0..KEPT {
            record.push(&Event::Waiting(Vec::new()));
        }
        assert_eq!(numbers(&record, 0).unwrap().len(), KEPT);
        assert_eq!(record.after(0, 3).unwrap().len(), 3);
        record.push(&Event::Waiting(Vec::new()));
        assert_eq!(numbers(&record, 0), Err(Behind));
        let newest = KEPT as u64 + 1;
        assert_eq!(numbers(&record, newest - 1), Ok(vec![newest]));
        assert_eq!(numbers(&record, newest), Ok(vec![]));
        // A number of the future is nobody's place.
        assert_eq!(numbers(&record, newest + 1), Err(Behind));
    }
}
