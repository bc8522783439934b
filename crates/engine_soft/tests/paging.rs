//! Address translation as programs see it.

#[path = "support/guest.rs"]
mod guest;
mod support;

use guest::{DATA, Guest, Trapped, VIRTUAL, csr, program, pte};
use support::asm::*;

const LOAD_PAGE_FAULT: u64 = 13;
const STORE_PAGE_FAULT: u64 = 15;
const FETCH_PAGE_FAULT: u64 = 12;

/// With paging on and `A3` = `address`, executes `words`.
fn paged(address: u64, words: &[u32]) -> (Guest, u64) {
    let setup = program(&[&Guest::paging(), &li(A3, address)]);
    let (guest, start) = Guest::start(&program(&[&setup, words]));
    (guest, start + 4 * setup.len() as u64)
}

#[test]
fn a_mapped_page_is_reached_and_marked() {
    let (mut guest, _) = paged(VIRTUAL, &[ld(A0, A3, 8), ecall(), sd(A0, A3, 16), ecall()]);
    guest.map(0, DATA, pte::R | pte::W);
    guest.store(DATA + 8, 0x1234_5678_9ABC_DEF0);
    guest.run();
    assert_eq!(guest.x(A0), 0x1234_5678_9ABC_DEF0);
    assert_eq!(guest.mapping(0) & (pte::A | pte::D), pte::A, "a load is an access");
    guest.run();
    assert_eq!(guest.load(DATA + 16), 0x1234_5678_9ABC_DEF0);
    assert_eq!(guest.mapping(0) & (pte::A | pte::D), pte::A | pte::D, "a store dirties");
}

#[test]
fn storage_keys_record_reference_and_change() {
    let (mut guest, _) = paged(VIRTUAL, &[ld(A0, A3, 0), ecall(), sd(A0, A3, 0), ecall()]);
    guest.map(0, DATA, pte::R | pte::W);
    let window = guest.window.clone();
    let key = || {
        let page = (DATA - support::BASE) / 4096;
        window.key_cell(page as usize).load(std::sync::atomic::Ordering::Relaxed)
    };
    assert_eq!(key(), 0);
    guest.run();
    assert_eq!(key(), 0x04);
    guest.run();
    assert_eq!(key(), 0x07, "with the host's own bit");
}

#[test]
fn accesses_that_the_table_refuses_fault_with_their_address() {
    let cases = [
        (pte::R, sd(A0, A3, 0), STORE_PAGE_FAULT),
        (pte::X, ld(A0, A3, 0), LOAD_PAGE_FAULT),
        (pte::R | pte::U, ld(A0, A3, 0), LOAD_PAGE_FAULT),
        (pte::W, ld(A0, A3, 0), LOAD_PAGE_FAULT),
        (pte::R | 1 << 60, ld(A0, A3, 0), LOAD_PAGE_FAULT),
        (pte::R, amoadd_d(A0, A1, A3), STORE_PAGE_FAULT),
    ];
    for (rights, instruction, cause) in cases {
        let (mut guest, pc) = paged(VIRTUAL + 0x18, &[instruction]);
        guest.map(0, DATA, rights);
        let value = VIRTUAL + 0x18;
        assert_eq!(guest.run_to_trap(), Trapped { cause, pc, value }, "rights {rights:#x}");
    }
}

#[test]
fn an_address_that_is_no_sign_extension_faults() {
    let address = 1 << 39 | VIRTUAL;
    let (mut guest, pc) = paged(address, &[ld(A0, A3, 0)]);
    guest.map(0, DATA, pte::R);
    assert_eq!(guest.run_to_trap(), Trapped { cause: LOAD_PAGE_FAULT, pc, value: address });
}

#[test]
fn supervisor_reaches_user_pages_only_while_sum_is_set() {
    let sum = li(T1, 1 << 18);
    let rest = [csrrs(ZERO, csr::SSTATUS, T1), ld(A0, A3, 0), csrrc(ZERO, csr::SSTATUS, T1)];
    let (mut guest, start) = paged(VIRTUAL, &program(&[&sum, &rest, &[ld(A0, A3, 0)]]));
    guest.map(0, DATA, pte::R | pte::U);
    let pc = start + 4 * (sum.len() + rest.len()) as u64;
    let expected = Trapped { cause: LOAD_PAGE_FAULT, pc, value: VIRTUAL };
    assert_eq!(guest.run_to_trap(), expected, "the first load passed, the second did not");
}

#[test]
fn executable_pages_are_readable_only_while_mxr_is_set() {
    let mxr = li(T1, 1 << 19);
    let rest = [csrrs(ZERO, csr::SSTATUS, T1), ld(A0, A3, 0), csrrc(ZERO, csr::SSTATUS, T1)];
    let (mut guest, start) = paged(VIRTUAL, &program(&[&mxr, &rest, &[ld(A0, A3, 0)]]));
    guest.map(0, DATA, pte::X);
    let pc = start + 4 * (mxr.len() + rest.len()) as u64;
    assert_eq!(guest.run_to_trap(), Trapped { cause: LOAD_PAGE_FAULT, pc, value: VIRTUAL });
}

#[test]
fn a_fetch_from_a_page_that_is_not_executable_faults() {
    let (mut guest, _) = paged(VIRTUAL + 8, &[jalr(ZERO, A3, 0)]);
    guest.map(0, DATA, pte::R);
    let expected = Trapped { cause: FETCH_PAGE_FAULT, pc: VIRTUAL + 8, value: VIRTUAL + 8 };
    assert_eq!(guest.run_to_trap(), expected);
}

#[test]
fn a_misaligned_access_over_the_page_end_joins_both_pages() {
    let words = [ld(A0, A3, 0), sd(A1, A3, 0), ecall()];
    let (mut guest, _) =
        paged(VIRTUAL + 0xFFD, &program(&[&li(A1, 0x8877_6655_4433_2211), &words]));
    guest.map(0, DATA, pte::R | pte::W);
    guest.map(1, DATA + 0x5000, pte::R | pte::W);
    guest.store(DATA + 0xFF8, 0xCCBB_AA00_0000_0000);
    guest.store(DATA + 0x5000, 0x0000_0011_2233_4455);
    guest.run();
    assert_eq!(guest.x(A0), 0x1122_3344_55CC_BBAA);
    assert_eq!(guest.load(DATA + 0xFF8) >> 40, 0x33_2211);
    assert_eq!(guest.load(DATA + 0x5000) & 0xFF_FFFF_FFFF, 0x88_7766_5544);
}

#[test]
fn a_misaligned_store_whose_second_page_faults_changes_nothing() {
    let (mut guest, pc) = paged(VIRTUAL + 0xFFE, &[sd(A3, A3, 0)]);
    guest.map(0, DATA, pte::R | pte::W);
    guest.map(1, DATA + 0x1000, pte::R);
    let expected = Trapped { cause: STORE_PAGE_FAULT, pc, value: VIRTUAL + 0x1000 };
    assert_eq!(guest.run_to_trap(), expected);
    assert_eq!(guest.load(DATA + 0xFF8), 0);
}

#[test]
fn an_instruction_over_the_page_end_is_fetched_from_both_pages() {
    let (mut guest, _) = paged(VIRTUAL + 0xFFE, &[jalr(ZERO, A3, 0)]);
    guest.map(0, DATA, pte::X);
    guest.map(1, DATA + 0x5000, pte::X);
    let word = addi(A0, ZERO, 42).to_le_bytes();
    support::put(&guest.window, DATA + 0xFFE, &word[..2]);
    support::put(&guest.window, DATA + 0x5000, &word[2..]);
    support::put(&guest.window, DATA + 0x5002, &ecall().to_le_bytes());
    guest.run();
    assert_eq!(guest.x(A0), 42);
}

#[test]
fn an_instruction_whose_second_half_faults_shows_where() {
    let (mut guest, _) = paged(VIRTUAL + 0xFFE, &[jalr(ZERO, A3, 0)]);
    guest.map(0, DATA, pte::X);
    support::put(&guest.window, DATA + 0xFFE, &addi(A0, ZERO, 42).to_le_bytes()[..2]);
    let expected =
        Trapped { cause: FETCH_PAGE_FAULT, pc: VIRTUAL + 0xFFE, value: VIRTUAL + 0x1000 };
    assert_eq!(guest.run_to_trap(), expected);
}

#[test]
fn a_fence_makes_a_changed_mapping_seen() {
    let words = [ld(A0, A3, 0), ecall(), sfence_vma(A3, ZERO), ld(A0, A3, 0), ecall()];
    let (mut guest, _) = paged(VIRTUAL, &words);
    guest.map(0, DATA, pte::R);
    guest.store(DATA, 1);
    guest.store(DATA + 0x1000, 2);
    guest.run();
    assert_eq!(guest.x(A0), 1);
    guest.map(0, DATA + 0x1000, pte::R);
    guest.run();
    assert_eq!(guest.x(A0), 2);
}

#[test]
fn another_address_space_sees_its_own_pages_without_a_fence() {
    // The second root differs in what it maps at VIRTUAL, and in its ASID.
    let other_root = DATA + 0x8000;
    let switch =
        program(&[&li(T0, 8 << 60 | 1 << 44 | other_root >> 12), &[csrrw(ZERO, csr::SATP, T0)]]);
    let words = program(&[&[ld(A0, A3, 0)], &switch, &[ld(A1, A3, 0), ecall()]]);
    let (mut guest, _) = paged(VIRTUAL, &words);
    guest.map(0, DATA, pte::R);
    guest.store(DATA, 1);
    guest.store(support::BASE, guest.load(support::BASE));
    let all = pte::V | pte::R | pte::W | pte::X | pte::A | pte::D;
    guest.store(other_root + 8, support::BASE >> 12 << 10 | all);
    guest.store(other_root + 16, support::BASE >> 12 << 10 | all);
    guest.run();
    assert_eq!(guest.x(A0), 1);
    let first = guest.load(support::BASE);
    assert_eq!(guest.x(A1), first, "VIRTUAL is a gigapage at BASE now");
}
