//! One pool: who gets which machine.
//!
//! ```text
//!                  Build                 Assign               Accepted
//! (nothing) ──► building ──Built──► free ──────► assigned ──────────────► in use
//!                ▲    │              ▲ │             │                      │
//!                │    │BuildFailed   │ │surplus      └──── Ended, Revoke ───┤
//!         Rebuild│    ▼              │ ▼                                    ▼
//!                └─ broken ◄─────────│─leaving ◄────surplus──────────── cleaning
//!                      ▲    Died     │    │                              │  │
//!                      │             └────│──────────Restored────────────┘  │
//!                      └──────────────────│──────────RestoreFailed──────────┘
//!                                         ▼ Destroyed: (nothing)
//! ```
//!
//! A machine that dies is broken, whatever it was doing. Every event ends with
//! [`Pool::settle`], so that a free machine and a claim that may have it are
//! never left beside each other.

use std::time::Duration;

use crate::config::{Authorisations, PoolConfig};
use crate::health::Health;
use crate::members::{Doing, Members, Use};
use crate::names::{ConversationId, MemberId};
use crate::status::{MemberState, PoolStatus};
use crate::turns::{Claim, Turns};
use crate::words::{Action, Ending, Refusal, Request, Worn};

/// One pool. The manager steps it.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    pub(crate) authorisations: Authorisations,
    pub(crate) members: Members,
    pub(crate) turns: Turns,
    pub(crate) health: Health,
}

impl Pool {
    /// A pool without machines; `config` has been checked.
    pub(crate) fn new(config: PoolConfig) -> Self {
        Self {
            authorisations: Authorisations::new(&config),
            members: Members::new(config.name.clone(), config.max),
            turns: Turns::new(config.per_user),
            health: Health::new(config.failures_until_stop),
            config,
        }
    }

    /// Whether a claim of this request would get a machine at once.
    pub(crate) fn serves_now(&self, request: &Request) -> bool {
        self.members.count(MemberState::Free) > 0 && self.turns.below_quota(&request.user)
    }

    /// Why a claim of this request may not wait, if so.
    pub(crate) fn refuses_wait(&self, request: &Request) -> Option<Refusal> {
        let limits = &self.config.waiting;
        if self.config.max == 0 {
            Some(Refusal::Closed)
        } else if limits.longest.is_zero() {
            Some(Refusal::NotNow)
        } else if self.turns.len() >= limits.total
            || self.turns.len_of(&request.user) >= limits.per_user
        {
            Some(Refusal::QueueFull)
        } else {
            None
        }
    }

    /// Takes a claim that gets a machine at once or may wait.
    pub(crate) fn claim(
        &mut self,
        now: Duration,
        id: ConversationId,
        request: Request,
        out: &mut Vec<Action>,
    ) {
        let until = now.saturating_add(self.config.waiting.longest);
        self.turns.push(Claim { id, user: request.user, tpn: request.tpn, until });
        // Before settling, where a wait of zero would be over.
        self.assign(now, out);
        self.settle(now, out);
    }

    /// Whether `conversation` waits here or has a machine of this pool.
    pub(crate) fn knows(&self, conversation: ConversationId) -> bool {
        self.turns.contains(conversation) || self.members.user_of(conversation).is_some()
    }

    pub(crate) fn client_gone(
        &mut self,
        now: Duration,
        conversation: ConversationId,
        out: &mut Vec<Action>,
    ) {
        if !self.turns.withdraw(conversation) {
            self.ended(now, conversation, Ending::LostConnection, out);
        }
    }

    pub(crate) fn accepted(
        &mut self,
        now: Duration,
        conversation: ConversationId,
        out: &mut Vec<Action>,
    ) {
        let Some(number) = self.members.user_of(conversation) else { return };
        let Some(usage) = self.members.usage(number).filter(|usage| usage.accepted.is_none())
        else {
            return;
        };
        let usage = Use { accepted: Some(now), ..usage.clone() };
        self.members.set(number, now, Doing::Used(usage));
        if self.health.served() {
            out.push(Action::ClearAlarm(self.config.name.clone()));
        }
    }

    pub(crate) fn ended(
        &mut self,
        now: Duration,
        conversation: ConversationId,
        how: Ending,
        out: &mut Vec<Action>,
    ) {
        let Some(number) = self.members.user_of(conversation) else { return };
        self.revoke(number, how, out);
        if self.members.alive() > usize::from(self.config.max) {
            self.destroy(number, now, out);
        } else {
            self.members.set(number, now, Doing::Cleaning);
            out.push(Action::Restore(self.members.id(number)));
        }
    }

    pub(crate) fn built(&mut self, now: Duration, member: &MemberId, out: &mut Vec<Action>) {
        let Some(number) = self.members.number(member) else { return };
        if matches!(self.members.get(number), Some(Doing::Building)) {
            self.members.set(number, now, Doing::Free { served: false });
            if self.health.built() {
                out.push(Action::ClearAlarm(self.config.name.clone()));
            }
        }
    }

    pub(crate) fn restored(&mut self, now: Duration, member: &MemberId) {
        let Some(number) = self.members.number(member) else { return };
        if matches!(self.members.get(number), Some(Doing::Cleaning)) {
            self.members.set(number, now, Doing::Free { served: true });
        }
    }

    pub(crate) fn restore_failed(&mut self, now: Duration, member: &MemberId) {
        let Some(number) = self.members.number(member) else { return };
        if matches!(self.members.get(number), Some(Doing::Cleaning)) {
            self.members.set(number, now, Doing::Broken);
        }
    }

    pub(crate) fn build_failed(
        &mut self,
        now: Duration,
        member: &MemberId,
        why: &str,
        out: &mut Vec<Action>,
    ) {
        let Some(number) = self.members.number(member) else { return };
        if matches!(self.members.get(number), Some(Doing::Building)) {
            self.members.set(number, now, Doing::Broken);
            let alarm = self.health.build_failed(why);
            self.raise(alarm, why, out);
        }
    }

    pub(crate) fn died(
        &mut self,
        now: Duration,
        member: &MemberId,
        why: &str,
        out: &mut Vec<Action>,
    ) {
        let Some(number) = self.members.number(member) else { return };
        match self.members.get(number) {
            Some(Doing::Building) => return self.build_failed(now, member, why, out),
            Some(Doing::Used(_)) => self.revoke(number, Ending::MachineDied, out),
            Some(Doing::Free { served: false }) => {
                let alarm = self.health.died_unused(why);
                self.raise(alarm, why, out);
            }
            Some(Doing::Free { served: true } | Doing::Cleaning) => {}
            // It is known to be broken, or is being destroyed anyway.
            Some(Doing::Broken | Doing::Leaving) | None => return,
        }
        self.members.set(number, now, Doing::Broken);
    }

    pub(crate) fn destroyed(&mut self, member: &MemberId) {
        let Some(number) = self.members.number(member) else { return };
        if matches!(self.members.get(number), Some(Doing::Leaving)) {
            self.members.remove(number);
        }
    }

    /// The operator says that builds may go on.
    pub(crate) fn resume(&mut self, out: &mut Vec<Action>) {
        if self.health.resume() {
            out.push(Action::ClearAlarm(self.config.name.clone()));
        }
    }

    fn raise(&self, alarm: Option<u16>, why: &str, out: &mut Vec<Action>) {
        if let Some(failures) = alarm {
            let (pool, why) = (self.config.name.clone(), why.to_owned());
            out.push(Action::RaiseAlarm { pool, failures, why });
        }
    }

    /// The user of machine `number` is its user no more.
    fn revoke(&mut self, number: u16, how: Ending, out: &mut Vec<Action>) {
        let Some(usage) = self.members.usage(number).cloned() else { return };
        self.turns.give_back(&usage.user);
        out.push(Action::Revoke(Worn {
            member: self.members.id(number),
            conversation: usage.conversation,
            user: usage.user,
            tpn: usage.tpn,
            assigned: usage.assigned,
            accepted: usage.accepted,
            how,
        }));
    }

    pub(crate) fn destroy(&mut self, number: u16, now: Duration, out: &mut Vec<Action>) {
        self.members.set(number, now, Doing::Leaving);
        out.push(Action::Destroy(self.members.id(number)));
    }

    /// Draws the consequences of whatever changed.
    pub(crate) fn settle(&mut self, now: Duration, out: &mut Vec<Action>) {
        while let Some(conversation) = self.turns.expire(now) {
            out.push(Action::Refuse { conversation, refusal: Refusal::WaitRanOut });
        }
        self.shrink_to_bounds(now, out);
        self.assign(now, out);
        self.shrink_idle(now, out);
        self.refill(now, out);
        if let Some(refusal) = self.hopeless() {
            while let Some(conversation) = self.turns.pop_any() {
                out.push(Action::Refuse { conversation, refusal });
            }
        }
    }

    /// Gives free machines to those whose turn it is.
    fn assign(&mut self, now: Duration, out: &mut Vec<Action>) {
        while let Some(number) = self.members.last_free() {
            let Some(claim) = self.turns.next() else { return };
            let usage = Use {
                conversation: claim.id,
                user: claim.user.clone(),
                tpn: claim.tpn.clone(),
                assigned: now,
                accepted: None,
            };
            self.members.set(number, now, Doing::Used(usage));
            out.push(Action::Assign {
                member: self.members.id(number),
                conversation: claim.id,
                user: claim.user,
                tpn: claim.tpn,
            });
        }
    }

    /// Why nobody who waits can get a machine, if so.
    fn hopeless(&self) -> Option<Refusal> {
        if self.config.max == 0 {
            Some(Refusal::Closed)
        } else if self.health.stopped() && self.members.alive() == 0 {
            Some(Refusal::NotNow)
        } else {
            None
        }
    }

    pub(crate) fn status(&self) -> PoolStatus {
        PoolStatus {
            name: self.config.name.clone(),
            min: self.config.min,
            max: self.config.max,
            waiting: self.turns.len(),
            alarm: self.health.alarm().map(str::to_owned),
            members: self.members.status(),
        }
    }
}
