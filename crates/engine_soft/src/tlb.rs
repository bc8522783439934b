//! The software TLB for loads and stores: guest virtual page to host address.
//!
//! Direct-mapped, with a table of its own for loads and one for stores, and in
//! each a set per translation regime, so that entering and leaving the kernel
//! forgets nothing. A tag compare also checks alignment: what is misaligned
//! or crosses a page never matches and goes the slow way.
//!
//! Invariant: an entry whose tag is a page address holds the distance from
//! that page to the host address of a page of guest storage, and the last walk
//! of the page tables allowed the access.

use riscv::mmu::{Context, PAGE_SIZE};
use riscv::trap::Privilege;

use crate::storage::Host;

const ENTRIES: usize = 512;
const SETS: usize = 4;
const PAGE_MASK: u64 = !(PAGE_SIZE - 1);

/// No masked address has all of its low 12 bits set.
const NO_TAG: u64 = u64::MAX;

/// One translation.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
struct Entry {
    tag: u64,
    addend: u64,
}

/// For compiled code: byte offsets within an entry, and how an address's bits
/// select one of a set, counted in bytes.
pub(crate) const ENTRY_TAG: i32 = std::mem::offset_of!(Entry, tag) as i32;
pub(crate) const ENTRY_ADDEND: i32 = std::mem::offset_of!(Entry, addend) as i32;
pub(crate) const INDEX_SHIFT: i64 = (PAGE_SIZE / size_of::<Entry>() as u64).trailing_zeros() as i64;
pub(crate) const INDEX_MASK: i64 = ((ENTRIES - 1) * size_of::<Entry>()) as i64;

const EMPTY: Entry = Entry { tag: NO_TAG, addend: 0 };

type Table = Box<[Entry; ENTRIES * SETS]>;

/// The regimes that have a set each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Regime {
    User = 0,
    Supervisor = 1,
    /// S-mode that may use user pages (SUM).
    SupervisorSum = 2,
    /// Addresses are physical.
    Bare = 3,
}

/// What is known about all entries of a set, to forget few of them.
#[derive(Debug, Clone, Copy)]
struct SetFacts {
    /// Which entries (of both tables) are from global mappings only.
    local: [u64; ENTRIES / 64],
    superpages: Superpages,
    used: bool,
}

/// A region of virtual addresses that holds all superpages seen: those `a`
/// with `a & mask == base`. A fence of any page in a superpage has to forget
/// all of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Superpages {
    base: u64,
    mask: u64,
}

const NO_FACTS: SetFacts =
    SetFacts { local: [0; ENTRIES / 64], superpages: Superpages::NONE, used: false };

/// See the module.
#[derive(Debug)]
pub(crate) struct Tlb {
    read: Table,
    write: Table,
    facts: [SetFacts; SETS],
    /// First entry of the present regime's set.
    base: usize,
    /// For compiled code: the addresses of that entry in both tables.
    read_set: u64,
    write_set: u64,
}

/// A translation to remember.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fill {
    /// Any address in the virtual page.
    pub(crate) virtual_address: u64,
    /// The host address of that very byte.
    pub(crate) host: Host,
    pub(crate) leaf_size: u64,
    pub(crate) global: bool,
}

impl Tlb {
    /// For compiled code: where it finds the address of the set in force.
    pub(crate) const READ_SET: usize = std::mem::offset_of!(Tlb, read_set);
    pub(crate) const WRITE_SET: usize = std::mem::offset_of!(Tlb, write_set);

    pub(crate) fn new() -> Self {
        let mut tlb = Self {
            read: Box::new([EMPTY; ENTRIES * SETS]),
            write: Box::new([EMPTY; ENTRIES * SETS]),
            facts: [NO_FACTS; SETS],
            base: Regime::Bare as usize * ENTRIES,
            read_set: 0,
            write_set: 0,
        };
        tlb.expose_sets();
        tlb
    }

    fn expose_sets(&mut self) {
        self.read_set = self.read[self.base..].as_ptr().expose_provenance() as u64;
        self.write_set = self.write[self.base..].as_ptr().expose_provenance() as u64;
    }

    /// Selects the set for accesses under `context`.
    pub(crate) fn select(&mut self, context: &Context) {
        let regime = match context.privilege {
            _ if context.is_bare() => Regime::Bare,
            Privilege::User => Regime::User,
            _ if context.user_memory => Regime::SupervisorSum,
            _ => Regime::Supervisor,
        };
        self.base = regime as usize * ENTRIES;
        self.expose_sets();
    }

    #[inline(always)]
    fn slot(&self, address: u64) -> usize {
        // The last mask changes nothing; it shows the index to be in range.
        (self.base | (address / PAGE_SIZE) as usize & (ENTRIES - 1)) & (ENTRIES * SETS - 1)
    }

    /// Where an aligned load of `size` bytes (a power of two) is.
    #[inline(always)]
    pub(crate) fn read(&self, address: u64, size: u64) -> Option<Host> {
        let entry = &self.read[self.slot(address)];
        (entry.tag == address & (PAGE_MASK | (size - 1)))
            .then(|| address.wrapping_add(entry.addend) as Host)
    }

    /// Where an aligned store of `size` bytes (a power of two) is.
    #[inline(always)]
    pub(crate) fn write(&self, address: u64, size: u64) -> Option<Host> {
        let entry = &self.write[self.slot(address)];
        (entry.tag == address & (PAGE_MASK | (size - 1)))
            .then(|| address.wrapping_add(entry.addend) as Host)
    }

    /// Remembers a translation that allows loads.
    pub(crate) fn fill_read(&mut self, fill: Fill) {
        let slot = self.note(fill);
        self.read[slot] = entry(fill);
    }

    /// Remembers a translation that allows stores.
    pub(crate) fn fill_write(&mut self, fill: Fill) {
        let slot = self.note(fill);
        self.write[slot] = entry(fill);
    }

    fn note(&mut self, fill: Fill) -> usize {
        let slot = self.slot(fill.virtual_address);
        let facts = &mut self.facts[slot / ENTRIES];
        facts.used = true;
        if !fill.global {
            let index = slot % ENTRIES;
            facts.local[index / 64] |= 1 << (index % 64);
        }
        facts.superpages.add(fill.virtual_address, fill.leaf_size);
        slot
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        for set in 0..SETS {
            self.clear_set(set);
        }
    }

    fn clear_set(&mut self, set: usize) {
        if self.facts[set].used {
            let entries = set * ENTRIES..(set + 1) * ENTRIES;
            self.read[entries.clone()].fill(EMPTY);
            self.write[entries].fill(EMPTY);
            self.facts[set] = NO_FACTS;
        }
    }

    /// Forgets what is not from global mappings.
    pub(crate) fn clear_local(&mut self) {
        self.clear_set(Regime::User as usize);
        for set in [Regime::Supervisor as usize, Regime::SupervisorSum as usize] {
            for block in 0..ENTRIES / 64 {
                let mut left = std::mem::take(&mut self.facts[set].local[block]);
                while left != 0 {
                    let slot = set * ENTRIES + block * 64 + left.trailing_zeros() as usize;
                    self.read[slot] = EMPTY;
                    self.write[slot] = EMPTY;
                    left &= left - 1;
                }
            }
        }
    }

    /// Forgets the translation of the page around `address`.
    pub(crate) fn clear_page(&mut self, address: u64) {
        let page = address & PAGE_MASK;
        let index = (address / PAGE_SIZE) as usize % ENTRIES;
        for set in 0..SETS {
            if self.facts[set].superpages.may_hold(address) {
                self.clear_set(set);
                continue;
            }
            let slot = set * ENTRIES + index;
            for table in [&mut self.read, &mut self.write] {
                if table[slot].tag == page {
                    table[slot] = EMPTY;
                }
            }
        }
    }
}

fn entry(fill: Fill) -> Entry {
    let page = fill.virtual_address & PAGE_MASK;
    Entry { tag: page, addend: (fill.host as u64).wrapping_sub(fill.virtual_address) }
}

impl Superpages {
    pub(crate) const NONE: Self = Self { base: NO_TAG, mask: u64::MAX };

    /// Widens the region so that it holds the leaf of `size` bytes around
    /// `address`, if that is a superpage. (Untranslated addresses, whose leaf
    /// is everything, are never fenced one by one.)
    pub(crate) fn add(&mut self, address: u64, size: u64) {
        if size <= PAGE_SIZE || size == u64::MAX {
            return;
        }
        let mut mask = !(size - 1);
        if self.mask == u64::MAX {
            self.base = address & mask;
        } else {
            mask &= self.mask;
            while (self.base ^ address) & mask != 0 {
                mask <<= 1;
            }
            self.base &= mask;
        }
        self.mask = mask;
    }

    /// Whether `address` may be in a superpage.
    pub(crate) fn may_hold(self, address: u64) -> bool {
        address & self.mask == self.base
    }
}

#[cfg(test)]
mod tests;
