//! With NX accrued, RNE operations may be served by the host: value and flags
//! must be those of the integer implementation, for every operand.

use proptest::prelude::*;

use super::{config, pair, pattern, triple};
use crate::fp::{self, F32, F64, Flags, Float, Rounding, arithmetic, convert, fused};

const RNE: Rounding = Rounding::NearestEven;

/// Holds `fast` against `slow`, both starting with NX accrued.
fn same<T: PartialEq + core::fmt::Debug>(
    fast: impl FnOnce(&mut Flags) -> T,
    slow: impl FnOnce(&mut Flags) -> T,
) {
    let (mut fast_flags, mut slow_flags) = (Flags::NX, Flags::NX);
    let fast = fast(&mut fast_flags);
    let slow = slow(&mut slow_flags);
    assert_eq!((fast, fast_flags), (slow, slow_flags));
}

fn arithmetic_agrees<F: Float>(a: F, b: F) {
    same(|f| fp::add(a, b, RNE, f), |f| arithmetic::soft_add(a, b, RNE, f));
    same(|f| fp::sub(a, b, RNE, f), |f| arithmetic::soft_add(a, b.negated(), RNE, f));
    same(|f| fp::mul(a, b, RNE, f), |f| arithmetic::soft_mul(a, b, RNE, f));
    same(|f| fp::div(a, b, RNE, f), |f| arithmetic::soft_div(a, b, RNE, f));
    same(|f| fp::sqrt(a, RNE, f), |f| arithmetic::soft_sqrt(a, RNE, f));
}

fn fused_agrees<F: Float>(a: F, b: F, c: F) {
    same(|f| fp::fmadd(a, b, c, RNE, f), |f| fused::soft_fmadd(a, b, c, RNE, f));
}

fn integers_agree<F: Float>(value: i64) {
    let (negative, magnitude) = (value < 0, value.unsigned_abs());
    for accrued in [Flags::NONE, Flags::NX] {
        for rounding in super::ALL_ROUNDINGS {
            let (mut fast, mut slow) = (accrued, accrued);
            let number: F = fp::from_i64(value, rounding, &mut fast);
            let expected = convert::soft_from_integer(negative, magnitude, rounding, &mut slow);
            assert_eq!((number, fast), (expected, slow));
            let (mut fast, mut slow) = (accrued, accrued);
            let number: F = fp::from_u64(value as u64, rounding, &mut fast);
            let expected = convert::soft_from_integer(false, value as u64, rounding, &mut slow);
            assert_eq!((number, fast), (expected, slow));
        }
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_host_serves_singles_unnoticed((a, b) in pair::<F32>()) {
        arithmetic_agrees(a, b);
    }

    #[test]
    fn the_host_serves_doubles_unnoticed((a, b) in pair::<F64>()) {
        arithmetic_agrees(a, b);
    }

    #[test]
    fn the_host_fuses_singles_unnoticed((a, b, c) in triple::<F32>()) {
        fused_agrees(a, b, c);
    }

    #[test]
    fn the_host_fuses_doubles_unnoticed((a, b, c) in triple::<F64>()) {
        fused_agrees(a, b, c);
    }

    #[test]
    fn the_host_narrows_unnoticed(a in pattern::<F64>(), single in pattern::<F32>(), low in 0..1u64 << 30) {
        same(|f| fp::narrow(a, RNE, f), |f| convert::soft_narrow(a, RNE, f));
        // Doubles in a single's range, and at a single's boundaries.
        let near = F64(fp::widen(single, &mut Flags::default()).bits() ^ low);
        same(|f| fp::narrow(near, RNE, f), |f| convert::soft_narrow(near, RNE, f));
    }

    #[test]
    fn the_host_converts_integers_unnoticed(bits in any::<i64>(), shift in 0..64u32) {
        for value in [bits >> shift, i64::MIN >> shift, (i64::MAX >> shift).wrapping_add(1)] {
            integers_agree::<F32>(value);
            integers_agree::<F64>(value);
        }
    }
}

/// The smallest normal number can be the rounding of a tiny one, which raises
/// UF: the boundary at which the host may no longer be asked.
#[test]
fn underflow_up_to_the_smallest_normal_number_is_not_lost() {
    let below_one = F64(0x3fef_ffff_ffff_ffff);
    let least = F64(F64::MIN_NORMAL);
    let mut flags = Flags::NX;
    assert_eq!(fp::mul(least, below_one, RNE, &mut flags), least);
    assert!(flags.contains(Flags::UF));
}
