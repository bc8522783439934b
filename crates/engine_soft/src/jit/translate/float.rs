//! F and D with the host's floating point.
//!
//! The host's flags accrue exactly as the guest's (see [`flags`]), once they
//! are armed and while rounding is to nearest even, which arming checks. What
//! differs is the NaN. That of doubles is made RISC-V's where it is seen (see
//! `settle`). Where a single is one, or one decides about flags, the interpreter
//! executes the instruction again, in software, which also raises what that
//! raises. What the host has no like of is done in software too.
//!
//! [`flags`]: super::super::flags

use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use riscv::fp::Rounding;
use riscv::{Inst, Op};
use types::{F32, F64, I32, I64};

use super::super::native;
use super::super::operands::{has_second, is_fused, reads_integer, writes_integer};
use super::super::runtime::pack;
use super::super::stubs::Helper;
use super::Unit;
use super::settle::is_move;

/// The upper half of a register that holds a single.
const BOX: i64 = 0xFFFF_FFFF_0000_0000_u64 as i64;
const CANONICAL_NAN: i64 = 0x7FC0_0000;

impl Unit<'_> {
    pub(super) fn float(&mut self, inst: Inst) {
        self.arm();
        match inst.op {
            Op::Fld => self.load_double(inst),
            Op::Flw => self.load_single(inst),
            Op::Fsd => self.store_double(inst),
            Op::Fsw => {
                let value = self.settled(inst.rs2());
                let value = self.bits(value);
                self.store_bits(inst, 4, value);
            }
            _ if !self.rounds_as_host(inst) => self.in_software(inst),
            _ => self.on_host(inst),
        }
    }

    /// Makes sure that the host's flags are the guest's, or leaves.
    fn arm(&mut self) {
        if std::mem::replace(&mut self.armed, true) {
            return;
        }
        let armed = self.fetch(I64, native::FLOAT_ARMED);
        let (slow, on) = (self.cold_block(), self.builder.create_block());
        self.builder.ins().brif(armed, on, &[], slow, &[]);
        self.begin(slow);
        self.call(Helper::Arm, &[]);
        let status = self.fetch(I64, native::STATUS);
        self.unless(status);
        self.builder.ins().jump(on, &[]);
        self.begin(on);
    }

    /// Whether the host's way of rounding is the instruction's.
    fn rounds_as_host(&self, inst: Inst) -> bool {
        let nearest = inst.rm() == Rounding::NearestEven as u8 || inst.rm() == Rounding::DYNAMIC;
        match inst.op {
            Op::FcvtWS | Op::FcvtLS | Op::FcvtWD | Op::FcvtLD => {
                inst.rm() == Rounding::TowardZero as u8
            }
            op if is_fused(op) => nearest && self.features.fma,
            _ => nearest,
        }
    }

    pub(super) fn bits(&mut self, value: Value) -> Value {
        self.builder.ins().bitcast(I64, MemFlagsData::new(), value)
    }

    fn float_of(&mut self, bits: Value) -> Value {
        self.builder.ins().bitcast(F64, MemFlagsData::new(), bits)
    }

    /// The single in a register; the canonical NaN if it is not NaN-boxed.
    fn single(&mut self, register: u8) -> Value {
        if let Some(value) = self.singles[usize::from(register & 31)] {
            return value;
        }
        let value = self.settled(register);
        let bits = self.bits(value);
        let least = self.number(BOX);
        let boxed = self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, bits, least);
        let low = self.builder.ins().ireduce(I32, bits);
        let nan = self.builder.ins().iconst(I32, CANONICAL_NAN);
        let bits = self.builder.ins().select(boxed, low, nan);
        let single = self.builder.ins().bitcast(F32, MemFlagsData::new(), bits);
        self.singles[usize::from(register & 31)] = Some(single);
        single
    }

    pub(super) fn set_single(&mut self, register: u8, value: Value) {
        let bits = self.builder.ins().bitcast(I32, MemFlagsData::new(), value);
        let bits = self.builder.ins().uextend(I64, bits);
        let upper = self.number(BOX);
        let boxed = self.builder.ins().bor(bits, upper);
        let boxed = self.float_of(boxed);
        self.set_f(register, boxed);
        self.singles[usize::from(register & 31)] = Some(value);
    }

    /// Values of the source registers, as the runtime wants them.
    fn raw_sources(&mut self, inst: Inst) -> [Value; 3] {
        let a = if reads_integer(inst.op) {
            self.x(inst.rs1)
        } else {
            let a = self.settled_here(inst.rs1);
            self.bits(a)
        };
        let b = if has_second(inst) {
            let b = self.settled_here(inst.rs2());
            self.bits(b)
        } else {
            self.number(0)
        };
        let c = if is_fused(inst.op) {
            let c = self.settled_here(inst.rs3());
            self.bits(c)
        } else {
            self.number(0)
        };
        [a, b, c]
    }

    fn call_software(&mut self, inst: Inst) {
        let [a, b, c] = self.raw_sources(inst);
        let packed = self.number(pack(inst) as i64);
        self.call(Helper::Float, &[packed, a, b, c]);
    }

    fn in_software(&mut self, inst: Inst) {
        self.call_software(inst);
        if writes_integer(inst.op) {
            let value = self.fetch(I64, native::VALUE);
            self.set_x(inst.rd, value);
        } else {
            let value = self.fetch(F64, native::VALUE);
            self.set_f(inst.rd, value);
        }
    }

    /// Leaves the instruction to the interpreter where `odd`.
    pub(super) fn unless(&mut self, odd: Value) {
        let (cold, on) = (self.cold_block(), self.builder.create_block());
        self.builder.ins().brif(odd, cold, &[], on, &[]);
        self.begin(cold);
        self.interpret();
        self.begin(on);
    }

    /// Has `value` computed here, for the flags that this raises: the host would leave
    /// out what nobody reads, or compute it where somebody does.
    fn carry_out(&mut self, value: Value) {
        self.put(value, native::VALUE);
    }

    /// Goes on if `value`, which the host computed, is a number.
    pub(super) fn unless_nan(&mut self, value: Value) {
        let nan = self.builder.ins().fcmp(FloatCC::Unordered, value, value);
        self.unless(nan);
    }

    fn set_float(&mut self, register: u8, kind: Type, value: Value) {
        if kind == F32 { self.set_single(register, value) } else { self.set_f(register, value) }
    }

    /// A source register as a number of `kind`.
    fn source(&mut self, register: u8, kind: Type) -> Value {
        if kind == F32 { self.single(register) } else { self.f(register) }
    }

    fn on_host(&mut self, inst: Inst) {
        macro_rules! ins {
            () => {
                self.builder.ins()
            };
        }
        let kind = format(inst.op);
        match inst.op {
            Op::FaddS | Op::FaddD => {
                self.binary(inst, kind, |unit, a, b| unit.builder.ins().fadd(a, b));
            }
            Op::FsubS | Op::FsubD => {
                self.binary(inst, kind, |unit, a, b| unit.builder.ins().fsub(a, b));
            }
            Op::FmulS | Op::FmulD => {
                self.binary(inst, kind, |unit, a, b| unit.builder.ins().fmul(a, b));
            }
            Op::FdivS | Op::FdivD => {
                self.binary(inst, kind, |unit, a, b| unit.builder.ins().fdiv(a, b));
            }
            Op::FsqrtS | Op::FsqrtD => {
                let a = self.source(inst.rs1, kind);
                let root = ins!().sqrt(a);
                self.set_result(inst.rd, kind, root);
            }
            op if is_fused(op) => self.fused(inst, kind),
            _ if is_move(inst) => self.move_double(inst),
            Op::FsgnjS | Op::FsgnjD => {
                let a = self.seen(inst.rs1, kind);
                let value = if inst.rs1 == inst.rs2() {
                    a
                } else {
                    let b = self.seen(inst.rs2(), kind);
                    ins!().fcopysign(a, b)
                };
                self.set_float(inst.rd, kind, value);
            }
            Op::FsgnjnS | Op::FsgnjnD => {
                let a = self.seen(inst.rs1, kind);
                let b = self.seen(inst.rs2(), kind);
                let negated = ins!().fneg(b);
                let same = inst.rs1 == inst.rs2();
                let value = if same { negated } else { ins!().fcopysign(a, negated) };
                self.set_float(inst.rd, kind, value);
            }
            Op::FsgnjxD if inst.rs1 == inst.rs2() => {
                let a = self.settled(inst.rs1);
                let value = ins!().fabs(a);
                self.set_f(inst.rd, value);
            }
            Op::FminS | Op::FminD => self.chosen(inst, kind, FloatCC::LessThan),
            Op::FmaxS | Op::FmaxD => self.chosen(inst, kind, FloatCC::GreaterThan),
            Op::FeqS | Op::FeqD => {
                let (a, b) = (self.source(inst.rs1, kind), self.source(inst.rs2(), kind));
                let equal = ins!().fcmp(FloatCC::Equal, a, b);
                let value = ins!().uextend(I64, equal);
                self.carry_out(value);
                self.set_x(inst.rd, value);
            }
            Op::FltS | Op::FltD => self.compared(inst, kind, FloatCC::LessThan),
            Op::FleS | Op::FleD => self.compared(inst, kind, FloatCC::LessThanOrEqual),
            Op::FcvtSD => {
                let a = self.f(inst.rs1);
                let value = ins!().fdemote(F32, a);
                self.unless_nan(value);
                self.set_single(inst.rd, value);
            }
            Op::FcvtDS => {
                let a = self.single(inst.rs1);
                let value = ins!().fpromote(F64, a);
                self.set_result(inst.rd, F64, value);
            }
            Op::FcvtWS | Op::FcvtWD => self.truncated(inst, kind, I32),
            Op::FcvtLS | Op::FcvtLD => self.truncated(inst, kind, I64),
            Op::FcvtSW | Op::FcvtDW | Op::FcvtSWu | Op::FcvtDWu | Op::FcvtSL | Op::FcvtDL => {
                self.converted(inst, kind);
            }
            Op::FmvXD => {
                let a = self.settled(inst.rs1);
                let value = self.bits(a);
                self.set_x(inst.rd, value);
            }
            Op::FmvDX => {
                let a = self.x(inst.rs1);
                let value = self.float_of(a);
                self.set_f(inst.rd, value);
            }
            Op::FmvXW => {
                let a = self.settled(inst.rs1);
                let bits = self.bits(a);
                let low = ins!().ireduce(I32, bits);
                let value = ins!().sextend(I64, low);
                self.set_x(inst.rd, value);
            }
            Op::FmvWX => {
                let a = self.x(inst.rs1);
                let low = ins!().ireduce(I32, a);
                let value = ins!().bitcast(F32, MemFlagsData::new(), low);
                self.set_single(inst.rd, value);
            }
            // Classification and unsigned conversions.
            _ => self.in_software(inst),
        }
    }

    fn binary(
        &mut self,
        inst: Inst,
        kind: Type,
        operation: impl FnOnce(&mut Self, Value, Value) -> Value,
    ) {
        let (a, b) = (self.source(inst.rs1, kind), self.source(inst.rs2(), kind));
        let value = operation(self, a, b);
        self.set_result(inst.rd, kind, value);
    }

    /// A source register as a number of `kind` whose bits are seen.
    fn seen(&mut self, register: u8, kind: Type) -> Value {
        if kind == F32 { self.single(register) } else { self.settled(register) }
    }

    fn fused(&mut self, inst: Inst, kind: Type) {
        let [a, b, c] = [inst.rs1, inst.rs2(), inst.rs3()].map(|r| self.source(r, kind));
        let (negate_product, negate_addend) = match inst.op {
            Op::FmaddS | Op::FmaddD => (false, false),
            Op::FmsubS | Op::FmsubD => (false, true),
            Op::FnmsubS | Op::FnmsubD => (true, false),
            _ => (true, true),
        };
        let a = if negate_product { self.builder.ins().fneg(a) } else { a };
        let c = if negate_addend { self.builder.ins().fneg(c) } else { c };
        let value = self.builder.ins().fma(a, b, c);
        self.unless_nan(value);
        self.set_float(inst.rd, kind, value);
    }

    /// The operand that `condition` prefers; equal ones may be zeros of
    /// different signs.
    fn chosen(&mut self, inst: Inst, kind: Type, condition: FloatCC) {
        let (a, b) = (self.source(inst.rs1, kind), self.source(inst.rs2(), kind));
        let odd = self.builder.ins().fcmp(FloatCC::UnorderedOrEqual, a, b);
        let (cold, hot) = (self.cold_block(), self.builder.create_block());
        let on = self.builder.create_block();
        let result = self.builder.append_block_param(on, kind);
        self.builder.ins().brif(odd, cold, &[], hot, &[]);
        // Only here: the host's minimum raises flags for a NaN.
        self.begin(hot);
        let first = self.builder.ins().fcmp(condition, a, b);
        let value = self.builder.ins().select(first, a, b);
        self.builder.ins().jump(on, &[value.into()]);
        self.begin(cold);
        self.call_software(inst);
        // A single is the low half.
        let value = self.fetch(kind, native::VALUE);
        self.builder.ins().jump(on, &[value.into()]);
        self.begin(on);
        self.set_float(inst.rd, kind, result);
    }

    /// A comparison that raises NV for any NaN, which the host's does not.
    fn compared(&mut self, inst: Inst, kind: Type, condition: FloatCC) {
        let (a, b) = (self.source(inst.rs1, kind), self.source(inst.rs2(), kind));
        let odd = self.builder.ins().fcmp(FloatCC::Unordered, a, b);
        let holds = self.builder.ins().fcmp(condition, a, b);
        let value = self.builder.ins().uextend(I64, holds);
        self.unless(odd);
        self.set_x(inst.rd, value);
    }

    /// Towards zero. Out of range the host raises what RISC-V does, and the
    /// result saturates; only a NaN's is another.
    fn truncated(&mut self, inst: Inst, kind: Type, integer: Type) {
        let a = self.source(inst.rs1, kind);
        self.unless_nan(a);
        let value = self.builder.ins().fcvt_to_sint_sat(integer, a);
        self.carry_out(value);
        let value = if integer == I32 { self.builder.ins().sextend(I64, value) } else { value };
        self.set_x(inst.rd, value);
    }

    fn converted(&mut self, inst: Inst, kind: Type) {
        let x = self.x(inst.rs1);
        let value = match inst.op {
            Op::FcvtSW | Op::FcvtDW => self.builder.ins().ireduce(I32, x),
            Op::FcvtSWu | Op::FcvtDWu => {
                let low = self.builder.ins().ireduce(I32, x);
                self.builder.ins().uextend(I64, low)
            }
            _ => x,
        };
        let value = self.builder.ins().fcvt_from_sint(kind, value);
        self.carry_out(value);
        self.set_float(inst.rd, kind, value);
    }
}

/// The format an instruction computes in; of conversions to and from integers
/// that of the number.
fn format(op: Op) -> Type {
    if op.mnemonic().contains(".d") { F64 } else { F32 }
}
