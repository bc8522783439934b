//! Results and flags worked out by hand, one behaviour a test.

use super::{ALL_ROUNDINGS, raised};
use crate::fp::{self, F32, F64, Flags, Float, Rounding};

const RNE: Rounding = Rounding::NearestEven;
const NX: u8 = Flags::NX.bits();
const UF_NX: u8 = Flags::UF.bits() | NX;
const OF_NX: u8 = Flags::OF.bits() | NX;
const NV: u8 = Flags::NV.bits();
const DZ: u8 = Flags::DZ.bits();

const ONE: F32 = F32(0x3f80_0000);
const MAX: F32 = F32(0x7f7f_ffff);
const INF: F32 = F32(0x7f80_0000);
const ZERO: F32 = F32(0);
const NEG_ZERO: F32 = F32(0x8000_0000);
const NAN: F32 = F32(0x7fc0_0000);
const QUIET_WITH_PAYLOAD: F32 = F32(0xffc1_2345);
const SIGNALING: F32 = F32(0x7f80_0001);
const LEAST: F32 = F32(1);
const MIN_NORMAL: F32 = F32(0x0080_0000);

fn single(value: f32) -> F32 {
    F32(value.to_bits())
}

fn double(value: f64) -> F64 {
    F64(value.to_bits())
}

#[test]
fn overflow_delivers_what_the_mode_asks_for() {
    let positive = [INF, MAX, MAX, INF, INF];
    let negative = [INF, MAX, INF, MAX, INF].map(F32::negated);
    for (index, mode) in ALL_ROUNDINGS.into_iter().enumerate() {
        assert_eq!(raised(|f| fp::mul(MAX, MAX, mode, f)), (positive[index], OF_NX));
        assert_eq!(raised(|f| fp::mul(MAX, MAX.negated(), mode, f)), (negative[index], OF_NX));
    }
}

#[test]
fn rounding_up_to_infinity_is_overflow_and_rounding_down_from_above_the_maximum_is_not() {
    let half_ulp = F32(0x7300_0000); // 2^103
    let below_half = F32(0x72ff_ffff);
    assert_eq!(raised(|f| fp::add(MAX, half_ulp, RNE, f)), (INF, OF_NX));
    assert_eq!(raised(|f| fp::add(MAX, below_half, RNE, f)), (MAX, NX));
    assert_eq!(raised(|f| fp::add(MAX, below_half, Rounding::Up, f)), (INF, OF_NX));
    assert_eq!(raised(|f| fp::add(MAX, half_ulp, Rounding::TowardZero, f)), (MAX, NX));
}

#[test]
fn ties_go_to_even_or_away() {
    let tie = single(f32::EPSILON / 2.0);
    let odd = F32(ONE.0 + 1);
    let even = F32(ONE.0 + 2);
    assert_eq!(raised(|f| fp::add(ONE, tie, RNE, f)), (ONE, NX));
    assert_eq!(raised(|f| fp::add(odd, tie, RNE, f)), (even, NX));
    assert_eq!(raised(|f| fp::add(ONE, tie, Rounding::NearestAway, f)), (odd, NX));
    let minus = |value: F32| value.negated();
    let sum = raised(|f| fp::add(minus(ONE), minus(tie), Rounding::NearestAway, f));
    assert_eq!(sum, (minus(odd), NX));
}

#[test]
fn subnormal_sums_are_exact_and_carry_into_the_normal_numbers() {
    assert_eq!(raised(|f| fp::add(F32(0x007f_ffff), LEAST, RNE, f)), (MIN_NORMAL, 0));
    assert_eq!(raised(|f| fp::sub(MIN_NORMAL, LEAST, RNE, f)), (F32(0x007f_ffff), 0));
}

#[test]
fn exact_subnormal_products_do_not_underflow() {
    assert_eq!(raised(|f| fp::mul(MIN_NORMAL, single(0.5), RNE, f)), (F32(0x0040_0000), 0));
}

#[test]
fn vanishing_products_underflow_in_the_direction_of_the_mode() {
    let positive = [ZERO, ZERO, ZERO, LEAST, ZERO];
    let negative = [ZERO, ZERO, LEAST, ZERO, ZERO].map(F32::negated);
    for (index, mode) in ALL_ROUNDINGS.into_iter().enumerate() {
        let product = raised(|f| fp::mul(LEAST, MIN_NORMAL, mode, f));
        assert_eq!(product, (positive[index], UF_NX));
        let product = raised(|f| fp::mul(LEAST.negated(), MIN_NORMAL, mode, f));
        assert_eq!(product, (negative[index], UF_NX));
    }
}

#[test]
fn half_the_least_number_is_a_tie() {
    let half = single(0.5);
    assert_eq!(raised(|f| fp::mul(LEAST, half, RNE, f)), (ZERO, UF_NX));
    assert_eq!(raised(|f| fp::mul(LEAST, half, Rounding::NearestAway, f)), (LEAST, UF_NX));
}

#[test]
fn tininess_is_detected_after_rounding() {
    // (1 - 2^-24) * 2^-126 needs 24 bits, so it is tiny although it rounds to
    // the smallest normal number.
    let tiny = raised(|f| fp::mul(MIN_NORMAL, F32(ONE.0 - 1), RNE, f));
    assert_eq!(tiny, (MIN_NORMAL, UF_NX));
    // (1 - 2^-25) * 2^-126 would round up to it with an unbounded exponent too.
    let not_tiny = double((1.0 - 2f64.powi(-25)) * 2f64.powi(-126));
    assert_eq!(raised(|f| fp::narrow(not_tiny, RNE, f)), (MIN_NORMAL, NX));
    // Towards zero it stays below.
    let truncated = raised(|f| fp::narrow(not_tiny, Rounding::TowardZero, f));
    assert_eq!(truncated, (F32(0x007f_ffff), UF_NX));
}

#[test]
fn an_exact_difference_of_equals_is_positive_zero_except_downwards() {
    for mode in ALL_ROUNDINGS {
        let expected = if mode == Rounding::Down { NEG_ZERO } else { ZERO };
        assert_eq!(raised(|f| fp::sub(ONE, ONE, mode, f)), (expected, 0));
        assert_eq!(raised(|f| fp::add(ZERO, NEG_ZERO, mode, f)), (expected, 0));
        assert_eq!(raised(|f| fp::fmsub(ONE, ONE, ONE, mode, f)), (expected, 0));
        assert_eq!(raised(|f| fp::fmadd(ZERO, ONE, NEG_ZERO, mode, f)), (expected, 0));
        assert_eq!(raised(|f| fp::add(NEG_ZERO, NEG_ZERO, mode, f)), (NEG_ZERO, 0));
        // Both terms are negated, not their sum: -1 + 1, and -0 - 0.
        assert_eq!(raised(|f| fp::fnmadd(ONE, ONE, ONE.negated(), mode, f)), (expected, 0));
        assert_eq!(raised(|f| fp::fnmadd(ZERO, ONE, ZERO, mode, f)), (NEG_ZERO, 0));
    }
}

#[test]
fn nan_payloads_and_signs_reach_no_result() {
    for nan in [NAN, QUIET_WITH_PAYLOAD] {
        assert_eq!(raised(|f| fp::add(nan, ONE, RNE, f)), (NAN, 0));
        assert_eq!(raised(|f| fp::mul(ONE, nan, RNE, f)), (NAN, 0));
        assert_eq!(raised(|f| fp::div(nan, ZERO, RNE, f)), (NAN, 0));
        assert_eq!(raised(|f| fp::sqrt(nan, RNE, f)), (NAN, 0));
        assert_eq!(raised(|f| fp::fmadd(ONE, ONE, nan, RNE, f)), (NAN, 0));
        assert_eq!(raised(|f| fp::widen(nan, f)), (F64(F64::CANONICAL_NAN), 0));
    }
    assert_eq!(raised(|f| fp::narrow(F64(0xfff8_dead_beef_0000), RNE, f)), (NAN, 0));
}

#[test]
fn signaling_nans_are_invalid() {
    assert_eq!(raised(|f| fp::add(SIGNALING, ONE, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::sub(ONE, SIGNALING, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::mul(SIGNALING, NAN, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::div(SIGNALING, ZERO, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::sqrt(SIGNALING, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::fmadd(ONE, NAN, SIGNALING, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::fmadd(INF, ONE, SIGNALING, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::widen(SIGNALING, f)), (F64(F64::CANONICAL_NAN), NV));
    assert_eq!(raised(|f| fp::narrow(F64(0x7ff0_0000_0000_0001), RNE, f)), (NAN, NV));
}

#[test]
fn invalid_operations() {
    assert_eq!(raised(|f| fp::sub(INF, INF, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::mul(INF, NEG_ZERO, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::div(INF, INF, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::div(ZERO, ZERO, RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::sqrt(ONE.negated(), RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::sqrt(INF.negated(), RNE, f)), (NAN, NV));
    assert_eq!(raised(|f| fp::sqrt(NEG_ZERO, RNE, f)), (NEG_ZERO, 0));
    assert_eq!(raised(|f| fp::fmsub(INF, ONE, INF, RNE, f)), (NAN, NV));
}

#[test]
fn infinity_times_zero_is_invalid_whatever_is_added() {
    for addend in [ONE, INF, NAN, QUIET_WITH_PAYLOAD, SIGNALING] {
        assert_eq!(raised(|f| fp::fmadd(INF, ZERO, addend, RNE, f)), (NAN, NV));
        assert_eq!(raised(|f| fp::fnmsub(NEG_ZERO, INF, addend, RNE, f)), (NAN, NV));
    }
}

#[test]
fn only_finite_numbers_by_zero_raise_division_by_zero() {
    assert_eq!(raised(|f| fp::div(ONE, NEG_ZERO, RNE, f)), (INF.negated(), DZ));
    assert_eq!(raised(|f| fp::div(LEAST, ZERO, RNE, f)), (INF, DZ));
    assert_eq!(raised(|f| fp::div(INF, ZERO, RNE, f)), (INF, 0));
    assert_eq!(raised(|f| fp::div(ONE, INF, RNE, f)), (ZERO, 0));
}

#[test]
fn a_fused_operation_rounds_once() {
    // (1 + e)^2 - (1 + 2e) = e^2, which two roundings would lose.
    let e = f64::EPSILON;
    let (a, c) = (double(1.0 + e), double(1.0 + 2.0 * e));
    assert_eq!(raised(|f| fp::fmsub(a, a, c, RNE, f)), (double(e * e), 0));
    // (1 + 2^-27)(1 + 2^-26) lies halfway between two doubles, the lower one
    // even; the least addend breaks the tie either way.
    let (a, b) = (double(1.0 + 2f64.powi(-27)), double(1.0 + 2f64.powi(-26)));
    let even = 1.0 + 2f64.powi(-26) + 2f64.powi(-27);
    let least = F64(1);
    assert_eq!(raised(|f| fp::mul(a, b, RNE, f)), (double(even), NX));
    assert_eq!(raised(|f| fp::fmadd(a, b, least, RNE, f)), (double(even + e), NX));
    let away = raised(|f| fp::fmsub(a, b, least, Rounding::NearestAway, f));
    assert_eq!(away, (double(even), NX));
}

#[test]
fn flags_accrue_and_are_never_cleared() {
    let mut flags = Flags::NONE;
    fp::div(ONE, ZERO, RNE, &mut flags);
    fp::div(ONE, single(3.0), RNE, &mut flags);
    fp::add(ONE, ONE, RNE, &mut flags);
    assert_eq!(flags.bits(), DZ | NX);
}

#[test]
fn minimum_and_maximum_prefer_numbers_and_order_the_zeros() {
    assert_eq!(raised(|f| fp::minimum(ZERO, NEG_ZERO, f)), (NEG_ZERO, 0));
    assert_eq!(raised(|f| fp::maximum(NEG_ZERO, ZERO, f)), (ZERO, 0));
    assert_eq!(raised(|f| fp::minimum(QUIET_WITH_PAYLOAD, ONE, f)), (ONE, 0));
    assert_eq!(raised(|f| fp::maximum(ONE, SIGNALING, f)), (ONE, NV));
    assert_eq!(raised(|f| fp::minimum(QUIET_WITH_PAYLOAD, NAN, f)), (NAN, 0));
    assert_eq!(raised(|f| fp::maximum(QUIET_WITH_PAYLOAD, SIGNALING, f)), (NAN, NV));
}

#[test]
fn comparisons_with_nan_are_false_and_signal_if_ordered() {
    assert_eq!(raised(|f| fp::equal(NAN, NAN, f)), (false, 0));
    assert_eq!(raised(|f| fp::equal(SIGNALING, ONE, f)), (false, NV));
    assert_eq!(raised(|f| fp::less(ONE, NAN, f)), (false, NV));
    assert_eq!(raised(|f| fp::less_or_equal(NAN, NAN, f)), (false, NV));
    assert_eq!(raised(|f| fp::equal(ZERO, NEG_ZERO, f)), (true, 0));
    assert_eq!(raised(|f| fp::less(NEG_ZERO, ZERO, f)), (false, 0));
}

#[test]
fn integers_saturate_with_nv_alone() {
    const RTZ: Rounding = Rounding::TowardZero;
    assert_eq!(raised(|f| fp::to_i32(NAN.negated(), RTZ, f)), (i32::MAX, NV));
    assert_eq!(raised(|f| fp::to_u64(SIGNALING, RTZ, f)), (u64::MAX, NV));
    assert_eq!(raised(|f| fp::to_i64(INF.negated(), RTZ, f)), (i64::MIN, NV));
    assert_eq!(raised(|f| fp::to_u32(INF.negated(), RTZ, f)), (0, NV));
    assert_eq!(raised(|f| fp::to_u32(single(-1.0), RTZ, f)), (0, NV));
    assert_eq!(raised(|f| fp::to_u32(single(-0.9), RTZ, f)), (0, NX));
    assert_eq!(raised(|f| fp::to_u32(single(-0.9), RNE, f)), (0, NV));
    assert_eq!(raised(|f| fp::to_u32(single(-0.5), RNE, f)), (0, NX));
    assert_eq!(raised(|f| fp::to_i32(double(2_147_483_647.5), RTZ, f)), (i32::MAX, NX));
    assert_eq!(raised(|f| fp::to_i32(double(2_147_483_647.5), RNE, f)), (i32::MAX, NV));
    assert_eq!(raised(|f| fp::to_i32(double(-2_147_483_648.5), RNE, f)), (i32::MIN, NX));
    assert_eq!(raised(|f| fp::to_i64(double(-9_223_372_036_854_775_808.0), RTZ, f)), (i64::MIN, 0));
    assert_eq!(
        raised(|f| fp::to_u64(double(18_446_744_073_709_551_616.0), RTZ, f)),
        (u64::MAX, NV)
    );
}

#[test]
fn integers_too_wide_for_the_format_are_rounded_by_the_mode() {
    let value = (1 << 24) + 1;
    let [even, odd] = [0x4b80_0000, 0x4b80_0001].map(F32);
    let expected = [even, even, even, odd, odd];
    for (index, mode) in ALL_ROUNDINGS.into_iter().enumerate() {
        assert_eq!(raised(|f| fp::from_i32(value, mode, f)), (expected[index], NX));
    }
    assert_eq!(raised(|f| fp::from_i64::<F32>(0, Rounding::Down, f)), (ZERO, 0));
    assert_eq!(raised(|f| fp::from_i64(i64::MIN, RNE, f)), (F32(0xdf00_0000), 0));
    assert_eq!(raised(|f| fp::from_u64(u64::MAX, RNE, f)), (F32(0x5f80_0000), NX));
}

#[test]
fn classes_are_one_bit_each() {
    let classes = [
        INF.negated(),
        ONE.negated(),
        LEAST.negated(),
        NEG_ZERO,
        ZERO,
        LEAST,
        MIN_NORMAL,
        INF,
        SIGNALING,
        QUIET_WITH_PAYLOAD,
    ];
    for (bit, value) in classes.into_iter().enumerate() {
        assert_eq!(fp::classify(value), 1 << bit);
    }
    assert_eq!(fp::classify(F64(0x000f_ffff_ffff_ffff)), 1 << 5);
    assert_eq!(fp::classify(F64(0x7ff4_0000_0000_0000)), 1 << 8);
}

#[test]
fn sign_injection_moves_signs_of_nans_too() {
    assert_eq!(fp::copy_sign(SIGNALING, NEG_ZERO), F32(0xff80_0001));
    assert_eq!(fp::copy_sign_negated(ONE, ONE), ONE.negated());
    assert_eq!(fp::copy_sign_negated(ONE.negated(), NEG_ZERO), ONE);
    assert_eq!(fp::copy_sign_xor(ONE.negated(), ONE.negated()), ONE);
    assert_eq!(fp::copy_sign_xor(ONE.negated(), ZERO), ONE.negated());
}

#[test]
fn narrow_values_are_boxed_and_badly_boxed_ones_read_as_nan() {
    assert_eq!(ONE.to_register(), 0xffff_ffff_3f80_0000);
    assert_eq!(F32::from_register(0xffff_ffff_3f80_0000), ONE);
    assert_eq!(F32::from_register(0xffff_ffff_0000_0000), ZERO);
    for register in [0x3f80_0000, 0xffff_fffe_ffff_ffff, 0x7fff_ffff_3f80_0000] {
        assert_eq!(F32::from_register(register), NAN);
    }
    assert_eq!(F64::from_register(0x3f80_0000).to_register(), 0x3f80_0000);
}

#[test]
fn reserved_rounding_modes_are_refused() {
    assert_eq!(Rounding::resolve(Rounding::DYNAMIC, 2), Some(Rounding::Down));
    assert_eq!(Rounding::resolve(4, 7), Some(Rounding::NearestAway));
    for (rm, frm) in [(5, 0), (6, 0), (7, 5), (7, 6), (7, 7)] {
        assert_eq!(Rounding::resolve(rm, frm), None);
    }
}
