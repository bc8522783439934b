//! Branches, jumps, CSR instructions, and the ways out of a unit.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, BlockArg, InstBuilder, Value, types::I64};
use riscv::{Inst, Op};

use super::super::jumps;
use super::super::native::{self, status};
use super::super::operands::{Operands, Registers};
use super::super::region::ends_in_return;
use super::super::runtime::pack;
use super::super::stubs::Helper;
use super::{Unit, memory};

/// Places a return within the unit is compared with, at most.
const MAX_RETURNS: usize = 4;

impl Unit<'_> {
    /// Registers that differ from their homes, with their values.
    fn changed(&mut self) -> Changed {
        let (dirty, unsettled) = (self.dirty, self.unsettled);
        let value = |number| Change {
            number,
            value: self.builder.use_var(self.registers[number]),
            unsettled: unsettled.contains(number),
        };
        dirty.iter().map(value).collect()
    }

    fn write_home(&mut self, changed: &[Change]) {
        for Change { number, value, unsettled } in changed {
            let value = if *unsettled { self.without_payload(*value) } else { *value };
            self.put(value, native::register(*number));
        }
    }

    /// Ends the present host block: out of the unit at the present
    /// instruction, which is not executed.
    pub(super) fn leave(&mut self, status: u64) {
        let changed = self.changed();
        self.write_home(&changed);
        let arguments =
            [self.pc_of(self.at), self.left_here(), self.number(status as i64)].map(BlockArg::from);
        self.builder.ins().jump(self.out, &arguments);
    }

    /// Where to go if the present instruction cannot be executed, with the
    /// arguments: the same block for all instructions that find the same
    /// values in the registers. To be asked for before the host block ends
    /// that needs it, and filled (see [`Unit::fill_exit`]) after.
    pub(super) fn exit(&mut self, status: Value) -> Exit {
        let at = self.number(self.at);
        let left = self.left_here();
        let arguments = [at, left, status].map(BlockArg::from);
        if let Some(block) = self.exit {
            return Exit { block, arguments, changed: None, tail: None };
        }
        let block = self.exit_block();
        self.exit = Some(block);
        let kept = self.kept();
        let mut changed = self.changed();
        let tail = match self.exit_tail {
            Some(tail) => (tail, None),
            None => {
                let tail = self.exit_block();
                self.exit_tail = Some(tail);
                let old = changed.iter().filter(|change| kept.contains(change.number));
                (tail, Some(old.copied().collect()))
            }
        };
        changed.retain(|change| !kept.contains(change.number));
        Exit { block, arguments, changed: Some(changed), tail: Some(tail) }
    }

    /// Ends the present host block: the interpreter is to execute the present
    /// instruction.
    pub(super) fn interpret(&mut self) {
        let status = self.number(status::INTERPRET as i64);
        let exit = self.exit(status);
        self.builder.ins().jump(exit.block, &exit.arguments);
        self.fill_exit(exit);
    }

    /// Registers that were dirty when the block began and that it does not
    /// write: all its exits write home the same of them.
    fn kept(&self) -> Registers {
        let block = &self.region.blocks[self.index];
        block.dirty.without(block.writes)
    }

    fn exit_block(&mut self) -> ir::Block {
        let block = self.cold_block();
        for _ in 0..3 {
            self.builder.append_block_param(block, I64);
        }
        block
    }

    /// Fills the block of `exit` if it is new; there is no present block then.
    pub(super) fn fill_exit(&mut self, exit: Exit) {
        let (Some(changed), Some((tail, kept))) = (exit.changed, exit.tail) else { return };
        self.builder.switch_to_block(exit.block);
        let arguments =
            [0, 1, 2].map(|index| BlockArg::from(self.builder.block_params(exit.block)[index]));
        self.write_home(&changed);
        self.builder.ins().jump(tail, &arguments);
        let Some(kept) = kept else { return };
        self.builder.switch_to_block(tail);
        let [at, left, status] = [0, 1, 2].map(|index| self.builder.block_params(tail)[index]);
        self.write_home(&kept);
        let pc = self.builder.ins().iadd(self.page, at);
        self.builder.ins().jump(self.out, &[pc.into(), left.into(), status.into()]);
    }

    /// Ends the present host block, and with it the region's: on at `offset`.
    pub(super) fn go_to(&mut self, offset: i64) {
        match self.region.block_at(offset) {
            Some(index) if offset > self.at => self.jump_to(index),
            Some(index) => {
                let (over, again) = (self.cold_block(), self.builder.create_block());
                let spent = self.is_spent();
                self.builder.ins().brif(spent, over, &[], again, &[]);
                self.begin(over);
                let at = std::mem::replace(&mut self.at, offset);
                self.leave(status::GO_ON);
                self.at = at;
                self.begin(again);
                self.jump_to(index);
            }
            None => {
                let pc = self.pc_of(offset);
                self.go_on_at(pc);
            }
        }
    }

    /// Ends the region's block: on in the unit for `pc`.
    fn go_on_at(&mut self, pc: Value) {
        let changed = self.changed();
        self.write_home(&changed);
        let left = self.left_here();
        self.builder.ins().jump(self.onward, &[pc.into(), left.into()]);
    }

    pub(super) fn branch(&mut self, inst: Inst) {
        self.settle_for_successors();
        let (a, b) = (self.x(inst.rs1), self.x(inst.rs2()));
        let condition = match inst.op {
            Op::Beq => IntCC::Equal,
            Op::Bne => IntCC::NotEqual,
            Op::Blt => IntCC::SignedLessThan,
            Op::Bge => IntCC::SignedGreaterThanOrEqual,
            Op::Bltu => IntCC::UnsignedLessThan,
            _ => IntCC::UnsignedGreaterThanOrEqual,
        };
        let taken = self.builder.ins().icmp(condition, a, b);
        let target = self.at + i64::from(inst.imm);
        let following = self.at + inst.len() as i64;
        self.ahead = 0;
        let there = self.branch_target(target);
        let here = self.branch_target(following);
        self.builder.ins().brif(taken, there.0, &[], here.0, &[]);
        for ((block, direct), offset) in [(there, target), (here, following)] {
            if !direct {
                self.builder.switch_to_block(block);
                let at = self.at;
                self.go_to(offset);
                self.at = at;
            }
        }
        self.ahead = 1;
    }

    /// The host block to branch to for `offset`, and whether that is all.
    fn branch_target(&mut self, offset: i64) -> (ir::Block, bool) {
        match self.region.block_at(offset) {
            Some(index) if offset > self.at && self.change_to(index) == 0 => {
                (self.blocks[index], true)
            }
            _ => (self.builder.create_block(), false),
        }
    }

    /// `jal`: only the return address; the block's end jumps.
    pub(super) fn link(&mut self, inst: Inst) {
        let following = self.pc_of(self.at + inst.len() as i64);
        self.set_x(inst.rd, following);
    }

    pub(super) fn jump_indirect(&mut self, inst: Inst) {
        self.settle_for_successors();
        let (base, offset) = (self.x(inst.rs1), self.number(i64::from(inst.imm)));
        let sum = self.builder.ins().iadd(base, offset);
        let even = self.number(!1);
        let target = self.builder.ins().band(sum, even);
        self.link(inst);
        self.ahead = 0;
        let returns = ends_in_return(&self.region.blocks[self.index]);
        if returns && !self.region.returns.is_empty() {
            self.return_within(target);
        }
        self.go_on_at(target);
        self.ahead = 1;
    }

    /// Compares `target` with the places that calls in the unit return to.
    fn return_within(&mut self, target: Value) {
        let spent = self.is_spent();
        let (over, compare) = (self.cold_block(), self.builder.create_block());
        self.builder.ins().brif(spent, over, &[], compare, &[]);
        self.builder.switch_to_block(over);
        self.go_on_at(target);
        self.builder.switch_to_block(compare);
        let region = self.region;
        for offset in region.returns.iter().take(MAX_RETURNS) {
            let Some(index) = region.block_at(*offset) else { continue };
            let pc = self.pc_of(*offset);
            let equal = self.builder.ins().icmp(IntCC::Equal, target, pc);
            let (there, next) = (self.builder.create_block(), self.builder.create_block());
            self.builder.ins().brif(equal, there, &[], next, &[]);
            self.begin(there);
            self.jump_to(index);
            self.begin(next);
        }
    }

    /// Leaves the present instruction, which crosses the page's end, to the
    /// interpreter unless it is known to end as it did when it was compiled.
    pub(super) fn compare_tail(&mut self) {
        let pc = self.pc_of(self.at);
        let entry = self.jump_entry(pc);
        let found = self.builder.ins().load(I64, memory(), entry, jumps::ENTRY_PC);
        let tag = self.pc_of(self.at | 1);
        let elsewhere = self.builder.ins().bxor(found, tag);
        let parcel = self.builder.ins().load(I64, memory(), entry, jumps::ENTRY_CODE);
        let expected = self.number(self.region.tail.into());
        let another = self.builder.ins().bxor(parcel, expected);
        let odd = self.builder.ins().bor(elsewhere, another);
        self.unless(odd);
    }

    /// Where the jump cache has what it knows of `pc`.
    fn jump_entry(&mut self, pc: Value) -> Value {
        let table = self.fetch(I64, native::TABLE);
        let (three, mask) = (self.number(3), self.number(jumps::INDEX_MASK as i64));
        let index = self.builder.ins().ishl(pc, three);
        let index = self.builder.ins().band(index, mask);
        self.builder.ins().iadd(table, index)
    }

    /// The runtime does it; then on, if nothing has changed that a unit
    /// relies on.
    pub(super) fn csr(&mut self, inst: Inst) {
        let operand = match inst.op {
            Op::Csrrw | Op::Csrrs | Op::Csrrc => self.x(inst.rs1),
            _ => self.number(0),
        };
        let (packed, pc) = (self.number(pack(inst) as i64), self.pc_of(self.at));
        let left = self.left_here();
        self.call(Helper::Csr, &[packed, operand, pc, left]);
        let status = self.fetch(I64, native::STATUS);
        let (trouble, on) = (self.cold_block(), self.builder.create_block());
        self.builder.ins().brif(status, trouble, &[], on, &[]);

        self.builder.switch_to_block(trouble);
        let trap = self.number(status::TRAP as i64);
        let traps = self.builder.ins().icmp(IntCC::Equal, status, trap);
        let exit = self.exit(status);
        let after = self.cold_block();
        self.builder.ins().brif(traps, exit.block, &exit.arguments, after, &[]);
        self.fill_exit(exit);

        // Executed, but the unit is to be left.
        self.builder.switch_to_block(after);
        let dirty = self.dirty;
        let mut changed = self.changed();
        if let Some(rd) = Operands::of(inst).writes.iter().next() {
            let value = self.fetch(I64, native::VALUE);
            changed.retain(|change| change.number != rd);
            changed.push(Change { number: rd, value, unsettled: false });
        }
        self.write_home(&changed);
        let following = self.pc_of(self.at + inst.len() as i64);
        let ahead = std::mem::take(&mut self.ahead);
        let left = self.left_here();
        self.ahead = ahead;
        self.builder.ins().jump(self.out, &[following.into(), left.into(), status.into()]);

        self.builder.switch_to_block(on);
        self.dirty = dirty;
        self.forget_pages();
        let value = self.fetch(I64, native::VALUE);
        self.set_x(inst.rd, value);
    }

    /// Fills the blocks that all of the unit's exits end in.
    pub(super) fn finish_ways_out(&mut self) {
        self.builder.switch_to_block(self.onward);
        let [pc, left] = [0, 1].map(|index| self.builder.block_params(self.onward)[index]);
        let entry = self.jump_entry(pc);
        let found = self.builder.ins().load(I64, memory(), entry, jumps::ENTRY_PC);
        let hit = self.builder.ins().icmp(IntCC::Equal, found, pc);
        let there = self.builder.create_block();
        let go_on = self.number(status::GO_ON as i64);
        self.builder.ins().brif(hit, there, &[], self.out, &[pc.into(), left.into(), go_on.into()]);
        self.builder.switch_to_block(there);
        let code = self.builder.ins().load(I64, memory(), entry, jumps::ENTRY_CODE);
        let signature = self.builder.import_signature(super::unit_signature());
        self.builder.ins().return_call_indirect(signature, code, &[self.cpu, left, pc]);

        self.builder.switch_to_block(self.out);
        let [pc, left, status] = [0, 1, 2].map(|index| self.builder.block_params(self.out)[index]);
        self.put(pc, native::PC);
        self.put(left, native::LEFT);
        self.builder.ins().return_(&[status]);
    }
}

/// A register that differs from its home.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    number: usize,
    value: Value,
    /// See `float`.
    unsettled: bool,
}

type Changed = Vec<Change>;

/// See [`Unit::exit`].
pub(super) struct Exit {
    pub(super) block: ir::Block,
    pub(super) arguments: [BlockArg; 3],
    /// Registers to write home, if the block is still to be filled.
    changed: Option<Changed>,
    /// Where that block goes on, and what that writes home if it too is new.
    tail: Option<(ir::Block, Option<Changed>)>,
}
