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

/// Where an access finds its bytes.
struct Reached {
    host: Value,
    offset: i32,
    /// The group that the access leads.
    leads: Option<usize>,
}

impl Unit<'_> {
    /// Starts on the block of `block`, all of whose predecessors are there.
    pub(super) fn begin(&mut self, block: ir::Block) {
        self.builder.seal_block(block);
        self.builder.switch_to_block(block);
    }

    /// What the address of `inst` is, `extra` added.
    fn address(&mut self, inst: Inst, extra: i64) -> Value {
        let (base, offset) = self.x_sum(inst.rs1);
        self.sum(base, offset + i64::from(inst.imm) + extra)
    }

    pub(super) fn sum(&mut self, base: Value, offset: i64) -> Value {
        if offset == 0 {
            return base;
        }
        let offset = self.number(offset);
        self.builder.ins().iadd(base, offset)
    }

    /// Finds where `inst` accesses `size` bytes, in a new block; or goes on in
    /// `slow`.
    fn reach(&mut self, inst: Inst, size: i64, table: Table, slow: ir::Block) -> Reached {
        let Some((group, at, member)) = self.groups.of(self.at) else {
            let (base, offset) = self.x_sum(inst.rs1);
            let place = (base, offset + i64::from(inst.imm));
            let host = self.look_up(table, place, size, Within::Page, slow);
            return Reached { host, offset: 0, leads: None };
        };
        let offset = (at - member.least) as i32;
        let Some(host) = member.host else {
            let (base, distance) = self.x_sum(inst.rs1);
            let place = (base, distance + i64::from(inst.imm) - i64::from(offset));
            let table = if member.stores { Table::Write } else { Table::Read };
            let host = self.look_up(table, place, member.span(), Within::Page, slow);
            return Reached { host, offset, leads: Some(group) };
        };
        let fast = self.builder.create_block();
        self.builder.ins().brif(host, fast, &[], slow, &[]);
        self.begin(fast);
        Reached { host, offset, leads: None }
    }

    /// Looks `address` up; goes on in a new block, where the host address is
    /// the result, or in `slow`.
    pub(super) fn look_up(
        &mut self,
        table: Table,
        (base, offset): (Value, i64),
        size: i64,
        within: Within,
        slow: ir::Block,
    ) -> Value {
        let address = self.sum(base, offset);
        let set = self
            .fetch(I64, if table == Table::Read { native::READ_SET } else { native::WRITE_SET });
        let (shift, mask) = (self.number(tlb::INDEX_SHIFT), self.number(tlb::INDEX_MASK));
        let index = self.builder.ins().ushr(address, shift);
        let index = self.builder.ins().band(index, mask);
        let entry = self.builder.ins().iadd(set, index);
        let page = !(PAGE_SIZE as i64 - 1);
        let probe = match within {
            // The page of the last byte; the entry is that of the first.
            Within::Page if size > 1 => {
                let last = self.sum(base, offset + size - 1);
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
    /// goes on in `on` with what `results` makes of the outcome.
    pub(super) fn call_slowly(
        &mut self,
        slow: ir::Block,
        helper: Helper,
        on: ir::Block,
        arguments: impl FnOnce(&mut Self) -> Vec<Value>,
        results: impl FnOnce(&mut Self) -> Vec<Value>,
    ) {
        self.begin(slow);
        let arguments = arguments(self);
        self.call(helper, &arguments);
        let status = self.fetch(I64, native::STATUS);
        let exit = self.exit(status);
        // A block of its own keeps what `on` wants in registers prepared here
        // and not on the way that is taken mostly.
        let back = self.cold_block();
        self.builder.ins().brif(status, exit.block, &exit.arguments, back, &[]);
        self.fill_exit(exit);
        self.begin(back);
        let values = results(self);
        let passed: Vec<ir::BlockArg> = values.into_iter().map(Into::into).collect();
        self.builder.ins().jump(on, &passed);
    }

    /// Lets `on` tell the others of `group` what its leader found: nothing if
    /// it went the slow way.
    fn lead(&mut self, on: ir::Block, group: Option<usize>) {
        if let Some(group) = group {
            let host = self.builder.append_block_param(on, I64);
            self.groups.found(group, host);
        }
    }

    /// A load of `size` bytes; `fast` and `slow` give what it is loaded as,
    /// from a host address and from [`native::VALUE`].
    fn loaded(
        &mut self,
        inst: Inst,
        size: i64,
        kind: Type,
        fast: impl FnOnce(&mut Self, Value, i32) -> Value,
        slow: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let (slow_block, on) = (self.cold_block(), self.builder.create_block());
        let value = self.builder.append_block_param(on, kind);
        let reached = self.reach(inst, size, Table::Read, slow_block);
        let found = fast(self, reached.host, reached.offset);
        let mut results = vec![found.into()];
        results.extend(reached.leads.map(|_| ir::BlockArg::from(reached.host)));
        self.builder.ins().jump(on, &results);
        self.call_slowly(
            slow_block,
            Helper::Load,
            on,
            |unit| vec![unit.address(inst, 0), unit.number(size)],
            |unit| {
                let value = slow(unit);
                [Some(value), reached.leads.map(|_| unit.number(0))].into_iter().flatten().collect()
            },
        );
        self.lead(on, reached.leads);
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
        let fast = |unit: &mut Self, host, offset| {
            let ins = unit.builder.ins();
            match op {
                Op::Lb => ins.sload8(I64, memory(), host, offset),
                Op::Lbu => ins.uload8(I64, memory(), host, offset),
                Op::Lh => ins.sload16(I64, memory(), host, offset),
                Op::Lhu => ins.uload16(I64, memory(), host, offset),
                Op::Lw => ins.sload32(memory(), host, offset),
                Op::Lwu => ins.uload32(memory(), host, offset),
                _ => ins.load(I64, memory(), host, offset),
            }
        };
        let slow = |unit: &mut Self| {
            let value = unit.fetch(I64, native::VALUE);
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
            |unit, host, offset| unit.builder.ins().load(F64, memory(), host, offset),
            |unit| unit.fetch(F64, native::VALUE),
        );
        self.set_f(inst.rd, value);
    }

    pub(super) fn load_single(&mut self, inst: Inst) {
        let value = self.loaded(
            inst,
            4,
            F32,
            |unit, host, offset| unit.builder.ins().load(F32, memory(), host, offset),
            |unit| unit.fetch(F32, native::VALUE),
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
        self.stored(inst, size, |unit, host, offset| {
            let ins = unit.builder.ins();
            match size {
                1 => ins.istore8(memory(), value, host, offset),
                2 => ins.istore16(memory(), value, host, offset),
                4 => ins.istore32(memory(), value, host, offset),
                _ => ins.store(memory(), value, host, offset),
            };
            value
        });
    }

    pub(super) fn store_double(&mut self, inst: Inst) {
        let value = self.f(inst.rs2());
        self.stored(inst, 8, |unit, host, offset| {
            unit.builder.ins().store(memory(), value, host, offset);
            value
        });
    }

    /// A store of `size` bytes by `fast`, which says what is stored.
    fn stored(&mut self, inst: Inst, size: i64, fast: impl FnOnce(&mut Self, Value, i32) -> Value) {
        let (slow, on) = (self.cold_block(), self.builder.create_block());
        let reached = self.reach(inst, size, Table::Write, slow);
        let value = fast(self, reached.host, reached.offset);
        let results: Vec<ir::BlockArg> =
            reached.leads.map(|_| reached.host.into()).into_iter().collect();
        self.builder.ins().jump(on, &results);
        let arguments = |unit: &mut Self| {
            let is_float = unit.builder.func.dfg.value_type(value) == F64;
            let value = if is_float { unit.bits(value) } else { value };
            vec![unit.address(inst, 0), value, unit.number(size)]
        };
        self.call_slowly(slow, Helper::Store, on, arguments, |unit| {
            reached.leads.map(|_| unit.number(0)).into_iter().collect()
        });
        self.lead(on, reached.leads);
        self.begin(on);
    }
}
