//! Whose turn it is: the claims that wait and the quota of their users.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::names::{ConversationId, Tpn, UserId};

/// A claim that has not been answered.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) id: ConversationId,
    pub(crate) user: UserId,
    pub(crate) tpn: Tpn,
    pub(crate) until: Duration,
}

/// What one user has and wants; kept while either is something.
#[derive(Debug, Default)]
struct Account {
    held: u16,
    claims: VecDeque<Claim>,
    // Set exactly while the user wants a machine and may have one more.
    turn: Option<u64>,
}

/// The waiting claims of a pool. Users take turns, whoever has waited longest
/// for one first; a user's own claims go in the order they came. A user who has
/// as many machines as allowed has no turn until one of them is given back.
#[derive(Debug)]
pub(crate) struct Turns {
    quota: u16,
    accounts: BTreeMap<UserId, Account>,
    turns: BTreeMap<u64, UserId>,
    next_turn: u64,
    ends: BTreeSet<(Duration, ConversationId)>,
    users: BTreeMap<ConversationId, UserId>,
}

impl Turns {
    /// Nobody waits; one user may have `quota` machines.
    pub(crate) fn new(quota: u16) -> Self {
        Self {
            quota,
            accounts: BTreeMap::new(),
            turns: BTreeMap::new(),
            next_turn: 0,
            ends: BTreeSet::new(),
            users: BTreeMap::new(),
        }
    }

    /// How many claims wait.
    pub(crate) fn len(&self) -> usize {
        self.users.len()
    }

    /// How many claims of `user` wait.
    pub(crate) fn len_of(&self, user: &UserId) -> usize {
        self.accounts.get(user).map_or(0, |account| account.claims.len())
    }

    /// Whether `user` may have one more machine.
    pub(crate) fn below_quota(&self, user: &UserId) -> bool {
        self.accounts.get(user).is_none_or(|account| account.held < self.quota)
    }

    /// When the next wait is over.
    pub(crate) fn first_end(&self) -> Option<Duration> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Whether `claim` is one of those that wait.
    pub(crate) fn contains(&self, claim: ConversationId) -> bool {
        self.users.contains_key(&claim)
    }

    /// How many machines could be given out now, were they there; counted up to
    /// `most`.
    pub(crate) fn demand(&self, most: usize) -> usize {
        let mut demand = 0;
        for account in self.turns.values().filter_map(|user| self.accounts.get(user)) {
            if demand >= most {
                break;
            }
            let room = usize::from(self.quota.saturating_sub(account.held));
            demand += account.claims.len().min(room);
        }
        demand.min(most)
    }

    /// One more claim waits.
    pub(crate) fn push(&mut self, claim: Claim) {
        let user = claim.user.clone();
        self.ends.insert((claim.until, claim.id));
        self.users.insert(claim.id, user.clone());
        self.accounts.entry(user.clone()).or_default().claims.push_back(claim);
        self.review(&user);
    }

    /// Takes the claim whose turn it is; its user has a machine more.
    pub(crate) fn next(&mut self) -> Option<Claim> {
        let (_, user) = self.turns.pop_first()?;
        let account = self.accounts.get_mut(&user)?;
        account.turn = None;
        let claim = account.claims.pop_front()?;
        account.held += 1;
        self.forget(&claim);
        self.review(&user);
        Some(claim)
    }

    /// `user` has a machine less.
    pub(crate) fn give_back(&mut self, user: &UserId) {
        if let Some(account) = self.accounts.get_mut(user) {
            account.held = account.held.saturating_sub(1);
        }
        self.review(user);
    }

    /// Takes a claim out; false if it does not wait.
    pub(crate) fn withdraw(&mut self, id: ConversationId) -> bool {
        let Some(user) = self.users.get(&id).cloned() else { return false };
        let claim = self.accounts.get_mut(&user).and_then(|account| {
            let place = account.claims.iter().position(|claim| claim.id == id)?;
            account.claims.remove(place)
        });
        if let Some(claim) = claim {
            self.forget(&claim);
        }
        self.review(&user);
        true
    }

    /// Takes out a claim whose wait is over at `now`.
    pub(crate) fn expire(&mut self, now: Duration) -> Option<ConversationId> {
        let (_, id) = self.ends.first().copied().filter(|(end, _)| *end <= now)?;
        self.withdraw(id).then_some(id)
    }

    /// Takes out any claim.
    pub(crate) fn pop_any(&mut self) -> Option<ConversationId> {
        let (_, id) = self.ends.first().copied()?;
        self.withdraw(id).then_some(id)
    }

    fn forget(&mut self, claim: &Claim) {
        self.ends.remove(&(claim.until, claim.id));
        self.users.remove(&claim.id);
    }

    /// Gives `user` a turn or takes it, as wants and quota say. A turn that is
    /// there stays where it is.
    fn review(&mut self, user: &UserId) {
        let Some(account) = self.accounts.get_mut(user) else { return };
        let wants = !account.claims.is_empty() && account.held < self.quota;
        match account.turn {
            None if wants => {
                account.turn = Some(self.next_turn);
                self.turns.insert(self.next_turn, user.clone());
                self.next_turn += 1;
            }
            Some(turn) if !wants => {
                account.turn = None;
                self.turns.remove(&turn);
            }
            _ => {}
        }
        if account.held == 0 && account.claims.is_empty() {
            self.accounts.remove(user);
        }
    }
}
