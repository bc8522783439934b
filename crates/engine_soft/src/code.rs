//! The cache of decoded pages, and the translations that lead to them.
//!
//! A [`CodePage`] is a copy of one page of guest storage and the instructions
//! decoded from it so far. Nobody tracks writes to the source: `fence.i` only
//! starts a new epoch, and a page from an older one is compared with storage
//! before it is executed again. Until then a store to code is not seen, as the
//! standard allows (unprivileged specification, "Zifencei").
//!
//! Invariant: `insts[i]` of a page is either [`UNDECODED`] or what the bytes
//! of the *copy* at `2 * i` decode to, wholly inside the page. The last two
//! entries are [`PAGE_END`] for ever, so straight-line execution needs no test
//! for the page's end.

use std::collections::HashMap;
use std::sync::Arc;

use riscv::mmu::{Access, PAGE_SIZE};
use riscv::trap::Trap;
use riscv::{Inst, Op};

use crate::cpu::{Cpu, StaleLookups};
use crate::jit::jumps::CROSSING;
use crate::jit::{Answer, Compiler, Executed, Place, Request, Units};
use crate::memory;
use crate::tlb::Superpages;

const PARCELS: usize = PAGE_SIZE as usize / 2;

/// In `rd` of an `Op::Illegal`: not decoded yet.
pub(crate) const UNDECODED: u8 = 0xFE;
/// In `rd` of an `Op::Illegal`: past the end of the page.
pub(crate) const PAGE_END: u8 = 0xFD;

/// In `rd` of an `Op::Illegal`: a compiled unit begins here; its number is in
/// `imm`.
pub(crate) const COMPILED: u8 = 0xFC;

/// Pages whose contents changed more often are left to the interpreter.
const MAX_CHANGES: u8 = 32;

/// Pages kept: 640 of 24 KiB each.
const MAX_PAGES: usize = 640;

/// Pages that no sweep takes away: a guest that wakes after a while is to find
/// what it will execute.
const FEW_PAGES: usize = 256;

/// While a unit of a page is being compiled, other places of the page that get hot
/// wait: mostly the unit has them. Each asks again after so many more jumps, and all
/// together so often before they wait no longer for an answer that may not come.
const JUMPS_UNTIL_ASKED_AGAIN: u16 = 256;
const PATIENCE: u8 = 64;

/// Instructions from one sweep to the next, while the guest executes any.
const SWEEP: u64 = 4 << 20;

/// At which sweep in a row a page goes that was not used: it takes long until
/// one that has units has them again.
const LIVES: u8 = 2;
const LIVES_WITH_UNITS: u8 = 4;

const LOOKUPS: usize = 256;
/// The set of U-mode's lookups; see [`Cpu::fetch_set`].
const USER_SET: usize = 0;
const SUPERVISOR_SET: usize = 1;
const SETS: usize = 4;
const NO_TAG: u64 = u64::MAX;

fn marker(kind: u8) -> Inst {
    Inst { op: Op::Illegal, rd: kind, rs1: 0, rs2: 0, imm: 0 }
}

/// See the module.
pub(crate) struct CodePage {
    physical: u64,
    epoch: u64,
    /// It is what the page was that nobody had stored into since the partition was
    /// made or put back, so it need not be compared while that is so.
    original: bool,
    referenced: bool,
    /// Sweeps since it was used last.
    age: u8,
    has_units: bool,
    /// How often places of the page still wait for the unit asked for; 0 if none is.
    patience: u8,
    /// Tells contents of slots apart, for units compiled meanwhile.
    version: u64,
    /// How often the contents changed: code that is rewritten all the time is
    /// not worth compiling.
    changes: u8,
    bytes: [u8; PAGE_SIZE as usize],
    insts: [Inst; PARCELS + 2],
    /// How many more jumps to each place make it hot; 0 if nobody counts.
    heat: [u16; PARCELS],
}

impl CodePage {
    fn new() -> Box<Self> {
        let mut insts = [marker(UNDECODED); PARCELS + 2];
        insts[PARCELS..].fill(marker(PAGE_END));
        Box::new(Self {
            physical: NO_TAG,
            epoch: 0,
            original: false,
            referenced: false,
            age: 0,
            has_units: false,
            patience: 0,
            version: 0,
            changes: 0,
            heat: [0; PARCELS],
            bytes: [0; PAGE_SIZE as usize],
            insts,
        })
    }

    /// The entries, the two markers of the page's end included.
    #[inline(always)]
    pub(crate) fn insts(&self) -> &[Inst; PARCELS + 2] {
        &self.insts
    }

    fn parcel(&self, offset: usize) -> u32 {
        let index = offset & (PAGE_SIZE as usize - 2);
        u32::from(u16::from_le_bytes([self.bytes[index], self.bytes[index + 1]]))
    }

    /// Decodes the instruction at `offset`; `None` if it reaches over the
    /// page's end, else it is also kept.
    fn decode(&mut self, offset: usize) -> Option<Inst> {
        let low = self.parcel(offset);
        let bits = if low & 3 != 3 {
            low
        } else if offset + 2 < PAGE_SIZE as usize {
            self.parcel(offset + 2) << 16 | low
        } else {
            return None;
        };
        let inst = riscv::decode(bits);
        self.insts[offset / 2] = inst;
        Some(inst)
    }

    /// How often code of this page has to be entered to be worth compiling.
    fn threshold(&self, least: u16) -> u16 {
        match self.changes {
            0..=3 => least,
            4..=MAX_CHANGES => least.saturating_mul(4),
            _ => 0,
        }
    }

    /// Counts a jump to `offset`, which is in the page; whether that made it
    /// hot.
    #[inline(always)]
    pub(crate) fn warm(&mut self, offset: u64) -> bool {
        let heat = &mut self.heat[(offset / 2) as usize % PARCELS];
        if *heat == 0 {
            return false;
        }
        *heat -= 1;
        *heat == 0
    }

    /// Which instructions have been executed, as far as that is known; all if
    /// we `pretend`.
    fn executed(&self, pretend: bool) -> Box<Executed> {
        if pretend {
            return Box::new(Executed::all());
        }
        let mut executed = Executed::none();
        for (index, inst) in self.insts[..PARCELS].iter().enumerate() {
            if inst.op != Op::Illegal || inst.rd != UNDECODED {
                executed.insert(index * 2);
            }
        }
        Box::new(executed)
    }

    /// Whether it is still worth its memory at this sweep.
    fn survives(&mut self) -> bool {
        self.age =
            if std::mem::take(&mut self.referenced) { 0 } else { self.age.saturating_add(1) };
        self.age < if self.has_units { LIVES_WITH_UNITS } else { LIVES }
    }

    /// Forgets which units begin here.
    fn forget_units(&mut self) {
        self.has_units = false;
        for inst in &mut self.insts[..PARCELS] {
            if inst.op == Op::Illegal && inst.rd == COMPILED {
                *inst = marker(UNDECODED);
            }
        }
    }

    /// Takes the bytes as they are now and forgets what was decoded from
    /// bytes that changed.
    fn update(&mut self, now: &[u8; PAGE_SIZE as usize]) {
        for (index, new) in now.chunks_exact(8).enumerate() {
            let range = index * 8..index * 8 + 8;
            if self.bytes[range.clone()] != *new {
                self.bytes[range].copy_from_slice(new);
                // One that begins two bytes earlier may reach in.
                let first = (index * 4).saturating_sub(1);
                self.insts[first..index * 4 + 4].fill(marker(UNDECODED));
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Lookup {
    tag: u64,
    physical: u64,
    slot: u32,
    global: bool,
}

const NO_LOOKUP: Lookup = Lookup { tag: NO_TAG, physical: 0, slot: 0, global: false };

/// The decoded pages of one vCPU.
pub(crate) struct CodeCache {
    pages: Vec<Box<CodePage>>,
    by_physical: HashMap<u64, u32>,
    hand: usize,
    epoch: u64,
    /// Whether storage keys tell of every store.
    keys_tell: bool,
    /// The last version given to a page.
    versions: u64,
    /// Instructions retired at the last sweep.
    swept: u64,
    units: Option<Units>,
    lookups: Box<[Lookup; LOOKUPS * SETS]>,
    superpages: Superpages,
}

impl CodeCache {
    pub(crate) fn new(compiler: Option<Arc<Compiler>>) -> Self {
        Self {
            versions: 0,
            swept: 0,
            units: compiler.map(Units::new),
            pages: Vec::new(),
            by_physical: HashMap::new(),
            hand: 0,
            epoch: 1,
            keys_tell: false,
            lookups: Box::new([NO_LOOKUP; LOOKUPS * SETS]),
            superpages: Superpages::NONE,
        }
    }

    /// Stores made so far are to be seen by fetches from now on.
    pub(crate) fn fence(&mut self, cpu: &mut Cpu) {
        self.epoch += 1;
        // Units are found by way of `enter` again, which compares.
        cpu.native.jumps.clear();
    }

    /// The machine is made anew from a captured one: its storage may be another than
    /// before, and from now on nobody stores there without saying so in the keys.
    pub(crate) fn begin_anew(&mut self) {
        self.keys_tell = true;
        self.pages.iter_mut().for_each(|page| page.original = false);
    }

    /// Forgets all translations.
    fn clear_lookups(&mut self) {
        self.lookups.fill(NO_LOOKUP);
        self.superpages = Superpages::NONE;
    }

    /// Forgets the translations of the page around `address`.
    fn clear_page_lookups(&mut self, cpu: &mut Cpu, address: u64) {
        if self.superpages.may_hold(address) {
            self.clear_lookups();
            cpu.native.jumps.clear();
            return;
        }
        cpu.native.jumps.clear_page(address);
        let index = (address / PAGE_SIZE) as usize % LOOKUPS;
        for set in 0..SETS {
            self.lookups[set * LOOKUPS + index] = NO_LOOKUP;
        }
    }

    /// Forgets translations that are not from global mappings.
    fn clear_local_lookups(&mut self) {
        for lookup in self.lookups.iter_mut() {
            if !lookup.global {
                *lookup = NO_LOOKUP;
            }
        }
    }

    /// Forgets the translations that `cpu` says are stale.
    #[cold]
    pub(crate) fn forget_stale(&mut self, cpu: &mut Cpu) {
        match std::mem::replace(&mut cpu.stale, StaleLookups::None) {
            StaleLookups::None => {}
            StaleLookups::Page(address) => self.clear_page_lookups(cpu, address),
            StaleLookups::Local => {
                self.clear_local_lookups();
                // Entries of S-mode are of global mappings only.
                cpu.native.jumps.clear_set(USER_SET);
            }
            StaleLookups::All => {
                self.clear_lookups();
                cpu.native.jumps.clear();
            }
        }
    }

    /// The decoded page around the virtual address `pc`.
    #[inline(always)]
    pub(crate) fn enter(&mut self, cpu: &mut Cpu, pc: u64) -> Result<u32, Trap> {
        let page = pc & !(PAGE_SIZE - 1);
        let lookup = self.lookups[lookup_index(cpu, pc)];
        if lookup.tag == page {
            if let Some(code) = self.pages.get_mut(lookup.slot as usize)
                && code.physical == lookup.physical
                && code.epoch == self.epoch
            {
                code.referenced = true;
                return Ok(lookup.slot);
            }
            if let Some(slot) = self.page(cpu, lookup.physical) {
                self.lookups[lookup_index(cpu, pc)].slot = slot;
                return Ok(slot);
            }
        }
        self.enter_slowly(cpu, pc)
    }

    #[cold]
    #[inline(never)]
    fn enter_slowly(&mut self, cpu: &mut Cpu, pc: u64) -> Result<u32, Trap> {
        let translation = cpu.translate(pc, Access::Fetch)?;
        let physical = translation.physical & !(PAGE_SIZE - 1);
        let slot = self.page(cpu, physical).ok_or(Access::Fetch.access_fault(pc))?;
        self.superpages.add(pc, translation.leaf_size);
        self.lookups[lookup_index(cpu, pc)] =
            Lookup { tag: pc & !(PAGE_SIZE - 1), physical, slot, global: translation.global };
        Ok(slot)
    }

    /// The page at `physical`, as storage is now if the epoch is new.
    #[cold]
    #[inline(never)]
    fn page(&mut self, cpu: &Cpu, physical: u64) -> Option<u32> {
        let known = self.by_physical.get(&physical).copied();
        if let Some(slot) = known {
            let page = &mut self.pages[slot as usize];
            page.referenced = true;
            if page.epoch == self.epoch {
                return Some(slot);
            }
            let same = self.keys_tell && page.original && !cpu.ram.was_written(physical);
            if same || cpu.ram.page_equals(physical, &page.bytes) {
                page.original = same || !cpu.ram.was_written(physical);
                page.epoch = self.epoch;
                return Some(slot);
            }
        }
        let mut now = [0; PAGE_SIZE as usize];
        if !cpu.ram.copy_page(physical, &mut now) {
            return None;
        }
        let slot = known.unwrap_or_else(|| self.take_slot(physical));
        self.versions += 1;
        let page = &mut self.pages[slot as usize];
        if known.is_some() {
            page.forget_units();
            page.changes = page.changes.saturating_add(1);
        }
        page.version = self.versions;
        page.patience = 0;
        let threshold = self.units.as_ref().map(|units| units.compiler.config().threshold);
        let heat = threshold.map_or(0, |threshold| page.threshold(threshold));
        page.heat.fill(heat);
        page.update(&now);
        page.original = !cpu.ram.was_written(physical);
        page.epoch = self.epoch;
        page.referenced = true;
        Some(slot)
    }

    /// A slot for `physical`: a new one, or that of a page not used lately.
    fn take_slot(&mut self, physical: u64) -> u32 {
        if self.pages.len() < MAX_PAGES {
            self.pages.push(CodePage::new());
            self.hand = self.pages.len() - 1;
        } else {
            loop {
                self.hand = (self.hand + 1) % self.pages.len();
                if !std::mem::take(&mut self.pages[self.hand].referenced) {
                    break;
                }
            }
        }
        let page = &mut self.pages[self.hand];
        self.by_physical.remove(&page.physical);
        page.physical = physical;
        page.original = false;
        page.changes = 0;
        page.age = 0;
        page.has_units = false;
        page.patience = 0;
        page.insts[..PARCELS].fill(marker(UNDECODED));
        let slot = self.hand as u32;
        self.by_physical.insert(physical, slot);
        slot
    }

    /// Whether [`CodeCache::sweep`] is due after `retired` instructions.
    #[inline]
    pub(crate) fn is_sweep_due(&self, retired: u64) -> bool {
        retired.wrapping_sub(self.swept) >= SWEEP
    }

    /// Whether a sweep could take away anything.
    #[inline]
    pub(crate) fn is_large(&self) -> bool {
        self.pages.len() > FEW_PAGES
    }

    /// Gives up the pages that were not used for a while, so that an idle guest
    /// does not cost what its boot did.
    #[cold]
    pub(crate) fn sweep(&mut self, retired: u64) {
        self.swept = retired;
        let before = self.pages.len();
        let mut slot = 0;
        while slot < self.pages.len() && self.is_large() {
            if self.pages[slot].survives() {
                slot += 1;
                continue;
            }
            let gone = self.pages.swap_remove(slot);
            self.by_physical.remove(&gone.physical);
            if let Some(moved) = self.pages.get(slot) {
                // Look-ups notice by the physical address.
                self.by_physical.insert(moved.physical, slot as u32);
            }
        }
        self.hand = 0;
        if self.pages.len() < before {
            memory::give_back();
        }
    }

    /// Asks for the code at `pc`, in the page in `slot`, to be compiled.
    #[cold]
    #[inline(never)]
    pub(crate) fn compile(&mut self, cpu: &mut Cpu, slot: u32, pc: u64) {
        let offset = offset_of(pc) as u64;
        let Some(units) = &self.units else { return };
        let page = &mut self.pages[slot as usize];
        if page.patience > 0 {
            page.patience -= 1;
            page.heat[offset as usize / 2] = JUMPS_UNTIL_ASKED_AGAIN;
            return;
        }
        page.patience = if units.compiler.config().wait { 0 } else { PATIENCE };
        units.compiler.ask(Request {
            page: Box::new(page.bytes),
            tail: cpu.native.jumps.crossing(cpu.fetch_set(), pc & !1 | CROSSING),
            executed: page.executed(units.compiler.config().whole),
            entry: offset as u16,
            place: Place { physical: page.physical, version: page.version },
            inbox: Arc::clone(&units.inbox),
        });
        // Should the request be dropped, code that stays hot asks again.
        page.heat[offset as usize / 2] = u16::MAX;
        if units.compiler.config().wait {
            self.install(cpu);
        }
    }

    /// Whether the compiler has answered.
    #[inline]
    pub(crate) fn has_answers(&self) -> bool {
        self.units.as_ref().is_some_and(|units| units.inbox.has_mail())
    }

    /// Takes what the compiler has answered.
    #[cold]
    pub(crate) fn install(&mut self, cpu: &mut Cpu) {
        let answers = self.units.as_ref().map(|units| units.inbox.take());
        for Answer { place, entry, unit } in answers.unwrap_or_default() {
            let Some(units) = &mut self.units else { return };
            if !units.is_neighbour(&unit) {
                units.clear();
                cpu.native.jumps.clear();
                for page in &mut self.pages {
                    page.forget_units();
                }
            }
            let Some(slot) = self.by_physical.get(&place.physical) else { continue };
            let page = &mut self.pages[*slot as usize];
            page.patience = 0;
            if page.version == place.version {
                let number = units.add(unit);
                page.has_units = true;
                page.insts[usize::from(entry) / 2] = Inst { imm: number, ..marker(COMPILED) };
            }
        }
    }

    /// The unit with `number`, which begins at `pc`; other units will find it.
    #[inline(always)]
    pub(crate) fn unit(&self, cpu: &mut Cpu, number: i32, pc: u64) -> Option<(&Units, usize)> {
        let units = self.units.as_ref()?;
        let code = units.code(number)?;
        // See `forget_stale`: S-mode's have to be of global mappings.
        if cpu.fetch_set() != SUPERVISOR_SET || self.lookups[lookup_index(cpu, pc)].global {
            cpu.native.jumps.fill(cpu.fetch_set(), pc, code as u64);
        }
        Some((units, code))
    }

    /// What the bytes at `offset` of the page in `slot` say, compiled or not.
    #[cold]
    pub(crate) fn plain(&self, slot: u32, offset: u64) -> Inst {
        let page = &self.pages[slot as usize];
        let offset = offset as usize;
        // A unit begins with an instruction that is wholly inside the page.
        riscv::decode(page.parcel(offset + 2) << 16 | page.parcel(offset))
    }

    /// The page in `slot`, to count jumps.
    #[inline(always)]
    pub(crate) fn at_mut(&mut self, slot: u32) -> &mut CodePage {
        &mut self.pages[slot as usize]
    }

    /// The page in `slot`, which [`CodeCache::enter`] just gave.
    #[inline(always)]
    pub(crate) fn at(&self, slot: u32) -> &CodePage {
        &self.pages[slot as usize]
    }

    /// The instruction at `pc`, whose page is in `slot`, where the page has
    /// [`UNDECODED`]. One that reaches over the page's end is put together
    /// anew each time.
    ///
    /// # Errors
    /// The trap of fetching its second half.
    #[cold]
    #[inline(never)]
    pub(crate) fn decode(&mut self, cpu: &mut Cpu, slot: u32, pc: u64) -> Result<Inst, Trap> {
        let page = &mut self.pages[slot as usize];
        if let Some(inst) = page.decode(offset_of(pc)) {
            return Ok(inst);
        }
        let low = page.parcel(offset_of(pc));
        let high = match cpu.native.jumps.crossing(cpu.fetch_set(), pc) {
            Some(high) => high,
            None => self.second_half(cpu, pc)?,
        };
        Ok(riscv::decode(u32::from(high) << 16 | low))
    }

    /// The parcel after the one at `pc`, the last of its page.
    fn second_half(&mut self, cpu: &mut Cpu, pc: u64) -> Result<u16, Trap> {
        let next = pc.wrapping_add(2);
        let translation = cpu.translate(next, Access::Fetch)?;
        let high = cpu.ram.parcel(translation.physical).ok_or(Access::Fetch.access_fault(next))?;
        if cpu.fetch_set() != SUPERVISOR_SET || translation.global {
            self.superpages.add(next, translation.leaf_size);
            cpu.native.jumps.fill_crossing(cpu.fetch_set(), pc, high);
        }
        Ok(high)
    }

    /// The encoding of the instruction at `pc`, whose page is in `slot`.
    #[cold]
    pub(crate) fn encoding(&self, cpu: &mut Cpu, slot: u32, pc: u64) -> u32 {
        let page = &self.pages[slot as usize];
        let low = page.parcel(offset_of(pc));
        if low & 3 != 3 {
            return low;
        }
        let next = pc.wrapping_add(2);
        let high = if offset_of(next) != 0 {
            page.parcel(offset_of(next))
        } else {
            // It was fetched a moment ago; at worst its upper half reads 0.
            let physical = cpu.translate(next, Access::Fetch).ok().map(|found| found.physical);
            physical.and_then(|physical| cpu.ram.parcel(physical)).map_or(0, u32::from)
        };
        high << 16 | low
    }
}

fn offset_of(pc: u64) -> usize {
    (pc % PAGE_SIZE) as usize & !1
}

#[inline(always)]
fn lookup_index(cpu: &Cpu, pc: u64) -> usize {
    // The last mask changes nothing; it shows the index to be in range.
    let index = cpu.fetch_set() * LOOKUPS + (pc / PAGE_SIZE) as usize % LOOKUPS;
    index & (LOOKUPS * SETS - 1)
}

#[cfg(test)]
mod tests {
    use main_storage::StorageRange;
    use storage_window::{Backing, MainStorage, StorageWindow};

    use super::*;
    use crate::vcpu::{SoftConfig, SoftVcpu};

    const BASE: u64 = 0x8000_0000;

    /// A hart with storage for `pages` pages, whose storage is all zeros.
    fn vcpu(pages: u64) -> SoftVcpu {
        let size = (pages * PAGE_SIZE).next_multiple_of(1 << 20);
        let main = MainStorage::create(size, Backing::Memfd).unwrap();
        let range = StorageRange::new(0, size).unwrap();
        let (storage, keys) = (main.storage_fd(), main.keys_fd());
        let window = StorageWindow::map(storage, keys, range, BASE, size).unwrap();
        SoftVcpu::new(0, window, SoftConfig::default())
    }

    #[test]
    fn pages_not_used_for_some_sweeps_go_and_come_back_when_they_are() {
        let count = FEW_PAGES as u64 + 50;
        let SoftVcpu { cpu, code, .. } = &mut vcpu(count);
        let at = |page: u64| BASE + page * PAGE_SIZE;
        for page in 0..count {
            code.enter(cpu, at(page)).unwrap();
        }
        let last = at(count - 1);
        for _ in 0..=LIVES {
            assert!(code.is_large());
            code.enter(cpu, last).unwrap();
            code.sweep(0);
        }
        assert_eq!(code.pages.len(), FEW_PAGES, "more are not worth a sweep");
        assert!(code.by_physical.contains_key(&last), "it was used");
        for page in 0..count {
            let slot = code.enter(cpu, at(page)).unwrap();
            assert_eq!(code.at(slot).physical, at(page));
            assert_eq!(code.by_physical[&at(page)], slot);
        }
    }
}
