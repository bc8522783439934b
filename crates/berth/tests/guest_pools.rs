//! Service pools with real guests: users allocate machines under their own ids,
//! and the machines come back spotless.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test that cannot go on fails; the support is shared between tests"
)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::pool::{Conversation, all_free, allocate, members};
use support::{Host, processes};

/// What a user leaves behind.
const SECRET: &str = "zwiebelkuchen-4711";
/// Exit codes of `berth allocate`.
const ABEND: i32 = 70;
const RETRY: i32 = 75;
const SECURITY: i32 = 77;
const NEVER: i32 = 69;

/// A pool of three machines, of which one user may have two.
const POOL: &str = r#"
[main_storage]
size = "512M"

[[pool]]
name = "serve"
count = 3
size = "112M"
image = "minimal"
quota = 2
wait = "200ms"

[[pool.program]]
tpn = "shell"
run = ["/bin/sh", "-e"]
users = ["alice", "bob"]
initialise = ["/bin/sh", "-c", "echo warm > /tmp/warm"]

[[pool.program]]
tpn = "private"
run = ["/bin/cat"]
users = ["carol"]
"#;

/// Whether the secret is anywhere in main storage.
fn main_storage_holds_secret(host: &Host) -> bool {
    let keeper = processes("berth: storage", &host.path("state"));
    let files = std::fs::read_dir(format!("/proc/{}/fd", keeper[0])).unwrap().flatten();
    let storage = files.map(|file| file.path()).find(|file| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() == 512 << 20)
    });
    let bytes = std::fs::read(storage.expect("main storage")).unwrap();
    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

#[test]
fn guest_pool_serves_users_under_their_own_ids_and_comes_back_spotless() {
    let host = Host::up(POOL);
    all_free(&host);

    // Two users at once, one with two conversations under one id.
    let mut first = Conversation::begin(&host, "alice");
    let mut second = Conversation::begin(&host, "alice");
    let mut third = Conversation::begin(&host, "bob");
    let whose = "echo $BERTH_USER $BERTH_CONVERSATION $(cat /proc/sys/kernel/hostname /tmp/warm)";
    let answers = [first.ask(whose), second.ask(whose), third.ask(whose)];
    let words: Vec<Vec<_>> = answers.iter().map(|line| line.split(' ').collect()).collect();
    assert_eq!([words[0][0], words[1][0], words[2][0]], ["alice", "alice", "bob"], "{answers:?}");
    assert!(words.iter().all(|words| words[3] == "warm"), "{answers:?}");
    let machines: BTreeSet<_> = words.iter().map(|words| words[2]).collect();
    assert_eq!(machines.len(), 3, "no machine is given twice: {answers:?}");

    // The operator sees both ids; the administrator comes in by the primary one.
    let shown = members(&host);
    assert!(shown.iter().all(|member| member["state"] == "in use"), "{shown:?}");
    let users: Vec<_> = shown.iter().map(|member| member["user"].as_str().unwrap()).collect();
    assert_eq!(users.iter().filter(|user| **user == "alice").count(), 2, "{users:?}");
    let alices = words[0][2];
    assert!(host.exec(alices, &["cat", "/proc/sys/kernel/hostname"]).contains(alices));
    // Nobody more: two are a user's quota, and all are taken.
    assert_eq!(allocate(&host, "serve/shell", "bob", "").0, RETRY);
    assert_eq!(allocate(&host, "serve/shell", "mallory", "").0, SECURITY);
    assert_eq!(allocate(&host, "serve/private", "alice", "").0, SECURITY);
    let unknown = allocate(&host, "serve/nothing", "alice", "").0;
    assert!([NEVER, SECURITY].contains(&unknown), "{unknown}");

    // A password proves an id to whoever is no administrator's word for it.
    for (file, password) in [("right", "correct-horse-battery"), ("wrong", "correct-horse-batter")]
    {
        std::fs::write(host.path(file), password).unwrap();
    }
    let (right, wrong) = (host.path("right"), host.path("wrong"));
    let (right, wrong) = (right.to_str().unwrap(), wrong.to_str().unwrap());
    let added = host.run(&["user", "add", "carol", "--password-file", right]);
    assert!(added.status.success(), "{added:?}");
    let private = ["allocate", "serve/private", "--user", "carol", "--password-file"];
    for (file, code) in [(wrong, SECURITY), (right, RETRY)] {
        let refused = host.run(&[&private[..], &[file]].concat());
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
    }

    // A machine moves in the middle of a conversation; its user goes on.
    first.say("x=kept");
    let machine = host.partition(alices);
    let from = machine["origin"].as_u64().unwrap();
    let (code, moved) = host.json(&["move", alices, "--to", "400M"]);
    assert_eq!(code, 0, "{moved}");
    assert_ne!(host.partition(alices)["origin"].as_u64().unwrap(), from);
    assert_eq!(first.ask("echo $x"), "kept");

    // Secrets in many places, and how the user goes: in order, by an error, by
    // being killed.
    // In two parts, so that the command line in a file is not what is found.
    let (front, back) = SECRET.split_at(8);
    let plant = format!(
        "s={front}; s=${{s}}{back}; echo $s | tee /tmp/a /dev/shm/b /run/c /root/d > /dev/null; \
         sync; S=$s sleep 1000 < /dev/null > /dev/null 2>&1 & \
         echo $s > /proc/sys/kernel/hostname; echo $s > /dev/hvc0; echo planted"
    );
    for conversation in [&mut first, &mut second, &mut third] {
        assert_eq!(conversation.ask(&plant), "planted");
    }
    assert!(main_storage_holds_secret(&host), "or the search is no search");
    assert_eq!(first.end(), 0);
    second.say("exit 3");
    assert_eq!(second.end(), ABEND);
    third.client.kill().unwrap();
    let _ = third.client.wait();
    all_free(&host);
    assert!(!main_storage_holds_secret(&host), "something was left");
    let shown = members(&host);
    assert!(shown.iter().all(|member| member["user"].is_null()), "{shown:?}");

    let let_in = host.run(&[&private[..], &[right]].concat());
    assert!(let_in.status.success(), "{let_in:?}");

    // The next user finds the machine as it was captured.
    for _ in 0..3 {
        let (code, found) = allocate(
            &host,
            "serve/shell",
            "bob",
            "ls /tmp /dev/shm /root; cat /proc/[0-9]*/comm\n",
        );
        assert_eq!(code, 0);
        assert!(found.contains("warm") && !found.contains("sleep"), "{found}");
    }

    // Both ids are on record, however a conversation ended.
    let log = std::fs::read_to_string(host.path("state/audit.jsonl")).unwrap();
    for (user, how) in
        [("alice", "confirmed"), ("alice", "program-abend"), ("bob", "lost-connection")]
    {
        let known = |line: &&str| {
            let record: Value = serde_json::from_str(line).unwrap();
            record["user"] == user && record["how"] == how && record["machine"].is_string()
        };
        assert!(log.lines().any(|line| known(&line)), "{user} {how}: {log}");
    }
    assert!(log.lines().any(|line| line.contains("refused") && line.contains("mallory")), "{log}");
}

/// A command that came while a machine was put back once waited for ever: it
/// was given to a guest that stood still already.
#[test]
fn guest_pool_machine_can_be_visited_while_it_is_put_back() {
    let host = Host::up(POOL);
    all_free(&host);
    for round in 0..12 {
        let (code, text) = allocate(&host, "serve/shell", "alice", "hostname\n");
        assert_eq!(code, 0, "{text}");
        // It has ended for its user, and is being put back.
        let name = text.trim();
        assert_eq!(host.exec(name, &["/bin/ls", "/tmp"]), "warm\n", "in round {round}");
    }
    all_free(&host);
}

#[test]
fn guest_pool_machines_are_rebuilt_when_they_die_and_differ_where_they_must() {
    let host = Host::up(POOL);
    all_free(&host);
    // Every clone has numbers and ids of its own, also after a reset.
    let mut seen = BTreeSet::new();
    let ids = "head -c 16 /dev/urandom | od -An -tx1; cat /etc/machine-id \
               /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid\n";
    for round in 0..12 {
        let (code, text) = allocate(&host, "serve/shell", "alice", ids);
        assert_eq!(code, 0, "{text}");
        assert_eq!(text.lines().count(), 4, "{text}");
        for line in text.lines() {
            assert!(seen.insert(line.trim().to_owned()), "{line} twice, in round {round}");
        }
    }
    // The clock is the host's.
    let (_, now) = allocate(&host, "serve/shell", "alice", "date +%s\n");
    let ours = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let behind = ours.as_secs().abs_diff(now.trim().parse().unwrap());
    assert!(behind < 60, "{behind} s off");

    // What an administrator did to a free machine is gone before a user comes,
    // and a free machine can be moved.
    host.exec("serve-00", &["/bin/sh", "-c", "echo x > /tmp/visited"]);
    let (code, moved) = host.json(&["move", "serve-02", "--to", "400M"]);
    assert_eq!(code, 0, "{moved}");
    let mut all: Vec<_> = ["alice", "alice", "bob"]
        .into_iter()
        .map(|user| Conversation::begin(&host, user))
        .collect();
    for conversation in &mut all {
        assert_eq!(conversation.ask("echo $(ls /tmp)"), "warm");
    }
    assert!(all.into_iter().all(|conversation| conversation.end() == 0));

    // A machine that is powered off from inside is made anew.
    let mut hostile = Conversation::begin(&host, "alice");
    assert_eq!(hostile.ask("echo in"), "in");
    let worn: Vec<_> = members(&host).into_iter().filter(|m| m["state"] == "in use").collect();
    let name = worn[0]["name"].as_str().unwrap().to_owned();
    let pid = host.partition(&name)["pid"].clone();
    hostile.say("echo o > /proc/sysrq-trigger; sleep 60");
    assert_ne!(hostile.end(), 0);
    all_free(&host);
    assert_eq!(host.partition(&name)["state"], "running", "{pid}");

    // So is one whose worker is killed while nobody uses it.
    let worker = processes(&format!("berth: {name}"), &host.path("state"));
    support::kill(&worker[0]);
    let deadline = Instant::now() + Duration::from_secs(60);
    let other = || {
        let now = processes(&format!("berth: {name}"), &host.path("state"));
        now.first().is_some_and(|now| *now != worker[0])
    };
    while !other() || members(&host).iter().any(|member| member["state"] != "free") {
        assert!(Instant::now() < deadline, "{:?}", members(&host));
        std::thread::sleep(Duration::from_millis(20));
    }

    // A host that comes back has the capture, and clean machines.
    let mut left = Conversation::begin(&host, "alice");
    assert_eq!(left.ask("echo left > /tmp/left; echo in"), "in");
    host.kill();
    assert_ne!(left.end(), 0);
    host.comes_back();
    all_free(&host);
    let log = std::fs::read_to_string(host.path("state/host.log")).unwrap();
    assert!(log.contains("the capture of an earlier start fits"), "{log}");
    for _ in 0..3 {
        let (code, found) = allocate(&host, "serve/shell", "alice", "ls /tmp\n");
        assert_eq!((code, found.as_str()), (0, "warm\n"));
    }
}

#[test]
fn guest_example_of_fifteen_machines_and_three_programs_works() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/serve15");
    let read = |name: &str| std::fs::read_to_string(example.join(name)).unwrap();
    let programs = ["programs/mail", "programs/backup", "programs/stats"];
    let programs = programs.map(|name| (name, read(name)));
    let files: Vec<_> = programs.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let host = Host::up_with(&read("berth.toml"), &files);
    all_free(&host);
    assert_eq!(members(&host).len(), 15);
    let (code, text) = allocate(&host, "serve/mail", "alice", "send hello\nlist\nread\n");
    assert_eq!((code, text.as_str()), (0, "kept as 1\n1 messages\nhello\n"));
    let (code, text) = allocate(&host, "serve/stats", "alice", "one two\nthree\n");
    let stats: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &stats["words"], &stats["lines"]), (0, &3.into(), &2.into()), "{text}");
    let (code, text) =
        allocate(&host, "serve/backup", "alice", "backup file 5\nhellorestore file\n");
    assert!(code == 0 && text.contains("hello"), "{code} {text}");
    // Another machine has what the first one kept, and nobody else does.
    assert_eq!(allocate(&host, "serve/mail", "alice", "send later\n").0, 0);
    let (_, text) = allocate(&host, "serve/mail", "alice", "read\n");
    assert_eq!(text, "later\n");
    assert_eq!(allocate(&host, "serve/backup", "alice", "restore file\n").1, "hello");
    let user = host.path("pw");
    std::fs::write(&user, "ASECRETWORD\n").unwrap();
    let add = ["user", "add", "bob", "--group", "staff", "--password-file", user.to_str().unwrap()];
    assert!(host.run(&add).status.success());
    assert_eq!(allocate(&host, "serve/mail", "bob", "list\n").1, "0 messages\n");
    assert_ne!(allocate(&host, "serve/backup", "bob", "restore file\n").0, 0);
}

#[test]
fn guest_pool_machine_can_be_moved_while_it_is_put_back() {
    let host = Host::up(POOL);
    all_free(&host);
    for round in 0..10 {
        let mut conversation = Conversation::begin(&host, "alice");
        let machine = conversation.ask("cat /proc/sys/kernel/hostname");
        let origin = host.partition(&machine)["origin"].as_u64().unwrap() >> 20;
        let to = if origin < 350 { 390 - round } else { 340 + round };
        let mut command = host.command(&["move", &machine, "--to", &format!("{to}M")]);
        let null = std::process::Stdio::null;
        let mut moving = command.stdout(null()).stderr(null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(4 * round));
        assert_eq!(conversation.end(), 0);
        // Refused or done; a stay in between would be a machine made anew.
        let _ = moving.wait();
        all_free(&host);
    }
    let log = std::fs::read_to_string(host.path("state/host.log")).unwrap();
    assert!(!log.contains("cannot be put back"), "{log}");
}
