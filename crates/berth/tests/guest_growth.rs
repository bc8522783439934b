//! A pool between its bounds, for users with tokens of somebody else's making.

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use identity::{NewToken, Signer};
use support::Host;
use support::pool::{Conversation, all_free, members};

const POOL: &str = r#"
[main_storage]
size = "448M"

[gateway]
jwks = "keys.json"
issuer = "https://login.example"
audience = "machines"

[[pool]]
name = "serve"
min = 1
max = 3
size = "112M"
image = "minimal"
groups = ["staff"]
wait = "60s"
queue = 8

[[pool.program]]
tpn = "shell"
run = ["/bin/sh"]
"#;

#[test]
fn guest_pool_grows_for_whoever_waits_and_believes_an_issuers_tokens() {
    let keys = tempfile::tempdir().unwrap();
    let signer =
        |name: &str| Signer::open(&keys.path().join(name), "https://login.example").unwrap();
    let (theirs, forger) = (signer("theirs"), signer("forger"));
    let host = Host::up_with(POOL, &[("keys.json", &theirs.jwks())]);
    all_free(&host);
    assert_eq!(members(&host).len(), 1);

    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let token = |signer: &Signer, audience: &str, groups: &[&str], at: u64| {
        let new = NewToken {
            user: "alice".parse().unwrap(),
            groups: groups.iter().map(|group| group.parse().unwrap()).collect(),
            audience: audience.to_owned(),
            lifetime: Duration::from_secs(300),
            machine: None,
        };
        let path = host.path("token");
        std::fs::write(&path, signer.sign(new, at).unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let allocate = |token: &str| {
        let program = ["allocate", "serve/shell", "--user", "alice", "--token-file", token];
        host.run(&program).status.code()
    };
    // Without standard input the shell ends at once, in order.
    assert_eq!(allocate(&token(&theirs, "machines", &["staff"], now)), Some(0));
    let wrong: [(&Signer, &str, &str, u64); 4] = [
        (&forger, "machines", "staff", now),
        (&theirs, "others", "staff", now),
        (&theirs, "machines", "staff", now - 4000),
        (&theirs, "machines", "guests", now),
    ];
    for (signer, audience, group, at) in wrong {
        let refused = allocate(&token(signer, audience, &[group], at));
        assert_eq!(refused, Some(77), "{audience} {group} {at}");
    }

    // Three at once: the pool grows to its maximum; a fourth waits for one of them.
    let path = token(&theirs, "machines", &["staff"], now);
    let begin = || Conversation::with_token(&host, "serve/shell", "alice", &path);
    let mut three = [begin(), begin(), begin()];
    let mut names: Vec<_> = three.iter_mut().map(|one| one.ask("hostname")).collect();
    names.sort();
    assert_eq!(names, ["serve-00", "serve-01", "serve-02"]);
    let mut fourth = begin();
    let [first, second, third] = three;
    assert_eq!(first.end(), 0);
    assert!(names.contains(&fourth.ask("hostname")));
    assert_eq!([second.end(), third.end(), fourth.end()], [0, 0, 0]);
    assert_eq!(members(&host).len(), 3, "they stay a while");
}
