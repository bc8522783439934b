//! Commands are operations; what only looks answers at once.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::time::{Duration, Instant};

use operator_api::model::Pool;
use serde_json::{Value, json};
use support::{Host, MIB};

fn until(host: &Host, id: u64, state: &str) -> Value {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let operation = host.local().get(&format!("/v1/operations/{id}?wait=5")).json();
        if operation["state"] == state {
            return operation;
        }
        assert!(Instant::now() < deadline, "{operation}");
    }
}

#[test]
fn a_move_is_a_resource_that_tells_how_far_it_is() {
    let host = Host::new();
    let client = host.local();
    let begun = client.post("/v1/partitions/b/move", &format!("{{\"to\":{}}}", 256 * MIB));
    assert_eq!(begun.status, 202, "{begun:?}");
    assert!(begun.head.to_lowercase().contains("location: /v1/operations/1"), "{begun:?}");
    assert_eq!(begun.json()["by"], "local");
    let command = json!({"command": "move", "name": "b", "to": 256 * MIB, "mode": "live"});
    assert_eq!(begun.json()["command"], command);
    let deadline = Instant::now() + Duration::from_secs(5);
    while client.get("/v1/operations/1").json()["total"] != 2 {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(client.get("/v1/partitions/b").json()["origin"], 128 * MIB);
    host.fake.go();
    let ended = until(&host, 1, "succeeded");
    assert_eq!(ended["result"]["result"], "moved");
    // Whoever hears of the end finds what it led to.
    assert_eq!(client.get("/v1/partitions/b").json()["origin"], 256 * MIB);
    assert_eq!(client.get("/v1/operations").json().as_array().unwrap().len(), 1);
    let metrics = client.get("/metrics").body;
    assert!(
        metrics.contains("berth_commands_total{command=\"move\",result=\"done\"} 1"),
        "{metrics}"
    );
}

#[test]
fn an_operation_ends_early_when_asked_to() {
    let host = Host::new();
    let client = host.local();
    client.post("/v1/partitions/b/move", "{\"to\":0}");
    let cancelled = client.post("/v1/operations/1/cancel", "");
    assert_eq!((cancelled.status, &cancelled.json()["cancelling"]), (200, &json!(true)));
    let ended = until(&host, 1, "failed");
    assert_eq!(ended["error"]["type"], "urn:berth:conflict");
    assert_eq!(client.post("/v1/operations/9/cancel", "").status, 404);
}

#[test]
fn refusals_and_faults_say_what_happened() {
    let host = Host::new();
    let client = host.local();
    let refused = client.post("/v1/partitions/a/start?wait=10", "");
    assert_eq!((refused.status, &refused.json()["state"]), (200, &json!("failed")));
    assert_eq!(refused.json()["error"]["status"], 409);
    // A thread of the host that panics ends its operation only.
    let fault = client.post("/v1/partitions/a/stop?wait=10", "");
    assert_eq!(fault.json()["error"]["status"], 500);
    let planned = client.post("/v1/plans/move", "{\"name\":\"b\",\"to\":0}");
    assert_eq!((planned.status, &planned.json()["in_the_way"]), (409, &json!(["a"])));
    assert_eq!(client.post("/v1/plans/move", "{\"name\":\"b\",\"to\":1}").json()["bytes"], 1);
    for (path, body, status) in [
        ("/v1/partitions/zz/start", "", 404),
        ("/v1/pools/zz/resume", "", 404),
        ("/v1/partitions/a/move", "", 422),
        ("/v1/partitions/a/move", "{\"to\":1,\"too\":2}", 422),
        ("/v1/partitions/a/move", "{\"to\":-1}", 422),
        ("/v1/partitions/a/move", "{\"to\":1.5}", 422),
        ("/v1/partitions/a/move", "{\"to\":1e30}", 422),
        ("/v1/partitions/a/move", "{\"to\":9223372036854775808}", 422),
        ("/v1/partitions/a/move", "{", 422),
        ("/v1/partitions/a/start?wait=61", "", 400),
        ("/v1/partitions/a/start?weight=1", "", 400),
        ("/v1/nothing", "", 404),
        ("/v1/status", "", 405),
    ] {
        let answer = client.post(path, body);
        assert_eq!(answer.status, status, "{path} {body}: {answer:?}");
        assert!(answer.head.contains("application/problem+json"), "{path}: {answer:?}");
        assert!(!answer.json()["detail"].as_str().unwrap().is_empty());
    }
    assert_eq!(client.get("/v1/operations/x").status, 404);
    let whole = client.post("/v1/plans/move", "{\"name\":\"b\",\"to\":1e3}");
    assert_eq!(whole.json()["to"], 1000, "a number is one however it is written");
    assert_eq!(client.post("/v1/compact?wait=5", "null").status, 200);
    assert_eq!(client.get("/v1/audit?limit=0").status, 400);
    assert_eq!(client.get("/v1/audit?before=9223372036854775808").status, 400);
    assert_eq!(client.get("/v1/audit?q=%61lice").json()["entries"][0]["user"], "alice");
}

#[test]
fn a_partition_that_was_just_made_is_known() {
    let host = Host::new();
    let client = host.local();
    let body = format!("{{\"name\":\"new\",\"size\":{}}}", 16 * MIB);
    assert_eq!(client.post("/v1/partitions?wait=10", &body).json()["state"], "succeeded");
    assert_eq!(client.get("/v1/partitions/new").status, 200);
    assert_eq!(client.get("/v1/status").json()["host"]["partitions"].as_array().unwrap().len(), 3);
}

#[test]
fn operations_are_bounded() {
    let host = Host::new();
    let client = host.local();
    let mut refused = 0;
    for _ in 0..40 {
        let answer = client.post("/v1/partitions/a/move", "{\"to\":0}");
        if answer.status == 503 {
            assert!(answer.head.to_lowercase().contains("retry-after"), "{answer:?}");
            refused += 1;
        }
    }
    assert_eq!(refused, 8, "32 may be under way");
    // Looking goes on meanwhile.
    assert_eq!(client.get("/v1/status").status, 200);
    assert_eq!(client.post("/v1/plans/move", "{\"name\":\"b\",\"to\":1}").status, 200);
    host.fake.go();
    until(&host, 32, "succeeded");
    for _ in 0..250 {
        client.post("/v1/partitions/a/start?wait=10", "");
    }
    let all = client.get("/v1/operations").json();
    assert_eq!(all.as_array().unwrap().len(), 200);
    assert_eq!(client.get("/v1/operations/1").status, 404, "the oldest is forgotten");
}

#[test]
fn the_description_is_of_every_route() {
    let host = Host::new();
    let described = host.loopback().get("/v1/openapi.json").json();
    assert!(described["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = described["paths"].as_object().unwrap();
    for path in ["/v1/status", "/v1/partitions/{name}/move", "/v1/events", "/metrics"] {
        assert!(paths.contains_key(path), "{path}");
    }
    let create = &paths["/v1/partitions"];
    assert!(create["get"].is_object() && create["post"].is_object());
    let pretty: Value = serde_json::from_str(&operator_api::openapi()).unwrap();
    assert_eq!(pretty, described);
}

#[test]
fn the_dashboard_shows_what_is_measured() {
    let host = Host::new();
    // What has no value yet is not told.
    host.station.metrics.command("move", "done");
    host.station.metrics.claim("accepted");
    host.station.metrics.conversation("confirmed");
    let mut state = host.fake.look();
    let (name, alarm, members) = ("serve".to_owned(), None, Vec::new());
    state.pools.push(Pool { name, min: 1, max: 2, limit: 3, waiting: 0, alarm, members });
    host.station.publish(state);
    assert_eq!(host.local().get("/v1/pools/serve").json()["limit"], 3);
    let metrics = host.local().get("/metrics").body;
    let known: Vec<_> = metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/grafana/berth.json");
    let dashboard = std::fs::read_to_string(path).unwrap();
    let _: Value = serde_json::from_str(&dashboard).unwrap();
    let mut shown = 0;
    for rest in dashboard.split("berth_").skip(1) {
        let end = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap();
        let name = format!("berth_{}", &rest[..end]);
        let base = name.trim_end_matches("_bucket").trim_end_matches("_total");
        let is = |line: &&str| line.split(' ').next() == Some(base);
        assert!(known.iter().any(is), "{name} is not measured: {known:?}");
        shown += 1;
    }
    assert!(shown > 15, "{shown}");
}
