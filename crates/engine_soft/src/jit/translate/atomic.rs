//! `lr`, `sc` and AMOs, with the host's atomic instructions.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, Value, types};
use riscv::{Inst, Op};
use types::{I32, I64};

use super::super::native;
use super::memory::{Stretch, Table, Within};
use super::{Unit, memory};

pub(super) fn is_atomic(op: Op) -> bool {
    matches!(op, Op::LrW | Op::LrD | Op::ScW | Op::ScD) || modification(op).is_some()
}

/// What an AMO does to storage.
fn modification(op: Op) -> Option<AtomicRmwOp> {
    Some(match op {
        Op::AmoswapW | Op::AmoswapD => AtomicRmwOp::Xchg,
        Op::AmoaddW | Op::AmoaddD => AtomicRmwOp::Add,
        Op::AmoxorW | Op::AmoxorD => AtomicRmwOp::Xor,
        Op::AmoandW | Op::AmoandD => AtomicRmwOp::And,
        Op::AmoorW | Op::AmoorD => AtomicRmwOp::Or,
        Op::AmominW | Op::AmominD => AtomicRmwOp::Smin,
        Op::AmomaxW | Op::AmomaxD => AtomicRmwOp::Smax,
        Op::AmominuW | Op::AmominuD => AtomicRmwOp::Umin,
        Op::AmomaxuW | Op::AmomaxuD => AtomicRmwOp::Umax,
        _ => return None,
    })
}

fn is_word(op: Op) -> bool {
    matches!(
        op,
        Op::LrW
            | Op::ScW
            | Op::AmoswapW
            | Op::AmoaddW
            | Op::AmoxorW
            | Op::AmoandW
            | Op::AmoorW
            | Op::AmominW
            | Op::AmomaxW
            | Op::AmominuW
            | Op::AmomaxuW
    )
}

impl Unit<'_> {
    pub(super) fn atomic(&mut self, inst: Inst) {
        match (inst.op, modification(inst.op)) {
            (Op::LrW | Op::LrD, _) => self.load_reserved(inst),
            (_, Some(modification)) => self.modify(inst, modification),
            _ => self.store_conditional(inst),
        }
    }

    /// The host address of the aligned operand.
    fn located(&mut self, inst: Inst, table: Table) -> Value {
        let size = if is_word(inst.op) { 4 } else { 8 };
        let address = self.x(inst.rs1);
        let stretch = Stretch { table, base: address, offset: 0, size };
        let addend = self.look_up(stretch, Within::Aligned);
        self.builder.ins().iadd(address, addend)
    }

    /// `value` as wide as the operand.
    fn operand(&mut self, inst: Inst, value: Value) -> Value {
        if is_word(inst.op) { self.builder.ins().ireduce(I32, value) } else { value }
    }

    fn modify(&mut self, inst: Inst, modification: AtomicRmwOp) {
        let host = self.located(inst, Table::Write);
        let value = self.x(inst.rs2());
        let value = self.operand(inst, value);
        let kind = self.builder.func.dfg.value_type(value);
        let flags = memory().with_aligned();
        let old = self.builder.ins().atomic_rmw(kind, flags, modification, host, value);
        let old = if kind == I32 { self.builder.ins().sextend(I64, old) } else { old };
        self.set_x(inst.rd, old);
    }

    fn load_reserved(&mut self, inst: Inst) {
        let host = self.located(inst, Table::Read);
        let flags = memory().with_aligned();
        let kind = if is_word(inst.op) { I32 } else { I64 };
        let value = self.builder.ins().atomic_load(kind, flags, host);
        let (unsigned, signed) = if kind == I32 {
            (self.builder.ins().uextend(I64, value), self.builder.ins().sextend(I64, value))
        } else {
            (value, value)
        };
        let size = self.number(kind.bytes().into());
        self.put(host, native::RESERVED_HOST);
        self.put(size, native::RESERVED_SIZE);
        self.put(unsigned, native::RESERVED_VALUE);
        self.set_x(inst.rd, signed);
    }

    fn store_conditional(&mut self, inst: Inst) {
        let host = self.located(inst, Table::Write);
        let kind = if is_word(inst.op) { I32 } else { I64 };
        let held = self.fetch(I64, native::RESERVED_HOST);
        let held_size = self.fetch(I64, native::RESERVED_SIZE);
        let none = self.number(0);
        self.put(none, native::RESERVED_HOST);
        let size = self.number(kind.bytes().into());
        let same = self.builder.ins().icmp(IntCC::Equal, held, host);
        let as_wide = self.builder.ins().icmp(IntCC::Equal, held_size, size);
        let valid = self.builder.ins().band(same, as_wide);
        let (attempt, on) = (self.builder.create_block(), self.builder.create_block());
        let result = self.builder.append_block_param(on, I64);
        let failed = self.number(1);
        self.builder.ins().brif(valid, attempt, &[], on, &[failed.into()]);
        self.begin(attempt);
        let expected = self.fetch(kind, native::RESERVED_VALUE);
        let value = self.x(inst.rs2());
        let value = self.operand(inst, value);
        let flags = memory().with_aligned();
        let found = self.builder.ins().atomic_cas(flags, host, expected, value);
        let different = self.builder.ins().icmp(IntCC::NotEqual, found, expected);
        let different = self.builder.ins().uextend(I64, different);
        self.builder.ins().jump(on, &[different.into()]);
        self.begin(on);
        self.set_x(inst.rd, result);
    }
}
