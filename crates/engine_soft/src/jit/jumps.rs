//! Where compiled code for a program counter is: the one way from a unit to
//! the next, looked into by compiled code itself.
//!
//! Direct-mapped, with a table for each way of translating fetches. Nothing is
//! ever patched: a unit is reached through this cache or not at all, so to
//! forget a unit is to clear entries here.

use std::collections::HashSet;

use riscv::mmu::PAGE_SIZE;

const ENTRIES: usize = 4096;
const SETS: usize = 3;

/// For code: the bits of a program counter times 8 that select an entry.
pub(crate) const INDEX_MASK: u64 = (ENTRIES as u64 - 1) << 4;

/// No program counter is odd.
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

/// See the module.
#[derive(Debug)]
pub(crate) struct Jumps {
    entries: Box<[Entry]>,
    used: [bool; SETS],
    /// Pages that may have entries.
    pages: HashSet<u64>,
}

impl Jumps {
    pub(crate) fn new() -> Self {
        Self {
            entries: vec![EMPTY; ENTRIES * SETS].into_boxed_slice(),
            used: [false; SETS],
            pages: HashSet::new(),
        }
    }

    /// The address of the table of `set`, for compiled code.
    pub(crate) fn table(&self, set: usize) -> u64 {
        self.entries[set * ENTRIES..].as_ptr().expose_provenance() as u64
    }

    /// Remembers that code for `pc` begins at `code`.
    pub(crate) fn fill(&mut self, set: usize, pc: u64, code: u64) {
        let entry = &mut self.entries[set * ENTRIES + (pc as usize >> 1) % ENTRIES];
        if (entry.pc, entry.code) != (pc, code) {
            *entry = Entry { pc, code };
            self.used[set] = true;
            self.pages.insert(pc / PAGE_SIZE);
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
        if std::mem::take(&mut self.used[set]) {
            self.entries[set * ENTRIES..][..ENTRIES].fill(EMPTY);
        }
    }

    /// Forgets what is known of the page around `address`.
    pub(crate) fn clear_page(&mut self, address: u64) {
        // Most fences are of pages that hold data.
        if !self.pages.remove(&(address / PAGE_SIZE)) {
            return;
        }
        let page = address & !(PAGE_SIZE - 1);
        for entry in &mut self.entries {
            if entry.pc & !(PAGE_SIZE - 1) == page {
                *entry = EMPTY;
            }
        }
    }
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
    fn tables_are_apart() {
        let mut jumps = Jumps::new();
        jumps.fill(0, 0x1000, 1);
        jumps.fill(1, 0x1000, 2);
        jumps.clear_set(0);
        assert_eq!((found(&jumps, 0, 0x1000), found(&jumps, 1, 0x1000)), (None, Some(2)));
    }
}
