//! A pool of the tests and short ways to speak to it.

#![allow(dead_code, reason = "each test file uses some of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::time::Duration;

use service_pool::{
    Action, ConversationId, ConversationManager, Ending, Event, Grant, MemberId, MemberState,
    PoolConfig, PoolName, Refusal, Request, Tpn, UserId, WaitingLimits, Who,
};

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn name(text: &str) -> PoolName {
    PoolName::new(text).unwrap()
}

pub(crate) fn tpn(text: &str) -> Tpn {
    Tpn::new(text).unwrap()
}

pub(crate) fn user(text: &str) -> UserId {
    UserId::new(text).unwrap()
}

pub(crate) fn member(text: &str) -> MemberId {
    text.parse().unwrap()
}

/// `serve` for MAIL, open to anybody: `min` to `max` machines, each user two.
pub(crate) fn config(min: u16, max: u16) -> PoolConfig {
    PoolConfig {
        name: name("serve"),
        min,
        max,
        tpns: [tpn("MAIL")].into(),
        grants: vec![Grant { who: Who::Anybody, tpns: None }],
        per_user: 2,
        waiting: WaitingLimits { total: 10, per_user: 4, longest: secs(30) },
        builds_at_once: 2,
        failures_until_stop: 3,
        idle: secs(60),
    }
}

pub(crate) fn request(who: &str) -> Request {
    Request { user: user(who), groups: Vec::new(), tpn: tpn("MAIL"), pool: None }
}

/// A manager with a clock.
pub(crate) struct Host {
    pub(crate) manager: ConversationManager,
    pub(crate) now: Duration,
}

impl Host {
    /// A host with one pool, and what it does first.
    pub(crate) fn starting(config: PoolConfig) -> (Self, Vec<Action>) {
        let mut manager = ConversationManager::new(1);
        let first = manager.add_pool(Duration::ZERO, config).unwrap();
        (Self { manager, now: Duration::ZERO }, first)
    }

    /// A host with one pool, whose machines are built.
    pub(crate) fn ready(config: PoolConfig) -> Self {
        let (mut host, mut actions) = Self::starting(config);
        while let Some(action) = actions.pop() {
            let Action::Build(member) = action else { panic!("{action:?}") };
            actions.extend(host.step(Event::Built(member)));
        }
        host
    }

    pub(crate) fn step(&mut self, event: Event) -> Vec<Action> {
        self.manager.step(self.now, event)
    }

    pub(crate) fn allocate(&mut self, who: &str) -> (ConversationId, Vec<Action>) {
        self.manager.allocate(self.now, request(who))
    }

    /// A claim that gets a machine at once.
    pub(crate) fn given(&mut self, who: &str) -> (ConversationId, MemberId) {
        let (id, actions) = self.allocate(who);
        (id, assigned(&actions).unwrap_or_else(|| panic!("{actions:?}")).1)
    }

    /// A claim that has to wait.
    pub(crate) fn waits(&mut self, who: &str) -> ConversationId {
        let (id, actions) = self.allocate(who);
        assert_eq!(actions, []);
        id
    }

    /// A claim that is refused at once.
    pub(crate) fn refused(&mut self, request: Request) -> Refusal {
        let (id, actions) = self.manager.allocate(self.now, request);
        match actions[..] {
            [Action::Refuse { conversation, refusal }] if conversation == id => refusal,
            _ => panic!("{actions:?}"),
        }
    }

    pub(crate) fn ended(&mut self, conversation: ConversationId) -> Vec<Action> {
        self.step(Event::Ended { conversation, how: Ending::Confirmed })
    }

    pub(crate) fn after(&mut self, seconds: u64) -> Vec<Action> {
        self.now += secs(seconds);
        self.step(Event::Tick)
    }

    pub(crate) fn state(&self, id: &str) -> Option<MemberState> {
        let pools = self.manager.status();
        let mut members = pools.into_iter().flat_map(|pool| pool.members);
        members.find(|status| status.member.to_string() == id).map(|status| status.state)
    }
}

/// The first assignment among `actions`.
pub(crate) fn assigned(actions: &[Action]) -> Option<(ConversationId, MemberId)> {
    actions.iter().find_map(|action| match action {
        Action::Assign { conversation, member, .. } => Some((*conversation, member.clone())),
        _ => None,
    })
}
