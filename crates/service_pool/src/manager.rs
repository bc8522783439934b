//! The conversation manager: all pools together.

use std::time::Duration;

use crate::config::{ConfigError, PoolConfig, check_size};
use crate::names::{ConversationId, MemberId, PoolName};
use crate::pool::Pool;
use crate::status::PoolStatus;
use crate::words::{Action, Event, Refusal, Request};

/// The pools, their machines and who waits for them. Its one owner tells it
/// what happens and carries out the actions that come back, in their order.
///
/// Times are since any fixed moment; one that lies before an earlier one counts
/// as that earlier one.
#[derive(Debug)]
pub struct ConversationManager {
    epoch: u64,
    conversations: u64,
    now: Duration,
    // Few: a lookup asks each.
    pools: Vec<Pool>,
}

impl ConversationManager {
    /// A manager without pools. `epoch` must differ from that of every earlier
    /// start of this host, or conversations of two starts have one id: a number
    /// that is counted up on disk, or the time.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, conversations: 0, now: Duration::ZERO, pools: Vec::new() }
    }

    /// Adds a pool; the actions build its first machines.
    ///
    /// # Errors
    /// [`ConfigError`] when the statement contradicts itself or the name is
    /// taken. Nothing has changed then.
    pub fn add_pool(
        &mut self,
        now: Duration,
        config: PoolConfig,
    ) -> Result<Vec<Action>, ConfigError> {
        config.check()?;
        if self.pools.iter().any(|pool| pool.config.name == config.name) {
            return Err(ConfigError::SameName(config.name));
        }
        let now = self.at(now);
        let mut pool = Pool::new(config);
        let mut out = Vec::new();
        pool.settle(now, &mut out);
        self.pools.push(pool);
        Ok(out)
    }

    /// Takes a claim. Its answer, one [`Action::Assign`] or one
    /// [`Action::Refuse`] with this id, is among these actions or comes with
    /// those of a later call; it does not come if the client is gone first.
    ///
    /// If the request names no pool, every pool counts that offers the program
    /// and authorises the user: one that has a machine now, or else the one
    /// with the fewest that wait.
    pub fn allocate(&mut self, now: Duration, request: Request) -> (ConversationId, Vec<Action>) {
        let now = self.at(now);
        let id = ConversationId::new(self.epoch, self.conversations);
        self.conversations += 1;
        let mut out = Vec::new();
        match self.choose(now, &request, &mut out) {
            Ok(pool) => pool.claim(now, id, request, &mut out),
            Err(refusal) => out.push(Action::Refuse { conversation: id, refusal }),
        }
        (id, out)
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now: Duration, event: Event) -> Vec<Action> {
        let now = self.at(now);
        let mut out = Vec::new();
        let pool = match &event {
            Event::Tick => {
                self.pools.iter_mut().for_each(|pool| pool.settle(now, &mut out));
                return out;
            }
            Event::ClientGone(conversation)
            | Event::Accepted(conversation)
            | Event::Ended { conversation, .. } => self.pool_of(*conversation),
            Event::Built(member)
            | Event::BuildFailed { member, .. }
            | Event::Restored(member)
            | Event::RestoreFailed { member, .. }
            | Event::Died { member, .. }
            | Event::Destroyed(member) => self.pool_with(member),
        };
        let Some(pool) = pool else { return out };
        match event {
            Event::Tick => {}
            Event::ClientGone(conversation) => pool.client_gone(now, conversation, &mut out),
            Event::Accepted(conversation) => pool.accepted(now, conversation, &mut out),
            Event::Ended { conversation, how } => pool.ended(now, conversation, how, &mut out),
            Event::Built(member) => pool.built(now, &member, &mut out),
            Event::BuildFailed { member, why } => pool.build_failed(now, &member, &why, &mut out),
            Event::Restored(member) => pool.restored(now, &member),
            Event::RestoreFailed { member, .. } => pool.restore_failed(now, &member),
            Event::Died { member, why } => pool.died(now, &member, &why, &mut out),
            Event::Destroyed(member) => pool.destroyed(&member),
        }
        pool.settle(now, &mut out);
        out
    }

    /// The operator gives a pool other bounds. Free machines over `max` go at
    /// once, those in use when their conversation ends.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no such pool or the bounds do not fit.
    pub fn resize(
        &mut self,
        now: Duration,
        name: &PoolName,
        min: u16,
        max: u16,
    ) -> Result<Vec<Action>, ConfigError> {
        check_size(name, min, max)?;
        self.operate(now, name, |pool, _| {
            pool.config.min = min;
            pool.config.max = max;
        })
    }

    /// The operator says that a pool that stopped building is to try again.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no such pool.
    pub fn resume(&mut self, now: Duration, name: &PoolName) -> Result<Vec<Action>, ConfigError> {
        self.operate(now, name, Pool::resume)
    }

    /// When the next [`Event::Tick`] is due at the latest, if at all.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.pools.iter().filter_map(Pool::deadline).min()
    }

    /// What every pool and machine is doing.
    #[must_use]
    pub fn status(&self) -> Vec<PoolStatus> {
        self.pools.iter().map(Pool::status).collect()
    }

    fn at(&mut self, now: Duration) -> Duration {
        self.now = self.now.max(now);
        self.now
    }

    fn pool_of(&mut self, conversation: ConversationId) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.knows(conversation))
    }

    fn pool_with(&mut self, member: &MemberId) -> Option<&mut Pool> {
        self.pools.iter_mut().find(|pool| pool.config.name == *member.pool())
    }

    fn operate(
        &mut self,
        now: Duration,
        name: &PoolName,
        act: impl FnOnce(&mut Pool, &mut Vec<Action>),
    ) -> Result<Vec<Action>, ConfigError> {
        let now = self.at(now);
        let pool = self.pools.iter_mut().find(|pool| pool.config.name == *name);
        let pool = pool.ok_or_else(|| ConfigError::NoPool(name.clone()))?;
        let mut out = Vec::new();
        act(pool, &mut out);
        pool.settle(now, &mut out);
        Ok(out)
    }

    /// The pool that is to serve `request`. Waits that are over make room first.
    fn choose(
        &mut self,
        now: Duration,
        request: &Request,
        out: &mut Vec<Action>,
    ) -> Result<&mut Pool, Refusal> {
        let named = |pool: &Pool| {
            request.pool.as_ref().is_none_or(|name| pool.config.name == *name)
                && pool.authorisations.offers(&request.tpn)
        };
        let mut refusal = Refusal::UnknownTpn;
        let mut best: Option<(usize, &mut Pool)> = None;
        for pool in self.pools.iter_mut().filter(|pool| named(pool)) {
            if !pool.authorisations.allow(&request.tpn, &request.user, &request.groups) {
                if refusal == Refusal::UnknownTpn {
                    refusal = Refusal::NotAuthorised;
                }
                continue;
            }
            pool.settle(now, out);
            if pool.serves_now(request) {
                return Ok(pool);
            }
            match pool.refuses_wait(request) {
                // A pool that may have room later counts more than a closed one.
                Some(why) if why.retry() || !refusal.retry() => refusal = why,
                Some(_) => {}
                None => {
                    let length = pool.turns.len();
                    if best.as_ref().is_none_or(|(shortest, _)| length < *shortest) {
                        best = Some((length, pool));
                    }
                }
            }
        }
        best.map(|(_, pool)| pool).ok_or(refusal)
    }
}
