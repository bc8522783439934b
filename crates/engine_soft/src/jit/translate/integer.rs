//! Integer instructions without storage: each computes what the function of
//! its name in `riscv::int` does.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use riscv::{Inst, Op};
use types::{I8, I16, I32, I64};

use super::Unit;
use super::facts::Fact;

impl Unit<'_> {
    pub(super) fn integer(&mut self, inst: Inst) {
        if inst.op == Op::Fence {
            self.builder.ins().fence();
            return;
        }
        let (value, fact) = match (self.simple(inst), in_words(inst.op)) {
            (Some(known), _) => known,
            (None, true) => {
                let word = self.computed_word(inst);
                (self.word(word), Fact { word: Some(word), ..Fact::default() })
            }
            (None, false) => (self.computed(inst), Fact::default()),
        };
        self.set_x(inst.rd, value);
        self.facts.set(inst.rd, fact);
    }

    /// Value and fact, where what is known of the operands makes them simple.
    fn simple(&mut self, inst: Inst) -> Option<(Value, Fact)> {
        let imm = i64::from(inst.imm);
        let (a, b) = (self.facts.of(inst.rs1), self.facts.of(inst.rs2()));
        match (inst.op, a.constant, b.constant) {
            (Op::Lui, _, _) => Some(self.constant_fact(imm)),
            (Op::Addi, Some(a), _) => Some(self.constant_fact(a.wrapping_add(imm))),
            (Op::Addiw, Some(a), _) => {
                Some(self.constant_fact(i64::from(a.wrapping_add(imm) as i32)))
            }
            (Op::Slli, Some(a), _) => Some(self.constant_fact(a << (imm & 63))),
            (Op::Addi, ..) => {
                let (base, offset) = self.x_sum(inst.rs1);
                let offset = offset + imm;
                let fact = Fact { sum: Some((base, offset)), ..Fact::default() };
                Some((self.sum(base, offset), fact))
            }
            (Op::Add, Some(0), _) => Some((self.x(inst.rs2()), b)),
            (Op::Add, _, Some(0)) => Some((self.x(inst.rs1), a)),
            (Op::Slli, ..) if imm & 63 != 0 => {
                let value = self.x(inst.rs1);
                let amount = self.number(imm & 63);
                let shifted = self.builder.ins().ishl(value, amount);
                Some((shifted, Fact { shifted: Some((value, imm & 63)), ..Fact::default() }))
            }
            (Op::Srli | Op::Srai, ..) if a.shifted.is_some() => {
                let (value, up) = a.shifted?;
                Some((self.shifted_back(inst.op, value, up, imm & 63)?, Fact::default()))
            }
            (Op::Srli, ..) => {
                let value = self.x(inst.rs1);
                let amount = self.number(imm & 63);
                let lowered = self.builder.ins().ushr(value, amount);
                Some((lowered, Fact { lowered: Some((value, imm & 63)), ..Fact::default() }))
            }
            (Op::Slliw | Op::Srliw, ..) => Some(self.word_shift(inst)),
            (Op::Or, ..) => self.rotation(a, b).or_else(|| self.rotation(b, a)),
            _ => None,
        }
    }

    fn word_shift(&mut self, inst: Inst) -> (Value, Fact) {
        let (from, by) = (self.x_word(inst.rs1), i64::from(inst.imm) & 31);
        let amount = self.builder.ins().iconst(I32, by);
        let mut fact = Fact::default();
        let word = if inst.op == Op::Slliw {
            fact.word_shifted = Some((from, by));
            self.builder.ins().ishl(from, amount)
        } else {
            fact.word_lowered = Some((from, by));
            self.builder.ins().ushr(from, amount)
        };
        fact.word = Some(word);
        (self.word(word), fact)
    }

    /// What was shifted up in one register and down in the other, put together: a
    /// rotation, where the bits are all there.
    fn rotation(&mut self, up: Fact, down: Fact) -> Option<(Value, Fact)> {
        if let (Some((value, left)), Some((same, right))) = (up.shifted, down.lowered)
            && (value, left + right) == (same, 64)
        {
            let amount = self.number(left);
            return Some((self.builder.ins().rotl(value, amount), Fact::default()));
        }
        let ((word, left), (same, right)) = (up.word_shifted?, down.word_lowered?);
        if (word, left + right) != (same, 32) {
            return None;
        }
        let amount = self.builder.ins().iconst(I32, left);
        let word = self.builder.ins().rotl(word, amount);
        Some((self.word(word), Fact { word: Some(word), ..Fact::default() }))
    }

    fn constant_fact(&mut self, value: i64) -> (Value, Fact) {
        (self.number(value), Fact { constant: Some(value), ..Fact::default() })
    }

    /// `value` shifted left by `up` and back by `down`: an extension of its
    /// low bits, where the host has one.
    fn shifted_back(&mut self, op: Op, value: Value, up: i64, down: i64) -> Option<Value> {
        let kind = match up {
            32 => I32,
            48 => I16,
            56 => I8,
            _ => return None,
        };
        if down > up {
            return None;
        }
        let low = self.builder.ins().ireduce(kind, value);
        let extended = if op == Op::Srli {
            self.builder.ins().uextend(I64, low)
        } else {
            self.builder.ins().sextend(I64, low)
        };
        if up == down {
            return Some(extended);
        }
        let rest = self.number(up - down);
        Some(self.builder.ins().ishl(extended, rest))
    }

    /// The low half of a register.
    fn x_word(&mut self, register: u8) -> Value {
        let fact = self.facts.of(register);
        fact.word.or(fact.low).unwrap_or_else(|| {
            let value = self.x(register);
            let low = self.low(value);
            self.facts.set_low(register, low);
            low
        })
    }

    /// The 32 bits whose sign extension is the result.
    fn computed_word(&mut self, inst: Inst) -> Value {
        let a = self.x_word(inst.rs1);
        let b = if has_immediate(inst.op) {
            self.builder.ins().iconst(I32, i64::from(inst.imm) & 0xFFFF_FFFF)
        } else {
            self.x_word(inst.rs2())
        };
        match inst.op {
            Op::Addiw | Op::Addw => self.builder.ins().iadd(a, b),
            Op::Subw => self.builder.ins().isub(a, b),
            Op::Slliw | Op::Sllw => self.builder.ins().ishl(a, b),
            Op::Srliw | Op::Srlw => self.builder.ins().ushr(a, b),
            Op::Sraiw | Op::Sraw => self.builder.ins().sshr(a, b),
            Op::Mulw => self.builder.ins().imul(a, b),
            Op::Divw => self.signed_quotient(a, b),
            Op::Remw => self.signed_remainder(a, b),
            Op::Divuw => self.unsigned_quotient(a, b),
            Op::Remuw => self.unsigned_remainder(a, b),
            Op::Clzw => self.builder.ins().clz(a),
            Op::Ctzw => self.builder.ins().ctz(a),
            Op::Cpopw => self.builder.ins().popcnt(a),
            Op::Rolw => self.builder.ins().rotl(a, b),
            // Rorw and Roriw.
            _ => self.builder.ins().rotr(a, b),
        }
    }

    /// The 32 low bits.
    fn low(&mut self, value: Value) -> Value {
        self.builder.ins().ireduce(I32, value)
    }

    /// 32 bits, sign-extended.
    fn word(&mut self, value: Value) -> Value {
        self.builder.ins().sextend(I64, value)
    }

    fn zero_extended(&mut self, value: Value) -> Value {
        let low = self.low(value);
        self.builder.ins().uextend(I64, low)
    }

    fn is(&mut self, condition: IntCC, a: Value, b: Value) -> Value {
        let is = self.builder.ins().icmp(condition, a, b);
        self.builder.ins().uextend(I64, is)
    }

    fn narrow(&mut self, kind: types::Type, value: Value) -> Value {
        let low = self.builder.ins().ireduce(kind, value);
        self.builder.ins().sextend(I64, low)
    }

    fn bit(&mut self, number: Value) -> Value {
        let one = self.number(1);
        self.builder.ins().ishl(one, number)
    }

    /// `b` plus `a` shifted left by `amount`.
    fn shifted_sum(&mut self, a: Value, amount: i64, b: Value) -> Value {
        let amount = self.number(amount);
        let shifted = self.builder.ins().ishl(a, amount);
        self.builder.ins().iadd(shifted, b)
    }

    #[expect(clippy::too_many_lines, reason = "a table: one arm an instruction")]
    fn computed(&mut self, inst: Inst) -> Value {
        let imm = i64::from(inst.imm);
        macro_rules! ins {
            () => {
                self.builder.ins()
            };
        }
        let a = self.x(inst.rs1);
        // The second operand of register and immediate forms alike.
        let b = if has_immediate(inst.op) { self.number(imm) } else { self.x(inst.rs2()) };
        match inst.op {
            Op::Auipc => self.pc_of(self.at.wrapping_add(imm)),
            Op::Add => ins!().iadd(a, b),
            Op::Sub => ins!().isub(a, b),
            Op::Slti | Op::Slt => self.is(IntCC::SignedLessThan, a, b),
            Op::Sltiu | Op::Sltu => self.is(IntCC::UnsignedLessThan, a, b),
            Op::Xori | Op::Xor => ins!().bxor(a, b),
            Op::Ori | Op::Or => ins!().bor(a, b),
            Op::Andi | Op::And => ins!().band(a, b),
            Op::Slli | Op::Sll => ins!().ishl(a, b),
            Op::Srli | Op::Srl => ins!().ushr(a, b),
            Op::Srai | Op::Sra => ins!().sshr(a, b),

            Op::Mul => ins!().imul(a, b),
            Op::Mulh => ins!().smulhi(a, b),
            Op::Mulhu => ins!().umulhi(a, b),
            Op::Mulhsu => {
                // As unsigned, minus `b` in the upper half if `a` is negative.
                let high = ins!().umulhi(a, b);
                let sign = self.number(63);
                let mask = ins!().sshr(a, sign);
                let excess = ins!().band(mask, b);
                ins!().isub(high, excess)
            }
            Op::Div => self.signed_quotient(a, b),
            Op::Rem => self.signed_remainder(a, b),
            Op::Divu => self.unsigned_quotient(a, b),
            Op::Remu => self.unsigned_remainder(a, b),

            Op::AddUw => {
                let a = self.zero_extended(a);
                ins!().iadd(a, b)
            }
            Op::Sh1add => self.shifted_sum(a, 1, b),
            Op::Sh2add => self.shifted_sum(a, 2, b),
            Op::Sh3add => self.shifted_sum(a, 3, b),
            Op::Sh1addUw | Op::Sh2addUw | Op::Sh3addUw => {
                let a = self.zero_extended(a);
                let amount = match inst.op {
                    Op::Sh1addUw => 1,
                    Op::Sh2addUw => 2,
                    _ => 3,
                };
                self.shifted_sum(a, amount, b)
            }
            Op::SlliUw => {
                let a = self.zero_extended(a);
                ins!().ishl(a, b)
            }
            Op::Andn => {
                let not = ins!().bnot(b);
                ins!().band(a, not)
            }
            Op::Orn => {
                let not = ins!().bnot(b);
                ins!().bor(a, not)
            }
            Op::Xnor => {
                let xor = ins!().bxor(a, b);
                ins!().bnot(xor)
            }
            Op::Clz => ins!().clz(a),
            Op::Ctz => ins!().ctz(a),
            Op::Cpop => ins!().popcnt(a),
            Op::Max => ins!().smax(a, b),
            Op::Maxu => ins!().umax(a, b),
            Op::Min => ins!().smin(a, b),
            Op::Minu => ins!().umin(a, b),
            Op::SextB => self.narrow(I8, a),
            Op::SextH => self.narrow(I16, a),
            Op::ZextH => {
                let mask = self.number(0xFFFF);
                ins!().band(a, mask)
            }
            Op::Rol => ins!().rotl(a, b),
            Op::Ror | Op::Rori => ins!().rotr(a, b),
            Op::OrcB => {
                let low = self.number(0x7F7F_7F7F_7F7F_7F7F);
                let masked = ins!().band(a, low);
                let carried = ins!().iadd(masked, low);
                let some = ins!().bor(carried, a);
                let tops = self.number(!0x7F7F_7F7F_7F7F_7F7F);
                let some = ins!().band(some, tops);
                let seven = self.number(7);
                let ones = ins!().ushr(some, seven);
                let byte = self.number(0xFF);
                ins!().imul(ones, byte)
            }
            Op::Rev8 => ins!().bswap(a),
            Op::Bclr | Op::Bclri => {
                let bit = self.bit(b);
                let not = ins!().bnot(bit);
                ins!().band(a, not)
            }
            Op::Bext | Op::Bexti => {
                let shifted = ins!().ushr(a, b);
                let one = self.number(1);
                ins!().band(shifted, one)
            }
            Op::Binv | Op::Binvi => {
                let bit = self.bit(b);
                ins!().bxor(a, bit)
            }
            // Bset and Bseti.
            _ => {
                let bit = self.bit(b);
                ins!().bor(a, bit)
            }
        }
    }

    /// A constant as wide as `like`.
    fn constant(&mut self, like: Value, value: i64) -> Value {
        let kind = self.builder.func.dfg.value_type(like);
        let value = if kind == I32 { value & 0xFFFF_FFFF } else { value };
        self.builder.ins().iconst(kind, value)
    }

    /// Whether `b` is 0 or -1, and a divisor that the host takes in any case.
    fn signed_divisor(&mut self, b: Value) -> (Value, Value) {
        let (one, two) = (self.constant(b, 1), self.constant(b, 2));
        let next = self.builder.ins().iadd(b, one);
        let special = self.builder.ins().icmp(IntCC::UnsignedLessThan, next, two);
        (special, self.builder.ins().select(special, one, b))
    }

    fn is_zero(&mut self, b: Value) -> Value {
        let zero = self.constant(b, 0);
        self.builder.ins().icmp(IntCC::Equal, b, zero)
    }

    fn signed_quotient(&mut self, a: Value, b: Value) -> Value {
        let (special, divisor) = self.signed_divisor(b);
        let quotient = self.builder.ins().sdiv(a, divisor);
        let (zero, ones) = (self.is_zero(b), self.constant(b, -1));
        let negated = self.builder.ins().ineg(a);
        let other = self.builder.ins().select(zero, ones, negated);
        self.builder.ins().select(special, other, quotient)
    }

    fn signed_remainder(&mut self, a: Value, b: Value) -> Value {
        let (special, divisor) = self.signed_divisor(b);
        let remainder = self.builder.ins().srem(a, divisor);
        let (zero, none) = (self.is_zero(b), self.constant(b, 0));
        let other = self.builder.ins().select(zero, a, none);
        self.builder.ins().select(special, other, remainder)
    }

    fn unsigned_divisor(&mut self, b: Value) -> (Value, Value) {
        let (zero, one) = (self.is_zero(b), self.constant(b, 1));
        (zero, self.builder.ins().select(zero, one, b))
    }

    fn unsigned_quotient(&mut self, a: Value, b: Value) -> Value {
        let (zero, divisor) = self.unsigned_divisor(b);
        let quotient = self.builder.ins().udiv(a, divisor);
        let ones = self.constant(b, -1);
        self.builder.ins().select(zero, ones, quotient)
    }

    fn unsigned_remainder(&mut self, a: Value, b: Value) -> Value {
        let (zero, divisor) = self.unsigned_divisor(b);
        let remainder = self.builder.ins().urem(a, divisor);
        self.builder.ins().select(zero, a, remainder)
    }
}

/// Whether it computes with 32 bits and extends the sign of the result.
fn in_words(op: Op) -> bool {
    matches!(
        op,
        Op::Addiw
            | Op::Addw
            | Op::Subw
            | Op::Slliw
            | Op::Sllw
            | Op::Srliw
            | Op::Srlw
            | Op::Sraiw
            | Op::Sraw
            | Op::Mulw
            | Op::Divw
            | Op::Remw
            | Op::Divuw
            | Op::Remuw
            | Op::Clzw
            | Op::Ctzw
            | Op::Cpopw
            | Op::Rolw
            | Op::Rorw
            | Op::Roriw
    )
}

/// Whether the second operand is the immediate.
fn has_immediate(op: Op) -> bool {
    matches!(
        op,
        Op::Lui
            | Op::Addi
            | Op::Slti
            | Op::Sltiu
            | Op::Xori
            | Op::Ori
            | Op::Andi
            | Op::Slli
            | Op::Srli
            | Op::Srai
            | Op::Addiw
            | Op::Slliw
            | Op::Srliw
            | Op::Sraiw
            | Op::SlliUw
            | Op::Rori
            | Op::Roriw
            | Op::Bclri
            | Op::Bexti
            | Op::Binvi
            | Op::Bseti
    )
}
