//! Values and flags against the host's FPU in the four modes it knows. SSE
//! raises the flags of IEEE 754 with tininess detected after rounding, as
//! RISC-V does; only the NaN patterns differ.

#![expect(
    unsafe_code,
    reason = "MXCSR holds the FPU's rounding mode and flags; only asm reaches it"
)]

use std::arch::asm;

use proptest::prelude::*;

use super::{config, pair, pattern, raised, triple};
use crate::fp::{self, F32, F64, Float, Rounding};

/// MXCSR's rounding-control field for each mode it knows, all traps masked and
/// all flags clear.
const MODES: [(Rounding, u32); 4] = [
    (Rounding::NearestEven, 0x1f80),
    (Rounding::Down, 0x3f80),
    (Rounding::Up, 0x5f80),
    (Rounding::TowardZero, 0x7f80),
];

/// MXCSR's flags as `fflags` lays them out. (IE ZE OE UE PE at 0, 2, 3, 4, 5.)
fn fflags(mxcsr: u32) -> u8 {
    let bit = |from: u32, to: u32| ((mxcsr >> from & 1) << to) as u8;
    bit(0, 4) | bit(2, 3) | bit(3, 2) | bit(4, 1) | bit(5, 0)
}

/// Defines a function that runs one SSE instruction under the given MXCSR and
/// returns its destination and MXCSR afterwards. `$a` is both destination and
/// first operand.
macro_rules! instruction {
    ($name:ident, $text:literal, $a:ty, $($operand:ident: $b:ty),*) => {
        fn $name(a: $a, $($operand: $b,)* control: u32) -> ($a, u32) {
            let (mut result, mut status, mut saved) = (a, control, 0u32);
            // SAFETY: the pointers are to live, aligned u32s of this frame; the
            // instruction touches registers only; MXCSR is restored before the
            // block ends, so the compiler's floating point never sees another.
            // The callers have checked that the CPU has the instruction.
            unsafe {
                asm!(
                    "stmxcsr [{saved}]",
                    "ldmxcsr [{status}]",
                    $text,
                    "stmxcsr [{status}]",
                    "ldmxcsr [{saved}]",
                    saved = in(reg) &raw mut saved,
                    status = in(reg) &raw mut status,
                    a = inout(xmm_reg) result,
                    $($operand = in(xmm_reg) $operand,)*
                    out("rax") _,
                    options(nostack)
                );
            }
            (result, status)
        }
    };
}

instruction!(addss, "addss {a}, {b}", f32, b: f32);
instruction!(subss, "subss {a}, {b}", f32, b: f32);
instruction!(mulss, "mulss {a}, {b}", f32, b: f32);
instruction!(divss, "divss {a}, {b}", f32, b: f32);
instruction!(sqrtss, "sqrtss {a}, {a}", f32,);
instruction!(fmaddss, "vfmadd213ss {a}, {b}, {c}", f32, b: f32, c: f32);
instruction!(addsd, "addsd {a}, {b}", f64, b: f64);
instruction!(subsd, "subsd {a}, {b}", f64, b: f64);
instruction!(mulsd, "mulsd {a}, {b}", f64, b: f64);
instruction!(divsd, "divsd {a}, {b}", f64, b: f64);
instruction!(sqrtsd, "sqrtsd {a}, {a}", f64,);
instruction!(fmaddsd, "vfmadd213sd {a}, {b}, {c}", f64, b: f64, c: f64);
instruction!(narrow, "cvtsd2ss {a}, {b}", f32, b: f64);
instruction!(widen, "cvtss2sd {a}, {b}", f64, b: f32);
// The integer travels through an xmm register to suit the macro's constraints.
instruction!(single_from, "movq rax, {b}\ncvtsi2ss {a}, rax", f32, b: f64);
instruction!(double_from, "movq rax, {b}\ncvtsi2sd {a}, rax", f64, b: f64);
instruction!(from_single, "cvtss2si rax, {b}\nmovq {a}, rax", f64, b: f32);
instruction!(from_double, "cvtsd2si rax, {b}\nmovq {a}, rax", f64, b: f64);

/// A result as we deliver it: every NaN is the canonical one.
fn canonical<F: Float>(value: F) -> F {
    if value.is_nan() { F::nan() } else { value }
}

fn single((value, mxcsr): (f32, u32)) -> (F32, u8) {
    (canonical(F32(value.to_bits())), fflags(mxcsr))
}

fn double((value, mxcsr): (f64, u32)) -> (F64, u8) {
    (canonical(F64(value.to_bits())), fflags(mxcsr))
}

fn integer((value, mxcsr): (f64, u32)) -> (i64, u8) {
    (value.to_bits() as i64, fflags(mxcsr))
}

fn host32(value: F32) -> f32 {
    f32::from_bits(value.0)
}

fn host64(value: F64) -> f64 {
    f64::from_bits(value.0)
}

/// Whether this is infinity times zero plus a NaN: IEEE 754 leaves NV open, and
/// x86 and RISC-V differ. The corner cases cover it.
fn is_left_open<F: Float>(a: F, b: F, c: F) -> bool {
    let magnitudes = (a.magnitude().min(b.magnitude()), a.magnitude().max(b.magnitude()));
    c.is_nan() && magnitudes == (0, F::INFINITY)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn single_arithmetic_is_the_hardwares((a, b) in pair::<F32>()) {
        let (x, y) = (host32(a), host32(b));
        for (mode, control) in MODES {
            prop_assert_eq!(raised(|f| fp::add(a, b, mode, f)), single(addss(x, y, control)));
            prop_assert_eq!(raised(|f| fp::sub(a, b, mode, f)), single(subss(x, y, control)));
            prop_assert_eq!(raised(|f| fp::mul(a, b, mode, f)), single(mulss(x, y, control)));
            prop_assert_eq!(raised(|f| fp::div(a, b, mode, f)), single(divss(x, y, control)));
            prop_assert_eq!(raised(|f| fp::sqrt(a, mode, f)), single(sqrtss(x, control)));
        }
    }

    #[test]
    fn double_arithmetic_is_the_hardwares((a, b) in pair::<F64>()) {
        let (x, y) = (host64(a), host64(b));
        for (mode, control) in MODES {
            prop_assert_eq!(raised(|f| fp::add(a, b, mode, f)), double(addsd(x, y, control)));
            prop_assert_eq!(raised(|f| fp::sub(a, b, mode, f)), double(subsd(x, y, control)));
            prop_assert_eq!(raised(|f| fp::mul(a, b, mode, f)), double(mulsd(x, y, control)));
            prop_assert_eq!(raised(|f| fp::div(a, b, mode, f)), double(divsd(x, y, control)));
            prop_assert_eq!(raised(|f| fp::sqrt(a, mode, f)), double(sqrtsd(x, control)));
        }
    }

    #[test]
    fn single_fused_is_the_hardwares((a, b, c) in triple::<F32>()) {
        if !is_x86_feature_detected!("fma") || is_left_open(a, b, c) {
            return Ok(());
        }
        let (x, y, z) = (host32(a), host32(b), host32(c));
        for (mode, control) in MODES {
            let fused = |x, z| single(fmaddss(x, y, z, control));
            prop_assert_eq!(raised(|f| fp::fmadd(a, b, c, mode, f)), fused(x, z));
            prop_assert_eq!(raised(|f| fp::fmsub(a, b, c, mode, f)), fused(x, -z));
            prop_assert_eq!(raised(|f| fp::fnmsub(a, b, c, mode, f)), fused(-x, z));
            prop_assert_eq!(raised(|f| fp::fnmadd(a, b, c, mode, f)), fused(-x, -z));
        }
    }

    #[test]
    fn double_fused_is_the_hardwares((a, b, c) in triple::<F64>()) {
        if !is_x86_feature_detected!("fma") || is_left_open(a, b, c) {
            return Ok(());
        }
        let (x, y, z) = (host64(a), host64(b), host64(c));
        for (mode, control) in MODES {
            let fused = |x, z| double(fmaddsd(x, y, z, control));
            prop_assert_eq!(raised(|f| fp::fmadd(a, b, c, mode, f)), fused(x, z));
            prop_assert_eq!(raised(|f| fp::fmsub(a, b, c, mode, f)), fused(x, -z));
            prop_assert_eq!(raised(|f| fp::fnmsub(a, b, c, mode, f)), fused(-x, z));
            prop_assert_eq!(raised(|f| fp::fnmadd(a, b, c, mode, f)), fused(-x, -z));
        }
    }

    #[test]
    fn conversion_between_formats_is_the_hardwares(
        a in pattern::<F32>(), b in pattern::<F64>(), low in 0..1u64 << 30
    ) {
        for (mode, control) in MODES {
            let (wide, flags) = raised(|f| fp::widen(a, f));
            prop_assert_eq!((wide, flags), double(widen(0.0, host32(a), control)));
            for value in [b, F64(wide.bits() ^ low)] {
                let expected = single(narrow(0.0, host64(value), control));
                prop_assert_eq!(raised(|f| fp::narrow(value, mode, f)), expected);
            }
        }
    }

    #[test]
    fn conversion_with_integers_is_the_hardwares(
        a in pattern::<F32>(), b in pattern::<F64>(), bits in any::<i64>(), shift in 0..64u32
    ) {
        let value = bits >> shift;
        let carrier = f64::from_bits(value as u64);
        for (mode, control) in MODES {
            let expected = single(single_from(0.0, carrier, control));
            prop_assert_eq!(raised(|f| fp::from_i64(value, mode, f)), expected);
            let expected = double(double_from(0.0, carrier, control));
            prop_assert_eq!(raised(|f| fp::from_i64(value, mode, f)), expected);
            // Out of range both raise NV, but the values differ by definition.
            let (ours, flags) = raised(|f| fp::to_i64(a, mode, f));
            let (theirs, expected) = integer(from_single(0.0, host32(a), control));
            prop_assert_eq!(flags, expected);
            prop_assert!(ours == theirs || flags == 0x10);
            let (ours, flags) = raised(|f| fp::to_i64(b, mode, f));
            let (theirs, expected) = integer(from_double(0.0, host64(b), control));
            prop_assert_eq!(flags, expected);
            prop_assert!(ours == theirs || flags == 0x10);
        }
    }
}
