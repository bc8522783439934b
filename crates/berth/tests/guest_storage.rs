//! Partitions that change places, grow, shrink and make room, while guests
//! that watch themselves run in them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Host, SelfCheck};

const MIB: u64 = 1 << 20;

/// Main storage is full: there is no third range for anybody.
const FULL: &str = r#"
[main_storage]
size = "288M"

[[partition]]
name = "a"
origin = "0"
size = "128M"
image = "minimal"
disk = "64M"

[[partition]]
name = "b"
origin = "128M"
size = "160M"
image = "minimal"
disk = "64M"
"#;

const ROOMY: &str = r#"
[main_storage]
size = "640M"

[[partition]]
name = "a"
origin = "0"
size = "128M"
image = "minimal"
disk = "64M"

[[partition]]
name = "b"
origin = "160M"
size = "128M"
image = "minimal"
disk = "64M"

[[partition]]
name = "c"
origin = "400M"
size = "96M"
image = "minimal"
autostart = false
"#;

fn watched(host: &Host, names: &[&str]) -> Vec<SelfCheck> {
    let mut checks: Vec<_> = names.iter().map(|name| SelfCheck::start(host, name)).collect();
    checks.iter_mut().for_each(|check| drop(check.report()));
    checks
}

fn all_well(checks: Vec<SelfCheck>) {
    for check in checks {
        let last = check.end();
        assert_eq!(last["errors"], 0, "{last}");
        assert!(last["pages_checked"].as_u64().unwrap() > 100, "{last}");
    }
}

fn place(host: &Host, name: &str) -> (u64, u64) {
    let partition = host.partition(name);
    (partition["origin"].as_u64().unwrap() / MIB, partition["size"].as_u64().unwrap() / MIB)
}

fn refused(host: &Host, arguments: &[&str]) -> Value {
    let before = host.json(&["status"]).1;
    let (status, answer) = host.json(arguments);
    assert_eq!((status, &answer["result"]), (1, &json!("refused")), "{arguments:?}: {answer}");
    assert_eq!(host.json(&["status"]).1, before, "{arguments:?} changed something");
    answer
}

/// A line of a guest's `/proc/meminfo`, in KiB.
fn memory(host: &Host, name: &str, line: &str) -> u64 {
    let text = host.exec(name, &["grep", line, "/proc/meminfo"]);
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn guest_partitions_change_places_in_a_full_main_storage() {
    let host = Host::up(FULL);
    let checks = watched(&host, &["a", "b"]);
    let (status, answer) = host.json(&["exchange", "a", "b", "--dry-run"]);
    assert_eq!((status, &answer["result"]), (0, &json!("would_exchange")), "{answer}");
    assert_eq!((place(&host, "a"), place(&host, "b")), ((0, 128), (128, 160)));
    for (a, b) in [(160, 0), (0, 128), (160, 0)] {
        let (status, answer) = host.json(&["exchange", "a", "b"]);
        assert_eq!((status, &answer["result"]), (0, &json!("exchanged")), "{answer}");
        assert!(answer["bytes"].as_u64().unwrap() > 16 * MIB, "{answer}");
        assert_eq!((place(&host, "a"), place(&host, "b")), ((a, 128), (b, 160)));
    }
    all_well(checks);

    let said = refused(&host, &["exchange", "a", "a"]);
    assert!(said["reason"].as_str().unwrap().contains("itself"), "{said}");
    // One that does not run has no content: the other one moves into its place.
    assert!(host.run(&["stop", "b"]).status.success());
    let (status, answer) = host.json(&["exchange", "a", "b"]);
    assert_eq!((status, &answer["result"]), (0, &json!("exchanged")), "{answer}");
    assert_eq!((place(&host, "a"), place(&host, "b")), ((0, 128), (128, 160)));
    assert_eq!(host.exec("a", &["echo", "on"]), "on\n");
    assert!(host.run(&["start", "b"]).status.success());
    assert_eq!(host.exec("b", &["echo", "on"]), "on\n");
}

#[test]
fn guest_gets_more_memory_and_gives_it_back() {
    let host = Host::up(ROOMY);
    let checks = watched(&host, &["a", "b"]);
    let before = memory(&host, "a", "MemTotal");
    let available = memory(&host, "a", "MemAvailable");
    let said = refused(&host, &["expand", "a", "--by", "64M"]);
    assert_eq!(said["in_the_way"], json!(["b"]));
    refused(&host, &["expand", "a", "--to", "128M"]);
    refused(&host, &["expand", "a", "--to", "9G"]);
    refused(&host, &["expand", "a", "--by", "1000"]);
    refused(&host, &["shrink", "a", "--to", "256M"]);

    let (status, answer) = host.json(&["expand", "a", "--by", "64M", "--make-room", "--dry-run"]);
    assert_eq!((status, &answer["result"]), (0, &json!("would_resize")), "{answer}");
    let (status, answer) = host.json(&["expand", "a", "--by", "64M", "--make-room"]);
    assert_eq!((status, &answer["result"]), (0, &json!("resized")), "{answer}");
    assert_eq!(answer["moved"][0]["name"], "b", "{answer}");
    assert_eq!((answer["to"].as_u64(), place(&host, "a")), (Some(192 * MIB), (0, 192)));
    // The guest counts a moment after it has taken it.
    let deadline = Instant::now() + Duration::from_secs(60);
    while memory(&host, "a", "MemTotal") != before + (64 << 10) {
        assert!(Instant::now() < deadline, "{} KiB", memory(&host, "a", "MemTotal"));
    }
    // A program can use it: more than there was before.
    let file = (available >> 10) + 24;
    let fill = format!(
        "mount -t tmpfs -o size=100% none /mnt && \
         dd if=/dev/zero of=/mnt/x bs=1M count={file} 2>/dev/null && wc -c </mnt/x && umount /mnt"
    );
    assert_eq!(host.exec("a", &["sh", "-c", &fill]), format!("{}\n", file * MIB));
    // What it got moves with it.
    let (status, answer) = host.json(&["exchange", "a", "b"]);
    assert_eq!((status, &answer["result"]), (0, &json!("exchanged")), "{answer}");

    let (status, answer) = host.json(&["shrink", "a", "--to", "150M"]);
    assert_eq!((status, &answer["result"]), (0, &json!("resized")), "{answer}");
    let size = answer["to"].as_u64().unwrap();
    assert_eq!(size + answer["from"].as_u64().unwrap(), size + 192 * MIB);
    assert_eq!(size - answer["kept"].as_u64().unwrap(), 150 * MIB, "{answer}");
    // What it booted in it cannot give back.
    let (_, answer) = host.json(&["shrink", "a", "--to", "64M"]);
    assert!(place(&host, "a").1 >= 128, "{answer}");
    all_well(checks);

    // One that does not run only gets another range.
    let (status, answer) = host.json(&["shrink", "c", "--to", "64M"]);
    assert_eq!((status, &answer["result"]), (0, &json!("resized")), "{answer}");
    assert_eq!(place(&host, "c"), (400, 64));
}

#[test]
fn guest_partitions_are_moved_together() {
    let host = Host::up(ROOMY);
    let checks = watched(&host, &["a", "b"]);
    let (status, answer) = host.json(&["compact", "--free", "280M", "--dry-run"]);
    assert_eq!((status, &answer["result"]), (0, &json!("would_compact")), "{answer}");
    assert_eq!(place(&host, "c"), (400, 96));
    let (status, answer) = host.json(&["compact"]);
    assert_eq!((status, &answer["result"]), (0, &json!("compacted")), "{answer}");
    let free = 640 - 128 - 128 - 96;
    assert_eq!(answer["plan"]["free_size"], free * MIB, "{answer}");
    let gaps: Vec<_> = ["a", "b", "c"].map(|name| host.partition(name)["gap"].clone()).into();
    assert_eq!(gaps.iter().filter(|gap| **gap != json!(0)).count(), 1, "{gaps:?}");
    let said = refused(&host, &["compact", "--free", "600M"]);
    assert!(said["reason"].as_str().unwrap().contains("288M"), "{said}");
    all_well(checks);
}
