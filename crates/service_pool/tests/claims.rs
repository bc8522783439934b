//! Who gets a machine, who waits, who is refused.

mod common;

use common::{Host, assigned, config, member, name, request, secs, tpn, user};
use service_pool::{
    Action, ConfigError, Ending, Event, Grant, Group, MemberState, PoolConfig, Refusal, Request,
    WaitingLimits, Who, Worn,
};

#[test]
fn a_machine_is_worn_from_its_accept_to_the_end_and_then_restored() {
    let mut host = Host::ready(config(1, 1));
    host.now = secs(5);
    let (id, machine) = host.given("alice");
    assert_eq!(host.state("serve-00"), Some(MemberState::Assigned));
    assert_eq!(host.manager.status()[0].members[0].user, None);

    host.now = secs(6);
    assert_eq!(host.step(Event::Accepted(id)), []);
    let status = host.manager.status()[0].members[0].clone();
    assert_eq!(status.state, MemberState::InUse);
    assert_eq!(status.user, Some(user("alice")));
    assert_eq!(status.conversation, Some(id));
    assert_eq!(status.tpn, Some(tpn("MAIL")));
    assert_eq!(status.since, secs(6));

    let actions = host.ended(id);
    let worn = Worn {
        member: machine.clone(),
        conversation: id,
        user: user("alice"),
        tpn: tpn("MAIL"),
        assigned: secs(5),
        accepted: Some(secs(6)),
        how: Ending::Confirmed,
    };
    assert_eq!(actions, [Action::Revoke(worn), Action::Restore(machine.clone())]);
    assert_eq!(host.state("serve-00"), Some(MemberState::Cleaning));

    let waiting = host.waits("bob");
    let actions = host.step(Event::Restored(machine.clone()));
    assert_eq!(assigned(&actions), Some((waiting, machine)));
}

#[test]
fn what_comes_late_or_twice_changes_nothing() {
    let mut host = Host::ready(config(1, 1));
    let (id, machine) = host.given("alice");
    host.step(Event::Accepted(id));
    assert_eq!(host.step(Event::Restored(machine.clone())), []);
    assert_eq!(host.step(Event::Built(machine.clone())), []);
    assert_eq!(host.state("serve-00"), Some(MemberState::InUse));
    assert_eq!(host.ended(id).len(), 2);
    assert_eq!(host.ended(id), []);
    assert_eq!(host.step(Event::Accepted(id)), []);
    assert_eq!(host.step(Event::ClientGone(id)), []);
    assert_eq!(host.step(Event::Restored(member("serve-07"))), []);
    assert_eq!(host.step(Event::Restored(member("other-00"))), []);
    assert_eq!(host.state("serve-00"), Some(MemberState::Cleaning));
}

#[test]
fn a_client_that_vanishes_leaves_the_queue_or_its_machine() {
    let mut host = Host::ready(config(1, 1));
    let (first, machine) = host.given("alice");
    let second = host.waits("bob");
    assert_eq!(host.step(Event::ClientGone(second)), []);
    let actions = host.step(Event::ClientGone(first));
    let [Action::Revoke(worn), Action::Restore(restored)] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(worn.how, Ending::LostConnection);
    assert_eq!(worn.accepted, None);
    assert_eq!(*restored, machine);
    assert_eq!(host.step(Event::Restored(machine)), []);
}

#[test]
fn who_may_not_learns_nothing_and_unknown_programs_are_named() {
    let staff = Group::new("staff").unwrap();
    let grants = vec![
        Grant { who: Who::User(user("alice")), tpns: Some([tpn("MAIL")].into()) },
        Grant { who: Who::Group(staff.clone()), tpns: None },
    ];
    let tpns = [tpn("MAIL"), tpn("STATS")].into();
    let mut host = Host::ready(PoolConfig { grants, tpns, ..config(1, 1) });
    let stats = |who| Request { tpn: tpn("STATS"), ..request(who) };
    assert_eq!(host.refused(stats("alice")), Refusal::NotAuthorised);
    assert_eq!(host.refused(request("bob")), Refusal::NotAuthorised);
    let strange = Request { tpn: tpn("NONE"), ..request("alice") };
    assert_eq!(host.refused(strange), Refusal::UnknownTpn);
    let elsewhere = Request { pool: Some(name("other")), ..request("alice") };
    assert_eq!(host.refused(elsewhere), Refusal::UnknownTpn);
    let (_, actions) =
        host.manager.allocate(host.now, Request { groups: vec![staff], ..stats("bob") });
    assert!(assigned(&actions).is_some());

    let mut nobody = Host::ready(PoolConfig { grants: Vec::new(), ..config(1, 1) });
    assert_eq!(nobody.refused(request("root")), Refusal::NotAuthorised);
}

#[test]
fn a_wait_ends_when_it_is_as_long_as_it_may_be() {
    let mut host = Host::ready(config(1, 1));
    let (_, _) = host.given("alice");
    let id = host.waits("bob");
    assert_eq!(host.manager.deadline(), Some(secs(30)));
    assert_eq!(host.after(29), []);
    let refusal = Refusal::WaitRanOut;
    assert_eq!(host.after(1), [Action::Refuse { conversation: id, refusal }]);
    assert!(refusal.retry());
    assert_eq!(host.manager.deadline(), None);
}

#[test]
fn the_queue_is_bounded_in_all_and_per_user() {
    let limits = WaitingLimits { total: 3, per_user: 2, longest: secs(30) };
    let mut host = Host::ready(PoolConfig { waiting: limits, ..config(1, 1) });
    host.given("alice");
    host.waits("alice");
    host.waits("alice");
    assert_eq!(host.refused(request("alice")), Refusal::QueueFull);
    host.waits("bob");
    assert_eq!(host.refused(request("carol")), Refusal::QueueFull);
    // Waits that are over make room for the claim that finds them so.
    host.now = secs(30);
    let (_, actions) = host.allocate("carol");
    assert_eq!(actions.len(), 3);

    let limits = WaitingLimits { longest: secs(0), ..limits };
    let mut host = Host::ready(PoolConfig { waiting: limits, ..config(1, 1) });
    host.given("alice");
    assert_eq!(host.refused(request("bob")), Refusal::NotNow);
}

#[test]
fn many_requests_of_one_user_do_not_delay_anothers_one() {
    let mut host = Host::ready(config(2, 2));
    let (first, machine) = host.given("alice");
    host.given("bob");
    let alice = [host.waits("alice"), host.waits("alice"), host.waits("alice")];
    let carol = host.waits("carol");
    host.ended(first);
    let actions = host.step(Event::Restored(machine.clone()));
    assert_eq!(assigned(&actions), Some((alice[0], machine.clone())));
    host.ended(alice[0]);
    let actions = host.step(Event::Restored(machine.clone()));
    assert_eq!(assigned(&actions), Some((carol, machine)));
}

#[test]
fn who_has_as_many_machines_as_allowed_waits_beside_free_ones() {
    let mut host = Host::ready(config(3, 3));
    let (first, machine) = host.given("alice");
    host.given("alice");
    let third = host.waits("alice");
    let (_, other) = host.given("bob");
    assert_ne!(machine, other);
    // The restored machine is hers as soon as one of her own has been given back.
    let actions = host.ended(first);
    assert!(assigned(&actions).is_none());
    let actions = host.step(Event::Restored(machine));
    assert_eq!(assigned(&actions).unwrap().0, third);
}

#[test]
fn without_a_pools_name_a_free_machine_anywhere_serves() {
    let mut host = Host::ready(config(1, 1));
    let second = PoolConfig { name: name("more"), ..config(1, 1) };
    host.manager.add_pool(host.now, second.clone()).unwrap();
    host.step(Event::Built(member("more-00")));
    assert_eq!(host.given("alice").1, member("serve-00"));
    assert_eq!(host.given("bob").1, member("more-00"));
    host.waits("carol");
    host.waits("dave");
    let waiting: Vec<usize> = host.manager.status().iter().map(|pool| pool.waiting).collect();
    assert_eq!(waiting, [1, 1]);
    let twice = host.manager.add_pool(host.now, second);
    assert_eq!(twice, Err(ConfigError::SameName(name("more"))));
}

#[test]
fn statements_that_contradict_themselves_are_refused() {
    let mut host = Host::ready(config(1, 1));
    let new = |change: fn(&mut PoolConfig)| {
        let mut config = PoolConfig { name: name("new"), ..config(1, 2) };
        change(&mut config);
        config
    };
    for bad in [
        new(|config| config.min = 3),
        new(|config| config.max = 10_001),
        new(|config| config.tpns.clear()),
        new(|config| config.per_user = 0),
        new(|config| config.builds_at_once = 0),
        new(|config| config.failures_until_stop = 0),
        new(|config| config.grants[0].tpns = Some([tpn("NONE")].into())),
    ] {
        assert!(host.manager.add_pool(host.now, bad.clone()).is_err(), "{bad:?}");
    }
    assert_eq!(host.manager.status().len(), 1);
    assert!(host.manager.resize(host.now, &name("serve"), 2, 1).is_err());
    assert!(host.manager.resize(host.now, &name("new"), 1, 2).is_err());
}
