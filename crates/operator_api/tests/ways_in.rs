//! Connections that become a guest's, commands that are followed, tokens.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::time::{Duration, Instant};

use identity::Role;
use serde_json::{Value, json};
use support::{Client, Host, MIB, Stream};

/// Asks for a connection to become something else; its head, and the rest.
fn upgrade(client: &Client, path: &str, to: &str, body: &str) -> (u16, BufReader<Box<dyn Stream>>) {
    let mut stream = client.connect();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: {to}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
        client.host()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap().parse().unwrap();
    while line.trim_end() != "" {
        line.clear();
        lines.read_line(&mut line).unwrap();
    }
    (status, lines)
}

fn talks(mut lines: BufReader<Box<dyn Stream>>, wish: &str) {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert!(line.contains(wish), "{line}");
    lines.get_mut().write_all(b"type").unwrap();
    let mut answer = String::new();
    lines.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "TYPE");
}

#[test]
fn a_connection_becomes_a_commands_once_its_guest_serves_commands() {
    let host = Host::new();
    let client = host.local();
    let path = "/v1/partitions/a/exec";
    let (status, _) = upgrade(&client, path, "berth-exec", r#"{"argv":["ls"]}"#);
    assert_eq!(status, 409, "it is still starting");
    let host = Host::new();
    let body = r#"{"argv":["ls","-l"],"env":{"A":"b"},"cwd":"/tmp","wait":20}"#;
    let (status, lines) = upgrade(&host.local(), path, "berth-exec", body);
    assert_eq!(status, 101);
    talks(lines, "[\"ls\", \"-l\"]");
    let (status, lines) = upgrade(&host.local(), "/v1/partitions/a/attach", "berth-console", "{}");
    assert_eq!(status, 101);
    talks(lines, "Console");
}

#[test]
fn what_is_no_upgrade_or_another_is_refused() {
    let host = Host::new();
    let client = host.local();
    let plain = client.post("/v1/partitions/a/exec", r#"{"argv":["ls"]}"#);
    assert_eq!(plain.status, 426, "{plain:?}");
    let other = upgrade(&client, "/v1/partitions/a/exec", "websocket", r#"{"argv":["ls"]}"#);
    assert_eq!(other.0, 426);
    let (status, _) = upgrade(&client, "/v1/partitions/b/attach", "berth-console", "");
    assert_eq!(status, 409);
    let (status, _) = upgrade(&client, "/v1/partitions/a/exec", "berth-exec", r#"{"argv":1}"#);
    assert_eq!(status, 422);
    let words = client.get("/v1/partitions/b/last-words");
    assert_eq!((words.status, words.body.as_str()), (200, "one\r\nlast <b>words</b>"));
    assert!(words.head.to_lowercase().contains("content-type: text/plain"), "{words:?}");
    assert_eq!(client.get("/v1/partitions/a/last-words").status, 409);
}

#[test]
fn only_operators_come_into_guests() {
    let host = Host::new();
    let client = host.loopback();
    let viewer = host.token(Role::Viewer, Duration::from_secs(3600));
    std::thread::sleep(Duration::from_millis(1100));
    for path in ["/v1/partitions/a/exec", "/v1/partitions/a/attach", "/v1/await"] {
        assert_eq!(client.status("POST", path, &viewer), 403, "{path}");
    }
    assert_eq!(client.status("GET", "/v1/partitions/a/last-words", &viewer), 403);
    for path in ["/v1/tokens", "/v1/links", "/v1/files", "/v1/databases/grant"] {
        assert_eq!(client.status("POST", path, &viewer), 403, "{path}");
    }
    assert_eq!(client.status("GET", "/v1/files", &viewer), 200);
}

/// A command whose every step is heard.
fn follow(host: &Host, path: &str, body: &str) -> support::Events {
    let client = host.local();
    let mut stream = client.connect();
    let accept = "Accept: text/event-stream";
    stream.write_all(client.head("POST", path, &[accept], body.len()).as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    support::Events::of(stream)
}

#[test]
fn whoever_asks_can_follow_a_command_to_its_end() {
    let host = Host::new();
    let to = format!("{{\"to\":{}}}", 256 * MIB);
    let mut events = follow(&host, "/v1/partitions/b/move", &to);
    let (name, _, first) = events.next().unwrap();
    assert_eq!(
        (name.as_str(), &first["state"], &first["id"]),
        ("operation", &json!("running"), &json!(1))
    );
    let mut last = first;
    while last["total"] != 2 {
        last = events.next().unwrap().2;
    }
    // Others do not disturb it.
    host.local().post("/v1/partitions/a/start", "");
    host.fake.go();
    let mut all = Vec::<Value>::new();
    while let Some((_, _, data)) = events.next() {
        assert_eq!(data["id"], 1, "{data}");
        all.push(data);
    }
    let last = all.last().unwrap();
    assert_eq!((&last["state"], &last["result"]["result"]), (&json!("succeeded"), &json!("moved")));
}

#[test]
fn a_command_that_can_be_cancelled_ends_when_nobody_follows_it_any_more() {
    let host = Host::new();
    let state = |id: u64| host.local().get(&format!("/v1/operations/{id}")).json();
    for (id, path, body, cancelled) in [
        (1, "/v1/partitions/b/expand", "{\"by\":1048576}", true),
        (2, "/v1/partitions/b/move", "{\"to\":268435456}", false),
    ] {
        let mut events = follow(&host, path, body);
        assert_eq!(events.next().unwrap().2["state"], "running");
        drop(events);
        let deadline = Instant::now() + Duration::from_secs(20);
        while cancelled && state(id)["state"] == "running" {
            assert!(Instant::now() < deadline, "{}", state(id));
        }
        assert_eq!(state(id)["cancelling"], cancelled, "{path}");
    }
    assert_eq!(state(2)["state"], "running");
    host.fake.go();
}

#[test]
fn tokens_are_made_and_revoked_by_who_may() {
    let host = Host::new();
    let (local, client) = (host.local(), host.loopback());
    let made = local.post("/v1/tokens", r#"{"role":"viewer","days":2,"note":"ci"}"#).json();
    let token = made["token"].as_str().unwrap().to_owned();
    // It counts at once.
    assert_eq!(client.status("GET", "/v1/status", &token), 200);
    let listed = local.get("/v1/tokens").json();
    assert_eq!((&listed[0]["note"], &listed[0]["role"]), (&json!("ci"), &json!("viewer")));
    assert!(!listed.to_string().contains(&token));
    let id = listed[0]["id"].as_str().unwrap();
    assert_eq!(local.ask("DELETE", &format!("/v1/tokens/{id}"), &[], "").status, 204);
    assert_eq!(client.status("GET", "/v1/status", &token), 401);
    assert_eq!(local.ask("DELETE", &format!("/v1/tokens/{id}"), &[], "").status, 422);
    assert_eq!(local.post("/v1/tokens", r#"{"role":"viewer","days":0}"#).status, 422);
}

#[test]
fn a_new_size_is_either_so_much_or_so_much_more() {
    let host = Host::new();
    let client = host.local();
    let asked = |path: &str, body: &str| client.post(path, body).status;
    let plan = "/v1/plans/resize";
    assert_eq!(asked(plan, r#"{"name":"a","by":2}"#), 200);
    assert_eq!(asked(plan, r#"{"name":"a","to":2,"only":"shrink"}"#), 200);
    for body in [
        r#"{"name":"a"}"#,
        r#"{"name":"a","to":1,"by":1}"#,
        r#"{"name":"a","by":1,"only":"shrink"}"#,
    ] {
        assert_eq!(asked(plan, body), 409, "{body}");
    }
    assert_eq!(asked(plan, r#"{"name":"a","to":1,"only":"both"}"#), 422);
    assert_eq!(asked("/v1/files/team/quota", "[1,2]"), 422);
    let expand = "/v1/partitions/a/expand";
    assert_eq!(asked(expand, "{}"), 409);
    assert_eq!(asked(expand, r#"{"to":1,"by":1}"#), 409);
    assert_eq!(asked(expand, r#"{"by":1}"#), 202);
    host.fake.go();
}

#[test]
fn who_may_reach_files_is_told() {
    let host = Host::new();
    let client = host.local();
    assert_eq!(client.get("/v1/files").json()["spaces"][0]["name"], "team");
    assert_eq!(client.get("/v1/files/alice").json()["bytes"], 0);
    assert_eq!(client.get("/v1/files/none").status, 404);
    assert_eq!(client.get("/v1/databases").json(), json!({"logins": [], "more": false}));
    let granted = client.post("/v1/files/team/grant?wait=5", r#"{"to":"user:bob","write":true}"#);
    let command = json!({
        "command": "files_grant", "space": "team",
        "grant": {"to": "user:bob", "path": "", "write": true},
    });
    assert_eq!(granted.json()["command"], command);
    assert_eq!(granted.json()["state"], "succeeded");
}
