//! Guest instructions per second on loops of different kinds.
//!
//! `cargo bench -p engine_soft` prints one line a loop.
#![allow(clippy::unwrap_used, reason = "a benchmark may give up")]

#[path = "../tests/support/mod.rs"]
mod support;

use engine::{Exit, Vcpu};
use engine_soft::{SoftConfig, SoftVcpu};
use support::asm::*;
use support::{BASE, NoDevices, put, window};

const ROUNDS: u64 = 20_000_000;

/// A loop of `body`, `ROUNDS` times, with its own code first.
fn looped(body: &[u32]) -> Vec<u32> {
    let mut words = li(A5, ROUNDS);
    // An odd register pattern to work on, and a buffer.
    words.extend(li(A4, 0x9E37_79B9_7F4A_7C15));
    words.extend(li(A2, BASE + 0x10_0000));
    let start = words.len();
    words.extend(body);
    words.push(addi(A5, A5, -1));
    let back = (start as i32 - words.len() as i32) * 4;
    words.push(bne(A5, ZERO, back));
    words.push(ecall());
    words
}

/// What this thread has used of a processor: unlike the time of day, the same
/// on a busy host.
fn processor_seconds() -> f64 {
    let statistics = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds: f64 = statistics.split(' ').next().unwrap().parse().unwrap();
    nanoseconds / 1e9
}

fn measure(name: &str, body: &[u32]) {
    let window = window(2 << 20);
    put(&window, BASE, &bytes(&looped(body)));
    // A function on the next page that returns at once.
    put(&window, BASE + 0x1000, &bytes(&[addi(A0, A0, 1), jalr(ZERO, RA, 0)]));
    let mut vcpu = SoftVcpu::new(0, window, SoftConfig::default());
    vcpu.riscv().start(BASE, 0);
    let before = processor_seconds();
    assert_eq!(vcpu.run(&NoDevices), Exit::FirmwareCall);
    let seconds = processor_seconds() - before;
    let millions = vcpu.riscv().instructions_retired() as f64 / 1e6;
    println!("{name:12} {:7.1} million instructions/s", millions / seconds);
}

fn main() {
    measure(
        "arithmetic",
        &[
            add(A0, A0, A4),
            xor(A1, A0, A4),
            slli(A3, A1, 7),
            srli(T0, A1, 9),
            xor(A4, A3, T0),
            addi(A0, A0, 17),
            xori(T1, A0, 255),
            add(A0, A0, T1),
        ],
    );
    measure("multiply", &[mul(A0, A0, A4), addi(A0, A0, 1), mul(A1, A4, A4), add(A4, A4, A1)]);
    measure(
        "memory",
        &[
            ld(A0, A2, 0),
            sd(A0, A2, 64),
            lw(A1, A2, 8),
            sw(A1, A2, 72),
            lbu(A3, A2, 16),
            sb(A3, A2, 80),
        ],
    );
    measure(
        "branches",
        &[
            srli(A0, A5, 3),
            beq(A0, A5, 8),
            addi(A1, A1, 1),
            bne(A1, ZERO, 8),
            addi(A1, A1, 1),
            addi(A3, A3, 1),
        ],
    );
    measure("calls", &[auipc(T0, 1), srli(T0, T0, 12), slli(T0, T0, 12), jalr(RA, T0, 0)]);
    measure("csr", &[csrrs(A0, 0x100, ZERO), csrrci(A0, 0x100, 2), csrrs(ZERO, 0x100, A0)]);
}
