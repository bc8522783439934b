//! Accesses in loops that keep the page they found.
//!
//! An access whose address goes on from one turn of a loop to the next mostly stays
//! in a page. So its translation is held in registers of the host, and the TLB asked
//! only where the page is another. For how long a translation may be kept, see
//! `groups`; a CSR instruction, which may change the regime, has it forgotten.
//!
//! Where the address comes from storage or is a mixture of bits the page is another
//! each time, and to compare it first a waste: [`regular`] tells them apart.

use std::collections::BTreeMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};
use cranelift_frontend::{FunctionBuilder, Variable};
use riscv::mmu::PAGE_SIZE;
use riscv::{Inst, Op};

use super::super::operands::{Operands, Registers};
use super::super::region::{Block, Region};
use super::Unit;
use super::groups::{Groups, access};
use super::memory::{Stretch, Within};

/// Pages that a unit keeps, at most: each takes two registers of the host's.
const MAX_KEPT: usize = 8;

/// No address has all of these bits set that a page and an alignment have.
const NO_PAGE: i64 = -1;

const PAGE_MASK: i64 = !(PAGE_SIZE as i64 - 1);

/// A page that an access keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    /// Its guest address.
    page: Variable,
    /// What its host address is more than that.
    addend: Variable,
}

/// The accesses that keep pages, by the offset of the instruction.
#[derive(Debug, Default)]
pub(super) struct Pages(BTreeMap<i64, Kept>);

impl Pages {
    pub(super) fn new(builder: &mut FunctionBuilder<'_>, region: &Region) -> Self {
        let keepers = keepers(region);
        let kept = keepers.into_iter().take(MAX_KEPT).map(|at| {
            let (page, addend) = (builder.declare_var(I64), builder.declare_var(I64));
            (at, Kept { page, addend })
        });
        Self(kept.collect())
    }
}

/// The blocks of the innermost loop around each block; none without.
fn loops(region: &Region) -> Vec<Option<Vec<usize>>> {
    let blocks = &region.blocks;
    let next: Vec<Vec<usize>> = blocks.iter().map(|block| region.successors(block)).collect();
    let mut before = vec![Vec::new(); blocks.len()];
    for (index, next) in next.iter().enumerate() {
        next.iter().for_each(|next| before[*next].push(index));
    }
    let mut innermost: Vec<Option<Vec<usize>>> = vec![None; blocks.len()];
    for (end, next) in next.iter().enumerate() {
        for start in next.iter().filter(|start| blocks[**start].start <= blocks[end].start) {
            let body = body(&before, *start, end);
            for block in &body {
                let smaller = innermost[*block].as_ref().is_none_or(|old| body.len() < old.len());
                if smaller {
                    innermost[*block] = Some(body.clone());
                }
            }
        }
    }
    innermost
}

/// Blocks that lead to `end` without passing `start`, and these two.
fn body(before: &[Vec<usize>], start: usize, end: usize) -> Vec<usize> {
    let mut body = vec![start];
    let mut work = vec![end];
    while let Some(block) = work.pop() {
        if !body.contains(&block) {
            body.push(block);
            work.extend(&before[block]);
        }
    }
    body
}

/// Offsets of the accesses that are to keep pages, those in the smallest loops
/// first.
fn keepers(region: &Region) -> Vec<i64> {
    let loops = loops(region);
    let mut keepers = Vec::new();
    for (index, block) in region.blocks.iter().enumerate() {
        let Some(body) = &loops[index] else { continue };
        let regular = regular(body.iter().map(|index| &region.blocks[*index]));
        let groups = Groups::new(&block.insts);
        let mut led = Vec::new();
        for (at, inst) in &block.insts {
            let is_access = access(inst.op).is_some() && regular.contains(inst.rs1.into());
            let group = groups.of(*at).map(|(group, ..)| group);
            let follows = group.is_some_and(|group| led.contains(&group));
            led.extend(group);
            if is_access && !follows {
                keepers.push((body.len(), *at));
            }
        }
    }
    keepers.sort_unstable();
    keepers.into_iter().map(|(_, at)| at).collect()
}

/// Registers that within `body` are only computed in ways that take neighbours to
/// neighbours. `x0` is one.
fn regular<'a>(body: impl Iterator<Item = &'a Block> + Clone) -> Registers {
    let mut regular = Registers::INTEGERS;
    loop {
        let before = regular;
        for (_, inst) in body.clone().flat_map(|block| &block.insts) {
            let Operands { reads, writes } = Operands::of(*inst);
            if !keeps_near(*inst) || reads.and(regular) != reads {
                regular = regular.without(writes);
            }
        }
        if regular == before {
            return regular;
        }
    }
}

fn keeps_near(inst: Inst) -> bool {
    const SP: u8 = 2;
    match inst.op {
        Op::Lui
        | Op::Auipc
        | Op::Jal
        | Op::Addi
        | Op::Add
        | Op::Sub
        | Op::Slli
        | Op::Addiw
        | Op::Addw
        | Op::Subw
        | Op::Slliw
        | Op::Sh1add
        | Op::Sh2add
        | Op::Sh3add
        | Op::AddUw => true,
        // What a function keeps on its stack for want of registers.
        Op::Ld => inst.rs1 == SP,
        _ => false,
    }
}

impl Unit<'_> {
    /// No page is kept from here on.
    pub(super) fn forget_pages(&mut self) {
        if self.pages.0.is_empty() {
            return;
        }
        let (none, zero) = (self.number(NO_PAGE), self.number(0));
        for kept in self.pages.0.values() {
            self.builder.def_var(kept.page, none);
            self.builder.def_var(kept.addend, zero);
        }
    }

    /// What to add to addresses of the present access, `own`, and of `all`, which holds
    /// it, to get the host's, in a new block; see [`Unit::look_up_all`].
    pub(super) fn find(&mut self, all: Stretch, own: Option<Stretch>) -> (Value, Value) {
        let Some(kept) = self.pages.0.get(&self.at).copied() else {
            return self.ask(all, own);
        };
        let (look, there) = (self.cold_block(), self.builder.create_block());
        let found = [0, 1].map(|_| self.builder.append_block_param(there, I64));
        let address = self.sum(all.base, all.offset);
        let page = self.builder.use_var(kept.page);
        let addend = self.builder.use_var(kept.addend);
        let other = self.is_outside(page, address, all);
        self.builder.ins().brif(other, look, &[], there, &[addend.into(), addend.into()]);

        self.begin(look);
        let before = std::mem::replace(&mut self.rarely, true);
        let (addend, shared) = self.ask(all, own);
        self.rarely = before;
        let mask = self.number(PAGE_MASK);
        let mut page = self.builder.ins().band(address, mask);
        if own.is_some() {
            let none = self.number(NO_PAGE);
            page = self.builder.ins().select(shared, page, none);
        }
        self.builder.def_var(kept.page, page);
        self.builder.def_var(kept.addend, shared);
        self.builder.ins().jump(there, &[addend.into(), shared.into()]);
        self.begin(there);
        (found[0], found[1])
    }

    /// Asks the TLB.
    fn ask(&mut self, all: Stretch, own: Option<Stretch>) -> (Value, Value) {
        match own {
            Some(own) => self.look_up_all(all, own),
            None => {
                let addend = self.look_up(all, Within::Page);
                (addend, addend)
            }
        }
    }

    /// Whether `stretch`, which begins at `address`, is not known to be in `page`.
    fn is_outside(&mut self, page: Value, address: Value, stretch: Stretch) -> Value {
        let Stretch { base, offset, size, .. } = stretch;
        if size <= 8 && size.count_ones() == 1 {
            // Of one access; it may look the TLB up if it is misaligned.
            let mask = self.number(PAGE_MASK | (size - 1));
            let place = self.builder.ins().band(address, mask);
            return self.builder.ins().icmp(IntCC::NotEqual, place, page);
        }
        let last = self.sum(base, offset + size - 1);
        let mask = self.number(PAGE_MASK);
        let (first, last) =
            (self.builder.ins().band(address, mask), self.builder.ins().band(last, mask));
        let (first, last) =
            (self.builder.ins().bxor(first, page), self.builder.ins().bxor(last, page));
        self.builder.ins().bor(first, last)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::region::{Executed, PageBytes, Source};
    use super::*;

    fn region(words: &[u32]) -> Region {
        let mut page: Box<PageBytes> = Box::new([0; PAGE_SIZE as usize]);
        for (index, word) in words.iter().enumerate() {
            page[index * 4..index * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        Region::new(Source { page: &page, tail: None }, &Executed::all(), 0).unwrap()
    }

    /// `ld a2, 0(a0)`, `addi a0, a0, 8`, `bne a0, a1, -8`
    const WALK: [u32; 3] = [0x0005_3603, 0x0085_0513, 0xFEB5_1CE3];
    /// `ld a0, 0(a0)`, `addi a1, a1, -1`, `bne a1, x0, -8`
    const CHASE: [u32; 3] = [0x0005_3503, 0xFFF5_8593, 0xFE05_9CE3];

    #[test]
    fn a_pointer_that_goes_on_keeps_its_page_and_one_that_was_loaded_does_not() {
        assert_eq!(keepers(&region(&WALK)), [0]);
        assert_eq!(keepers(&region(&CHASE)), [0; 0]);
    }

    #[test]
    fn without_a_loop_no_page_is_kept() {
        assert_eq!(keepers(&region(&WALK[..2])), [0; 0]);
    }

    #[test]
    fn what_another_access_of_the_block_looked_up_keeps_nothing() {
        // ld a3, 8(a0) after the first load.
        let words = [WALK[0], 0x0085_3683, WALK[1], 0xFEB5_1AE3];
        assert_eq!(keepers(&region(&words)), [0]);
    }
}
