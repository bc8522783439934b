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
    let conversations = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for user in 0..12 {
            let (host, conversations) = (&host, &conversations);
            scope.spawn(move || {
                for _ in 0..5 {
                    // Whoever shared the machine would be seen in either look.
                    let script = "ls /tmp; echo $BERTH_USER > /tmp/mine; sleep 0.02; \
                                  cat /tmp/*; echo $BERTH_CONVERSATION\n";
                    let user = format!("user{user}");
                    let (code, text) = allocate(host, "serve/shell", &user, script);
                    assert_eq!(code, 0, "{text}");
                    let lines: Vec<_> = text.lines().collect();
                    assert_eq!(lines.len(), 2, "{text}");
                    assert_eq!(lines[0], user);
                    assert!(conversations.lock().unwrap().insert(lines[1].to_owned()), "{text}");
                }
            });
        }
    });
    assert_eq!(conversations.into_inner().unwrap().len(), 60, "none lost");
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
            assert!(ours == captured, "{name} differs in the MiB at {at:#x}");
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
    let host =
        Host::up(&pool("minimal", 1, &format!("conversation = \"2s\"\nwait = \"60s\"\n{SHELL}")));
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
