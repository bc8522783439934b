//! Interpreted and compiled, random programs come to the same: registers,
//! storage, flags, traps and instruction counts.
//!
//! `BERTH_LOCKSTEP_SECONDS` says how long to go on; without it a few hundred
//! programs are executed. `BERTH_LOCKSTEP_SEED` is the first one's number.

#[path = "support/lockstep.rs"]
mod lockstep;
mod support;

use std::time::{Duration, Instant};

const PROGRAMS: u64 = 150;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// A comparison whose result nothing read lost its flag.
const FOUND: [u64; 1] = [70_001_212];

#[test]
fn what_was_found_once_is_not_there_any_more() {
    for seed in FOUND {
        lockstep::check(seed, &support::eager_compiler(seed % 2 == 0));
    }
}

#[test]
fn interpreted_and_compiled_come_to_the_same() {
    let compilers = [true, false].map(support::eager_compiler);
    let limit = number("BERTH_LOCKSTEP_SECONDS").map(Duration::from_secs);
    let start = Instant::now();
    let first = number("BERTH_LOCKSTEP_SEED").unwrap_or(1);
    let mut seed = first;
    while limit.map_or(seed < first + PROGRAMS, |limit| start.elapsed() < limit) {
        lockstep::check(seed, &compilers[seed as usize % 2]);
        seed += 1;
    }
    let units: usize = compilers.iter().map(|compiler| compiler.report().units).sum();
    println!("{} programs and {units} units in {:?}", seed - first, start.elapsed());
    assert_ne!(units, 0, "nothing was compiled");
}
