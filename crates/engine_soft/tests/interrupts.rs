//! Interrupts, `wfi`, kicks.

#[path = "support/guest.rs"]
mod guest;
mod support;

use std::time::Duration;

use engine::{Exit, Interrupt, Vcpu};
use guest::{Guest, csr, interrupt, program};
use support::NoDevices;
use support::asm::*;

const SOFTWARE: u64 = 1;
const TIMER: u64 = 5;
const EXTERNAL: u64 = 9;

/// Enables interrupt `number`, globally too, then executes `words`.
fn enabled(number: u64, words: &[u32]) -> Guest {
    let enable = [csrrw(ZERO, csr::SIE, A3), csrrsi(ZERO, csr::SSTATUS, 2)];
    Guest::start(&program(&[&li(A3, 1 << number), &enable, words])).0
}

/// Goes on for ever.
fn spin() -> Vec<u32> {
    vec![jal(ZERO, 0)]
}

/// Sleeps for ever.
fn sleep() -> Vec<u32> {
    vec![wfi(), jal(ZERO, -4)]
}

#[test]
fn lines_interrupt_a_running_hart() {
    for (line, number) in [(Interrupt::Software, SOFTWARE), (Interrupt::External, EXTERNAL)] {
        let mut guest = enabled(number, &spin());
        let handle = guest.handle();
        let caller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(10));
            handle.set_interrupt(line, true);
        });
        assert_eq!(guest.run_to_trap().cause, interrupt(number));
        caller.join().unwrap();
    }
}

#[test]
fn lines_wake_a_sleeping_hart() {
    for (line, number) in [(Interrupt::Software, SOFTWARE), (Interrupt::External, EXTERNAL)] {
        let mut guest = enabled(number, &sleep());
        let handle = guest.handle();
        let caller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            handle.set_interrupt(line, true);
        });
        assert_eq!(guest.run_to_trap().cause, interrupt(number));
        caller.join().unwrap();
    }
}

#[test]
fn wfi_goes_on_without_a_trap_if_interrupts_are_off_globally() {
    let words = [csrrw(ZERO, csr::SIE, A3), wfi(), csrrs(A0, csr::SIP, ZERO), ecall()];
    let (mut guest, _) = Guest::start(&program(&[&li(A3, 1 << SOFTWARE), &words]));
    guest.handle().set_interrupt(Interrupt::Software, true);
    guest.run();
    assert_eq!(guest.x(A0), 1 << SOFTWARE);
}

#[test]
fn the_timer_wakes_a_sleeping_hart_at_its_deadline() {
    let delay = 100_000; // ticks, 10 ms
    let arm = [
        csrrs(A4, csr::TIME, ZERO),
        add(A4, A4, A5),
        csrrw(ZERO, csr::STIMECMP, A4),
        wfi(),
        jal(ZERO, -4),
    ];
    let mut guest = enabled(TIMER, &program(&[&li(A5, delay), &arm]));
    guest.words(guest::HANDLER + 12, &[csrrs(A3, csr::TIME, ZERO), ecall()]);
    guest.run();
    assert_eq!(guest.x(A0), interrupt(TIMER));
    let (now, deadline) = (guest.x(A3), guest.x(A4));
    assert!(now >= deadline, "woken at {now}, not before {deadline}");
}

#[test]
fn a_timer_set_by_the_firmware_interrupts_a_running_hart() {
    let mut guest = enabled(TIMER, &program(&[&[ecall()], &spin()]));
    guest.run();
    guest.vcpu.riscv().set_timer(0);
    assert_eq!(guest.run_to_trap().cause, interrupt(TIMER));
}

#[test]
fn external_stays_pending_until_lowered_and_software_until_cleared() {
    let look = [csrrs(A0, csr::SIP, ZERO), ecall()];
    let words = [&look[..], &[csrrci(ZERO, csr::SIP, 2)], &look, &look].concat();
    let (mut guest, _) = Guest::start(&words);
    let handle = guest.handle();
    handle.set_interrupt(Interrupt::External, true);
    handle.set_interrupt(Interrupt::Software, true);
    guest.run();
    assert_eq!(guest.x(A0), 1 << EXTERNAL | 1 << SOFTWARE);
    guest.run();
    assert_eq!(guest.x(A0), 1 << EXTERNAL);
    handle.set_interrupt(Interrupt::External, false);
    guest.run();
    assert_eq!(guest.x(A0), 0);
}

#[test]
fn a_kick_leaves_a_running_and_a_sleeping_guest_where_it_is() {
    for words in [spin(), sleep()] {
        let (mut guest, start) = Guest::start(&words);
        let handle = guest.handle();
        let caller = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            handle.kick();
        });
        assert_eq!(guest.vcpu.run(&NoDevices), Exit::Kicked);
        caller.join().unwrap();
        let pc = guest.vcpu.riscv().pc();
        assert!((start..start + 8).contains(&pc), "{pc:#x}");
    }
}

#[test]
fn a_kick_before_the_run_counts_once() {
    let (mut guest, _) = Guest::start(&[ecall()]);
    guest.handle().kick();
    assert_eq!(guest.vcpu.run(&NoDevices), Exit::Kicked);
    assert_eq!(guest.vcpu.run(&NoDevices), Exit::FirmwareCall);
}
