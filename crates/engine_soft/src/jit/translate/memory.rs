//! Loads and stores, through the TLB.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstBuilder, Type, Value, types};
use riscv::mmu::PAGE_SIZE;
use riscv::{Inst, Op};
use types::{F32, F64, I8, I16, I32, I64};

use super::super::native;
use super::super::stubs::Helper;
use super::{Unit, memory};
use crate::tlb;

/// Which of the TLB's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Table {
    Read,
    Write,
}

/// What has to hold of an address besides a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    /// All bytes lie in one page.
    Page,
    /// It is a multiple of the size.
    Aligned,
}

impl Unit<'_> {
    /// Starts on the block of `block`, all of whose predecessors are there.
    pub(super) fn begin(&mut self, block: ir::Block) {
        self.builder.seal_block(block);
        self.builder.switch_to_block(block);
    }

    fn address(&mut self, inst: Inst) -> Value {
        let base = self.x(inst.rs1);
        if inst.imm == 0 {
            return base;
        }
        let offset = self.number(i64::from(inst.imm));
        self.builder.ins().iadd(base, offset)
    }

    /// Looks `address` up; goes on in a new block, where the host address is
    /// the result, or in `slow`.
    pub(super) fn look_up(
        &mut self,
        table: Table,
        address: Value,
        size: i64,
        within: Within,
        slow: ir::Block,
    ) -> Value {
        let set = self.from_cpu(
            I64,
            if table == Table::Read { native::READ_SET } else { native::WRITE_SET },
        );
        let (shift, mask) = (self.number(tlb::INDEX_SHIFT), self.number(tlb::INDEX_MASK));
        let index = self.builder.ins().ushr(address, shift);
        let index = self.builder.ins().band(index, mask);
        let entry = self.builder.ins().iadd(set, index);
        let page = !(PAGE_SIZE as i64 - 1);
        let probe = match within {
            // The page of the last byte; the entry is that of the first.
            Within::Page if size > 1 => {
                let last = self.number(size - 1);
                let last = self.builder.ins().iadd(address, last);
                let page = self.number(page);
                self.builder.ins().band(last, page)
            }
            _ => {
                let mask = self.number(page | (size - 1));
                self.builder.ins().band(address, mask)
            }
        };
        let tag = self.builder.ins().load(I64, memory(), entry, tlb::ENTRY_TAG);
        let hit = self.builder.ins().icmp(IntCC::Equal, probe, tag);
        let fast = self.builder.create_block();
        self.builder.ins().brif(hit, fast, &[], slow, &[]);
        self.begin(fast);
        let addend = self.builder.ins().load(I64, memory(), entry, tlb::ENTRY_ADDEND);
        self.builder.ins().iadd(address, addend)
    }

    /// Fills the block `slow`: calls `helper`, leaves if that faults, else
    /// goes on in `on` with what `result` makes of the outcome.
    pub(super) fn call_slowly(
        &mut self,
        slow: ir::Block,
        helper: Helper,
        on: ir::Block,
        arguments: impl FnOnce(&mut Self) -> Vec<Value>,
        result: impl FnOnce(&mut Self) -> Option<Value>,
    ) {
        self.begin(slow);
        let arguments = arguments(self);
        self.call(helper, &arguments);
        let status = self.from_cpu(I64, native::STATUS);
        let value = result(self);
        let exit = self.exit(status);
        let passed: Vec<ir::BlockArg> = value.into_iter().map(Into::into).collect();
        self.builder.ins().brif(status, exit.block, &exit.arguments, on, &passed);
        self.fill_exit(exit);
    }

    /// A load of `size` bytes; `fast` and `slow` give what it is loaded as,
    /// from a host address and from [`native::VALUE`].
    fn loaded(
        &mut self,
        inst: Inst,
        size: i64,
        kind: Type,
        fast: impl FnOnce(&mut Self, Value) -> Value,
        slow: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let address = self.address(inst);
        let (slow_block, on) = (self.cold_block(), self.builder.create_block());
        let value = self.builder.append_block_param(on, kind);
        let host = self.look_up(Table::Read, address, size, Within::Page, slow_block);
        let found = fast(self, host);
        self.builder.ins().jump(on, &[found.into()]);
        self.call_slowly(
            slow_block,
            Helper::Load,
            on,
            |unit| vec![address, unit.number(size)],
            |unit| Some(slow(unit)),
        );
        self.begin(on);
        value
    }

    pub(super) fn load(&mut self, inst: Inst) {
        let size = match inst.op {
            Op::Lb | Op::Lbu => 1,
            Op::Lh | Op::Lhu => 2,
            Op::Lw | Op::Lwu => 4,
            _ => 8,
        };
        let op = inst.op;
        let fast = |unit: &mut Self, host| {
            let ins = unit.builder.ins();
            match op {
                Op::Lb => ins.sload8(I64, memory(), host, 0),
                Op::Lbu => ins.uload8(I64, memory(), host, 0),
                Op::Lh => ins.sload16(I64, memory(), host, 0),
                Op::Lhu => ins.uload16(I64, memory(), host, 0),
                Op::Lw => ins.sload32(memory(), host, 0),
                Op::Lwu => ins.uload32(memory(), host, 0),
                _ => ins.load(I64, memory(), host, 0),
            }
        };
        let slow = |unit: &mut Self| {
            let value = unit.from_cpu(I64, native::VALUE);
            let narrow = match op {
                Op::Lb => I8,
                Op::Lh => I16,
                Op::Lw => I32,
                _ => return value,
            };
            let low = unit.builder.ins().ireduce(narrow, value);
            unit.builder.ins().sextend(I64, low)
        };
        let value = self.loaded(inst, size, I64, fast, slow);
        self.set_x(inst.rd, value);
    }

    pub(super) fn load_double(&mut self, inst: Inst) {
        let value = self.loaded(
            inst,
            8,
            F64,
            |unit, host| unit.builder.ins().load(F64, memory(), host, 0),
            |unit| unit.from_cpu(F64, native::VALUE),
        );
        self.set_f(inst.rd, value);
    }

    pub(super) fn load_single(&mut self, inst: Inst) {
        let value = self.loaded(
            inst,
            4,
            F32,
            |unit, host| unit.builder.ins().load(F32, memory(), host, 0),
            |unit| unit.from_cpu(F32, native::VALUE),
        );
        self.set_single(inst.rd, value);
    }

    pub(super) fn store(&mut self, inst: Inst) {
        let value = self.x(inst.rs2());
        let size = match inst.op {
            Op::Sb => 1,
            Op::Sh => 2,
            Op::Sw => 4,
            _ => 8,
        };
        self.store_bits(inst, size, value);
    }

    /// Stores the low `size` bytes of `value`.
    pub(super) fn store_bits(&mut self, inst: Inst, size: i64, value: Value) {
        self.stored(inst, size, |unit, host| {
            let ins = unit.builder.ins();
            match size {
                1 => ins.istore8(memory(), value, host, 0),
                2 => ins.istore16(memory(), value, host, 0),
                4 => ins.istore32(memory(), value, host, 0),
                _ => ins.store(memory(), value, host, 0),
            };
            value
        });
    }

    pub(super) fn store_double(&mut self, inst: Inst) {
        let value = self.f(inst.rs2());
        self.stored(inst, 8, |unit, host| {
            unit.builder.ins().store(memory(), value, host, 0);
            value
        });
    }

    /// A store of `size` bytes by `fast`, which says what is stored.
    fn stored(
        &mut self,
        inst: Inst,
        size: i64,
        fast: impl FnOnce(&mut Self, Value) -> Value,
    ) {
        let address = self.address(inst);
        let (slow, on) = (self.cold_block(), self.builder.create_block());
        let host = self.look_up(Table::Write, address, size, Within::Page, slow);
        let value = fast(self, host);
        self.builder.ins().jump(on, &[]);
        let arguments = |unit: &mut Self| {
            let is_float = unit.builder.func.dfg.value_type(value) == F64;
            let value = if is_float { unit.bits(value) } else { value };
            vec![address, value, unit.number(size)]
        };
        self.call_slowly(slow, Helper::Store, on, arguments, |_| None);
        self.begin(on);
    }
}
