//! Which code a unit is made of: what can be reached from its entry without
//! leaving the page.
//!
//! Pure: from the bytes of a page to a graph of basic blocks, and what the
//! translation needs to know about each.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use riscv::mmu::PAGE_SIZE;
use riscv::{Inst, Op};

use super::operands::{Operands, Registers};

/// The bytes of one page.
pub(crate) type PageBytes = [u8; PAGE_SIZE as usize];

/// Instructions in a unit, at most: the nearest to its entry.
const MAX_INSTS: usize = 192;

/// Which instructions of a page have been executed: what has not is rarely
/// worth compiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Executed([u64; PAGE_SIZE as usize / 128]);

impl Executed {
    pub(crate) fn none() -> Self {
        Self([0; PAGE_SIZE as usize / 128])
    }

    pub(crate) fn all() -> Self {
        Self([u64::MAX; PAGE_SIZE as usize / 128])
    }

    /// The one at `offset`, which is in the page, has been.
    pub(crate) fn insert(&mut self, offset: usize) {
        self.0[offset / 128 % self.0.len()] |= 1 << (offset / 2 % 64);
    }

    /// Whether the one at `offset` has been; nobody knows of other pages.
    fn contains(&self, offset: i64) -> bool {
        let index = usize::try_from(offset).ok();
        let word = index.and_then(|index| self.0.get(index / 128));
        word.is_some_and(|word| word >> (offset / 2 % 64) & 1 != 0)
    }
}

/// What units are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source<'a> {
    pub(crate) page: &'a PageBytes,
    /// The first parcel of what follows the page, if that is known.
    pub(crate) tail: Option<u16>,
}

impl Source<'_> {
    fn parcel(&self, offset: i64) -> Option<u32> {
        if offset == PAGE_SIZE as i64 {
            return self.tail.map(u32::from);
        }
        let index = usize::try_from(offset).ok()?;
        let bytes = self.page.get(index..index + 2)?;
        Some(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    /// `None` outside the page and where the instruction reaches over its end
    /// and it is not known how it goes on there.
    fn decode(&self, offset: i64) -> Option<Inst> {
        if !is_inside(offset) {
            return None;
        }
        let low = self.parcel(offset)?;
        let bits = if low & 3 == 3 { self.parcel(offset + 2)? << 16 | low } else { low };
        Some(riscv::decode(bits))
    }

    /// Whether what is at `offset` of the page is for the interpreter.
    fn is_left_out(&self, offset: i64) -> bool {
        is_inside(offset) && !self.decode(offset).is_some_and(is_translated)
    }
}

/// How a block ends. Offsets are from the page's start and may lie outside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A conditional branch.
    Branch { taken: i64, following: i64 },
    /// On at another place.
    Jump { to: i64 },
    /// A jump to where a register says.
    Indirect,
    /// The interpreter has to execute what is there.
    Interpret { at: i64 },
}

/// A run of instructions entered at its first only.
#[derive(Debug)]
pub(crate) struct Block {
    /// Offset of the first instruction.
    pub(crate) start: i64,
    /// Offsets and instructions; the one that `end` speaks of is the last,
    /// unless it is for the interpreter.
    pub(crate) insts: Vec<(i64, Inst)>,
    pub(crate) end: End,
    /// Registers that may differ from their home in storage at the start.
    pub(crate) dirty: Registers,
    /// Registers that its instructions write.
    pub(crate) writes: Registers,
}

/// The graph; block 0 is the entry.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) blocks: Vec<Block>,
    by_start: BTreeMap<i64, usize>,
    /// Registers whose values at the entry matter.
    pub(crate) live: Registers,
    /// Where calls within the region return to.
    pub(crate) returns: Vec<i64>,
    /// What the instruction that crosses the page's end was read with.
    pub(crate) tail: u16,
}

impl Region {
    /// What is reached from `entry` by way of what was executed; `None` if the
    /// interpreter has to execute the very first instruction.
    pub(crate) fn new(source: Source<'_>, executed: &Executed, entry: i64) -> Option<Self> {
        // What begins a unit has to be wholly inside the page.
        Source { tail: None, ..source }.decode(entry)?;
        let (starts, insts) = reach(source, executed, entry);
        let blocks: Vec<Block> = starts
            .keys()
            .filter(|start| insts.contains_key(start) || source.is_left_out(**start))
            .map(|start| block(source, *start, &starts, &insts))
            .collect();
        let mut region = Self {
            by_start: BTreeMap::new(),
            blocks,
            live: Registers::NONE,
            returns: Vec::new(),
            tail: source.tail.unwrap_or(0),
        };
        let first = region.blocks.iter().position(|block| block.start == entry)?;
        region.blocks.swap(0, first);
        if region.blocks[0].insts.is_empty() {
            return None;
        }
        region.by_start =
            region.blocks.iter().enumerate().map(|(index, block)| (block.start, index)).collect();
        region.find_returns();
        region.find_dirty();
        region.find_live();
        Some(region)
    }

    /// The block that starts at `offset`.
    pub(crate) fn block_at(&self, offset: i64) -> Option<usize> {
        self.by_start.get(&offset).copied()
    }

    fn find_returns(&mut self) {
        let mut returns = Vec::new();
        for block in &self.blocks {
            let Some((at, inst)) = block.insts.last() else { continue };
            let End::Jump { to } = block.end else { continue };
            let after = at + inst.len() as i64;
            if is_call(*inst) && self.block_at(to).is_some() && self.block_at(after).is_some() {
                returns.push(after);
            }
        }
        self.returns = returns;
    }

    /// Blocks of the region that may follow `block`.
    pub(crate) fn successors(&self, block: &Block) -> Vec<usize> {
        let offsets = match block.end {
            End::Branch { taken, following } => vec![taken, following],
            End::Jump { to } => vec![to],
            End::Indirect if ends_in_return(block) => self.returns.clone(),
            End::Indirect | End::Interpret { .. } => vec![],
        };
        offsets.into_iter().filter_map(|offset| self.block_at(offset)).collect()
    }

    fn find_dirty(&mut self) {
        let mut work: VecDeque<usize> = (0..self.blocks.len()).collect();
        while let Some(index) = work.pop_front() {
            let block = &self.blocks[index];
            let written = block.dirty.with(block.writes);
            for next in self.successors(block) {
                let joined = self.blocks[next].dirty.with(written);
                if joined != self.blocks[next].dirty {
                    self.blocks[next].dirty = joined;
                    work.push_back(next);
                }
            }
        }
    }

    /// A block reads what its instructions read before they write it, and,
    /// since it can be left anywhere, all that is dirty.
    fn find_live(&mut self) {
        let facts: Vec<(Registers, Registers)> = self.blocks.iter().map(reads_and_writes).collect();
        let mut live: Vec<Registers> = facts.iter().map(|(reads, _)| *reads).collect();
        let mut changed = true;
        while changed {
            changed = false;
            for index in (0..self.blocks.len()).rev() {
                let after = self
                    .successors(&self.blocks[index])
                    .into_iter()
                    .fold(Registers::NONE, |after, next| after.with(live[next]));
                let (reads, writes) = facts[index];
                let before = reads.with(after.without(writes));
                changed |= before != live[index];
                live[index] = before;
            }
        }
        self.live = live[0];
    }
}

fn reads_and_writes(block: &Block) -> (Registers, Registers) {
    // It can be left anywhere: all that is dirty matters.
    let (mut reads, mut writes) = (block.dirty, Registers::NONE);
    for (_, inst) in &block.insts {
        let operands = Operands::of(*inst);
        reads = reads.with(operands.reads.without(writes));
        writes = writes.with(operands.writes);
    }
    (reads, writes)
}

/// A jump that leaves its return address in `ra`.
fn is_call(inst: Inst) -> bool {
    matches!(inst.op, Op::Jal | Op::Jalr) && inst.rd == 1
}

/// Where the jump `inst` at `at` goes if it and `before`, the instruction before it,
/// say so: `jal`, or `jalr` with what `auipc` computed.
fn target(before: Option<(i64, Inst)>, at: i64, inst: Inst) -> Option<i64> {
    if inst.op == Op::Jal {
        return Some(at + i64::from(inst.imm));
    }
    let (from, auipc) = before.filter(|(_, before)| before.op == Op::Auipc)?;
    let holds = inst.op == Op::Jalr && auipc.rd == inst.rs1 && inst.rs1 != 0;
    holds.then(|| (from + i64::from(auipc.imm) + i64::from(inst.imm)) & !1)
}

/// Whether the block ends in `ret`.
pub(crate) fn ends_in_return(block: &Block) -> bool {
    block.insts.last().is_some_and(|(_, inst)| {
        inst.op == Op::Jalr && inst.rd == Inst::SINK && inst.rs1 == 1 && inst.imm == 0
    })
}

type Starts = BTreeMap<i64, ()>;
type Insts = BTreeMap<i64, Inst>;

/// Offsets where blocks start, and all instructions, nearest first.
fn reach(source: Source<'_>, executed: &Executed, entry: i64) -> (Starts, Insts) {
    let (mut starts, mut insts) = (Starts::new(), Insts::new());
    let mut work = VecDeque::from([entry]);
    while let Some(start) = work.pop_front() {
        let worthwhile = start == entry || executed.contains(start) || !is_inside(start);
        if starts.contains_key(&start) || insts.len() >= MAX_INSTS || !worthwhile {
            continue;
        }
        starts.insert(start, ());
        let (mut at, mut before) = (start, None);
        while !insts.contains_key(&at) {
            let Some(inst) = source.decode(at).filter(|inst| is_translated(*inst)) else { break };
            insts.insert(at, inst);
            let following = at + inst.len() as i64;
            match inst.op {
                Op::Jal | Op::Jalr => {
                    let Some(target) = target(before, at, inst) else { break };
                    work.push_back(target);
                    if is_call(inst) && is_inside(target) {
                        work.push_back(following);
                    }
                    break;
                }
                op if is_branch(op) => {
                    work.push_back(following);
                    work.push_back(at + i64::from(inst.imm));
                    break;
                }
                op if is_csr(op) => {
                    work.push_back(following);
                    break;
                }
                _ if insts.len() >= MAX_INSTS => break,
                _ => (at, before) = (following, Some((at, inst))),
            }
        }
    }
    (starts, insts)
}

fn is_inside(offset: i64) -> bool {
    (0..PAGE_SIZE as i64).contains(&offset)
}

fn block(source: Source<'_>, start: i64, starts: &Starts, insts: &Insts) -> Block {
    let mut block = Block {
        start,
        insts: Vec::new(),
        end: End::Interpret { at: start },
        dirty: Registers::NONE,
        writes: Registers::NONE,
    };
    let mut at = start;
    loop {
        if at != start && starts.contains_key(&at) {
            block.end = End::Jump { to: at };
            return block;
        }
        let Some(inst) = insts.get(&at) else {
            let left_out = source.is_left_out(at);
            block.end = if left_out { End::Interpret { at } } else { End::Jump { to: at } };
            return block;
        };
        block.insts.push((at, *inst));
        block.writes = block.writes.with(Operands::of(*inst).writes);
        let following = at + inst.len() as i64;
        match inst.op {
            Op::Jal | Op::Jalr => {
                let before = block.insts.len().checked_sub(2).map(|index| block.insts[index]);
                block.end = target(before, at, *inst).map_or(End::Indirect, |to| End::Jump { to });
            }
            op if is_branch(op) => {
                block.end = End::Branch { taken: at + i64::from(inst.imm), following };
            }
            op if is_csr(op) => block.end = End::Jump { to: following },
            _ => {
                at = following;
                continue;
            }
        }
        return block;
    }
}

/// `fflags`, `frm` and `fcsr`.
const FLOAT_CSRS: RangeInclusive<i32> = 1..=3;

/// Whether the instruction is compiled; the interpreter executes the others.
fn is_translated(inst: Inst) -> bool {
    // Flags are read and cleared where all that raises them before is over, and nothing
    // after has begun: compiled operations have no such order.
    if is_csr(inst.op) && FLOAT_CSRS.contains(&(inst.imm & 0xFFF)) {
        return false;
    }
    !matches!(
        inst.op,
        Op::Illegal
            | Op::Ecall
            | Op::Ebreak
            | Op::FenceI
            | Op::Pause
            | Op::Sret
            | Op::Mret
            | Op::Wfi
            | Op::SfenceVma
            | Op::CboInval
            | Op::CboClean
            | Op::CboFlush
            | Op::CboZero
    )
}

pub(crate) fn is_branch(op: Op) -> bool {
    matches!(op, Op::Beq | Op::Bne | Op::Blt | Op::Bge | Op::Bltu | Op::Bgeu)
}

pub(crate) fn is_csr(op: Op) -> bool {
    matches!(op, Op::Csrrw | Op::Csrrs | Op::Csrrc | Op::Csrrwi | Op::Csrrsi | Op::Csrrci)
}

#[cfg(test)]
mod tests;
