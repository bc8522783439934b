//! Random commands over six guests that verify their own memory, disk, clock
//! and conversations the whole time, while their host is killed now and then.
//!
//! `BERTH_SOAK` is the number of commands, `BERTH_TEST_SEED` the seed; both are
//! in every failure's message.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Host, SelfCheck};

const MIB: u64 = 1 << 20;
const TOTAL: u64 = 1200;
const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// Sizes and origins in MiB.
const BEGIN: [(u64, u64); 6] =
    [(0, 128), (140, 144), (300, 128), (500, 160), (700, 128), (900, 144)];
/// Commands, unless told otherwise: as many as a test run can afford.
const COMMANDS: u64 = 120;

/// A generator whose seed is in the failure message (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % bound
    }
}

/// Who is where, in MiB, in order of origin.
type Map = Vec<(String, u64, u64)>;

fn sorted(mut map: Map) -> Map {
    map.sort_by_key(|(_, origin, _)| *origin);
    map
}

/// The map as `berth status` tells it, once no command is under way.
fn map_of(host: &Host) -> Map {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let (code, status) = host.json(&["status"]);
        assert_eq!(code, 0);
        let partitions = status["partitions"].as_array().unwrap();
        if partitions.iter().all(|partition| partition["state"] == "running") {
            let mib = |partition: &Value, field: &str| partition[field].as_u64().unwrap() / MIB;
            let place =
                |p: &Value| (p["name"].as_str().unwrap().into(), mib(p, "origin"), mib(p, "size"));
            return partitions.iter().map(place).collect();
        }
        assert!(Instant::now() < deadline, "{status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A program in a guest that answers every line: a conversation.
struct Talk {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    turns: u64,
}

impl Talk {
    fn start(host: &Host, name: &str) -> Self {
        let mut child = host
            .command(&["exec", name, "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdin, stdout, turns: 0 }
    }

    fn turn(&mut self, at: &str) {
        self.turns += 1;
        let said = format!("{} of {at}\n", self.turns);
        self.stdin.write_all(said.as_bytes()).unwrap();
        let mut heard = String::new();
        self.stdout.read_line(&mut heard).unwrap();
        assert_eq!(heard, said);
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

/// What to do next.
#[derive(Debug, Clone)]
struct Step {
    arguments: Vec<String>,
}

impl Step {
    fn random(random: &mut Random) -> Self {
        let name = |random: &mut Random| NAMES[random.below(6) as usize].to_owned();
        let word = |text: &str| text.to_owned();
        let arguments = match random.below(20) {
            0..8 => {
                let mode = if random.below(3) == 0 { "stop" } else { "live" };
                let to = format!("{}M", random.below(TOTAL));
                vec![word("move"), name(random), word("--to"), to, word("--mode"), word(mode)]
            }
            8..12 => vec![word("exchange"), name(random), name(random)],
            12..15 => {
                let by = format!("{}M", 2 + 2 * random.below(24));
                let mut all = vec![word("expand"), name(random), word("--by"), by];
                all.extend((random.below(2) == 0).then(|| word("--make-room")));
                all
            }
            15..18 => {
                let to = format!("{}M", 128 + 2 * random.below(40));
                vec![word("shrink"), name(random), word("--to"), to]
            }
            _ => vec![word("compact"), word("--free"), format!("{}M", 50 + random.below(400))],
        };
        Self { arguments }
    }

    /// The map after the command, by what it said; `None` if it changed nothing.
    fn after(&self, answer: &Value, before: &Map) -> Map {
        let mut map = before.clone();
        let mib = |value: &Value| value.as_u64().unwrap() / MIB;
        let mut relocate = |moves: &Value| {
            for one in moves.as_array().into_iter().flatten() {
                let place = map.iter_mut().find(|(name, ..)| *name == one["name"]).unwrap();
                assert_eq!(place.1, mib(&one["from"]), "{answer}");
                place.1 = mib(&one["to"]);
            }
        };
        match answer["result"].as_str().unwrap() {
            "exchanged" => relocate(&answer["partitions"]),
            "compacted" => relocate(&answer["plan"]["moves"]),
            "stopped" | "refused" => relocate(&answer["moved"]),
            "resized" => {
                relocate(&answer["moved"]);
                let place = map.iter_mut().find(|(name, ..)| *name == answer["name"]).unwrap();
                assert_eq!(place.2, mib(&answer["from"]), "{answer}");
                place.2 = mib(&answer["to"]);
            }
            "moved" => {
                let place = map.iter_mut().find(|(name, ..)| *name == self.arguments[1]).unwrap();
                place.1 = mib(&answer["to"]);
            }
            other => panic!("{other}: {answer}"),
        }
        sorted(map)
    }
}

/// What holds of every map, whatever has happened.
fn check_sound(map: &Map, at: &str) {
    let mut end = 0;
    for (name, origin, size) in map {
        assert!(*origin >= end, "{name} overlaps, {at}: {map:?}");
        end = origin + size;
    }
    assert!(end <= TOTAL, "{at}: {map:?}");
    assert_eq!(map.len(), NAMES.len(), "{at}: {map:?}");
}

fn host_file() -> String {
    let mut text = format!("[main_storage]\nsize = \"{TOTAL}M\"\n");
    for (name, (origin, size)) in NAMES.iter().zip(BEGIN) {
        text += &format!(
            "\n[[partition]]\nname = \"{name}\"\norigin = \"{origin}M\"\nsize = \"{size}M\"\n\
             image = \"minimal\"\ndisk = \"64M\"\n"
        );
    }
    text
}

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Starts the command, kills the host in the middle of it and starts another,
/// which finds everything again.
fn interrupted(host: &Host, step: &Step, delay: Duration) {
    let arguments: Vec<_> = step.arguments.iter().map(String::as_str).collect();
    let mut command = host.command(&arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(delay);
    host.kill();
    let _ = child.wait();
    host.comes_back();
}

#[test]
fn guest_soak_loses_nothing_whatever_is_commanded_and_whoever_is_killed() {
    let (commands, seed) = (setting("BERTH_SOAK", COMMANDS), setting("BERTH_TEST_SEED", 0xbe27));
    let host = Host::up(&host_file());
    let mut checks: Vec<_> = NAMES.map(|name| SelfCheck::start(&host, name)).into();
    checks.iter_mut().for_each(|check| drop(check.report()));
    let mut talks: Vec<_> = NAMES.map(|name| Talk::start(&host, name)).into();
    let mut random = Random(seed);
    let mut map = map_of(&host);
    let (mut done, mut kills) = (0, 0);
    for turn in 0..commands {
        let step = Step::random(&mut random);
        let at =
            format!("command {turn} of {commands}, seed {seed}: {:?}, {map:?}", step.arguments);
        if random.below(16) == 0 {
            kills += 1;
            interrupted(&host, &step, Duration::from_millis(random.below(120)));
            map = map_of(&host);
        } else {
            let arguments: Vec<_> = step.arguments.iter().map(String::as_str).collect();
            let (status, answer) = host.json(&arguments);
            assert!(status < 2, "{at}: {answer}");
            done += u64::from(status == 0);
            let expected = step.after(&answer, &map);
            map = map_of(&host);
            assert_eq!(map, expected, "{at}: {answer}");
        }
        check_sound(&map, &at);
        talks[(turn % 6) as usize].turn(&at);
    }
    assert!(done * 5 > commands - kills, "{done} of {commands} done: not much of a test");
    eprintln!("{commands} commands, {done} done, {kills} hosts killed");
    talks.into_iter().for_each(Talk::end);
    for check in checks {
        let last = check.end();
        assert_eq!(last["errors"], 0, "{last}");
        assert!(last["pages_checked"].as_u64().unwrap() > 1000, "{last}");
        assert!(last["blocks_checked"].as_u64().unwrap() > 50, "{last}");
        assert!(last["clock_drift_us"].as_u64().unwrap() < 1_000_000, "{last}");
    }
}
