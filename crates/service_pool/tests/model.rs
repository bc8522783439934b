//! The manager against a simple model, whatever happens in whatever order.
//!
//! The model knows nothing of turns, growth or refill. It keeps what every
//! action so far says of machines and claims, and refuses actions that
//! contradict it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

mod common;

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::{config, name, request, secs};
use proptest::prelude::*;
use service_pool::{
    Action, ConversationId, ConversationManager, Ending, Event, MemberId, MemberState, PoolConfig,
    UserId, WaitingLimits,
};

const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "eve"];
const QUOTA: usize = 2;
const LIMITS: WaitingLimits =
    WaitingLimits { total: 8, per_user: 3, longest: Duration::from_secs(20) };

/// What the world does next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Op {
    Allocate(usize),
    Withdraw(usize),
    Accept(usize),
    End(usize, Ending),
    Report { which: usize, well: bool },
    Die(usize),
    Wait(u64),
    Resize(u16, u16),
    Resume,
    Nonsense(usize),
}

fn ops() -> impl Strategy<Value = Op> {
    let ending = prop_oneof![
        Just(Ending::Confirmed),
        Just(Ending::NotAccepted),
        Just(Ending::ProgramAbend),
        Just(Ending::Deadline),
    ];
    prop_oneof![
        8 => (0..USERS.len()).prop_map(Op::Allocate),
        1 => any::<usize>().prop_map(Op::Withdraw),
        4 => any::<usize>().prop_map(Op::Accept),
        5 => (any::<usize>(), ending).prop_map(|(which, how)| Op::End(which, how)),
        10 => (any::<usize>(), prop::bool::weighted(0.85))
            .prop_map(|(which, well)| Op::Report { which, well }),
        1 => any::<usize>().prop_map(Op::Die),
        3 => (0_u64..15).prop_map(Op::Wait),
        1 => (0_u16..4, 0_u16..4).prop_map(|(min, more)| Op::Resize(min, min + more)),
        1 => Just(Op::Resume),
        2 => any::<usize>().prop_map(Op::Nonsense),
    ]
}

/// One waiting user: how often others were served while this one could have
/// been, and how many users waited when that began.
#[derive(Debug, Clone, Copy)]
struct Patience {
    passed: usize,
    bound: usize,
}

struct Model {
    manager: ConversationManager,
    now: Duration,
    max: usize,
    members: BTreeMap<MemberId, MemberState>,
    holders: BTreeMap<ConversationId, (UserId, MemberId)>,
    waiting: BTreeMap<ConversationId, (UserId, Duration)>,
    patience: BTreeMap<UserId, Patience>,
    ids: BTreeSet<ConversationId>,
    alarm: bool,
}

impl Model {
    fn new() -> Self {
        let mut model = Self {
            manager: ConversationManager::new(7),
            now: Duration::ZERO,
            max: 4,
            members: BTreeMap::new(),
            holders: BTreeMap::new(),
            waiting: BTreeMap::new(),
            patience: BTreeMap::new(),
            ids: BTreeSet::new(),
            alarm: false,
        };
        let config = PoolConfig { waiting: LIMITS, ..config(2, 4) };
        let first = model.manager.add_pool(model.now, config).unwrap();
        model.take(first);
        model
    }

    fn held(&self, user: &UserId) -> usize {
        self.holders.values().filter(|(holder, _)| holder == user).count()
    }

    fn waiters(&self) -> BTreeSet<UserId> {
        self.waiting.values().map(|(user, _)| user.clone()).collect()
    }

    /// Who could be given a machine now.
    fn review_patience(&mut self) {
        let waiters = self.waiters();
        let bound = waiters.len();
        let mut patience = std::mem::take(&mut self.patience);
        patience.retain(|user, _| waiters.contains(user) && self.held(user) < QUOTA);
        for user in waiters {
            if self.held(&user) < QUOTA {
                patience.entry(user).or_insert(Patience { passed: 0, bound });
            }
        }
        self.patience = patience;
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            self.act(action);
            self.review_patience();
        }
        self.agree();
    }

    fn act(&mut self, action: Action) {
        use MemberState::{Assigned, Broken, Building, Cleaning, Free, Leaving};
        match action {
            Action::Assign { member, conversation, user, .. } => {
                assert_eq!(self.members.insert(member.clone(), Assigned), Some(Free));
                let (waited, until) = self.waiting.remove(&conversation).expect("no answer yet");
                assert_eq!(waited, user);
                assert!(until >= self.now, "the wait was over");
                assert!(self.held(&user) < QUOTA, "over quota");
                self.holders.insert(conversation, (user.clone(), member));
                for (other, patience) in &mut self.patience {
                    if *other != user {
                        patience.passed += 1;
                        assert!(patience.passed < patience.bound, "{other} is passed over");
                    }
                }
                self.patience.remove(&user);
            }
            Action::Refuse { conversation, .. } => {
                assert!(self.waiting.remove(&conversation).is_some(), "no answer yet");
            }
            Action::Revoke(worn) => {
                let (user, member) = self.holders.remove(&worn.conversation).expect("in use");
                assert_eq!((worn.user, worn.member), (user, member));
            }
            Action::Build(member) => {
                assert!(!self.alarm);
                assert_eq!(self.members.insert(member, Building), None);
                assert!(self.members.len() <= self.max, "more machines than allowed");
            }
            Action::Rebuild(member) => {
                assert!(!self.alarm);
                assert_eq!(self.members.insert(member, Building), Some(Broken));
            }
            Action::Restore(member) => {
                let before = self.members.insert(member, Cleaning);
                assert!(matches!(before, Some(Assigned | MemberState::InUse)));
            }
            Action::Destroy(member) => {
                let before = self.members.insert(member.clone(), Leaving);
                assert!(!matches!(before, None | Some(Building | Cleaning | Leaving)));
                assert!(!self.holders.values().any(|(_, held)| *held == member), "still used");
            }
            Action::RaiseAlarm { .. } => assert!(!std::mem::replace(&mut self.alarm, true)),
            Action::ClearAlarm(_) => assert!(std::mem::replace(&mut self.alarm, false)),
        }
        let building = self.members.values().filter(|state| **state == Building).count();
        assert!(building <= 2, "too many builds at once");
    }

    /// Model and snapshot say the same, and nothing is left undone.
    fn agree(&self) {
        let status = self.manager.status().remove(0);
        let there: BTreeMap<MemberId, MemberState> =
            status.members.iter().map(|status| (status.member.clone(), status.state)).collect();
        assert_eq!(there, self.members);
        assert_eq!(status.waiting, self.waiting.len());
        assert_eq!(status.alarm.is_some(), self.alarm);
        assert!(self.waiting.len() <= LIMITS.total);
        for user in self.waiters() {
            let count = self.waiting.values().filter(|(waiter, _)| *waiter == user).count();
            assert!(count <= LIMITS.per_user);
        }
        let free = there.values().any(|state| *state == MemberState::Free);
        assert!(!free || self.patience.is_empty(), "a free machine beside a claim for it");
    }

    fn step(&mut self, event: Event) {
        let actions = self.manager.step(self.now, event);
        self.take(actions);
    }

    /// The machine of a conversation is about to change state.
    fn member_of(&self, conversation: ConversationId) -> Option<MemberId> {
        self.holders.get(&conversation).map(|(_, member)| member.clone())
    }

    fn set(&mut self, member: &MemberId, state: MemberState) {
        self.members.insert(member.clone(), state);
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Allocate(who) => self.allocate(USERS[who]),
            Op::Withdraw(which) => {
                let Some(id) = pick(self.waiting.keys(), which) else { return };
                self.waiting.remove(&id);
                self.review_patience();
                self.step(Event::ClientGone(id));
            }
            Op::Accept(which) => {
                let Some(id) = pick(self.holders.keys(), which) else { return };
                let member = self.member_of(id).unwrap();
                self.set(&member, MemberState::InUse);
                self.step(Event::Accepted(id));
            }
            Op::End(which, how) => {
                let Some(conversation) = pick(self.holders.keys(), which) else { return };
                self.step(Event::Ended { conversation, how });
            }
            Op::Report { which, well } => self.report(which, well),
            Op::Die(which) => self.die(which),
            Op::Wait(seconds) => {
                self.now += secs(seconds);
                self.step(Event::Tick);
                assert!(self.manager.deadline().is_none_or(|deadline| deadline > self.now));
                assert!(self.waiting.values().all(|(_, until)| *until > self.now));
            }
            Op::Resize(min, max) => {
                self.max = usize::from(max);
                let actions = self.manager.resize(self.now, &name("serve"), min, max).unwrap();
                self.take(actions);
            }
            Op::Resume => {
                let actions = self.manager.resume(self.now, &name("serve")).unwrap();
                self.take(actions);
            }
            Op::Nonsense(which) => self.nonsense(which),
        }
    }

    fn allocate(&mut self, who: &str) {
        let request = request(who);
        let user = request.user.clone();
        let (id, actions) = self.manager.allocate(self.now, request);
        assert!(self.ids.insert(id), "an id is used again");
        // Whatever ends before the claim is looked at belongs to older claims.
        self.waiting.insert(id, (user, self.now + LIMITS.longest));
        self.review_patience();
        self.take(actions);
    }

    /// A machine is ready, restored or gone, or it is not.
    fn report(&mut self, which: usize, well: bool) {
        let busy = |state: &MemberState| {
            matches!(state, MemberState::Building | MemberState::Cleaning | MemberState::Leaving)
        };
        let at_work = self.members.iter().filter(|(_, state)| busy(state));
        let Some((member, state)) =
            pick(at_work.map(|(member, state)| (member.clone(), *state)), which)
        else {
            return;
        };
        let why = "trouble".to_owned();
        let event = match (state, well) {
            (MemberState::Leaving, _) => {
                self.members.remove(&member);
                Event::Destroyed(member)
            }
            (MemberState::Building, true) => {
                self.set(&member, MemberState::Free);
                Event::Built(member)
            }
            (_, true) => {
                self.set(&member, MemberState::Free);
                Event::Restored(member)
            }
            (MemberState::Building, false) => {
                self.set(&member, MemberState::Broken);
                Event::BuildFailed { member, why }
            }
            (_, false) => {
                self.set(&member, MemberState::Broken);
                Event::RestoreFailed { member, why }
            }
        };
        self.step(event);
    }

    fn die(&mut self, which: usize) {
        let Some(member) = pick(self.members.keys(), which) else { return };
        if self.members[&member] != MemberState::Leaving {
            self.set(&member, MemberState::Broken);
        }
        self.step(Event::Died { member, why: "killed".to_owned() });
    }

    /// Reports that contradict what the machine is doing.
    fn nonsense(&mut self, which: usize) {
        let Some(member) = pick(self.members.keys(), which) else { return };
        let why = "late".to_owned();
        let state = self.members[&member];
        if state != MemberState::Cleaning {
            self.step(Event::Restored(member.clone()));
            self.step(Event::RestoreFailed { member: member.clone(), why: why.clone() });
        }
        if state != MemberState::Building {
            self.step(Event::Built(member.clone()));
            self.step(Event::BuildFailed { member: member.clone(), why });
        }
        if state != MemberState::Leaving {
            self.step(Event::Destroyed(member));
        }
        if let Some(id) = pick(self.ids.iter(), which)
            && !self.holders.contains_key(&id)
            && !self.waiting.contains_key(&id)
        {
            self.step(Event::Accepted(id));
            self.step(Event::ClientGone(id));
            self.step(Event::Ended { conversation: id, how: Ending::Confirmed });
        }
    }

    /// Everything at work ends well and every conversation ends: then nobody
    /// waits, and the pool has what it is to have.
    fn quiesce(&mut self) {
        self.run(Op::Resize(2, 4));
        self.run(Op::Resume);
        for _ in 0..1000 {
            if let Some(conversation) = pick(self.holders.keys(), 0) {
                self.step(Event::Ended { conversation, how: Ending::Confirmed });
            }
            self.report(0, true);
        }
        assert!(self.waiting.is_empty() && self.holders.is_empty());
        self.run(Op::Wait(100));
        (0..10).for_each(|_| self.report(0, true));
        let free = self.members.values().filter(|state| **state == MemberState::Free).count();
        assert_eq!((free, self.members.len()), (2, 2));
    }
}

/// One of `from`, chosen by `which`.
fn pick<T: Clone>(from: impl IntoIterator<Item = impl Borrow<T>>, which: usize) -> Option<T> {
    let all: Vec<_> = from.into_iter().collect();
    let chosen = which.checked_rem(all.len())?;
    Some(all[chosen].borrow().clone())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happens_the_promises_hold(ops in prop::collection::vec(ops(), 1..250)) {
        let mut model = Model::new();
        for op in ops {
            model.run(op);
        }
        model.quiesce();
    }
}
