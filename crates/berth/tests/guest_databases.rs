//! Users' databases in real guests: a program connects to whichever its machine's
//! user has, by an ordinary client.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use database_manager::test_server::TestServer;
use serde_json::Value;
use support::pool::{Conversation, all_free, allocate};
use support::{Host, kill, processes};

/// The mail box of `examples/serve15`.
const MAIL: &str = include_str!("../../../examples/serve15/programs/mail");

/// Two machines, of which one user may have both.
fn pool(server: &TestServer) -> String {
    format!(
        r#"
[main_storage]
size = "512M"

[database]
server = "{}"
credentials = "passwords"

[[pool]]
name = "serve"
count = 2
size = "128M"
image = "database"
database = true

[[pool.program]]
tpn = "shell"
run = ["/bin/sh"]
anybody = true

[[pool.program]]
tpn = "mail"
run = ["/usr/bin/python3", "-c", '''
{MAIL}''']
anybody = true
"#,
        server.address()
    )
}

/// A shell that has `q STATEMENT`: the answer of the database in one line.
fn shell(host: &Host, user: &str) -> Conversation {
    let mut shell = Conversation::begin(host, user);
    shell.say("psql=$(ls /usr/lib/postgresql/*/bin/psql)");
    shell.say("q() { $psql -XAtq -c \"$1\" 2>&1 | tr '\\n' ' '; echo; }");
    shell
}

fn database(host: &Host, arguments: &[&str]) {
    let output = host.run(&[&["database"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
}

fn grant(host: &Host, who: &str, role: &str) {
    database(host, &["grant", who, "--database", role, "--role", role]);
}

/// A host whose `alice` and `bob` have databases of their own.
fn host(server: &TestServer) -> Host {
    let host = Host::prepare(&pool(server), &[]);
    let lines = ["alice", "bob"].map(|role| server.add_role(role)).concat();
    let passwords = host.path("passwords");
    fs::write(&passwords, lines).unwrap();
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
    host.comes_back();
    grant(&host, "user:alice", "alice");
    grant(&host, "user:bob", "bob");
    all_free(&host);
    host
}

fn audited(host: &Host, machine: &str, user: &str) -> Vec<Value> {
    let log = fs::read_to_string(host.path("state/audit.jsonl")).unwrap();
    let records = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let meant = |one: &Value| {
        one["record"] == "database" && one["machine"] == machine && one["user"] == user
    };
    records.filter(meant).collect()
}

#[test]
fn guest_databases_follow_whoever_has_the_machine() {
    let server = TestServer::start();
    let host = host(&server);

    // Alice in two machines at once, which say they are anybody.
    let mut one = shell(&host, "alice");
    let mut two = shell(&host, "alice");
    assert_eq!(one.ask("q 'SELECT current_user, current_database()'"), "alice|alice");
    assert_eq!(two.ask("PGUSER=postgres PGDATABASE=bob q 'SELECT session_user'"), "alice");
    assert_eq!(
        one.ask("q \"CREATE TABLE notes (text text); INSERT INTO notes VALUES ('hers')\""),
        ""
    );
    assert_eq!(two.ask("q 'SELECT * FROM notes'"), "hers");
    assert_eq!(two.ask("PGHOST=database q 'SELECT 6 * 7'"), "42");
    assert_eq!(one.ask("echo $BERTH_DATABASE"), "postgresql://database/");
    let python = "python3 -c 'import os, psycopg2; c = psycopg2.connect(os.environ[\"BERTH_DATABASE\"]); \
                  k = c.cursor(); k.execute(\"SELECT text FROM notes\"); print(k.fetchone()[0])'";
    assert_eq!(one.ask(python), "hers");
    for other in ["SET ROLE bob", "SET SESSION AUTHORIZATION postgres"] {
        assert!(one.ask(&format!("q '{other}'")).contains("permission denied"), "{other}");
    }
    // More than fits on its way, both ways.
    let much = "q \"SELECT repeat('x', 300000)\" | wc -c";
    assert_eq!(one.ask(much), "300002");
    let load = "seq 1 60000 | $psql -XAtq -c 'CREATE TEMP TABLE t (n int)' -c 'COPY t FROM STDIN' \
                -c 'SELECT sum(n) FROM t'";
    assert_eq!(one.ask(load), "1800030000");
    let machine = two.ask("cat /proc/sys/kernel/hostname");

    // What runs ends with the conversation.
    two.say("$psql -XAtq -c 'SELECT pg_sleep(1000)' &");
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice' AND state = 'active'";
    await_answer(&server, running, "1");
    assert_eq!(one.ask("echo $BERTH_USER"), "alice");
    two.client.kill().unwrap();
    two.end();
    await_answer(&server, "SELECT count(*) FROM pg_stat_activity WHERE usename = 'alice'", "0");
    assert_eq!(one.end(), 0);
    all_free(&host);
    let records = audited(&host, &machine, "alice");
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["logins"][0]["role"], "alice", "{records:?}");
    assert_eq!(records[0]["logins"][0]["connections"], 4, "{records:?}");

    // Bob on the same machines, one after the other and at the same time.
    let (mut one, mut two) = (shell(&host, "bob"), shell(&host, "bob"));
    for bob in [&mut one, &mut two] {
        assert!(bob.ask("q 'SELECT * FROM notes'").contains("does not exist"));
        assert_eq!(bob.ask("q 'SELECT current_user'"), "bob");
    }
    assert_eq!([one.end(), two.end()], [0, 0]);
    all_free(&host);
    assert_eq!(audited(&host, "serve-00", "bob").len(), 1);

    // A program that keeps its users' mail: each finds his own, in whatever machine.
    let mail = |user, input| allocate(&host, "serve/mail", user, input);
    let kept = "kept as 1\nkept as 2\n2 messages\n".to_owned();
    assert_eq!(mail("alice", "send hello\nsend again\nlist\n"), (0, kept));
    assert_eq!(mail("bob", "list\nread\n"), (0, "0 messages\n".to_owned()));
    // This time in the other machine.
    let bob = Conversation::begin(&host, "bob");
    assert_eq!(mail("alice", "read\nlist\n"), (0, "hello\nagain\n0 messages\n".to_owned()));
    assert_eq!(bob.end(), 0);
    all_free(&host);

    // An administrator in a machine that is nobody's has nobody's database.
    let psql = "$(ls /usr/lib/postgresql/*/bin/psql) -c 'SELECT 1' 2>&1 || true";
    let said = host.exec("serve-00", &["sh", "-c", psql]);
    assert!(said.contains("nobody's"), "{said}");
}

fn await_answer(server: &TestServer, query: &str, wanted: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = server.sql("postgres", query);
        if answer == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{query}: {answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn guest_databases_change_and_come_back_in_a_running_conversation() {
    let mut server = TestServer::start();
    let host = host(&server);
    let mut eve = shell(&host, "eve");
    assert!(eve.ask("q 'SELECT 1'").contains("no database"));
    grant(&host, "user:eve", "bob");
    assert_eq!(eve.ask("q 'SELECT current_user'"), "bob");

    // A revoke ends what is open: a program that waits hears of it.
    eve.say("$psql -XAtq -c 'SELECT pg_sleep(1000)' > /tmp/said 2>&1 & waits=$!");
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE usename = 'bob' AND state = 'active'";
    await_answer(&server, running, "1");
    database(&host, &["revoke", "user:eve"]);
    assert!(eve.ask("wait $waits; tr '\\n' ' ' < /tmp/said; echo").contains("taken back"));
    assert!(eve.ask("q 'SELECT 1'").contains("no database"));
    await_answer(&server, running, "0");
    let (code, shown) = host.json(&["database", "list"]);
    assert_eq!((code, shown["logins"].as_array().unwrap().len()), (0, 2), "{shown}");

    // A server that is stopped and started, and a manager that dies under load.
    let mut alice = shell(&host, "alice");
    server.stop();
    assert!(alice.ask("q 'SELECT 1'").contains("cannot be used just now"));
    server.begin();
    assert_eq!(alice.ask("q 'SELECT 1'"), "1");
    alice.say("while sleep 0.1; do $psql -XAtq -c 'SELECT 1' >> /tmp/load 2>&1; done & load=$!");
    let manager = processes("berth: database", &host.path("state"));
    kill(&manager[0]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while alice.ask("q 'SELECT current_user'") != "alice" {
        assert!(Instant::now() < deadline, "it does not come back");
        std::thread::sleep(Duration::from_millis(100));
    }
    // A move does not disturb a connection.
    let machine = alice.ask("kill $load; cat /proc/sys/kernel/hostname");
    alice.say("$psql -XAtq -c 'SELECT pg_sleep(3)' -c 'SELECT 42' > /tmp/said 2>&1 & waits=$!");
    let moved = host.run(&["move", &machine, "--to", "384M"]);
    assert!(moved.status.success(), "{moved:?}");
    assert_eq!(alice.ask("wait $waits; tr -d '\\n' < /tmp/said; echo"), "42");
    assert_eq!([alice.end(), eve.end()], [0, 0]);
    all_free(&host);

    // Passwords are in no log and in no answer.
    let list = host.run(&["database", "list", "--json"]);
    let mut said = String::from_utf8(list.stdout).unwrap();
    for name in ["state/host.log", "state/database.log", "state/logins.json", "state/audit.jsonl"] {
        said += &fs::read_to_string(host.path(name)).unwrap();
    }
    assert!(!said.contains("secret of"), "{said}");
}

/// Machines whose users have a SQLite file each, as no server is named.
const WITHOUT_SERVER: &str = r#"
[main_storage]
size = "512M"

[[pool]]
name = "serve"
count = 2
size = "128M"
image = "python"
files = true
database = true

[[pool.program]]
tpn = "shell"
run = ["/bin/sh"]
anybody = true
"#;

/// Adds 100 to a number, one after the other, by read and write.
const COUNT: &str = r#"cat > /tmp/count <<'END'
import os, sqlite3
path = os.environ["BERTH_DATABASE"].removeprefix("sqlite:///")
file = f"file:{path}?vfs=unix-dotfile"
db = sqlite3.connect(file, timeout=60, uri=True, isolation_level=None)
db.execute("CREATE TABLE IF NOT EXISTS n (id integer PRIMARY KEY, n integer)")
db.execute("INSERT OR IGNORE INTO n VALUES (1, 0)")
for _ in range(100):
    db.execute("BEGIN IMMEDIATE")
    (n,) = db.execute("SELECT n FROM n").fetchone()
    db.execute("UPDATE n SET n = ?", (n + 1,))
    db.execute("COMMIT")
print(db.execute("PRAGMA integrity_check").fetchone()[0])
END"#;

#[test]
fn guest_databases_without_a_server_are_files_of_their_users() {
    let host = Host::up(WITHOUT_SERVER);
    all_free(&host);
    let (mut one, mut two) =
        (Conversation::begin(&host, "alice"), Conversation::begin(&host, "alice"));
    assert_eq!(one.ask("echo $BERTH_DATABASE"), "sqlite:////files/alice/database.sqlite");
    // At the same time from two machines, by locks that hold in both.
    for machine in [&mut one, &mut two] {
        machine.say(COUNT);
        machine.say("python3 /tmp/count > /tmp/counted 2>&1 &");
    }
    for machine in [&mut one, &mut two] {
        assert_eq!(machine.ask("wait; tail -1 /tmp/counted"), "ok");
    }
    let count = "python3 -c 'import sqlite3; \
                 d = sqlite3.connect(\"/files/alice/database.sqlite\"); \
                 print(d.execute(\"SELECT n FROM n\").fetchone()[0])'";
    assert_eq!(one.ask(count), "200");
    assert_eq!([one.end(), two.end()], [0, 0]);
    all_free(&host);
    let mut bob = Conversation::begin(&host, "bob");
    assert_eq!(bob.ask("ls /files"), "bob");
    assert_eq!(bob.ask("echo $BERTH_DATABASE"), "sqlite:////files/bob/database.sqlite");
    assert_eq!(bob.end(), 0);
    let output = host.run(&["database", "grant", "user:bob", "--database", "d", "--role", "r"]);
    assert!(!output.status.success(), "there is no server: {output:?}");
}
