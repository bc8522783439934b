use riscv::mmu::Context;
use riscv::trap::Privilege;

use super::{Fill, PAGE_SIZE, Tlb};

fn context(privilege: Privilege, user_memory: bool) -> Context {
    Context {
        satp: 8 << 60,
        privilege,
        user_memory,
        executable_readable: false,
        hardware_update: true,
    }
}

fn fill(virtual_address: u64) -> Fill {
    Fill { virtual_address, host: 0x10_0000 + 5, leaf_size: PAGE_SIZE, global: false }
}

#[test]
fn only_aligned_accesses_within_the_page_are_found() {
    let mut tlb = Tlb::new();
    tlb.fill_read(fill(0x7005));
    assert_eq!(tlb.read(0x7008, 8), Some(0x10_0008));
    assert_eq!(tlb.read(0x7FFF, 1), Some(0x10_0FFF));
    assert_eq!(tlb.read(0x7004, 8), None, "misaligned");
    assert_eq!(tlb.read(0x8000, 1), None, "another page");
    assert_eq!(tlb.write(0x7008, 8), None, "loads only");
}

#[test]
fn an_empty_entry_is_never_found() {
    let tlb = Tlb::new();
    for address in [0, 1, u64::MAX, u64::MAX - 7, 0x1F_FFFF] {
        for size in [1, 2, 4, 8] {
            assert_eq!(tlb.read(address, size), None);
        }
    }
}

#[test]
fn regimes_do_not_see_each_others_pages() {
    let mut tlb = Tlb::new();
    tlb.select(&context(Privilege::User, false));
    tlb.fill_read(fill(0x7000));
    for (privilege, sum) in [(Privilege::Supervisor, false), (Privilege::Supervisor, true)] {
        tlb.select(&context(privilege, sum));
        assert_eq!(tlb.read(0x7000, 1), None);
    }
    tlb.select(&context(Privilege::User, true));
    assert!(tlb.read(0x7000, 1).is_some());
}

#[test]
fn a_new_address_space_keeps_global_pages_only() {
    let mut tlb = Tlb::new();
    tlb.select(&context(Privilege::Supervisor, false));
    tlb.fill_write(fill(0x7000));
    tlb.fill_write(Fill { global: true, ..fill(0x8000) });
    tlb.clear_local();
    assert_eq!(tlb.write(0x7000, 1), None);
    assert!(tlb.write(0x8000, 1).is_some());
}

#[test]
fn clearing_a_page_of_a_superpage_clears_the_others_too() {
    let mut tlb = Tlb::new();
    tlb.select(&context(Privilege::Supervisor, false));
    let superpage = Fill { leaf_size: 2 << 20, ..fill(0x20_3000) };
    tlb.fill_read(superpage);
    tlb.fill_read(Fill { virtual_address: 0x3F_F000, ..superpage });
    tlb.clear_page(0x20_0000);
    assert_eq!(tlb.read(0x20_3000, 1), None);
    assert_eq!(tlb.read(0x3F_F000, 1), None);
}

#[test]
fn clearing_a_page_leaves_small_neighbours() {
    let mut tlb = Tlb::new();
    tlb.fill_read(fill(0x7000));
    tlb.fill_read(fill(0x8000));
    tlb.clear_page(0x7FFF);
    assert_eq!(tlb.read(0x7000, 1), None);
    assert!(tlb.read(0x8000, 1).is_some());
}
