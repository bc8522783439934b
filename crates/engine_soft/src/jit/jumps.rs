//! Where compiled code for a program counter is: the one way from a unit to
//! the next, looked into by compiled code itself.
//!
//! Direct-mapped, with a table for each way of translating fetches. Nothing is
//! ever patched: a unit is reached through this cache or not at all, so to
//! forget a unit is to clear entries here.

use std::collections::HashSet;
use std::ops::Range;

use riscv::mmu::PAGE_SIZE;

const ENTRIES: usize = 4096;
const SETS: usize = 3;

/// For code: the bits of a program counter times 8 that select an entry.
pub(crate) const INDEX_MASK: u64 = (ENTRIES as u64 - 1) << 4;

/// Pages of the address space.
const PAGES: u64 = u64::MAX / PAGE_SIZE + 1;

/// No program counter is odd, nor is any that crosses a page this one.
const NO_TAG: u64 = u64::MAX;

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct Entry {
    pc: u64,
    code: u64,
}

/// Byte offsets within an entry.
pub(crate) const ENTRY_PC: i32 = std::mem::offset_of!(Entry, pc) as i32;
pub(crate) const ENTRY_CODE: i32 = std::mem::offset_of!(Entry, code) as i32;

const EMPTY: Entry = Entry { pc: NO_TAG, code: 0 };

/// Entries of a table that are remembered one by one; to look for them among
/// all takes longer than to empty it.
const MAX_FILLED: usize = 1024;

/// In a page, where an instruction begins that ends in the next one.
pub(crate) const CROSSING: u64 = PAGE_SIZE - 2;

/// See the module.
#[derive(Debug)]
pub(crate) struct Jumps {
    entries: Box<[Entry]>,
    /// Which entries of each table are not empty, if few are.
    filled: [Vec<u16>; SETS],
    /// Pages that may have entries.
    pages: HashSet<u64>,
}

impl Jumps {
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![EMPTY; ENTRIES * SETS].into_boxed_slice(),
            filled: Default::default(),
            pages: HashSet::new(),
        }
    }

    /// The address of the table of `set`, for compiled code.
    pub(crate) fn table(&self, set: usize) -> u64 {
        self.entries[set * ENTRIES..].as_ptr().expose_provenance() as u64
    }

    /// Remembers that code for `pc` begins at `code`.
    pub(crate) fn fill(&mut self, set: usize, pc: u64, code: u64) {
        self.put(set, Entry { pc, code });
    }

    /// Remembers `parcel`, the second half of the instruction at `pc`, the
    /// last of its page: units that hold it ask for it here, since what follows
    /// their page is not theirs to know. It is forgotten as a jump to where it
    /// lies would be.
    pub(crate) fn fill_crossing(&mut self, set: usize, pc: u64, parcel: u16) {
        self.put(set, Entry { pc: pc | 1, code: parcel.into() });
    }

    /// What [`Jumps::fill_crossing`] remembered.
    pub(crate) fn crossing(&self, set: usize, pc: u64) -> Option<u16> {
        let entry = self.entries[set * ENTRIES + index_of(pc)];
        (entry.pc == pc | 1).then_some(entry.code as u16)
    }

    fn put(&mut self, set: usize, new: Entry) {
        let index = index_of(new.pc);
        let entry = &mut self.entries[set * ENTRIES + index];
        if (entry.pc, entry.code) == (new.pc, new.code) {
            return;
        }
        if self.filled[set].len() < MAX_FILLED {
            self.filled[set].push(index as u16);
        }
        *entry = new;
        self.pages.insert(new.pc / PAGE_SIZE);
        if new.pc & 1 != 0 {
            self.pages.insert((new.pc / PAGE_SIZE).wrapping_add(1) % PAGES);
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for set in 0..SETS {
            self.clear_set(set);
        }
        self.pages.clear();
    }

    /// Forgets one table.
    pub(crate) fn clear_set(&mut self, set: usize) {
        let entries = &mut self.entries[set * ENTRIES..][..ENTRIES];
        let filled = &mut self.filled[set];
        if filled.len() == MAX_FILLED {
            entries.fill(EMPTY);
        }
        for index in filled.drain(..) {
            entries[usize::from(index)] = EMPTY;
        }
    }

    /// Forgets what is known of the page around `address`.
    pub(crate) fn clear_page(&mut self, address: u64) {
        // Most fences are of pages that hold data.
        if !self.pages.remove(&(address / PAGE_SIZE)) {
            return;
        }
        let page = address & !(PAGE_SIZE - 1);
        let before = page.wrapping_sub(PAGE_SIZE);
        for set in 0..SETS {
            let table = &mut self.entries[set * ENTRIES..][..ENTRIES];
            for entry in &mut table[indices_of(page)] {
                if entry.pc & !(PAGE_SIZE - 1) == page {
                    *entry = EMPTY;
                }
            }
            let crossing = &mut table[index_of(before | CROSSING)];
            if crossing.pc == before | CROSSING | 1 {
                *crossing = EMPTY;
            }
        }
    }
}

fn index_of(pc: u64) -> usize {
    (pc as usize >> 1) % ENTRIES
}

/// Where entries of the page at `page` are.
fn indices_of(page: u64) -> Range<usize> {
    let first = index_of(page);
    first..first + PAGE_SIZE as usize / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(jumps: &Jumps, set: usize, pc: u64) -> Option<u64> {
        let entry = jumps.entries[set * ENTRIES + (pc as usize >> 1) % ENTRIES];
        (entry.pc == pc).then_some(entry.code)
    }

    #[test]
    fn a_page_is_forgotten_and_its_neighbours_are_not() {
        let mut jumps = Jumps::new();
        jumps.fill(1, 0x8000_0004, 1);
        jumps.fill(1, 0x8000_1006, 2);
        jumps.clear_page(0x8000_0FFF);
        assert_eq!(found(&jumps, 1, 0x8000_0004), None);
        assert_eq!(found(&jumps, 1, 0x8000_1006), Some(2));
    }

    #[test]
    fn what_crosses_into_a_page_goes_with_either() {
        for gone in [0x8000_0123, 0x8000_1123] {
            let mut jumps = Jumps::new();
            jumps.fill_crossing(2, 0x8000_0FFE, 7);
            assert_eq!(jumps.crossing(2, 0x8000_0FFE), Some(7));
            assert_eq!(found(&jumps, 2, 0x8000_0FFE), None, "it is no place to jump to");
            jumps.clear_page(gone);
            assert_eq!(jumps.crossing(2, 0x8000_0FFE), None);
        }
    }

    #[test]
    fn a_table_is_emptied_however_many_it_holds() {
        for count in [3, MAX_FILLED as u64 - 1, MAX_FILLED as u64 + 5] {
            let mut jumps = Jumps::new();
            (0..count).for_each(|index| jumps.fill(0, index * 2, 1));
            jumps.clear();
            assert!((0..count).all(|index| found(&jumps, 0, index * 2).is_none()));
        }
    }

    #[test]
    fn tables_are_apart() {
        let mut jumps = Jumps::new();
        jumps.fill(0, 0x1000, 1);
        jumps.fill(1, 0x1000, 2);
        jumps.clear_set(0);
        assert_eq!((found(&jumps, 0, 0x1000), found(&jumps, 1, 0x1000)), (None, Some(2)));
    }
}
