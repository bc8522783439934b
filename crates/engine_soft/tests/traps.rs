//! Synchronous traps: cause, address of the instruction, trap value.

#[path = "support/guest.rs"]
mod guest;
mod support;

use engine::{Exit, Vcpu};
use guest::{DATA, Guest, HANDLER, Trapped, csr, program};
use support::NoDevices;
use support::asm::*;

/// Runs `setup` and then `instruction`, which must trap with `cause` and
/// `value`.
fn traps(setup: &[u32], instruction: u32, cause: u64, value: u64) {
    let (mut guest, start) = Guest::start(&program(&[setup, &[instruction]]));
    let pc = start + 4 * setup.len() as u64;
    assert_eq!(guest.run_to_trap(), Trapped { cause, pc, value });
}

#[test]
fn an_undefined_encoding_is_illegal_and_shows_its_bits() {
    traps(&[], 0xFFFF_FFFF, 2, 0xFFFF_FFFF);
}

#[test]
fn a_compressed_illegal_instruction_shows_sixteen_bits() {
    traps(&[], 0x1234_0000, 2, 0);
}

#[test]
fn machine_mode_csrs_are_illegal_in_supervisor_mode() {
    let instruction = csrrs(A3, 0x300, ZERO);
    traps(&[], instruction, 2, instruction.into());
}

#[test]
fn writing_a_read_only_csr_is_illegal_and_reading_it_is_not() {
    let instruction = csrrs(ZERO, csr::TIME, A0);
    traps(&[csrrs(A0, csr::TIME, ZERO)], instruction, 2, instruction.into());
}

#[test]
fn floating_point_is_illegal_while_it_is_off() {
    let instruction = fadd_d(1, 2, 3);
    traps(&[], instruction, 2, instruction.into());
}

#[test]
fn floating_point_dirties_the_status_when_on() {
    let on = program(&[&li(T0, 1 << 13), &[csrrs(ZERO, csr::SSTATUS, T0)]]);
    let rest = [fadd_d(1, 2, 3), csrrs(A0, csr::SSTATUS, ZERO), ecall()];
    let (mut guest, _) = Guest::start(&program(&[&on, &rest]));
    guest.run();
    assert_eq!(guest.x(A0) >> 13 & 3, 3, "FS is dirty");
    assert_eq!(guest.x(A0) >> 63, 1, "SD sums it up");
}

#[test]
fn ebreak_traps_with_its_own_address() {
    let (mut guest, start) = Guest::start(&[ebreak()]);
    assert_eq!(guest.run_to_trap(), Trapped { cause: 3, pc: start, value: start });
}

#[test]
fn a_load_from_nowhere_is_an_access_fault() {
    traps(&li(A3, 0x1000), ld(A0, A3, 8), 5, 0x1008);
}

#[test]
fn a_store_to_nowhere_is_an_access_fault() {
    traps(&li(A3, 0x1000), sw(A0, A3, -4), 7, 0xFFC);
}

#[test]
fn a_fetch_from_nowhere_is_an_access_fault_at_its_target() {
    let (mut guest, _) = Guest::start(&program(&[&li(A3, 0x1000), &[jalr(ZERO, A3, 2)]]));
    assert_eq!(guest.run_to_trap(), Trapped { cause: 1, pc: 0x1002, value: 0x1002 });
}

#[test]
fn misaligned_atomics_trap() {
    let setup = li(A3, DATA + 4);
    traps(&setup, lr_d(A0, A3), 4, DATA + 4);
    traps(&setup, sc_d(A0, A1, A3), 6, DATA + 4);
    traps(&setup, amoadd_d(A0, A1, A3), 6, DATA + 4);
}

/// Goes to U-mode at `DATA`.
fn to_user() -> Vec<u32> {
    program(&[&li(A3, DATA), &[csrrw(ZERO, csr::SEPC, A3), sret()]])
}

#[test]
fn calls_from_user_mode_reach_the_guests_own_kernel() {
    let (mut guest, _) = Guest::start(&to_user());
    guest.words(DATA, &[ecall()]);
    assert_eq!(guest.run_to_trap(), Trapped { cause: 8, pc: DATA, value: 0 });
}

#[test]
fn user_mode_may_not_use_supervisor_instructions() {
    for instruction in [wfi(), sret(), sfence_vma(ZERO, ZERO), csrrs(A0, csr::SATP, ZERO)] {
        let (mut guest, _) = Guest::start(&to_user());
        guest.words(DATA, &[instruction]);
        let value = instruction.into();
        assert_eq!(guest.run_to_trap(), Trapped { cause: 2, pc: DATA, value });
    }
}

#[test]
fn a_firmware_call_returns_past_itself_with_its_registers() {
    let (mut guest, start) = Guest::start(&[addi(A0, ZERO, 7), ecall(), addi(A0, A0, 1), ecall()]);
    guest.run();
    assert_eq!((guest.x(A0), guest.vcpu.riscv().pc()), (7, start + 8));
    guest.vcpu.riscv().set_x(A0 as usize, 41);
    guest.run();
    assert_eq!(guest.x(A0), 42);
}

#[test]
fn a_handler_that_traps_at_its_first_instruction_ends_the_run() {
    let (mut guest, _) = Guest::start(&program(&[&[csrrw(ZERO, csr::STVEC, ZERO), ebreak()]]));
    assert_eq!(guest.vcpu.run(&NoDevices), Exit::Stuck { pc: 0 });
}

#[test]
fn writes_of_x0_are_dropped() {
    let words = [addi(ZERO, ZERO, 5), csrrs(ZERO, csr::TIME, ZERO), addi(A0, ZERO, 0), ecall()];
    let (mut guest, _) = Guest::start(&words);
    guest.run();
    assert_eq!(guest.x(A0), 0);
    assert_ne!(guest.vcpu.riscv().pc(), HANDLER + 16);
}

#[test]
fn retired_instructions_are_counted_and_trapping_ones_are_not() {
    let (mut guest, _) = Guest::start(&[nop(), nop(), ebreak()]);
    guest.run_to_trap();
    // Eleven for the handler's address, one for stvec, two, and the handler's
    // three; neither ebreak nor ecall retires.
    assert_eq!(guest.vcpu.riscv().instructions_retired(), 11 + 1 + 2 + 3);
}
