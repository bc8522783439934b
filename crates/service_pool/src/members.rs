//! The machines of one pool and what each is doing.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::names::{ConversationId, MemberId, PoolName, Tpn, UserId, width_for};
use crate::status::{MemberState, MemberStatus};

/// A machine's use by a conversation.
#[derive(Debug, Clone)]
pub(crate) struct Use {
    pub(crate) conversation: ConversationId,
    pub(crate) user: UserId,
    pub(crate) tpn: Tpn,
    pub(crate) assigned: Duration,
    pub(crate) accepted: Option<Duration>,
}

#[derive(Debug)]
pub(crate) enum Doing {
    Building,
    /// Free; whether it has ever been used.
    Free {
        served: bool,
    },
    Used(Use),
    Cleaning,
    Broken,
    Leaving,
}

impl Doing {
    fn state(&self) -> MemberState {
        match self {
            Self::Building => MemberState::Building,
            Self::Free { .. } => MemberState::Free,
            Self::Used(Use { accepted: None, .. }) => MemberState::Assigned,
            Self::Used(_) => MemberState::InUse,
            Self::Cleaning => MemberState::Cleaning,
            Self::Broken => MemberState::Broken,
            Self::Leaving => MemberState::Leaving,
        }
    }
}

#[derive(Debug)]
struct Slot {
    doing: Doing,
    since: Duration,
}

/// The machines. Every change goes through `put`, which keeps the counts, the
/// free list and the index of conversations in step with the slots.
#[derive(Debug)]
pub(crate) struct Members {
    pool: PoolName,
    width: u8,
    slots: Vec<Option<Slot>>,
    // Longest free first.
    free: VecDeque<u16>,
    used: BTreeMap<ConversationId, u16>,
    counts: [usize; MemberState::COUNT],
}

impl Members {
    /// No machines yet, of a pool that is to have up to `max`.
    pub(crate) fn new(pool: PoolName, max: u16) -> Self {
        Self {
            pool,
            width: width_for(max),
            slots: Vec::new(),
            free: VecDeque::new(),
            used: BTreeMap::new(),
            counts: [0; MemberState::COUNT],
        }
    }

    pub(crate) fn id(&self, number: u16) -> MemberId {
        MemberId::new(self.pool.clone(), number, self.width)
    }

    /// The number of the machine `id`, if it is one of these and there.
    pub(crate) fn number(&self, id: &MemberId) -> Option<u16> {
        let number = id.number();
        (self.get(number).is_some() && self.id(number) == *id).then_some(number)
    }

    pub(crate) fn get(&self, number: u16) -> Option<&Doing> {
        self.slots.get(usize::from(number))?.as_ref().map(|slot| &slot.doing)
    }

    /// Who uses the machine `number`.
    pub(crate) fn usage(&self, number: u16) -> Option<&Use> {
        match self.get(number) {
            Some(Doing::Used(usage)) => Some(usage),
            _ => None,
        }
    }

    /// The machine that `conversation` uses.
    pub(crate) fn user_of(&self, conversation: ConversationId) -> Option<u16> {
        self.used.get(&conversation).copied()
    }

    pub(crate) fn count(&self, state: MemberState) -> usize {
        self.counts[state as usize]
    }

    /// Machines that serve or will.
    pub(crate) fn alive(&self) -> usize {
        let gone = self.count(MemberState::Broken) + self.count(MemberState::Leaving);
        self.occupied() - gone
    }

    /// Machines of which there is anything.
    pub(crate) fn occupied(&self) -> usize {
        self.counts.iter().sum()
    }

    /// The machine that became free last; the others may be given up sooner.
    pub(crate) fn last_free(&self) -> Option<u16> {
        self.free.back().copied()
    }

    /// The machine that has been free longest, and since when.
    pub(crate) fn longest_free(&self) -> Option<(u16, Duration)> {
        let number = *self.free.front()?;
        let slot = self.slots.get(usize::from(number))?.as_ref()?;
        Some((number, slot.since))
    }

    /// A broken machine, if there is one.
    pub(crate) fn broken(&self) -> Option<u16> {
        if self.count(MemberState::Broken) == 0 {
            return None;
        }
        let broken = |slot: &Option<Slot>| {
            slot.as_ref().is_some_and(|slot| matches!(slot.doing, Doing::Broken))
        };
        self.slots.iter().position(broken).and_then(|number| number.try_into().ok())
    }

    /// The lowest number that no machine has.
    pub(crate) fn vacant(&self) -> Option<u16> {
        let vacant = self.slots.iter().position(Option::is_none);
        vacant.unwrap_or(self.slots.len()).try_into().ok()
    }

    /// From `now` on the machine `number` does this.
    pub(crate) fn set(&mut self, number: u16, now: Duration, doing: Doing) {
        self.put(number, Some(Slot { doing, since: now }));
    }

    /// Nothing is left of the machine `number`.
    pub(crate) fn remove(&mut self, number: u16) {
        self.put(number, None);
    }

    fn put(&mut self, number: u16, new: Option<Slot>) {
        let place = usize::from(number);
        if place >= self.slots.len() {
            self.slots.resize_with(place + 1, || None);
        }
        if let Some(slot) = &new {
            self.counts[slot.doing.state() as usize] += 1;
            match &slot.doing {
                Doing::Free { .. } => self.free.push_back(number),
                Doing::Used(usage) => drop(self.used.insert(usage.conversation, number)),
                _ => {}
            }
        }
        let kept = new.as_ref().and_then(|slot| match &slot.doing {
            Doing::Used(usage) => Some(usage.conversation),
            _ => None,
        });
        let Some(old) = std::mem::replace(&mut self.slots[place], new) else { return };
        self.counts[old.doing.state() as usize] -= 1;
        match &old.doing {
            // The last one is what an assignment takes.
            Doing::Free { .. } if self.free.back() == Some(&number) => drop(self.free.pop_back()),
            Doing::Free { .. } => self.free.retain(|free| *free != number),
            Doing::Used(usage) if kept != Some(usage.conversation) => {
                self.used.remove(&usage.conversation);
            }
            _ => {}
        }
    }

    /// What the operator sees of each machine.
    pub(crate) fn status(&self) -> Vec<MemberStatus> {
        let numbered = (0..).zip(&self.slots);
        let there = numbered.filter_map(|(number, slot)| Some((number, slot.as_ref()?)));
        there
            .map(|(number, Slot { doing, since })| {
                let usage = self.usage(number);
                let worn = usage.filter(|usage| usage.accepted.is_some());
                MemberStatus {
                    member: self.id(number),
                    state: doing.state(),
                    tpn: usage.map(|usage| usage.tpn.clone()),
                    user: worn.map(|usage| usage.user.clone()),
                    conversation: usage.map(|usage| usage.conversation),
                    since: *since,
                }
            })
            .collect()
    }
}
