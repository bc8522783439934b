//! Partitions that change places, grow, shrink and make room, while guests
//! that watch themselves run in them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
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

fn worker(host: &Host, name: &str) -> Option<i32> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let title = format!("berth: {name}\0worker\0");
    // Of this host: its socket is in this host's directory.
    let dir = host.path("state").to_str().unwrap().to_owned();
    let mut found = processes.filter_map(|entry| {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let parent = String::from_utf8_lossy(&read("status"))
            .lines()
            .find_map(|line| line.strip_prefix("PPid:").map(|pid| pid.trim().to_owned()))?;
        let mine = std::fs::read(format!("/proc/{parent}/cmdline")).unwrap_or_default();
        let mine = String::from_utf8_lossy(&mine).contains(&dir);
        (mine && read("cmdline").starts_with(title.as_bytes()))
            .then(|| entry.file_name().to_str()?.parse().ok())?
    });
    found.next()
}

fn signal(pid: u32, signal: &str) {
    let sent = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
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

#[test]
fn guest_partition_survives_the_other_ones_death_in_an_exchange() {
    let host = Host::up(FULL);
    for (dies, lives, wait) in [("a", "b", 3), ("b", "a", 12), ("a", "b", 25), ("a", "b", 45)] {
        let check = watched(&host, &[lives]);
        let mut exchange = host.command(&["exchange", "a", "b", "--json"]);
        let mut exchange = exchange.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        signal(worker(&host, dies).unwrap().unsigned_abs(), "-KILL");
        exchange.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while host.partition(dies)["state"] != "failed" {
            assert!(Instant::now() < deadline, "{}", host.partition(dies));
        }
        let places = [place(&host, "a"), place(&host, "b")];
        assert!(places == [(0, 128), (128, 160)] || places == [(160, 128), (0, 160)], "{places:?}");
        all_well(check);
        let start = host.run(&["start", dies]);
        assert!(start.status.success(), "{start:?}");
        assert_eq!(host.exec(dies, &["echo", "again"]), "again\n");
    }
}

#[test]
fn guest_compaction_ends_after_the_move_in_hand_at_ctrl_c() {
    let host = Host::up(ROOMY);
    let checks = watched(&host, &["a", "b"]);
    let mut compact = host.command(&["compact", "--json"]);
    let mut compact =
        compact.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Its notes say when it has begun.
    let mut notes = BufReader::new(compact.stderr.take().unwrap()).lines();
    let first = notes.next().unwrap().unwrap();
    assert!(first.contains("move 1 of"), "{first}");
    signal(compact.id(), "-INT");
    let output = compact.wait_with_output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The signal may have come when all was done.
    let ended = (output.status.code().unwrap(), answer["result"].as_str().unwrap());
    assert!(ended == (1, "stopped") || ended == (0, "compacted"), "{answer}");
    if ended.1 == "stopped" {
        let moved = answer["moved"].as_array().unwrap().len();
        assert!(moved >= 1 && answer["left"].as_u64().unwrap() >= 1, "{answer}");
    }
    let (status, answer) = host.json(&["compact"]);
    assert_eq!((status, &answer["result"]), (0, &json!("compacted")), "{answer}");
    all_well(checks);
}

#[test]
fn guest_commands_on_one_partition_are_refused_not_mixed() {
    let host = Host::up(FULL);
    let checks = watched(&host, &["a", "b"]);
    let all: Vec<_> = std::thread::scope(|scope| {
        let each = (0..6).map(|turn| {
            let host = &host;
            scope.spawn(move || match turn % 2 {
                0 => host.json(&["exchange", "a", "b"]),
                _ => host.json(&["exchange", "b", "a"]),
            })
        });
        let threads: Vec<_> = each.collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or((2, Value::Null))).collect()
    });
    let done = all.iter().filter(|(status, _)| *status == 0).count();
    assert!(done >= 1, "{all:?}");
    let places = [place(&host, "a"), place(&host, "b")];
    let expected = if done % 2 == 0 { [(0, 128), (128, 160)] } else { [(160, 128), (0, 160)] };
    assert_eq!(places, expected, "{all:?}");
    all_well(checks);
}
