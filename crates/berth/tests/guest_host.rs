//! The host with real guests: what a user types, what a guest can do to
//! itself, and what happens to a worker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "a test that cannot go on fails; the support is shared between tests"
)]

mod support;

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Host, kill};

const MIB: u64 = 1 << 20;

const TWO: &str = r#"
[main_storage]
size = "300M"

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

/// Waits until a partition is in `state`.
fn until(host: &Host, name: &str, state: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while host.partition(name)["state"] != state {
        assert!(Instant::now() < deadline, "{name} is {}", host.partition(name));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn stderr(host: &Host, arguments: &[&str], status: i32) -> String {
    let output = host.run(arguments);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn uptime(host: &Host, name: &str) -> f64 {
    let text = host.exec(name, &["cat", "/proc/uptime"]);
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// Process id of a partition's worker: the host's child of that name, if there
/// is one.
fn find_worker(host: &Host, name: &str) -> Option<String> {
    let parent = format!("PPid:\t{}\n", host.pid());
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut found = processes.filter(|entry| {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let named = read("cmdline").starts_with(format!("berth: {name}\0").as_bytes());
        named && String::from_utf8_lossy(&read("status")).contains(&parent)
    });
    Some(found.next()?.file_name().into_string().unwrap())
}

fn worker(host: &Host, name: &str) -> String {
    find_worker(host, name).expect("a worker")
}

#[test]
fn guest_commands_have_the_callers_streams_and_status() {
    let host = Host::up(TWO);
    assert!(host.exec("a", &["uname", "-m"]).contains("riscv64"));

    let output = host.run(&[
        "exec",
        "a",
        "-e",
        "X=1",
        "--cwd",
        "/tmp",
        "--",
        "sh",
        "-c",
        "echo $X; pwd; echo e >&2; exit 7",
    ]);
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1\n/tmp\n");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "e\n");
    assert_eq!(host.run(&["exec", "a", "--", "sh", "-c", "kill -9 $$"]).status.code(), Some(137));
    assert!(stderr(&host, &["exec", "a", "--", "no-such-program"], 1).contains("no-such-program"));
}

#[test]
fn guest_streams_are_whole_and_a_slow_reader_blocks_nobody() {
    let host = Host::up(TWO);
    // Nobody reads this command's output; the guest writes without end.
    let mut slow = host
        .command(&["exec", "a", "--", "yes"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> =
        (0..2_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut cat = host
        .command(&["exec", "a", "--", "cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, bytes) = (cat.stdin.take().unwrap(), sent.clone());
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let mut got = Vec::new();
    cat.stdout.take().unwrap().read_to_end(&mut got).unwrap();
    writer.join().unwrap();
    assert!(cat.wait().unwrap().success());
    assert!(got == sent, "{} of {} bytes came back", got.len(), sent.len());
    assert!(slow.try_wait().unwrap().is_none());
    slow.kill().unwrap();
    slow.wait().unwrap();
    // The guest's command ends with its client.
    let deadline = Instant::now() + Duration::from_secs(20);
    while host.run(&["exec", "a", "--", "pidof", "yes"]).status.success() {
        assert!(Instant::now() < deadline, "the command outlives its client");
    }
}

#[test]
fn guest_command_that_does_not_end_by_signals_is_left_and_killed() {
    let host = Host::up(TWO);
    let deaf = "trap '' INT TERM; echo on; while :; do sleep 1; done";
    for (signals, status) in [(&["-INT", "-INT"][..], 130), (&["-TERM"], 143)] {
        let mut client = host
            .command(&["exec", "a", "--", "sh", "-c", deaf])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut on = [0; 3];
        client.stdout.as_mut().unwrap().read_exact(&mut on).unwrap();
        for signal in signals {
            let pid = client.id().to_string();
            let sent = std::process::Command::new("kill").args([signal, pid.as_str()]).status();
            assert!(sent.unwrap().success());
            // Two that come together are one.
            std::thread::sleep(Duration::from_millis(200));
        }
        let left = client.wait_with_output().unwrap();
        assert_eq!(left.status.code(), Some(status), "{signals:?}: {left:?}");
        let said = String::from_utf8(left.stderr).unwrap();
        assert!(said.contains("does not end"), "{said}");
        let deadline = Instant::now() + Duration::from_secs(60);
        while host.run(&["exec", "a", "--", "pidof", "sleep"]).status.success() {
            assert!(Instant::now() < deadline, "the command goes on");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn guest_moves_without_a_restart_and_refusals_change_nothing() {
    let host = Host::up(TWO);
    let started = uptime(&host, "b");
    let (status, answer) = host.json(&["status"]);
    assert_eq!(status, 0);
    assert_eq!(
        answer,
        json!({"main_storage": 300 * MIB, "partitions": [
            {"name": "a", "origin": 0, "size": 112 * MIB, "gap": 16 * MIB, "state": "running", "vcpus": 1, "engine": "soft"},
            {"name": "b", "origin": 128 * MIB, "size": 112 * MIB, "gap": 60 * MIB, "state": "running", "vcpus": 1, "engine": "soft"},
        ]})
    );
    let before = answer;

    for (to, in_the_way) in
        [("64M", json!(["a"])), ("260M", json!([])), ("200000", json!([])), ("128M", json!([]))]
    {
        for dry in [true, false] {
            let mut arguments = vec!["move", "b", "--to", to];
            arguments.extend(dry.then_some("--dry-run"));
            let (status, answer) = host.json(&arguments);
            assert_eq!((status, &answer["result"]), (1, &json!("refused")), "{to}: {answer}");
            assert_eq!(answer["in_the_way"], in_the_way, "{to}");
            assert_eq!(answer["busy_devices"], json!([]));
        }
    }
    assert_eq!(host.json(&["status"]).1, before);
    assert!(stderr(&host, &["move", "c", "--to", "0"], 1).contains("there are: a, b"));

    let (status, answer) = host.json(&["move", "b", "--to", "160M", "--dry-run"]);
    let would = json!({"result": "would_move", "from": 128 * MIB, "to": 160 * MIB, "bytes": 112 * MIB, "direction": "down"});
    assert_eq!((status, answer), (0, would));
    assert_eq!(host.json(&["status"]).1, before);

    for (to, direction) in [(160, "down"), (120, "up"), (188, "down"), (112, "up")] {
        let from = host.partition("b")["origin"].clone();
        let (status, answer) = host.json(&["move", "b", "--to", &format!("{to}M")]);
        assert_eq!((status, &answer["result"]), (0, &json!("moved")), "{answer}");
        assert_eq!((&answer["from"], &answer["to"]), (&from, &json!(to * MIB)));
        assert_eq!(answer["direction"], direction);
        for field in ["bytes", "pause_us", "copy_bytes_per_second"] {
            assert!(answer[field].as_u64().unwrap() > 0, "{field} in {answer}");
        }
        assert_eq!(host.partition("b")["origin"], json!(to * MIB));
    }
    assert!(uptime(&host, "b") > started, "the guest was restarted");
}

#[test]
fn guest_stops_and_starts_by_command_and_by_itself() {
    let host = Host::up(TWO);
    let (status, answer) = host.json(&["stop", "a"]);
    assert_eq!((status, answer), (0, json!({"result": "stopped", "name": "a"})));
    assert_eq!(host.partition("a")["state"], "stopped");
    assert_eq!(host.partition("a")["size"], json!(112 * MIB), "its range stays its own");
    assert!(stderr(&host, &["exec", "a", "--", "true"], 1).contains("berth start a"));
    assert!(stderr(&host, &["stop", "a"], 1).contains("stopped"));
    // A partition in which nothing runs moves on the map alone.
    let (status, answer) = host.json(&["move", "a", "--to", "16M"]);
    assert_eq!((status, &answer["bytes"]), (0, &json!(0)), "{answer}");

    assert!(host.run(&["start", "a"]).status.success());
    assert!(stderr(&host, &["start", "a"], 1).contains("running already"));
    // Waits for the guest.
    assert!(host.exec("a", &["uname", "-m"]).contains("riscv64"));

    let up = uptime(&host, "b");
    host.run(&["exec", "b", "--", "poweroff", "-f"]);
    until(&host, "b", "stopped");
    assert!(host.run(&["start", "b"]).status.success());
    assert!(uptime(&host, "b") < up + 60.0);

    std::thread::sleep(Duration::from_secs(2));
    let (before, pid) = (uptime(&host, "b"), worker(&host, "b"));
    host.run(&["exec", "b", "--", "reboot", "-f"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    // The old worker may end between the two questions.
    while host.partition("b")["state"] != "running"
        || find_worker(&host, "b").is_none_or(|now| now == pid)
    {
        assert!(Instant::now() < deadline, "not started anew after its reboot");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(uptime(&host, "b") < before, "a guest that reboots is started anew");
    assert!(host.run(&["restart", "b", "--now"]).status.success());
    assert!(host.exec("b", &["echo", "on"]).contains("on"));
}

#[test]
fn guest_panic_fails_its_partition_only_and_is_quoted() {
    let host = Host::up(TWO);
    host.run(&[
        "exec",
        "a",
        "--",
        "sh",
        "-c",
        "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger",
    ]);
    until(&host, "a", "failed");
    let said = stderr(&host, &["exec", "a", "--", "true"], 1);
    assert!(said.contains("Kernel panic - not syncing: sysrq triggered crash"), "{said}");
    assert!(host.exec("b", &["echo", "on"]).contains("on"));
    assert!(host.run(&["start", "a"]).status.success());
    assert!(host.exec("a", &["echo", "again"]).contains("again"));
}

#[test]
fn guest_workers_death_costs_its_own_partition_only() {
    let host = Host::up(TWO);
    host.exec("b", &["sh", "-c", "echo kept >/tmp/f"]);
    kill(&worker(&host, "a"));
    until(&host, "a", "failed");
    let table = String::from_utf8(host.run(&["status"]).stdout).unwrap();
    assert!(table.contains("SIGKILL"), "{table}");
    assert_eq!(host.exec("b", &["cat", "/tmp/f"]), "kept\n");
    assert!(host.run(&["move", "b", "--to", "180M"]).status.success());
    assert!(host.run(&["start", "a"]).status.success());
    assert!(host.exec("a", &["echo", "again"]).contains("again"));
}

#[test]
fn guest_console_replays_and_types() {
    let host = Host::up(TWO);
    let mut console = host
        .command(&["console", "a"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Open until the answer is here: the command ends a moment after its input.
    let mut typing = console.stdin.take().unwrap();
    typing.write_all(b"\necho $((6*7))-typed\n").unwrap();
    let (mut said, mut heard) = (Vec::new(), console.stdout.take().unwrap());
    let has = |said: &[u8]| String::from_utf8_lossy(said).contains("42-typed");
    while !has(&said) {
        let mut some = [0; 4096];
        let length = heard.read(&mut some).unwrap();
        assert_ne!(length, 0, "it ended after {:?}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&some[..length]);
    }
    drop(typing);
    heard.read_to_end(&mut said).unwrap();
    assert!(console.wait().unwrap().success());
    let again = host.run(&["console", "a"]);
    assert!(String::from_utf8_lossy(&again.stdout).contains("42-typed"), "replayed");
}
