//! A hundred random moves, legal and illegal, of running guests that verify
//! their own memory, disk and clock the whole time.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use support::{Host, SelfCheck};

const MIB: u64 = 1 << 20;
const MAIN_STORAGE: u64 = 640 * MIB;
const MOVES: usize = 100;

/// 192 MiB is a size at which the kernel once did not come up: it had set 128 MiB
/// of it aside.
const HOST_FILE: &str = r#"
[main_storage]
size = "640M"

[[partition]]
name = "left"
origin = "0"
size = "128M"
image = "minimal"
disk = "64M"

[[partition]]
name = "right"
origin = "256M"
size = "192M"
image = "minimal"
disk = "64M"
"#;

/// The trivial model: who is where.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    name: &'static str,
    origin: u64,
    size: u64,
}

/// A generator whose seed is in the failure message (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// Who uses a byte of `origin..origin + size`, other than `mover`.
fn in_the_way(places: &[Place], mover: usize, origin: u64) -> Vec<&'static str> {
    let end = origin + places[mover].size;
    let others = places.iter().enumerate().filter(|(index, _)| *index != mover);
    others
        .filter(|(_, other)| other.origin < end && origin < other.origin + other.size)
        .map(|(_, other)| other.name)
        .collect()
}

/// A target: mostly aligned and inside, sometimes neither.
fn target(random: &mut Random) -> u64 {
    match random.below(10) {
        0 => random.below(MAIN_STORAGE),
        1 => MAIN_STORAGE - 64 * MIB + random.below(200) * MIB,
        _ => random.below(MAIN_STORAGE / MIB) * MIB,
    }
}

#[test]
fn guest_survives_a_hundred_random_moves_and_refusals_change_nothing() {
    let host = Host::up(HOST_FILE);
    let mut checks = [SelfCheck::start(&host, "left"), SelfCheck::start(&host, "right")];
    checks.iter_mut().for_each(|check| {
        check.report();
    });
    let mut places = [
        Place { name: "left", origin: 0, size: 128 * MIB },
        Place { name: "right", origin: 256 * MIB, size: 192 * MIB },
    ];
    let seed =
        std::env::var("BERTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    let mut random = Random(seed);
    let (mut moved, mut refused) = (0, 0);
    for turn in 0..MOVES {
        let mover = random.below(2) as usize;
        let to = target(&mut random);
        let at = format!(
            "move {turn} with seed {seed}: {} to {to}, from {places:?}",
            places[mover].name
        );
        let legal = to % MIB == 0
            && to + places[mover].size <= MAIN_STORAGE
            && to != places[mover].origin
            && in_the_way(&places, mover, to).is_empty();
        let mode = if turn % 3 == 0 { "stop" } else { "live" };
        let to_text = to.to_string();
        let (status, result) =
            host.json(&["move", places[mover].name, "--to", &to_text, "--mode", mode]);
        if legal {
            assert_eq!((status, result["result"].as_str()), (0, Some("moved")), "{at}: {result}");
            assert_eq!(result["from"], places[mover].origin, "{at}");
            assert_eq!(result["to"], to, "{at}");
            let direction = if to > places[mover].origin { "down" } else { "up" };
            assert_eq!(result["direction"], direction, "{at}: copies from the far end");
            places[mover].origin = to;
            moved += 1;
        } else {
            assert_eq!((status, result["result"].as_str()), (1, Some("refused")), "{at}: {result}");
            if to % MIB == 0
                && to + places[mover].size <= MAIN_STORAGE
                && to != places[mover].origin
            {
                let named: Vec<_> = result["in_the_way"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter_map(|name| name.as_str())
                    .collect();
                assert_eq!(named, in_the_way(&places, mover, to), "{at}");
            }
            refused += 1;
        }
        assert_eq!(map_of(&host), sorted(&places), "{at}");
    }
    assert!(moved > 20 && refused > 20, "{moved} moved, {refused} refused: not much of a test");
    for check in checks {
        let last = check.end();
        assert_eq!(last["errors"], 0, "{last}");
        assert!(last["pages_checked"].as_u64().unwrap() > 1000, "{last}");
        assert!(last["blocks_checked"].as_u64().unwrap() > 100, "{last}");
        // Both clocks are the host's, read at slightly different moments.
        assert!(last["clock_drift_us"].as_u64().unwrap() < 1_000_000, "{last}");
    }
}

fn sorted(places: &[Place]) -> Vec<(String, u64, u64)> {
    let mut map: Vec<_> =
        places.iter().map(|place| (place.name.to_owned(), place.origin, place.size)).collect();
    map.sort_by_key(|(_, origin, _)| *origin);
    map
}

/// The map as `berth status` tells it.
fn map_of(host: &Host) -> Vec<(String, u64, u64)> {
    let (code, status) = host.json(&["status"]);
    assert_eq!(code, 0);
    assert_eq!(status["main_storage"], MAIN_STORAGE);
    let partitions = status["partitions"].as_array().unwrap();
    partitions
        .iter()
        .map(|partition| {
            assert_eq!(partition["state"], "running", "{partition}");
            (
                partition["name"].as_str().unwrap().to_owned(),
                partition["origin"].as_u64().unwrap(),
                partition["size"].as_u64().unwrap(),
            )
        })
        .collect()
}
