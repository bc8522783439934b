//! How many machines there are: refill, growth, failures, giving up.

mod common;

use common::{Host, assigned, config, member, name, request, secs};
use service_pool::{Action, Ending, Event, MemberState, PoolConfig, Refusal};

fn failed(id: &str) -> Event {
    Event::BuildFailed { member: member(id), why: "no storage".to_owned() }
}

fn died(id: &str) -> Event {
    Event::Died { member: member(id), why: "killed".to_owned() }
}

#[test]
fn a_pool_fills_up_a_few_builds_at_a_time() {
    let (mut host, first) = Host::starting(config(3, 5));
    assert_eq!(first, [Action::Build(member("serve-00")), Action::Build(member("serve-01"))]);
    let next = host.step(Event::Built(member("serve-01")));
    assert_eq!(next, [Action::Build(member("serve-02"))]);
    assert_eq!(host.step(Event::Built(member("serve-00"))), []);
    assert_eq!(host.step(Event::Built(member("serve-02"))), []);
}

#[test]
fn claims_beyond_the_machines_that_are_coming_make_the_pool_grow() {
    let mut host = Host::ready(config(1, 3));
    host.given("alice");
    let (_, actions) = host.allocate("bob");
    assert_eq!(actions, [Action::Build(member("serve-01"))]);
    let (_, actions) = host.allocate("carol");
    assert_eq!(actions, [Action::Build(member("serve-02"))]);
    host.waits("dave");
    assert!(assigned(&host.step(Event::Built(member("serve-01")))).is_some());
}

#[test]
fn nothing_is_built_for_who_may_not_have_more_or_gets_a_restored_one() {
    let mut host = Host::ready(PoolConfig { per_user: 1, ..config(1, 3) });
    let (first, machine) = host.given("alice");
    host.waits("alice");
    host.ended(first);
    assert_eq!(host.state("serve-00"), Some(MemberState::Cleaning));
    assert!(assigned(&host.step(Event::Restored(machine))).is_some());
}

#[test]
fn filling_up_waits_while_a_claim_waits_for_a_restore() {
    let mut host = Host::ready(config(2, 2));
    let (first, machine) = host.given("alice");
    let (second, other) = host.given("bob");
    host.ended(first);
    host.waits("carol");
    // One machine is being restored and carol waits for it: the other's
    // rebuild comes after.
    let actions = host.step(died(&other.to_string()));
    let [Action::Revoke(worn)] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!((worn.conversation, worn.how), (second, Ending::MachineDied));
    assert_eq!(host.state(&other.to_string()), Some(MemberState::Broken));
    let actions = host.step(Event::Restored(machine));
    assert!(assigned(&actions).is_some());
    assert_eq!(actions.last(), Some(&Action::Rebuild(other)));
}

#[test]
fn machines_over_the_minimum_go_when_nobody_wanted_them_for_long() {
    let mut host = Host::ready(config(1, 2));
    let (first, machine) = host.given("alice");
    host.allocate("bob");
    host.step(Event::Built(member("serve-01")));
    host.ended(first);
    host.step(Event::Restored(machine.clone()));
    assert_eq!(host.manager.deadline(), Some(secs(60)));
    assert_eq!(host.after(59), []);
    assert_eq!(host.after(1), [Action::Destroy(machine.clone())]);
    assert_eq!(host.state("serve-00"), Some(MemberState::Leaving));
    // There are never more than the maximum, also while one is leaving.
    host.waits("carol");
    let actions = host.step(Event::Destroyed(machine.clone()));
    assert_eq!(actions, [Action::Build(machine)]);
}

#[test]
fn a_machine_that_cannot_be_restored_is_broken_until_rebuilt() {
    let mut host = Host::ready(config(1, 1));
    let (id, machine) = host.given("alice");
    host.waits("bob");
    host.ended(id);
    let why = "a page differs".to_owned();
    let actions = host.step(Event::RestoreFailed { member: machine.clone(), why });
    assert_eq!(actions, [Action::Rebuild(machine.clone())]);
    assert_eq!(host.step(Event::Restored(machine.clone())), []);
    assert!(assigned(&host.step(Event::Built(machine))).is_some());
}

#[test]
fn builds_stop_with_an_alarm_after_failures_in_a_row() {
    let (mut host, _) = Host::starting(config(3, 3));
    host.step(failed("serve-00"));
    host.step(Event::Built(member("serve-01")));
    // The success began the count again.
    host.step(failed("serve-02"));
    host.step(failed("serve-00"));
    let actions = host.step(failed("serve-02"));
    let (pool, why) = (name("serve"), "no storage".to_owned());
    assert_eq!(actions, [Action::RaiseAlarm { pool, failures: 3, why }]);
    assert_eq!(host.manager.status()[0].alarm.as_deref(), Some("no storage"));
    // One that was under way may still succeed, and shows that builds work.
    let actions = host.step(Event::Built(member("serve-00")));
    assert_eq!(actions, [Action::ClearAlarm(name("serve")), Action::Rebuild(member("serve-02"))]);
}

#[test]
fn a_pool_without_machines_or_hope_refuses_until_the_operator_resumes_it() {
    let (mut host, _) = Host::starting(config(1, 1));
    let id = host.waits("alice");
    host.step(failed("serve-00"));
    host.step(failed("serve-00"));
    let actions = host.step(failed("serve-00"));
    let refusal = Refusal::NotNow;
    assert_eq!(actions.last(), Some(&Action::Refuse { conversation: id, refusal }));
    assert_eq!(host.refused(request("bob")), Refusal::NotNow);
    let actions = host.manager.resume(host.now, &name("serve")).unwrap();
    assert_eq!(actions, [Action::ClearAlarm(name("serve")), Action::Rebuild(member("serve-00"))]);
    host.waits("alice");
}

#[test]
fn machines_that_die_before_anybody_had_them_are_not_rebuilt_for_ever() {
    let mut host = Host::ready(config(1, 1));
    for _ in 0..2 {
        assert_eq!(host.step(died("serve-00")), [Action::Rebuild(member("serve-00"))]);
        assert_eq!(host.step(Event::Built(member("serve-00"))), []);
    }
    let actions = host.step(died("serve-00"));
    assert!(matches!(actions[..], [Action::RaiseAlarm { failures: 3, .. }]), "{actions:?}");
}

#[test]
fn the_operator_makes_a_pool_smaller_and_closes_it() {
    let mut host = Host::ready(config(3, 3));
    let (id, machine) = host.given("alice");
    let actions = host.manager.resize(host.now, &name("serve"), 1, 1).unwrap();
    assert_eq!(actions.len(), 2);
    assert!(actions.iter().all(|action| matches!(action, Action::Destroy(_))));
    let waiting = host.waits("bob");
    let actions = host.manager.resize(host.now, &name("serve"), 0, 0).unwrap();
    let refusal = Refusal::Closed;
    assert_eq!(actions, [Action::Refuse { conversation: waiting, refusal }]);
    assert_eq!(host.refused(request("bob")), Refusal::Closed);
    assert!(!refusal.retry());
    // Whoever has a machine keeps it to the end.
    let actions = host.ended(id);
    assert_eq!(actions.last(), Some(&Action::Destroy(machine)));
    for id in ["serve-00", "serve-01", "serve-02"] {
        host.step(Event::Destroyed(member(id)));
    }
    assert_eq!(host.manager.status()[0].members, []);
    let actions = host.manager.resize(host.now, &name("serve"), 1, 200).unwrap();
    assert_eq!(actions, [Action::Build(member("serve-00"))]);
}
