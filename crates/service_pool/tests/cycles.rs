//! Many clients at once, for long.

mod common;

use std::collections::{BTreeSet, VecDeque};

use common::{Host, config};
use service_pool::{Action, Event, PoolConfig, WaitingLimits};

const CLIENTS: usize = 64;
const CYCLES: usize = 100_000;

#[test]
fn a_hundred_thousand_conversations_lose_no_machine_and_share_none() {
    let waiting = WaitingLimits { total: CLIENTS, ..config(1, 1).waiting };
    let mut host = Host::ready(PoolConfig { waiting, ..config(15, 15) });
    let clients: Vec<String> = (0..CLIENTS).map(|client| format!("client{client}")).collect();
    let mut served = vec![0_usize; CLIENTS];
    let mut given = BTreeSet::new();
    let mut running = VecDeque::new();
    let mut actions: VecDeque<Action> = VecDeque::new();
    for client in &clients {
        actions.extend(host.allocate(client).1);
    }
    let mut ended = 0;
    while ended < CYCLES {
        while let Some(action) = actions.pop_front() {
            match action {
                Action::Assign { member, conversation, user, .. } => {
                    assert!(given.insert(member), "given twice");
                    running.push_back((conversation, user));
                    actions.extend(host.step(Event::Accepted(conversation)));
                }
                Action::Revoke(worn) => assert!(given.remove(&worn.member)),
                Action::Restore(member) => actions.extend(host.step(Event::Restored(member))),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(running.len(), 15, "a machine is lost");
        let (conversation, user) = running.pop_front().unwrap();
        actions.extend(host.ended(conversation));
        ended += 1;
        let client: usize = user.as_str().trim_start_matches("client").parse().unwrap();
        served[client] += 1;
        actions.extend(host.allocate(&clients[client]).1);
    }
    // Turns, so no client is ahead of another by more than those under way.
    let (most, least) = (served.iter().max().unwrap(), served.iter().min().unwrap());
    assert!(most - least <= 2, "{most} and {least}");
}
