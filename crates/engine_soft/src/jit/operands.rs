//! Which registers an instruction reads and writes.

use riscv::{Inst, Op};

/// A set of registers: `x0` to `x31`, then `f0` to `f31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Registers(u64);

impl Registers {
    pub(crate) const NONE: Self = Self(0);
    /// `x0` to `x31`.
    pub(crate) const INTEGERS: Self = Self(0xFFFF_FFFF);
    /// `f0` to `f31`.
    pub(crate) const FLOATS: Self = Self(0xFFFF_FFFF << 32);

    /// The one with `number`, 0 to 63.
    pub(crate) fn of(number: usize) -> Self {
        Self(1 << number)
    }

    /// `x0` and the sink hold nothing.
    fn x(register: u8) -> Self {
        Self(if (1..32).contains(&register) { 1 << register } else { 0 })
    }

    fn f(register: u8) -> Self {
        Self(1 << 32 << (register & 31))
    }

    pub(crate) fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn contains(self, number: usize) -> bool {
        self.0 >> number & 1 != 0
    }

    /// Numbers 0 to 63, as in the set.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..64).filter(move |register| self.0 >> register & 1 != 0)
    }
}

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operands {
    pub(crate) reads: Registers,
    pub(crate) writes: Registers,
}

/// In which register file an operand is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum File {
    None,
    X,
    F,
}

impl File {
    fn set(self, register: u8) -> Registers {
        match self {
            Self::None => Registers::NONE,
            Self::X => Registers::x(register),
            Self::F => Registers::f(register),
        }
    }
}

impl Operands {
    pub(crate) fn of(inst: Inst) -> Self {
        let (rd, rs1, rs2) = files(inst.op);
        let rs3 = if is_fused(inst.op) { Registers::f(inst.rs3()) } else { Registers::NONE };
        Self {
            reads: rs1.set(inst.rs1).with(rs2.set(inst.rs2())).with(rs3),
            writes: rd.set(inst.rd),
        }
    }
}

pub(crate) fn is_fused(op: Op) -> bool {
    use Op::{FmaddD, FmaddS, FmsubD, FmsubS, FnmaddD, FnmaddS, FnmsubD, FnmsubS};
    matches!(op, FmaddS | FmsubS | FnmsubS | FnmaddS | FmaddD | FmsubD | FnmsubD | FnmaddD)
}

/// Whether the instruction is one of F or D.
pub(crate) fn is_float(op: Op) -> bool {
    let (rd, rs1, rs2) = files(op);
    [rd, rs1, rs2].contains(&File::F)
}

/// Whether its first source is an integer register.
pub(crate) fn reads_integer(op: Op) -> bool {
    files(op).1 == File::X
}

/// Whether it has a second source that is a floating-point register.
pub(crate) fn has_second(inst: Inst) -> bool {
    files(inst.op).2 == File::F
}

/// Whether it writes an integer register.
pub(crate) fn writes_integer(op: Op) -> bool {
    files(op).0 == File::X
}

/// Where `rd`, `rs1` and `rs2` are. An instruction that has not one of them
/// holds 0 there, so an `x` too many does no harm: `x0` is in no set.
fn files(op: Op) -> (File, File, File) {
    use File::{F, None, X};
    match op {
        Op::Csrrwi | Op::Csrrsi | Op::Csrrci => (X, None, None),
        Op::Flw | Op::Fld => (F, X, None),
        Op::Fsw | Op::Fsd => (None, X, F),
        Op::FcvtWS
        | Op::FcvtWuS
        | Op::FcvtLS
        | Op::FcvtLuS
        | Op::FmvXW
        | Op::FclassS
        | Op::FcvtWD
        | Op::FcvtWuD
        | Op::FcvtLD
        | Op::FcvtLuD
        | Op::FmvXD
        | Op::FclassD => (X, F, None),
        Op::FeqS | Op::FltS | Op::FleS | Op::FeqD | Op::FltD | Op::FleD => (X, F, F),
        Op::FcvtSW
        | Op::FcvtSWu
        | Op::FcvtSL
        | Op::FcvtSLu
        | Op::FmvWX
        | Op::FcvtDW
        | Op::FcvtDWu
        | Op::FcvtDL
        | Op::FcvtDLu
        | Op::FmvDX => (F, X, None),
        Op::FsqrtS | Op::FsqrtD | Op::FcvtSD | Op::FcvtDS => (F, F, None),
        Op::FmaddS
        | Op::FmsubS
        | Op::FnmsubS
        | Op::FnmaddS
        | Op::FaddS
        | Op::FsubS
        | Op::FmulS
        | Op::FdivS
        | Op::FsgnjS
        | Op::FsgnjnS
        | Op::FsgnjxS
        | Op::FminS
        | Op::FmaxS
        | Op::FmaddD
        | Op::FmsubD
        | Op::FnmsubD
        | Op::FnmaddD
        | Op::FaddD
        | Op::FsubD
        | Op::FmulD
        | Op::FdivD
        | Op::FsgnjD
        | Op::FsgnjnD
        | Op::FsgnjxD
        | Op::FminD
        | Op::FmaxD => (F, F, F),
        _ => (X, X, X),
    }
}
