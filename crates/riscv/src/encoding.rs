//! What an encoding is: the bits that make an instruction, and its operands.

use crate::op::Op;

/// Where an instruction keeps its operands, and which register file `rd` is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// No operand, or only such as every processor may ignore.
    Bare,
    /// `rs1`.
    Address,
    /// `rs1` and `rs2`.
    Sources,
    /// Integer `rd`, `rs1` and `rs2`.
    Register,
    /// Integer `rd` and `rs1`.
    Unary,
    /// Integer `rd`, `rs1` and a 12-bit immediate.
    Immediate,
    /// Integer `rd`, `rs1` and a shift amount of up to 6 bits.
    Shift,
    /// `rs1`, `rs2` and a 12-bit immediate in two parts.
    Store,
    /// `rs1`, `rs2` and a 13-bit even offset.
    Branch,
    /// Integer `rd` and the upper 20 bits of a word.
    Upper,
    /// Integer `rd` and a 21-bit even offset.
    Jump,
    /// Integer `rd`, `rs1` (register or immediate) and a CSR number.
    Csr,
    /// Floating-point `rd`, `rs1` and a 12-bit immediate.
    FloatLoad,
    /// Floating-point `rd`, `rs1` and `rs2`.
    Float,
    /// Floating-point `rd` and `rs1`.
    FloatUnary,
    /// Floating-point `rd`, `rs1`, `rs2` and a rounding mode.
    FloatRounded,
    /// Floating-point `rd`, `rs1` and a rounding mode.
    FloatUnaryRounded,
    /// Integer `rd`, `rs1` and a rounding mode.
    UnaryRounded,
    /// Floating-point `rd`, `rs1`, `rs2`, `rs3` and a rounding mode.
    FloatFused,
}

/// One line of the table: an instruction is `op` if, under `mask`, its bits
/// are `bits`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoding {
    pub(crate) op: Op,
    pub(crate) form: Form,
    pub(crate) mask: u32,
    pub(crate) bits: u32,
}

const OPCODE: u32 = 0x0000_007F;
const RD: u32 = 0x0000_0F80;
const FUNCT3: u32 = 0x0000_7000;
const RS1: u32 = 0x000F_8000;
const RS2: u32 = 0x01F0_0000;
const FUNCT7: u32 = 0xFE00_0000;

impl Encoding {
    /// Only the opcode decides.
    pub(crate) const fn opcode(op: Op, form: Form, opcode: u32) -> Self {
        Self { op, form, mask: OPCODE, bits: opcode }
    }

    /// Opcode and `funct3` decide.
    pub(crate) const fn funct3(op: Op, form: Form, opcode: u32, funct3: u32) -> Self {
        Self { op, form, mask: OPCODE | FUNCT3, bits: opcode | funct3 << 12 }
    }

    /// Opcode, `funct3` and `funct7` decide.
    pub(crate) const fn funct7(op: Op, form: Form, opcode: u32, funct3: u32, funct7: u32) -> Self {
        let upper = Self::funct3(op, form, opcode, funct3);
        Self { mask: upper.mask | FUNCT7, bits: upper.bits | funct7 << 25, ..upper }
    }

    /// Opcode, `funct3` and the upper 6 bits decide: a shift by up to 63.
    pub(crate) const fn shift(op: Op, opcode: u32, funct3: u32, funct6: u32) -> Self {
        let upper = Self::funct3(op, Form::Shift, opcode, funct3);
        Self { mask: upper.mask | 0xFC00_0000, bits: upper.bits | funct6 << 26, ..upper }
    }

    /// Opcode, `funct3` and the upper 12 bits decide.
    pub(crate) const fn funct12(
        op: Op,
        form: Form,
        opcode: u32,
        funct3: u32,
        funct12: u32,
    ) -> Self {
        let upper = Self::funct3(op, form, opcode, funct3);
        Self { mask: upper.mask | FUNCT7 | RS2, bits: upper.bits | funct12 << 20, ..upper }
    }

    /// Opcode, `funct3` and the upper 5 bits decide; any ordering bits do.
    pub(crate) const fn atomic(op: Op, funct3: u32, funct5: u32) -> Self {
        let upper = Self::funct3(op, Form::Register, 0x2F, funct3);
        Self { mask: upper.mask | 0xF800_0000, bits: upper.bits | funct5 << 27, ..upper }
    }

    /// Opcode and the format in bits 25 and 26 decide.
    pub(crate) const fn fused(op: Op, opcode: u32, format: u32) -> Self {
        let mask = OPCODE | 0x0600_0000;
        Self { op, form: Form::FloatFused, mask, bits: opcode | format << 25 }
    }

    /// Floating-point with a rounding mode: opcode and `funct7` decide.
    pub(crate) const fn rounded(op: Op, funct7: u32) -> Self {
        let mask = OPCODE | FUNCT7;
        Self { op, form: Form::FloatRounded, mask, bits: 0x53 | funct7 << 25 }
    }

    /// As [`Encoding::rounded`], with `rs2` part of the code.
    pub(crate) const fn converted(op: Op, form: Form, funct7: u32, rs2: u32) -> Self {
        let upper = Self::rounded(op, funct7);
        Self { form, mask: upper.mask | RS2, bits: upper.bits | rs2 << 20, ..upper }
    }

    /// The same with `rd` required to be 0.
    pub(crate) const fn no_rd(self) -> Self {
        Self { mask: self.mask | RD, ..self }
    }

    /// The same with `rs1` required to be 0.
    pub(crate) const fn no_rs1(self) -> Self {
        Self { mask: self.mask | RS1, ..self }
    }

    /// The same with `rs2` required to be 0.
    pub(crate) const fn no_rs2(self, form: Form) -> Self {
        Self { form, mask: self.mask | RS2, ..self }
    }

    /// Whether `bits` is this instruction.
    #[inline]
    pub(crate) const fn matches(&self, bits: u32) -> bool {
        bits & self.mask == self.bits
    }
}
