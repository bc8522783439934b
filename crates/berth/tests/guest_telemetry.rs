//! Traces: one id from a user's request to the program in the machine.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use support::Host;
use support::pool::{Conversation, all_free};

/// A collector that keeps every span it is sent; its port.
fn collector() -> (u16, Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, spans) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                if line.trim_end().is_empty() {
                    break;
                }
                head.push(line.trim_end().to_ascii_lowercase());
            }
            assert_eq!(head[0], "post /v1/traces http/1.1");
            assert!(head.contains(&"content-type: application/json".to_owned()), "{head:?}");
            let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
            let mut body = vec![0; length.unwrap().parse().unwrap()];
            stream.read_exact(&mut body).unwrap();
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let resource = &body["resourceSpans"][0];
            assert_eq!(resource["resource"]["attributes"][0]["value"]["stringValue"], "berth");
            for span in resource["scopeSpans"][0]["spans"].as_array().unwrap() {
                let _ = sender.send(span.clone());
            }
        }
    });
    (port, spans)
}

fn attribute<'a>(span: &'a Value, key: &str) -> &'a str {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|one| one["key"] == key);
    found.map_or("", |one| one["value"]["stringValue"].as_str().unwrap())
}

#[test]
fn guest_conversation_is_one_trace_from_the_request_to_the_machine() {
    let (port, spans) = collector();
    let host = Host::up(&format!(
        r#"
[main_storage]
size = "160M"

[telemetry]
otlp = "http://127.0.0.1:{port}"

[[pool]]
name = "serve"
count = 1
size = "112M"
image = "minimal"

[[pool.program]]
tpn = "shell"
run = ["/bin/sh", "-e"]
users = ["alice"]
"#
    ));
    all_free(&host);
    let mut talk = Conversation::begin(&host, "alice");
    // What the program in the machine is told.
    let parent = talk.ask("echo $TRACEPARENT");
    // One that was started before would ask.
    let identity = talk.ask("wget -qO- http://127.0.0.1/v1/identity; echo");
    let identity: Value = serde_json::from_str(&identity).unwrap();
    assert_eq!(identity["traceparent"], *parent);
    let parts: Vec<&str> = parent.split('-').collect();
    assert_eq!((parts[0], parts[1].len(), parts[2].len(), parts[3]), ("00", 32, 16, "01"));
    assert_eq!(talk.end(), 0);
    // One who may not is a trace too, of its own.
    assert_ne!(support::pool::allocate(&host, "serve/shell", "mallory", "").0, 0);

    let wait = Duration::from_secs(30);
    // One of them is the operation by which `berth up` waited.
    let all: Vec<Value> = (0..7).map(|_| spans.recv_timeout(wait).unwrap()).collect();
    let (hers, others): (Vec<&Value>, Vec<&Value>) =
        all.iter().partition(|span| span["traceId"] == parts[1]);
    let mut names: Vec<_> = hers.iter().map(|span| span["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    let expected = ["conversation", "machine accepts", "machine serves", "wait for a machine"];
    assert_eq!(names, expected);
    for span in &hers {
        assert_eq!(attribute(span, "berth.user"), "alice");
        assert_eq!(attribute(span, "berth.machine"), "serve-00");
        let root = span["name"] == "conversation";
        assert_eq!(span[if root { "spanId" } else { "parentSpanId" }], parts[2], "{span}");
        let time = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"), "{span}");
    }
    let refused = others.iter().find(|span| span["name"] == "conversation").unwrap();
    assert_eq!(
        (attribute(refused, "berth.user"), &refused["status"]["code"]),
        ("mallory", &Value::from(2))
    );
}
