use std::cell::RefCell;
use std::collections::HashMap;

use super::entry::{A, D, G, R, U, V, W, X};
use super::{Access, Context, PhysicalMemory, Translation, translate};
use crate::trap::Privilege;

/// Table entries by address; everything else up to a limit reads as 0.
#[derive(Default)]
struct Tables {
    entries: RefCell<HashMap<u64, u64>>,
    /// Changes this entry just before the next replacement.
    race: RefCell<Option<(u64, u64)>>,
}

const LIMIT: u64 = 0x10_0000;
const ROOT: u64 = 0x1000;

impl Tables {
    fn set(&self, address: u64, entry: u64) {
        self.entries.borrow_mut().insert(address, entry);
    }

    fn get(&self, address: u64) -> u64 {
        self.entries.borrow().get(&address).copied().unwrap_or(0)
    }

    /// Maps virtual page 3 of the first gigabyte to `page` in Sv39.
    fn sv39(leaf: u64) -> Self {
        let tables = Self::default();
        tables.set(ROOT, pointer(0x2000));
        tables.set(0x2000, pointer(0x3000));
        tables.set(0x3000 + 3 * 8, leaf);
        tables
    }
}

impl PhysicalMemory for Tables {
    fn read_entry(&self, address: u64) -> Option<u64> {
        (address < LIMIT).then(|| self.get(address))
    }

    fn replace_entry(&self, address: u64, old: u64, new: u64) -> Option<bool> {
        if let Some((at, entry)) = self.race.take() {
            self.set(at, entry);
        }
        let same = self.get(address) == old;
        if same {
            self.set(address, new);
        }
        Some(same)
    }
}

fn pointer(address: u64) -> u64 {
    address >> 12 << 10 | V
}

fn leaf(address: u64, rights: u64) -> u64 {
    address >> 12 << 10 | V | rights
}

fn context(mode: u64) -> Context {
    Context {
        satp: mode << 60 | ROOT >> 12,
        privilege: Privilege::Supervisor,
        user_memory: false,
        executable_readable: false,
        hardware_update: true,
    }
}

const SV39: u64 = 8;
const SV48: u64 = 9;
const LEAF_AT: u64 = 0x3000 + 3 * 8;

#[test]
fn machine_mode_and_bare_translate_nothing() {
    let tables = Tables::default();
    let bare = context(0);
    let machine = Context { privilege: Privilege::Machine, ..context(SV39) };
    for context in [bare, machine] {
        let found = translate(&context, 0x1234_5678, Access::Store, &tables).unwrap();
        assert_eq!(found.physical, 0x1234_5678);
    }
}

#[test]
fn a_walk_ends_at_a_small_page() {
    let tables = Tables::sv39(leaf(0x7000, R | G));
    let found = translate(&context(SV39), 0x3123, Access::Load, &tables).unwrap();
    assert_eq!(found, Translation { physical: 0x7123, leaf_size: 4096, global: true });
}

#[test]
fn superpages_keep_more_of_the_address() {
    let tables = Tables::default();
    tables.set(ROOT, pointer(0x2000));
    tables.set(0x2000 + 8, leaf(0x40_0000, R));
    tables.set(ROOT + 8, leaf(0x8000_0000, R));
    let find = |address| translate(&context(SV39), address, Access::Load, &tables).unwrap();
    assert_eq!((find(0x2A_BCDE).physical, find(0x2A_BCDE).leaf_size), (0x4A_BCDE, 2 << 20));
    assert_eq!((find(0x7654_3210).physical, find(0x7654_3210).leaf_size), (0xB654_3210, 1 << 30));
}

#[test]
fn a_misaligned_superpage_faults() {
    let tables = Tables::default();
    tables.set(ROOT, leaf(0x4000_1000, R));
    let refused = translate(&context(SV39), 0x10, Access::Load, &tables);
    assert_eq!(refused, Err(Access::Load.page_fault(0x10)));
}

#[test]
fn sv48_walks_one_level_more() {
    let tables = Tables::sv39(leaf(0x7000, R));
    tables.set(0x4000, pointer(ROOT));
    let context = Context { satp: SV48 << 60 | 4, ..context(SV48) };
    let find = |address| translate(&context, address, Access::Load, &tables);
    assert_eq!(find(0x3008).unwrap().physical, 0x7008);
    assert_eq!(find(1 << 47 | 0x3008), Err(Access::Load.page_fault(1 << 47 | 0x3008)));
}

#[test]
fn only_sign_extended_addresses_are_valid() {
    let tables = Tables::sv39(leaf(0x7000, R));
    for address in [1 << 39 | 0x3000, 1 << 63 | 0x3000, 1 << 38] {
        let refused = translate(&context(SV39), address, Access::Load, &tables);
        assert_eq!(refused, Err(Access::Load.page_fault(address)));
    }
}

#[test]
fn rights_follow_mode_sum_and_mxr() {
    let plain = context(SV39);
    let user = Context { privilege: Privilege::User, ..plain };
    let sum = Context { user_memory: true, ..plain };
    let mxr = Context { executable_readable: true, ..plain };
    let cases = [
        (plain, R, Access::Load, true),
        (plain, R, Access::Store, false),
        (plain, R, Access::Fetch, false),
        (plain, R | W, Access::Store, true),
        (plain, X, Access::Fetch, true),
        (plain, X, Access::Load, false),
        (mxr, X, Access::Load, true),
        (mxr, X, Access::Store, false),
        (plain, R | U, Access::Load, false),
        (sum, R | U, Access::Load, true),
        (sum, X | U, Access::Fetch, false),
        (user, R | U, Access::Load, true),
        (user, X | U, Access::Fetch, true),
        (user, R, Access::Load, false),
        (plain, W, Access::Store, false),
        (plain, W | X, Access::Fetch, false),
    ];
    for (context, rights, access, allowed) in cases {
        let tables = Tables::sv39(leaf(0x7000, rights));
        let found = translate(&context, 0x3000, access, &tables);
        assert_eq!(found.is_ok(), allowed, "{rights:#x} {access:?} {context:?}");
    }
}

#[test]
fn hardware_sets_accessed_and_dirty() {
    let tables = Tables::sv39(leaf(0x7000, R | W));
    translate(&context(SV39), 0x3000, Access::Load, &tables).unwrap();
    assert_eq!(tables.get(LEAF_AT) & (A | D), A);
    translate(&context(SV39), 0x3000, Access::Store, &tables).unwrap();
    assert_eq!(tables.get(LEAF_AT) & (A | D), A | D);
}

#[test]
fn without_hardware_update_missing_bits_fault() {
    let software = Context { hardware_update: false, ..context(SV39) };
    let find = |rights, access| {
        translate(&software, 0x3000, access, &Tables::sv39(leaf(0x7000, rights))).is_ok()
    };
    assert!(!find(R | W, Access::Load));
    assert!(find(R | W | A, Access::Load));
    assert!(!find(R | W | A, Access::Store));
    assert!(find(R | W | A | D, Access::Store));
}

#[test]
fn an_entry_that_changes_under_the_walk_is_read_again() {
    let tables = Tables::sv39(leaf(0x7000, R | W));
    *tables.race.borrow_mut() = Some((LEAF_AT, leaf(0x9000, R | W)));
    let found = translate(&context(SV39), 0x3000, Access::Store, &tables).unwrap();
    assert_eq!(found.physical, 0x9000);
    *tables.race.borrow_mut() = Some((LEAF_AT, 0));
    tables.set(LEAF_AT, leaf(0x9000, R | W));
    let refused = translate(&context(SV39), 0x3000, Access::Store, &tables);
    assert_eq!(refused, Err(Access::Store.page_fault(0x3000)));
}

#[test]
fn a_table_outside_storage_is_an_access_fault() {
    let tables = Tables::default();
    tables.set(ROOT, pointer(LIMIT));
    let refused = translate(&context(SV39), 0x3000, Access::Fetch, &tables);
    assert_eq!(refused, Err(Access::Fetch.access_fault(0x3000)));
}

#[test]
fn reserved_bits_fault() {
    for bad in [leaf(0x7000, R) | 1 << 54, leaf(0x7000, R) | 1 << 61, leaf(0x7000, R) | 1 << 63] {
        let refused = translate(&context(SV39), 0x3000, Access::Load, &Tables::sv39(bad));
        assert_eq!(refused, Err(Access::Load.page_fault(0x3000)));
    }
    let tables = Tables::sv39(leaf(0x7000, R));
    tables.set(0x2000, pointer(0x3000) | A);
    assert!(translate(&context(SV39), 0x3000, Access::Load, &tables).is_err());
}
