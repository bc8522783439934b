//! The host's HTTP interface with real guests.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use support::Host;

const MIB: u64 = 1 << 20;

const TWO: &str = r#"
[main_storage]
size = "400M"

[[partition]]
name = "a"
origin = "0"
size = "112M"
image = "minimal"

[[partition]]
name = "b"
origin = "128M"
size = "112M"
image = "minimal"
"#;

fn ask(mut stream: impl Read + Write, request: &str, headers: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

fn local(host: &Host, request: &str, body: &Value) -> Value {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let stream = UnixStream::connect(host.path("state/api.sock")).unwrap();
    let (status, text) = ask(stream, request, "", &body);
    assert!(status < 500, "{request}: {status} {text}");
    serde_json::from_str(&text).unwrap()
}

/// Waits for an operation's end.
fn ended(host: &Host, mut operation: Value) -> Value {
    while operation["state"] == "running" {
        operation =
            local(host, &format!("GET /v1/operations/{}?wait=30", operation["id"]), &Value::Null);
    }
    operation
}

fn carried_out(host: &Host, request: &str, body: &Value) -> Value {
    let operation = ended(host, local(host, request, body));
    assert_eq!(operation["state"], "succeeded", "{operation}");
    operation["result"].clone()
}

/// Names and data of events, as they come.
fn listen(host: &Host) -> impl Iterator<Item = (String, Value)> {
    let mut stream = UnixStream::connect(host.path("state/api.sock")).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut name = String::new();
    BufReader::new(stream).lines().map_while(Result::ok).filter_map(move |line| {
        match line.split_once(": ")? {
            ("event", text) => text.clone_into(&mut name),
            ("data", text) => return Some((name.clone(), serde_json::from_str(text).unwrap())),
            _ => {}
        }
        None
    })
}

#[test]
fn guest_is_made_started_and_moved_by_http() {
    let host = Host::up(TWO);
    let mut events = listen(&host);
    let (name, everything) = events.next().unwrap();
    assert_eq!((&*name, &everything["host"]["main_storage"]), ("everything", &json!(400 * MIB)));
    let partitions = everything["host"]["partitions"].as_array().unwrap().clone();
    assert_eq!(partitions.len(), 2);
    assert!(partitions.iter().all(|one| one["state"] == "running"), "{everything}");

    // One is in the way, and the answer says who.
    let (to, nobody) = (64 * MIB, Value::Null);
    let refused = local(&host, "POST /v1/plans/move", &json!({"name": "b", "to": to}));
    assert_eq!((&refused["status"], &refused["in_the_way"]), (&json!(409), &json!(["a"])));
    let refused = ended(&host, local(&host, "POST /v1/partitions/b/move", &json!({"to": to})));
    assert_eq!(refused["error"]["in_the_way"], json!(["a"]), "{refused}");

    let new = json!({"name": "c", "size": 112 * MIB, "start": true});
    let created = carried_out(&host, "POST /v1/partitions", &new);
    assert_eq!(created["origin"], 240 * MIB);
    host.exec("c", &["true"]);
    let moved = carried_out(&host, "POST /v1/partitions/c/move", &json!({"to": 260 * MIB}));
    assert_eq!((&moved["from"], &moved["to"]), (&json!(240 * MIB), &json!(260 * MIB)));
    assert!(moved["pause_us"].as_u64().unwrap() > 0, "{moved}");
    host.exec("c", &["true"]);
    // What the command line does is told too.
    let (status, by_command) = host.json(&["move", "c", "--to", "280M"]);
    assert_eq!(status, 0, "{by_command}");

    let mut heard = Vec::new();
    for (name, data) in &mut events {
        let there = name == "partition" && data["name"] == "c" && data["change"].is_null();
        heard.push((name, data.clone()));
        if there && data["origin"] == 280 * MIB {
            break;
        }
    }
    let any = |wanted: &dyn Fn(&str, &Value) -> bool| heard.iter().any(|(n, d)| wanted(n, d));
    assert!(any(&|name, data| name == "partition"
        && data["change"]["kind"] == "move"
        && data["change"]["origin"] == 260 * MIB));
    assert!(any(&|name, data| name == "operation"
        && data["command"]["command"] == "move"
        && data["total"].as_u64().unwrap() > 0));
    assert!(any(&|name, data| name == "measured" && data["what"] == "pause" && data["of"] == "c"));

    let stream = UnixStream::connect(host.path("state/api.sock")).unwrap();
    let (_, metrics) = ask(stream, "GET /metrics", "", "");
    for line in [
        "berth_pause_seconds_count 2",
        "berth_commands_total{command=\"move\",result=\"done\"} 2",
        "berth_commands_total{command=\"move\",result=\"refused\"} 1",
        "berth_partitions{state=\"running\"} 3",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }

    carried_out(&host, "POST /v1/partitions/c/stop", &json!({"now": true}));
    carried_out(&host, "DELETE /v1/partitions/c", &nobody);
    assert_eq!(local(&host, "GET /v1/partitions/c", &nobody)["status"], 404);
    let plan = local(&host, "POST /v1/plans/compact", &nobody);
    let done = carried_out(&host, "POST /v1/compact", &nobody);
    assert_eq!(done["plan"], plan);
    let partitions = local(&host, "GET /v1/partitions", &nobody);
    let before_it = |one: &&Value| {
        let end = one["origin"].as_u64().unwrap() + one["size"].as_u64().unwrap();
        plan["free_origin"] == end
    };
    let before = partitions.as_array().unwrap().iter().find(before_it);
    assert_eq!(before.expect("one before the free range")["gap"], plan["free_size"]);
}

#[test]
fn guest_host_lets_browsers_and_tokens_in_also_when_it_comes_back() {
    let host = Host::up(TWO);
    let (_, link) = host.json(&["open", "--role", "operator"]);
    let link = link["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let (address, key) = link.split_once("/#key=").unwrap();
    let connect = || TcpStream::connect(address).unwrap();
    let key = json!({"key": key}).to_string();
    let (status, session) = ask(connect(), "POST /v1/session", "", &key);
    assert_eq!(status, 200, "{session}");
    let session: Value = serde_json::from_str(&session).unwrap();
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    let browser = bearer(session["token"].as_str().unwrap());
    assert_eq!(ask(connect(), "GET /v1/status", &browser, "").0, 200);
    assert_eq!(ask(connect(), "GET /v1/status", "", "").0, 401);

    let (_, token) = host.json(&["api", "token", "--role", "viewer", "--note", "graphs"]);
    let viewer = bearer(token["token"].as_str().unwrap());
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(ask(connect(), "GET /metrics", &viewer, "").0, 200);
    assert_eq!(ask(connect(), "POST /v1/partitions/a/stop", &viewer, "").0, 403);
    assert_eq!(host.partition("a")["state"], "running");

    host.kill();
    host.comes_back();
    let state = local(&host, "GET /v1/status", &Value::Null);
    assert_eq!(state["host"]["partitions"][1]["state"], "running", "{state}");
    // The link's listener ended with that host; the token is good at the next.
    let (_, link) = host.json(&["open"]);
    let link = link["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let address = link.split_once('/').unwrap().0;
    let stream = TcpStream::connect(address).unwrap();
    assert_eq!(ask(stream, "GET /v1/status", &viewer, "").0, 200);
    let stream = TcpStream::connect(address).unwrap();
    assert_eq!(ask(stream, "GET /v1/status", &browser, "").0, 401);
}

/// Port of the host's that the next test has to itself.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn guest_host_is_commanded_from_elsewhere() {
    let port = free_port();
    let listens = format!("\n[api]\nlisten = \"127.0.0.1:{port}\"\n{TWO}");
    let host = Host::up(&listens);
    let token = |role: &str| {
        let (_, made) = host.json(&["api", "token", "--role", role]);
        let path = host.path(role);
        std::fs::write(&path, made["token"].as_str().unwrap()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (viewer, operator) = (token("viewer"), token("operator"));
    let elsewhere = |token: &str, arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_berth"));
        command.args(["--host", &format!("https://127.0.0.1:{port}")]);
        command.args(["--ca", host.path("state/api.crt").to_str().unwrap()]);
        command.args(["--token-file", token]).args(arguments);
        command.env_remove("BERTH_STATE_DIR");
        command
    };
    let run = |token: &str, arguments: &[&str]| {
        let output = elsewhere(token, arguments).stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    assert!(run(&viewer, &["status"]).1.contains("112M"));
    let (status, _, said) = run(&viewer, &["exec", "a", "--", "true"]);
    assert!(status == Some(1) && said.contains("needs the role operator"), "{said}");
    let (status, said, _) = run(&operator, &["exec", "a", "--", "sh", "-c", "echo here; exit 7"]);
    assert_eq!((status, said.as_str()), (Some(7), "here\n"));
    let (status, said, why) = run(&operator, &["move", "b", "--to", "240M", "--json"]);
    assert_eq!(status, Some(0), "{why}");
    assert!(said.contains("\"result\":\"moved\""), "{said}");
    let (status, _, said) = run(&operator, &["down"]);
    assert!(status == Some(1) && said.contains("needs the role administrator"), "{said}");
    // What goes in comes out, whatever it is, and as much as it is.
    let bytes: Vec<u8> =
        (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut cat = elsewhere(&operator, &["exec", "a", "--", "cat"]);
    let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, sent) = (cat.stdin.take().unwrap(), bytes.clone());
    let writer = std::thread::spawn(move || input.write_all(&sent));
    let mut back = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut back).unwrap();
    writer.join().unwrap().unwrap();
    assert!(cat.wait().unwrap().success() && back == bytes, "{} bytes came back", back.len());
    // Nobody is believed who cannot prove it, on either side.
    let (status, _, said) = run("/dev/null", &["status"]);
    assert!(status == Some(1) && said.contains("berth api token"), "{said}");
    let other = host.path("other.crt");
    let names = ["127.0.0.1".to_owned()];
    gateway::tls::load_or_make_as(other.parent().unwrap(), "other", &names, None).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_berth"))
        .args(["--host", &format!("https://127.0.0.1:{port}"), "--ca", other.to_str().unwrap()])
        .args(["--token-file", &viewer, "status"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("cannot be reached"), "{said}");
}
