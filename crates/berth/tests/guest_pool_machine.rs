//! A real guest as a machine of a pool, driven by the orders of a host: the
//! test takes the host's place at the worker, whose host was killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test that cannot go on fails; the support is shared between tests"
)]

mod support;

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketType, connect, recv, sendmsg, socket,
};
use serde_json::{Value, json};
use support::Host;

const ONE: &str = r#"
[main_storage]
size = "300M"

[[partition]]
name = "a"
origin = "0"
size = "192M"
image = "python"
"#;

/// Takes conversations on descriptor 3 and answers what it was sent; its
/// counter shows that it is the same process.
const SERVICE: &str = r#"
import os, socket
listener = socket.socket(fileno=3)
assert os.environ["LISTEN_PID"] == str(os.getpid())
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
notify.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
number = 0
while True:
    conversation, _ = listener.accept()
    number += 1
    said = b""
    while piece := conversation.recv(65536):
        said += piece
    if said == b"die":
        os._exit(7)
    conversation.sendall(b"%d:" % number + said)
    conversation.close()
"#;

/// Asks who the machine is, over both ways that lead there.
const ASK: &str = r#"
import http.client, socket
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/run/berth/metadata.sock")
for connection in Unix("berth"), http.client.HTTPConnection("127.0.0.1", 80):
    connection.request("GET", "/v1/identity")
    answer = connection.getresponse()
    print(answer.status, answer.read().decode(), flush=True)
"#;

/// The worker of a host that is dead.
struct Worker(OwnedFd);

impl Worker {
    fn of(host: &Host, name: &str) -> Self {
        host.kill();
        let link = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        let path = host.path(&format!("state/workers/{name}.sock"));
        connect(&link, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self(link)
    }

    fn order(&self, order: &Value, fd: Option<&UnixStream>) {
        let text = order.to_string();
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        }
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    fn report(&self) -> Value {
        let limit = Timespec::try_from(Duration::from_secs(120)).unwrap();
        let waited = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&limit)).unwrap();
        assert!(waited > 0, "the worker says nothing");
        let mut buffer = vec![0; 96 << 10];
        let (count, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty()).unwrap();
        serde_json::from_slice(&buffer[..count]).unwrap()
    }

    fn reports(&self, expected: &Value) {
        assert_eq!(self.report(), *expected);
    }

    /// Begins a conversation; without a program with the service.
    fn converse(&self, id: u64, program: Option<&[&str]>) -> UnixStream {
        let (user, theirs) = UnixStream::pair().unwrap();
        user.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        let env = [["BERTH_USER", "anna"]];
        let program = program.map(|argv| json!({"argv": argv, "env": env, "cwd": ""}));
        let order = json!({
            "order": "converse", "conversation": id, "tpn": "ECHO", "program": program,
        });
        self.order(&order, Some(&theirs));
        self.reports(&json!({"report": "conversation_accepted", "conversation": id}));
        user
    }

    fn ended(&self, id: u64, end: &Value) {
        self.reports(&json!({
            "report": "conversation_ended", "conversation": id, "end": end, "words": "",
        }));
    }

    /// What a shell prints for a conversation of its own.
    fn sh(&self, id: u64, script: &str) -> String {
        let user = self.converse(id, Some(&["sh", "-c", script]));
        let printed = answer(user);
        self.ended(id, &json!({"how": "exited", "code": 0}));
        printed
    }

    fn start_service(&self, program: &[&str], ready: &str) -> Value {
        self.order(
            &json!({
                "order": "start_service", "tpn": "ECHO", "ready": ready,
                "program": {"argv": program, "env": [], "cwd": ""},
            }),
            None,
        );
        self.report()
    }
}

fn answer(mut user: UnixStream) -> String {
    let mut answer = String::new();
    user.read_to_string(&mut answer).unwrap();
    answer
}

fn say(mut user: &UnixStream, text: &str) {
    user.write_all(text.as_bytes()).unwrap();
    user.shutdown(Shutdown::Write).unwrap();
}

#[test]
fn guest_services_take_conversations_and_programs_end_as_they_end() {
    let host = Host::up(ONE);
    let worker = Worker::of(&host, "a");
    let ready = json!({"report": "service_ready", "tpn": "ECHO"});
    assert_eq!(worker.start_service(&["python3", "-c", SERVICE], "notify"), ready);

    let in_order = json!({"how": "exited", "code": 0});
    for (id, said) in [(1, "hello".to_owned()), (2, "x".repeat(300_000))] {
        let user = worker.converse(id, None);
        // Answered when all of it is heard, so it can be sent at once.
        say(&user, &said);
        assert_eq!(answer(user), format!("{id}:{said}"));
        worker.ended(id, &in_order);
    }

    let user =
        worker.converse(3, Some(&["sh", "-c", "read word; echo $BERTH_USER $word; kill -9 $$"]));
    say(&user, "was here\n");
    assert_eq!(answer(user), "anna was here\n");
    worker.ended(3, &json!({"how": "signal", "signal": 9}));

    let user = worker.converse(4, Some(&["sleep", "1000"]));
    worker.order(&json!({"order": "abend", "conversation": 4}), None);
    worker.ended(4, &json!({"how": "failed", "reason": "it was ended by force"}));
    assert_eq!(answer(user), "");

    let user = worker.converse(5, None);
    say(&user, "die");
    let status = json!({"how": "exited", "code": 7});
    let mut ended = [worker.report(), worker.report()];
    ended.sort_by_key(|report| report["report"].to_string());
    let words = "";
    assert_eq!(
        ended,
        [
            json!({"report": "conversation_ended", "conversation": 5, "end": status, "words": words}),
            json!({"report": "service_ended", "tpn": "ECHO", "end": status, "words": words}),
        ]
    );

    // One that is ready when it exits, and one that does not exit well.
    assert_eq!(worker.start_service(&["true"], "exit"), ready);
    let failed = worker.start_service(&["sh", "-c", "echo no >&2; exit 3"], "exit");
    let end = json!({"how": "exited", "code": 3});
    let ended = json!({"report": "service_ended", "tpn": "ECHO", "end": end, "words": "no\n"});
    assert_eq!(failed, ended);
    drop(worker);
    host.comes_back();
}

#[test]
fn guest_machines_are_renewed_and_ask_the_host_who_they_are() {
    const LOOK: &str = "hostname; cat /etc/machine-id /proc/sys/kernel/random/boot_id \
                        /run/berth/generation; head -c 16 /dev/urandom | od -An -tx1; date +%s";
    let host = Host::up(ONE);
    let worker = Worker::of(&host, "a");
    let boot_id = worker.sh(1, "cat /proc/sys/kernel/random/boot_id");
    let mut seen = Vec::new();
    for round in 1..=2_u8 {
        let clock =
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(86_400);
        worker.order(
            &json!({
                "order": "renew", "entropy": vec![round; 64],
                "wall_clock_ns": u64::try_from(clock.as_nanos()).unwrap(),
                "hostname": format!("serve-0{round}"), "machine_id": vec![round; 16],
                "boot_id": vec![0x10 + round; 16], "generation": round,
            }),
            None,
        );
        worker.reports(&json!({"report": "renewed", "problem": null}));
        let printed = worker.sh(1 + u64::from(round), LOOK);
        let lines: Vec<_> = printed.lines().collect();
        let [hostname, machine_id, boot_id, generation, random, now] = lines[..] else {
            panic!("{printed}");
        };
        assert_eq!(hostname, format!("serve-0{round}"));
        assert_eq!(machine_id, format!("0{round}").repeat(16));
        let b = format!("1{round}");
        let uuid = [4, 2, 2, 2, 6].map(|bytes| b.repeat(bytes)).join("-");
        assert_eq!(boot_id, uuid);
        assert_eq!(generation, round.to_string());
        // The guest's clock goes on from what it was set to.
        let now: u64 = now.parse().unwrap();
        assert!((clock.as_secs()..clock.as_secs() + 600).contains(&now), "{now}");
        seen.push((boot_id.to_owned(), random.to_owned()));
    }
    assert!(seen[0].1 != seen[1].1 && !boot_id.contains(&seen[0].0));
    let bad = json!({
        "order": "renew", "entropy": [1], "wall_clock_ns": 0, "hostname": "x",
        "machine_id": vec![0; 16], "boot_id": vec![0; 16], "generation": 1,
    });
    worker.order(&bad, None);
    assert!(worker.report()["problem"].as_str().unwrap().contains("out of its ranges"));

    let user = worker.converse(9, Some(&["python3", "-c", ASK]));
    for _ in 0..2 {
        let question = worker.report();
        assert_eq!(question["report"], "metadata_question");
        assert_eq!(question["path"], "/v1/identity");
        let body = json!({"user": "anna"}).to_string();
        let id = &question["id"];
        worker.order(
            &json!({"order": "metadata_reply", "id": id, "status": 200, "body": body}),
            None,
        );
    }
    assert_eq!(answer(user), "200 {\"user\":\"anna\"}\n".repeat(2));
    worker.ended(9, &json!({"how": "exited", "code": 0}));
    drop(worker);
    host.comes_back();
}

#[test]
fn guest_example_programs_do_what_they_say() {
    const MAIL: &str = include_str!("../../../examples/serve15/programs/mail");
    const BACKUP: &str = include_str!("../../../examples/serve15/programs/backup");
    const STATS: &str = include_str!("../../../examples/serve15/programs/stats");
    let host = Host::up(ONE);
    let worker = Worker::of(&host, "a");
    let in_order = json!({"how": "exited", "code": 0});
    let mut last = 0;
    let mut hold = |program: Option<&[&str]>, said: &str| {
        last += 1;
        let user = worker.converse(last, program);
        say(&user, said);
        let answer = answer(user);
        worker.ended(last, &in_order);
        answer
    };

    let ready = json!({"report": "service_ready", "tpn": "ECHO"});
    assert_eq!(worker.start_service(&["python3", "-c", STATS], "notify"), ready);
    let found: Value = serde_json::from_str(&hold(None, "one two\nthree\n")).unwrap();
    assert_eq!(
        (&found["bytes"], &found["lines"], &found["words"]),
        (&json!(14), &json!(2), &json!(3))
    );
    let found: Value = serde_json::from_str(&hold(None, "")).unwrap();
    assert_eq!((&found["bytes"], &found["words"]), (&json!(0), &json!(0)));

    let database = "BERTH_DATABASE=sqlite:////tmp/mail.sqlite";
    let mail = Some(&["env", database, "python3", "-c", MAIL][..]);
    assert_eq!(hold(mail, "send one\nsend two\nlist\n"), "kept as 1\nkept as 2\n2 messages\n");
    assert_eq!(hold(mail, "read\nlist\n"), "one\ntwo\n0 messages\n");

    let backup = Some(&["env", "BACKUPS=/tmp/backups", "sh", "-c", BACKUP][..]);
    let data = "line\n".repeat(50_000);
    let kept = hold(backup, &format!("backup it 250000\n{data}backup no 0\n"));
    assert_eq!(kept, "250000 bytes kept as it\n0 bytes kept as no\n");
    assert_eq!(hold(backup, "restore it\n"), data);
    drop(worker);
    host.comes_back();
}
