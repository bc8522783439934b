//! What happens is heard as it happens, by as many as there may be.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod support;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use operator_api::Quantity;
use serde_json::json;
use support::{Host, MIB};

#[test]
fn whoever_listens_hears_everything_first_and_then_each_change() {
    let host = Host::new();
    let mut events = host.local().listen(&[]);
    let (name, _, everything) = events.next().unwrap();
    assert_eq!(name, "everything");
    assert_eq!(everything["host"]["partitions"][1]["name"], "b");

    let mut state = host.fake.look();
    state.host.partitions[1].origin = 300 * MIB;
    state.host.partitions.remove(0);
    host.station.publish(state.clone());
    host.station.publish(state);
    host.station.measured(Quantity::Pause, "b", 0.25);
    assert_eq!(events.next().unwrap().2, json!({"name": "a"}));
    let (name, _, changed) = events.next().unwrap();
    assert_eq!((&*name, &changed["origin"]), ("partition", &json!(300 * MIB)));
    // What did not change is not told again.
    let (name, id, measured) = events.next().unwrap();
    assert_eq!((&*name, &measured["seconds"]), ("measured", &json!(0.25)));

    host.local().post("/v1/partitions/b/start?wait=10", "");
    let (_, _, operation) = events.until("operation");
    assert_eq!(operation["state"], "running");
    assert_eq!(events.until("operation").2["state"], "failed");

    // Who comes back hears what it missed and nothing twice.
    let mut again = host.local().listen(&[&format!("Last-Event-ID: {id}")]);
    assert_eq!(again.next().unwrap().2["state"], "running");
    assert_eq!(again.next().unwrap().2["name"], "a", "the host has it after all");
    for nonsense in ["1", "1-1", "x", "99999999999999999999-1", &format!("{id}9999")] {
        let mut events = host.local().listen(&[&format!("Last-Event-ID: {nonsense}")]);
        assert_eq!(events.next().unwrap().0, "everything", "{nonsense}");
    }
}

#[test]
fn a_thousand_listen_and_nobody_waits() {
    let host = Host::new();
    let client = host.local();
    let mut streams: Vec<_> = (0..1000).map(|_| client.listen(&[])).collect();
    let metrics = client.get("/metrics").body;
    assert!(metrics.contains("berth_api_event_streams 1000"), "{metrics}");
    let started = Instant::now();
    assert_eq!(client.get("/v1/status").status, 200);
    assert!(started.elapsed() < Duration::from_secs(1));
    host.station.measured(Quantity::Claim, "x", 1.0);
    for stream in &mut streams {
        stream.until("measured");
    }
    drop(streams);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        // Who has gone is noticed when there is something to say.
        host.station.measured(Quantity::Claim, "x", 1.0);
        if client.get("/metrics").body.contains("berth_api_event_streams 0") {
            break;
        }
        assert!(Instant::now() < deadline, "streams outlive their listeners");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn one_stream_too_many_is_refused() {
    let host = Host::with(|settings| settings.streams = 2);
    let client = host.local();
    let _kept = [client.listen(&[]), client.listen(&[])];
    assert_eq!(client.get("/v1/events").status, 503);
}

#[test]
fn a_slow_reader_loses_its_stream_and_delays_nobody() {
    let host = Host::with(|settings| settings.stall = Duration::from_millis(500));
    let client = host.local();
    let mut slow = client.connect();
    slow.write_all(client.head("GET", "/v1/events", &[], 0).as_bytes()).unwrap();
    let mut quick = client.listen(&[]);
    quick.until("everything");
    let station = Arc::clone(&host.station);
    let writer = std::thread::spawn(move || {
        // Far more than sockets hold.
        let text = "x".repeat(1000);
        for _ in 0..4000 {
            station.measured(Quantity::Claim, &text, 1.0);
            std::thread::sleep(Duration::from_micros(200));
        }
        station.measured(Quantity::Wait, "last", 2.0);
    });
    loop {
        if quick.until("measured").2["of"] == "last" {
            break;
        }
    }
    writer.join().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let mut rest = Vec::new();
    let _ = slow.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("\"last\""), "it was kept for the slow one");
    assert!(rest.len() < 3_000_000, "{} bytes were kept", rest.len());
    let metrics = client.get("/metrics").body;
    assert!(metrics.contains("berth_api_event_streams 1"), "{metrics}");
}
