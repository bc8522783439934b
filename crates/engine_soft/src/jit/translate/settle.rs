//! NaNs of results.
//!
//! Where a double is the result of arithmetic and a NaN, RISC-V knows only one;
//! the host keeps some of an operand's bits. But a NaN computed from a NaN is one,
//! with the same flags, whatever the bits are. So a result is left as it is, its
//! register *unsettled*, until somebody sees the bits: a store, a move, the way home.
//!
//! A block may leave registers unsettled for another only if they are results of
//! arithmetic on all ways there: what was loaded, or is a single, keeps its bits.
//!
//! The host would leave out what nobody reads, and its flags with it, or compute it on
//! a way out only: a result that nothing has read where its block ends, or where it is
//! written over, is settled, which reads it.

use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};
use riscv::{Inst, Op};
use types::{F32, F64};

use super::super::operands::{Operands, Registers};
use super::super::region::{Block, Region};
use super::Unit;

const CANONICAL: u64 = 0x7FF8_0000_0000_0000;

/// Whether it may leave its destination unsettled.
fn is_arithmetic(op: Op) -> bool {
    matches!(op, Op::FaddD | Op::FsubD | Op::FmulD | Op::FdivD | Op::FsqrtD | Op::FcvtDS)
}

/// Whether it only moves a double.
pub(super) fn is_move(inst: Inst) -> bool {
    inst.op == Op::FsgnjD && inst.rs1 == inst.rs2()
}

fn number(register: u8) -> usize {
    32 + usize::from(register & 31)
}

/// The registers that hold results of arithmetic wherever each block of `region`
/// begins.
pub(super) fn results(region: &Region) -> Vec<Registers> {
    let mut before = vec![Registers::FLOATS; region.blocks.len()];
    before[0] = Registers::NONE;
    let mut changed = true;
    while changed {
        changed = false;
        for (index, block) in region.blocks.iter().enumerate() {
            let after = results_after(block, before[index]);
            for next in region.successors(block) {
                let both = before[next].and(after);
                changed |= both != before[next];
                before[next] = both;
            }
        }
    }
    before
}

fn results_after(block: &Block, before: Registers) -> Registers {
    block.insts.iter().fold(before, |results, (_, inst)| {
        let is_result =
            is_arithmetic(inst.op) || is_move(*inst) && results.contains(number(inst.rs1));
        let written = Operands::of(*inst).writes;
        if is_result { results.with(written) } else { results.without(written) }
    })
}

/// The registers that a block reads before it writes them.
fn reads_first(block: &Block) -> Registers {
    let (mut reads, mut written) = (Registers::NONE, Registers::NONE);
    for (_, inst) in &block.insts {
        let Operands { reads: these, writes } = Operands::of(*inst);
        // Where a double is moved to, it may be written over unread.
        if !is_move(*inst) {
            reads = reads.with(these.without(written));
        }
        written = written.with(writes);
    }
    reads
}

impl Unit<'_> {
    /// `register` receives what the host computed.
    pub(super) fn set_result(&mut self, register: u8, kind: Type, value: Value) {
        if kind == F32 {
            self.unless_nan(value);
            return self.set_single(register, value);
        }
        self.set_f(register, value);
        let this = Registers::of(number(register));
        self.unsettled = self.unsettled.with(this);
        self.unread = self.unread.with(this);
    }

    /// A double moved: it stays unsettled.
    pub(super) fn move_double(&mut self, inst: Inst) {
        let from = number(inst.rs1);
        let (unsettled, unread) = (self.unsettled.contains(from), self.unread.contains(from));
        let value = self.f(inst.rs1);
        self.set_f(inst.rd, value);
        let this = Registers::of(number(inst.rd));
        if unsettled {
            self.unsettled = self.unsettled.with(this);
        }
        if unread {
            self.unread = self.unread.with(this);
        }
    }

    /// `value`, or the NaN of RISC-V if it is one.
    pub(super) fn without_payload(&mut self, value: Value) -> Value {
        let nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
        let canonical = self.builder.ins().f64const(f64::from_bits(CANONICAL));
        self.builder.ins().select(nan, canonical, value)
    }

    /// A register's value with the bits it is to have; on other ways than the
    /// present one it may not be settled.
    pub(super) fn settled_here(&mut self, register: u8) -> Value {
        let value = self.f(register);
        let unsettled = self.unsettled.contains(number(register));
        if unsettled { self.without_payload(value) } else { value }
    }

    /// Settles a register.
    pub(super) fn settled(&mut self, register: u8) -> Value {
        let value = self.f(register);
        if !self.unsettled.contains(number(register)) {
            return value;
        }
        let (odd, on) = (self.cold_block(), self.builder.create_block());
        let settled = self.builder.append_block_param(on, F64);
        let nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
        self.builder.ins().brif(nan, odd, &[], on, &[value.into()]);
        self.begin(odd);
        let canonical = self.builder.ins().f64const(f64::from_bits(CANONICAL));
        self.builder.ins().jump(on, &[canonical.into()]);
        self.begin(on);
        self.builder.def_var(self.registers[number(register)], settled);
        self.unsettled = self.unsettled.without(Registers::of(number(register)));
        settled
    }

    /// A register that nobody read is about to be written.
    pub(super) fn settle_unread(&mut self, register: u8) {
        if self.unread.contains(number(register)) {
            self.settled(register);
        }
    }

    /// To be called before the present block ends: settles what its successors
    /// take for settled.
    pub(super) fn settle_for_successors(&mut self) {
        let region = self.region;
        let block = &region.blocks[self.index];
        let next = region.successors(block);
        let kept = next.iter().fold(self.unsettled, |kept, next| kept.and(self.results[*next]));
        // What is read on one way only may be computed there only. (Any way out of the
        // unit writes all registers home.)
        let read = |all: Registers, next: &usize| all.and(reads_first(&region.blocks[*next]));
        let read = next.iter().fold(self.unread, read);
        let unread = self.unread.without(read);
        for number in self.unsettled.without(kept).with(unread).iter() {
            self.settled(number as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::region::{Executed, PageBytes, Source};
    use super::*;

    /// `fadd.d f1, f2, f3`, `fld f1, 0(a0)`, `fmv.d f4, f1`, `bne a0, a1, +8`, `ecall`
    const ADD: u32 = 0x0231_00D3;
    const LOAD: u32 = 0x0005_3087;
    const MOVE: u32 = 0x2210_8253;
    const OVER: u32 = 0x00B5_1463;

    /// What is known where the block begins that `bne` jumps to.
    fn known(words: &[u32]) -> Registers {
        let mut page: Box<PageBytes> = Box::new([0; 4096]);
        for (index, word) in words.iter().chain(&[OVER, LOAD, MOVE]).enumerate() {
            page[index * 4..index * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        let region = Region::new(Source { page: &page, tail: None }, &Executed::all(), 0).unwrap();
        let target = region.block_at(words.len() as i64 * 4 + 8).unwrap();
        results(&region)[target]
    }

    #[test]
    fn a_result_is_one_only_if_it_is_on_every_way() {
        let [f1, f4] = [33, 36].map(Registers::of);
        // One of the two ways loads it.
        assert_eq!(known(&[ADD]), Registers::NONE);
        assert_eq!(known(&[ADD, MOVE]), f4, "moved to where nobody loads");
        assert_eq!(known(&[LOAD, MOVE]), Registers::NONE);
        assert!(!known(&[ADD, MOVE]).contains(f1.iter().next().unwrap()));
    }
}
