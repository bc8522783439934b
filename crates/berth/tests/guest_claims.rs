//! Many clients and few machines: no conversation is lost, none shares a machine.
//!
//! `BERTH_SOAK_CLAIMS` is how many conversations there are in all; 100,000 take about
//! ten minutes on two CPUs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test that cannot go on fails; the support is shared between tests"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lu62::{Partner, Request};
use serde_json::Value;
use support::Host;
use support::pool::all_free;

const CLIENTS: usize = 64;
const CLAIMS: usize = 400;

const POOL: &str = r#"
[main_storage]
size = "1680M"

[[pool]]
name = "serve"
count = 15
size = "112M"
image = "minimal"
anybody = true
wait = "120s"
queue = 64

[[pool.program]]
tpn = "nothing"
run = ["/bin/true"]
"#;

#[test]
fn guest_pool_of_fifteen_serves_sixty_four_clients_and_loses_nobody() {
    let claims = std::env::var("BERTH_SOAK_CLAIMS").map_or(CLAIMS, |text| text.parse().unwrap());
    let host = Host::up(POOL);
    all_free(&host);
    let left = AtomicUsize::new(claims);
    let started = Instant::now();
    let served: Vec<usize> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (left, host) = (&left, &host);
                scope.spawn(move || {
                    let partner = Partner::Socket(host.path("state/lu62.sock"));
                    let mut request = Request::initialize(partner);
                    request
                        .set_tp_name("serve/nothing")
                        .set_security_same(&format!("user{client}"))
                        .set_timeout(Some(Duration::from_secs(180)));
                    let next = || {
                        left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                    };
                    let mut served = 0;
                    while next().is_ok() {
                        request.allocate().unwrap().deallocate().unwrap();
                        served += 1;
                    }
                    served
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let seconds = started.elapsed().as_secs_f64();
    println!("{claims} conversations, {:.0} in a second", claims as f64 / seconds);
    assert_eq!(served.iter().sum::<usize>(), claims);
    all_free(&host);
    check_audit(&host, &served);
}

/// The audit log has each user's conversations, and no machine in two at once.
fn check_audit(host: &Host, served: &[usize]) {
    let text = std::fs::read_to_string(host.path("state/audit.jsonl")).unwrap();
    let records: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut ids = BTreeSet::new();
    let mut users: BTreeMap<&str, usize> = BTreeMap::new();
    let mut machines: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    for record in &records {
        assert_eq!((&record["record"], &record["how"]), (&"worn".into(), &"confirmed".into()));
        assert!(ids.insert(record["conversation"].as_str().unwrap()), "{record} twice");
        *users.entry(record["user"].as_str().unwrap()).or_default() += 1;
        let (from, to) = (record["from"].as_u64().unwrap(), record["to"].as_u64().unwrap());
        machines.entry(record["machine"].as_str().unwrap()).or_default().push((from, to));
    }
    for (client, served) in served.iter().enumerate() {
        let user = format!("user{client}");
        assert_eq!(users.get(user.as_str()).copied().unwrap_or_default(), *served, "{user}");
    }
    assert!(machines.len() <= 15, "{:?}", machines.keys());
    for (machine, mut worn) in machines {
        worn.sort_unstable();
        for pair in worn.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{machine} was worn twice at once: {pair:?}");
        }
    }
}
