//! FADD, FSUB, FMUL, FDIV and FSQRT.

use super::host::{is_finite, is_safely_normal, is_zero, may_serve};
use super::round::{
    Unpacked, difference_zero, infinity, invalid, propagate, shift_right_jam, upper_half_jam, zero,
};
use super::{Flags, Float, Rounding};

/// `a + b` (FADD).
#[inline]
pub fn add<F: Float>(a: F, b: F, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) {
        let sum = a.host_add(b);
        if is_finite(sum) {
            return sum;
        }
    }
    soft_add(a, b, rounding, flags)
}

/// `a - b` (FSUB).
#[inline]
pub fn sub<F: Float>(a: F, b: F, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) {
        let difference = a.host_sub(b);
        if is_finite(difference) {
            return difference;
        }
    }
    // Negating a NaN does no harm: its sign reaches no result.
    soft_add(a, b.negated(), rounding, flags)
}

/// `a * b` (FMUL).
#[inline]
pub fn mul<F: Float>(a: F, b: F, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) {
        let product = a.host_mul(b);
        if is_safely_normal(product) || (is_zero(product) && (is_zero(a) || is_zero(b))) {
            return product;
        }
    }
    soft_mul(a, b, rounding, flags)
}

/// `a / b` (FDIV).
#[inline]
pub fn div<F: Float>(a: F, b: F, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) {
        let quotient = a.host_div(b);
        if is_safely_normal(quotient) || (is_zero(quotient) && is_zero(a)) {
            return quotient;
        }
    }
    soft_div(a, b, rounding, flags)
}

/// The square root of `a` (FSQRT).
#[inline]
pub fn sqrt<F: Float>(a: F, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) {
        let root = a.host_sqrt();
        if is_finite(root) {
            return root;
        }
    }
    soft_sqrt(a, rounding, flags)
}

#[cold]
#[inline(never)]
pub(super) fn soft_add<F: Float>(a: F, b: F, rounding: Rounding, flags: &mut Flags) -> F {
    if a.is_nan() || b.is_nan() {
        return propagate(&[a, b], flags);
    }
    let opposite = a.is_negative() != b.is_negative();
    match (is_finite(a), is_finite(b)) {
        (false, false) if opposite => return invalid(flags),
        (false, _) => return a,
        (true, false) => return b,
        (true, true) => {}
    }
    match (is_zero(a), is_zero(b)) {
        (true, true) if opposite => return difference_zero(rounding),
        (true, _) => return b,
        (false, true) => return a,
        (false, false) => {}
    }
    // The patterns of finite numbers are in the order of their magnitudes.
    let (large, small) = if a.magnitude() >= b.magnitude() { (a, b) } else { (b, a) };
    let (large, small) = (Unpacked::new(large), Unpacked::new(small));
    // One bit of headroom; the lowest eleven bits of a significand are zero.
    let high = large.significand >> 1;
    let low = shift_right_jam(small.significand >> 1, large.exponent.abs_diff(small.exponent));
    // Bits are lost to the jam only if the exponents differ by more than ten;
    // then a difference cancels one place at most, and the sticky bit stays
    // far below the last place.
    let significand = if opposite { high - low } else { high + low };
    if significand == 0 {
        return difference_zero(rounding);
    }
    Unpacked::normalized(large.negative, large.exponent + 1, significand).round(rounding, flags)
}

#[cold]
#[inline(never)]
pub(super) fn soft_mul<F: Float>(a: F, b: F, rounding: Rounding, flags: &mut Flags) -> F {
    if a.is_nan() || b.is_nan() {
        return propagate(&[a, b], flags);
    }
    let negative = a.is_negative() != b.is_negative();
    if !is_finite(a) || !is_finite(b) {
        return if is_zero(a) || is_zero(b) { invalid(flags) } else { infinity(negative) };
    }
    if is_zero(a) || is_zero(b) {
        return zero(negative);
    }
    let (a, b) = (Unpacked::new(a), Unpacked::new(b));
    let product = u128::from(a.significand) * u128::from(b.significand);
    // The product of two numbers in [1, 2) is in [1, 4).
    Unpacked::normalized(negative, a.exponent + b.exponent + 1, upper_half_jam(product))
        .round(rounding, flags)
}

#[cold]
#[inline(never)]
pub(super) fn soft_div<F: Float>(a: F, b: F, rounding: Rounding, flags: &mut Flags) -> F {
    if a.is_nan() || b.is_nan() {
        return propagate(&[a, b], flags);
    }
    let negative = a.is_negative() != b.is_negative();
    match (is_finite(a), is_finite(b)) {
        (false, false) => return invalid(flags),
        (false, true) => return infinity(negative),
        (true, false) => return zero(negative),
        (true, true) => {}
    }
    match (is_zero(a), is_zero(b)) {
        (true, true) => return invalid(flags),
        (true, false) => return zero(negative),
        (false, true) => {
            flags.raise(Flags::DZ);
            return infinity(negative);
        }
        (false, false) => {}
    }
    let (a, b) = (Unpacked::new(a), Unpacked::new(b));
    // The quotient is in (1/2, 2); the dividend is placed so that 64 bits of
    // it come out, the first one set.
    let below_one = a.significand < b.significand;
    let dividend = u128::from(a.significand) << if below_one { 64 } else { 63 };
    let divisor = u128::from(b.significand);
    let quotient = (dividend / divisor) as u64 | u64::from(dividend % divisor != 0);
    let exponent = a.exponent - b.exponent - i32::from(below_one);
    Unpacked { negative, exponent, significand: quotient }.round(rounding, flags)
}

#[cold]
#[inline(never)]
pub(super) fn soft_sqrt<F: Float>(a: F, rounding: Rounding, flags: &mut Flags) -> F {
    if a.is_nan() {
        return propagate(&[a], flags);
    }
    if is_zero(a) {
        return a;
    }
    if a.is_negative() {
        return invalid(flags);
    }
    if !is_finite(a) {
        return a;
    }
    let Unpacked { exponent, significand, .. } = Unpacked::new(a);
    // The radicand is placed so that the power of two left over is even and 64
    // bits of the root come out, the first one set.
    let radicand = u128::from(significand) << if exponent & 1 == 0 { 63 } else { 64 };
    let root = radicand.isqrt();
    let significand = root as u64 | u64::from(root * root != radicand);
    Unpacked { negative: false, exponent: exponent >> 1, significand }.round(rounding, flags)
}
