//! The programs that a CPU is measured with, as first process of a guest.
//!
//! Says `BERTH-INIT` as its very first act, so that whoever watches the
//! console can take the time of the boot; then runs [`programs::ALL`] one
//! after the other and says for each `BENCH name nanoseconds checksum`; then
//! `BENCH-END`, and powers off. On its kernel's command line `bench=files` has it
//! run those of [`files::ALL`] instead, in a file system of its host's;
//! `bench.only=NAME,NAME` has it run only these, and `bench.work=HUNDREDTHS` as much of
//! their work; with `bench.python` its first disk has an image with Python, whose
//! program it runs last (as any other process it takes these words as arguments). Times are the guest's (`CLOCK_MONOTONIC`);
//! equal checksums on two machines mean that both computed the same.
//!
//! Everything goes to `/dev/kmsg`, which reaches the console whatever driver
//! the console has: boot with `earlycon=sbi keep_bootcon`. As any other
//! process than number 1 it writes to standard output and returns.

#![cfg_attr(not(test), no_main)]

mod files;
mod integer;
mod machine;
mod memory;
mod numeric;
mod programs;
mod python;
mod strings;
#[expect(unsafe_code, reason = "the system calls that std does not offer are foreign functions")]
mod sys;
mod words;

use std::hint::black_box;
use std::time::Instant;

/// Entry from the C start-up code. std's own entry is left out: it insists on
/// a `/dev/null`, which an initramfs need not have.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the C start-up code calls this name and there is no other of it")]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    run()
}

#[cfg(test)]
fn main() {
    run();
}

fn run() -> i32 {
    let first = std::process::id() == 1;
    let console = sys::Console::open(first);
    console.say("BERTH-INIT");
    if first && files::wanted() {
        if let Err(error) = files::run(&console) {
            console.say(&format!("the files of the host cannot be used: {error}"));
        }
    } else {
        compute(&console);
    }
    console.say("BENCH-END");
    if first {
        sys::power_off();
    }
    0
}

fn compute(console: &sys::Console) {
    let words = words::Words::read();
    for (name, program) in programs::ALL {
        if !words.want(name) {
            continue;
        }
        let start = Instant::now();
        let checksum = program(black_box(words.work));
        let nanoseconds = start.elapsed().as_nanos();
        console.say(&format!("BENCH {name} {nanoseconds} {checksum:016x}"));
    }
    if std::process::id() == 1 && python::is_there() {
        if let Err(error) = python::run(console, &words) {
            console.say(&format!("the program in Python cannot be run: {error}"));
        }
    }
}
