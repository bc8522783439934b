//! What a pool guarantees between its users, each by name, with real guests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test that cannot go on fails; the support is shared between tests"
)]

mod support;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use identity::Verifier;
use serde_json::Value;
use support::pool::{Conversation, all_free, allocate, members};
use support::{Host, processes};

/// Exit codes of `berth allocate`.
const UNAVAILABLE: i32 = 69;
const ABEND: i32 = 70;
const RETRY: i32 = 75;

const SIZE: u64 = 112 << 20;

fn pool(image: &str, count: u32, more: &str) -> String {
    format!(
        "[main_storage]\nsize = \"640M\"\n\n[[pool]]\nname = \"serve\"\ncount = {count}\n\
         size = \"{}M\"\nimage = \"{image}\"\nanybody = true\n{more}",
        if image == "minimal" { SIZE >> 20 } else { 192 }
    )
}

const SHELL: &str = "\n[[pool.program]]\ntpn = \"shell\"\nrun = [\"/bin/sh\"]\n";

const MISSING: &str = "\n[[pool.program]]\ntpn = \"missing\"\nrun = [\"/no/such\"]\n";

/// Main storage, as the process that keeps it has it open.
fn main_storage(host: &Host) -> File {
    let keeper = processes("berth: storage", &host.path("state"));
    let files = std::fs::read_dir(format!("/proc/{}/fd", keeper[0])).unwrap().flatten();
    let storage = files.map(|file| file.path()).find(|file| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() == 640 << 20)
    });
    File::open(storage.expect("main storage")).unwrap()
}

#[test]
fn guest_guarantee_exclusivity_no_machine_serves_two_at_once() {
    let host = Host::up(&pool("minimal", 3, &format!("wait = \"60s\"\nqueue = 64\n{SHELL}")));
    all_free(&host);
    let seen = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for user in 0..12 {
            let (host, seen) = (&host, &seen);
            scope.spawn(move || {
                for _ in 0..9 {
                    // Whoever shared the machine would be seen in either look.
                    let script = "ls /tmp; echo $BERTH_USER > /tmp/mine; sleep 0.02; \
                                  cat /tmp/*; echo $BERTH_CONVERSATION; cd /proc/sys/kernel/random; \
                                  cat uuid boot_id /etc/machine-id; head -c 16 /dev/urandom | od -An -tx1\n";
                    let user = format!("user{user}");
                    let (code, text) = allocate(host, "serve/shell", &user, script);
                    assert_eq!(code, 0, "{text}");
                    let lines: Vec<_> = text.lines().collect();
                    assert_eq!(lines.len(), 6, "{text}");
                    assert_eq!(lines[0], user);
                    // Conversations, ids and random numbers: no two are equal.
                    for line in &lines[1..] {
                        assert!(seen.lock().unwrap().insert((*line).to_owned()), "{text}");
                    }
                }
            });
        }
    });
    assert_eq!(seen.into_inner().unwrap().len(), 5 * 108, "none lost, all different");
    all_free(&host);
}

#[test]
fn guest_guarantee_no_residue_a_free_machine_is_the_capture_byte_for_byte() {
    let host = Host::up(&pool("minimal", 2, SHELL));
    all_free(&host);
    for user in ["alice", "bob", "carol"] {
        let script = "dd if=/dev/urandom of=/tmp/noise bs=1M count=8 2>/dev/null; \
                      mount -t tmpfs none /mnt; echo x > /mnt/y; date > /dev/hvc0; \
                      head -c 100000 /dev/zero | tr '\\0' x; exit 0\n";
        let (code, text) = allocate(&host, "serve/shell", user, script);
        assert_eq!((code, text.len()), (0, 100_000));
    }
    all_free(&host);
    let storage = main_storage(&host);
    let capture = File::open(host.path("state/captures/serve/storage")).unwrap();
    for member in members(&host) {
        let name = member["name"].as_str().unwrap();
        let origin = host.partition(name)["origin"].as_u64().unwrap();
        let (mut ours, mut captured) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        for at in (0..SIZE).step_by(1 << 20) {
            storage.read_exact_at(&mut ours, origin + at).unwrap();
            capture.read_exact_at(&mut captured, at).unwrap();
            let differs = ours.iter().zip(&captured).position(|(one, other)| one != other);
            let place = differs.map(|byte| format!("{:#x}", at + byte as u64));
            let around = differs.map_or(0..0, |byte| byte & !63..(byte & !63) + 64);
            let (now, then) = (&ours[around.clone()], &captured[around]);
            assert_eq!(place, None, "{name}: {now:x?} was {then:x?}");
        }
    }
}

/// Waits on its socket; says for each conversation what the host answers.
const ASKER: &str = r#"
import os, socket
def ask(path):
    s = socket.socket(socket.AF_UNIX)
    s.connect("/run/berth/metadata.sock")
    s.sendall(("GET %s HTTP/1.1\r\nHost: berth\r\nConnection: close\r\n\r\n" % path).encode())
    answer = b""
    while True:
        more = s.recv(65536)
        if not more:
            return answer.partition(b"\r\n\r\n")[2]
        answer += more
listening = socket.socket(fileno=3)
note = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
note.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
while True:
    peer, _ = listening.accept()
    while peer.recv(4096):
        pass
    peer.sendall(ask("/v1/identity").strip() + b"\n" + ask("/v1/token?audience=files").strip() + b"\n")
    peer.close()
"#;

#[test]
fn guest_guarantee_identity_the_host_alone_says_who_a_machine_is_and_only_meanwhile() {
    let program = "\n[[pool.file]]\nsource = \"asker.py\"\npath = \"/opt/asker\"\n\n\
                   [[pool.program]]\ntpn = \"who\"\nservice = [\"python3\", \"/opt/asker\"]\n";
    let host = Host::up_with(&pool("python", 1, program), &[("asker.py", ASKER)]);
    all_free(&host);
    let verifier = |host: &Host| {
        let keys = std::fs::read_to_string(host.path("state/jwks.json")).unwrap();
        Verifier::new(&keys, "berth").unwrap()
    };
    let mut ids = BTreeSet::new();
    for user in ["alice", "bob"] {
        let (code, text) = allocate(&host, "serve/who", user, "");
        assert_eq!(code, 0, "{text}");
        let answers: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(
            (&answers[0]["user"], &answers[0]["machine"]),
            (&user.into(), &"serve-00".into())
        );
        let token = answers[1]["token"].as_str().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let claims = verifier(&host).verify(token, "files", now).unwrap();
        assert_eq!(claims.user.as_str(), user);
        let machine = claims.machine.unwrap();
        assert_eq!(
            (machine.member.to_string(), machine.tpn.to_string()),
            ("serve-00".into(), "who".into())
        );
        assert!(verifier(&host).verify(token, "others", now).is_err());
        assert!(verifier(&host).verify(token, "files", claims.expires + 1).is_err());
        assert!(ids.insert(answers[0]["conversation"].to_string()));
        all_free(&host);
    }
    // Nobody's machine is nobody.
    let nobody = host.exec(
        "serve-00",
        &[
            "python3",
            "-c",
            "import urllib.request as u, urllib.error as e\n\
           try: print(u.urlopen('http://127.0.0.1/v1/identity').status)\n\
           except e.HTTPError as f: print(f.code)",
        ],
    );
    assert_eq!(nobody.trim(), "404");
    // A service was started before anybody could give it arguments.
    let refused = host.run(&["allocate", "serve/who", "--user", "alice", "--", "x"]);
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn guest_guarantee_bounded_whoever_does_not_end_is_ended_and_leaves_nothing() {
    let host = Host::up(&pool(
        "minimal",
        1,
        &format!("conversation = \"2s\"\nwait = \"60s\"\n{SHELL}{MISSING}"),
    ));
    all_free(&host);
    // A program that goes on for ever.
    let mut endless = Conversation::begin(&host, "alice");
    assert_eq!(endless.ask("trap '' TERM INT HUP; echo in"), "in");
    endless.say("while :; do :; done");
    assert_eq!(endless.end(), ABEND);
    // One that floods, to a user who does not listen and goes.
    let mut flood = Conversation::begin(&host, "alice");
    assert_eq!(flood.ask("echo in"), "in");
    flood.say("yes & yes & yes");
    flood.client.kill().unwrap();
    let _ = flood.client.wait();
    // One that is not there: no other machine would have it either.
    let missing = host.run(&["allocate", "serve/missing", "--user", "alice"]);
    assert_eq!(missing.status.code(), Some(UNAVAILABLE), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such"), "{missing:?}");
    // One that takes all memory, and the kernel with it.
    let (code, _) = allocate(&host, "serve/shell", "alice", "echo c > /proc/sysrq-trigger\n");
    assert_ne!(code, 0);
    // The machine serves on, and is clean.
    let (code, text) = allocate(&host, "serve/shell", "bob", "ls /tmp; echo well\n");
    assert_eq!((code, text.as_str()), (0, "well\n"));
    // A claim that finds no machine waits no longer than it may.
    let mut holder = Conversation::begin(&host, "alice");
    assert_eq!(holder.ask("echo in"), "in");
    let waited = allocate(&host, "serve/shell", "bob", "echo in turn\n");
    assert!(waited == (0, "in turn\n".to_owned()) || waited.0 == RETRY, "{waited:?}");
    let _ = holder.end();
}

#[test]
fn guest_guarantee_revocation_nothing_of_a_user_outlives_the_conversation() {
    let host = Host::up(&pool("minimal", 1, &format!("files = true\n{SHELL}")));
    all_free(&host);
    let log = host.path("state/files/alice/log");
    // A process that the user leaves behind writes on as long as it may.
    let leave = "setsid sh -c 'exec >> /files/alice/log; while :; do echo more; done' \
                 2> /dev/null < /dev/null & until [ -s /files/alice/log ]; do :; done; echo in";
    for ending in ["exit 0", "kill -9 $$", "its user vanishes"] {
        let mut alice = Conversation::begin(&host, "alice");
        assert_eq!(alice.ask(leave), "in");
        let asks = "wget -q -O - http://127.0.0.1/v1/identity | grep -c '\"alice\"'";
        assert_eq!(alice.ask(asks), "1");
        if ending == "its user vanishes" {
            alice.client.kill().unwrap();
            let _ = alice.client.wait();
        } else {
            alice.say(ending);
            let _ = alice.end();
        }
        all_free(&host);
        let length = || std::fs::metadata(&log).unwrap().len();
        let before = length();
        assert!(before > 0);
        // The next user finds nothing of hers, and nobody writes on.
        let look = "ls /files; ls -d /files/alice 2> /dev/null; pgrep -f log; exit 0\n";
        let (code, text) = allocate(&host, "serve/shell", "bob", look);
        assert_eq!((code, text.as_str()), (0, "bob\n"), "after {ending}");
        assert_eq!(length(), before, "after {ending}");
        std::fs::remove_file(&log).unwrap();
    }
    all_free(&host);
    // Whoever visits it is nobody, whatever token it had before.
    for question in ["identity", "token?audience=files"] {
        let url = format!("http://127.0.0.1/v1/{question}");
        let output = host.run(&["exec", "serve-00", "--", "wget", "-q", "-O", "-", &url]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{question}: {output:?}");
    }
}

#[test]
fn guest_guarantee_policy_what_cannot_be_given_is_refused_and_written_down() {
    let host = Host::up(&pool("minimal", 1, &format!("files = true\nwait = \"5s\"\n{SHELL}")));
    all_free(&host);
    let (code, text) = allocate(&host, "serve/shell", "alice", "ls /files\n");
    assert_eq!((code, text.as_str()), (0, "alice\n"));
    // The file manager ends and cannot come back: no files, so no machine.
    let spaces = host.path("state/files");
    let aside = host.path("aside");
    std::fs::rename(&spaces, &aside).unwrap();
    std::fs::write(&spaces, "no directory").unwrap();
    support::kill(&processes("berth: files", &host.path("state"))[0]);
    let log = host.path("state/host.log");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !std::fs::read_to_string(&log).unwrap().contains("no file manager") {
        assert!(std::time::Instant::now() < deadline, "it came back");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let (code, text) = allocate(&host, "serve/shell", "alice", "echo ran\n");
    assert_eq!((code, text.as_str()), (RETRY, ""));
    std::fs::remove_file(&spaces).unwrap();
    std::fs::rename(&aside, &spaces).unwrap();
    while allocate(&host, "serve/shell", "alice", "ls /files\n") != (0, "alice\n".to_owned()) {
        assert!(std::time::Instant::now() < deadline, "no files again");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    // A program that nobody offers, and what is said of oneself without proof.
    let (code, _) = allocate(&host, "serve/other", "alice", "");
    assert_eq!(code, UNAVAILABLE);
    let (code, _) = allocate(&host, "serve/", "mallory", "");
    assert_eq!(code, UNAVAILABLE);
    let audit = std::fs::read_to_string(host.path("state/audit.jsonl")).unwrap();
    let count = |words: &[&str]| {
        audit.lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
    };
    assert_eq!(count(&["\"refused\"", "alice", "unknown-tpn"]), 1, "{audit}");
    assert_eq!(count(&["\"turned-away\"", "mallory", "10086021"]), 1, "{audit}");
}

#[test]
fn guest_guarantee_separation_no_page_of_one_machine_is_another_ones() {
    let host = Host::up(&pool("minimal", 2, SHELL));
    all_free(&host);
    let mut ranges: Vec<(u64, u64)> = members(&host)
        .iter()
        .map(|member| {
            let partition = host.partition(member["name"].as_str().unwrap());
            let at = |key: &str| partition[key].as_u64().unwrap();
            (at("origin"), at("origin") + at("size"))
        })
        .collect();
    ranges.sort_unstable();
    assert!(ranges[0].1 <= ranges[1].0, "{ranges:?}");
    // Equal pages are merged for nobody: workers do not ask the host to.
    for member in members(&host) {
        let name = format!("berth: {}", member["name"].as_str().unwrap());
        let worker = &processes(&name, &host.path("state"))[0];
        let maps = std::fs::read_to_string(format!("/proc/{worker}/smaps")).unwrap();
        let flags = maps.lines().filter(|line| line.starts_with("VmFlags:"));
        assert!(flags.clone().count() > 10);
        assert!(flags.clone().all(|line| !line.split(' ').any(|flag| flag == "mg")), "{worker}");
    }
}
