//! F and D instructions but loads and stores: which registers go into which
//! function of `riscv::fp`, and where its result goes.
#![expect(clippy::cast_lossless, reason = "in a chain of casts each step looks the same")]

use riscv::fp::{self, F32, F64, Flags, Float, Rounding};
use riscv::trap::Trap;
use riscv::{Inst, Op};

use crate::cpu::{Cpu, Faulted};
use crate::jit::writes_integer;

/// FP instructions are off, or the rounding mode is reserved.
pub(super) struct Illegal;

/// Executes the FP instruction `inst`.
#[inline(never)]
pub(super) fn execute(cpu: &mut Cpu, inst: Inst) -> Result<(), Illegal> {
    if !cpu.csrs.fp_enabled() {
        return Err(Illegal);
    }
    let mut flags = Flags::from_bits(cpu.csrs.fflags());
    match operate(cpu, inst, &mut flags).ok_or(Illegal)? {
        Outcome::Float(bits) => cpu.f[usize::from(inst.rd & 31)] = bits,
        Outcome::Integer(value) => cpu.x[usize::from(inst.rd)] = value,
    }
    cpu.csrs.raise_fflags(flags.bits());
    cpu.csrs.set_fp_dirty();
    Ok(())
}

/// Executes the FP instruction `inst` for compiled code, which has seen to it
/// that it is legal; returns what the destination register received.
pub(crate) fn for_compiled(cpu: &mut Cpu, inst: Inst) -> Result<u64, Faulted> {
    execute(cpu, inst).map_err(|Illegal| cpu.raise(Trap::illegal(0)))?;
    Ok(if writes_integer(inst.op) {
        cpu.x[usize::from(inst.rd)]
    } else {
        cpu.f[usize::from(inst.rd & 31)]
    })
}

/// What the destination register receives.
enum Outcome {
    Float(u64),
    Integer(u64),
}

/// `None` where the rounding mode, static or dynamic, is reserved.
#[expect(clippy::too_many_lines, reason = "a table: one line an instruction")]
#[inline(always)]
fn operate(cpu: &Cpu, inst: Inst, flags: &mut Flags) -> Option<Outcome> {
    let f = |register: u8| cpu.f[usize::from(register & 31)];
    let x = cpu.x[usize::from(inst.rs1)];
    let rounding = || Rounding::resolve(inst.rm(), cpu.csrs.frm());
    macro_rules! a {
        ($F:ty) => {
            <$F>::from_register(f(inst.rs1))
        };
    }
    macro_rules! b {
        ($F:ty) => {
            <$F>::from_register(f(inst.rs2()))
        };
    }
    macro_rules! c {
        ($F:ty) => {
            <$F>::from_register(f(inst.rs3()))
        };
    }
    // Two operands and a rounding.
    macro_rules! rounded {
        ($F:ty, $operation:ident) => {
            float(fp::$operation(a!($F), b!($F), rounding()?, flags))
        };
    }
    macro_rules! fused {
        ($F:ty, $operation:ident) => {
            float(fp::$operation(a!($F), b!($F), c!($F), rounding()?, flags))
        };
    }
    macro_rules! compared {
        ($F:ty, $operation:ident) => {
            Outcome::Integer(u64::from(fp::$operation(a!($F), b!($F), flags)))
        };
    }
    macro_rules! signed {
        ($F:ty, $operation:ident) => {
            float(fp::$operation(a!($F), b!($F)))
        };
    }
    // An integer result of 32 bits is sign-extended even if unsigned.
    macro_rules! to_word {
        ($F:ty, $operation:ident) => {
            Outcome::Integer(fp::$operation(a!($F), rounding()?, flags) as i32 as i64 as u64)
        };
    }
    macro_rules! to_double {
        ($F:ty, $operation:ident) => {
            Outcome::Integer(fp::$operation(a!($F), rounding()?, flags) as u64)
        };
    }
    macro_rules! from {
        ($F:ty, $operation:ident, $int:ty) => {
            float(fp::$operation::<$F>(x as $int, rounding()?, flags))
        };
    }
    Some(match inst.op {
        Op::FaddS => rounded!(F32, add),
        Op::FsubS => rounded!(F32, sub),
        Op::FmulS => rounded!(F32, mul),
        Op::FdivS => rounded!(F32, div),
        Op::FsqrtS => float(fp::sqrt(a!(F32), rounding()?, flags)),
        Op::FmaddS => fused!(F32, fmadd),
        Op::FmsubS => fused!(F32, fmsub),
        Op::FnmsubS => fused!(F32, fnmsub),
        Op::FnmaddS => fused!(F32, fnmadd),
        Op::FsgnjS => signed!(F32, copy_sign),
        Op::FsgnjnS => signed!(F32, copy_sign_negated),
        Op::FsgnjxS => signed!(F32, copy_sign_xor),
        Op::FminS => float(fp::minimum(a!(F32), b!(F32), flags)),
        Op::FmaxS => float(fp::maximum(a!(F32), b!(F32), flags)),
        Op::FeqS => compared!(F32, equal),
        Op::FltS => compared!(F32, less),
        Op::FleS => compared!(F32, less_or_equal),
        Op::FclassS => Outcome::Integer(fp::classify(a!(F32))),
        Op::FcvtWS => to_word!(F32, to_i32),
        Op::FcvtWuS => to_word!(F32, to_u32),
        Op::FcvtLS => to_double!(F32, to_i64),
        Op::FcvtLuS => to_double!(F32, to_u64),
        Op::FcvtSW => from!(F32, from_i32, i32),
        Op::FcvtSWu => from!(F32, from_u32, u32),
        Op::FcvtSL => from!(F32, from_i64, i64),
        Op::FcvtSLu => from!(F32, from_u64, u64),
        Op::FmvXW => Outcome::Integer(f(inst.rs1) as i32 as i64 as u64),
        Op::FmvWX => Outcome::Float(x & 0xFFFF_FFFF | NAN_BOX),

        Op::FaddD => rounded!(F64, add),
        Op::FsubD => rounded!(F64, sub),
        Op::FmulD => rounded!(F64, mul),
        Op::FdivD => rounded!(F64, div),
        Op::FsqrtD => float(fp::sqrt(a!(F64), rounding()?, flags)),
        Op::FmaddD => fused!(F64, fmadd),
        Op::FmsubD => fused!(F64, fmsub),
        Op::FnmsubD => fused!(F64, fnmsub),
        Op::FnmaddD => fused!(F64, fnmadd),
        Op::FsgnjD => signed!(F64, copy_sign),
        Op::FsgnjnD => signed!(F64, copy_sign_negated),
        Op::FsgnjxD => signed!(F64, copy_sign_xor),
        Op::FminD => float(fp::minimum(a!(F64), b!(F64), flags)),
        Op::FmaxD => float(fp::maximum(a!(F64), b!(F64), flags)),
        Op::FeqD => compared!(F64, equal),
        Op::FltD => compared!(F64, less),
        Op::FleD => compared!(F64, less_or_equal),
        Op::FclassD => Outcome::Integer(fp::classify(a!(F64))),
        Op::FcvtWD => to_word!(F64, to_i32),
        Op::FcvtWuD => to_word!(F64, to_u32),
        Op::FcvtLD => to_double!(F64, to_i64),
        Op::FcvtLuD => to_double!(F64, to_u64),
        Op::FcvtDW => from!(F64, from_i32, i32),
        Op::FcvtDWu => from!(F64, from_u32, u32),
        Op::FcvtDL => from!(F64, from_i64, i64),
        Op::FcvtDLu => from!(F64, from_u64, u64),
        Op::FmvXD => Outcome::Integer(f(inst.rs1)),
        Op::FmvDX => Outcome::Float(x),
        Op::FcvtSD => float(fp::narrow(a!(F64), rounding()?, flags)),
        Op::FcvtDS => float(fp::widen(a!(F32), flags)),
        _ => return None,
    })
}

/// The upper half of a register that holds a 32-bit value.
pub(super) const NAN_BOX: u64 = 0xFFFF_FFFF_0000_0000;

fn float<F: Float>(value: F) -> Outcome {
    Outcome::Float(value.to_register())
}
