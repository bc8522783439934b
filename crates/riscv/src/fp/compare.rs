//! Comparison, minimum and maximum, sign injection and classification: what
//! never rounds.

use super::round::propagate;
use super::{Flags, Float};

/// `a == b` (FEQ): a quiet comparison, so only a signaling NaN raises NV.
#[inline]
pub fn equal<F: Float>(a: F, b: F, flags: &mut Flags) -> bool {
    if a.is_nan() || b.is_nan() {
        propagate(&[a, b], flags);
        return false;
    }
    a == b || (a.magnitude() | b.magnitude()) == 0
}

/// `a < b` (FLT): a signaling comparison, so any NaN raises NV.
#[inline]
pub fn less<F: Float>(a: F, b: F, flags: &mut Flags) -> bool {
    if a.is_nan() || b.is_nan() {
        flags.raise(Flags::NV);
        return false;
    }
    number_order(a) < number_order(b)
}

/// `a <= b` (FLE): a signaling comparison, so any NaN raises NV.
#[inline]
pub fn less_or_equal<F: Float>(a: F, b: F, flags: &mut Flags) -> bool {
    if a.is_nan() || b.is_nan() {
        flags.raise(Flags::NV);
        return false;
    }
    number_order(a) <= number_order(b)
}

/// The smaller operand (FMIN): minimumNumber of IEEE 754-2019. A NaN loses
/// against a number, -0 is below +0, and a signaling NaN raises NV.
#[inline]
pub fn minimum<F: Float>(a: F, b: F, flags: &mut Flags) -> F {
    match only_number(a, b, flags) {
        Some(result) => result,
        None if total_order(b) < total_order(a) => b,
        None => a,
    }
}

/// The larger operand (FMAX): maximumNumber of IEEE 754-2019. A NaN loses
/// against a number, +0 is above -0, and a signaling NaN raises NV.
#[inline]
pub fn maximum<F: Float>(a: F, b: F, flags: &mut Flags) -> F {
    match only_number(a, b, flags) {
        Some(result) => result,
        None if total_order(b) > total_order(a) => b,
        None => a,
    }
}

/// What FMIN and FMAX deliver if an operand is a NaN.
#[inline]
fn only_number<F: Float>(a: F, b: F, flags: &mut Flags) -> Option<F> {
    if !a.is_nan() && !b.is_nan() {
        return None;
    }
    let nan = propagate(&[a, b], flags);
    Some(match (a.is_nan(), b.is_nan()) {
        (true, true) => nan,
        (true, false) => b,
        (false, _) => a,
    })
}

/// A key in the order of the numbers, the same for both zeros.
#[inline]
fn number_order<F: Float>(value: F) -> i64 {
    // A magnitude has at most 63 bits.
    let magnitude = value.magnitude() as i64;
    if value.is_negative() { -magnitude } else { magnitude }
}

/// A key in the order of the numbers, with -0 below +0.
#[inline]
fn total_order<F: Float>(value: F) -> i64 {
    let magnitude = value.magnitude() as i64;
    if value.is_negative() { !magnitude } else { magnitude }
}

/// `a` with the sign of `b` (FSGNJ); `copy_sign(a, a)` is FMV.
#[inline]
pub fn copy_sign<F: Float>(a: F, b: F) -> F {
    F::from_bits(a.magnitude() | (b.bits() & F::SIGN))
}

/// `a` with the opposite of `b`'s sign (FSGNJN; FNEG if they are the same).
#[inline]
pub fn copy_sign_negated<F: Float>(a: F, b: F) -> F {
    F::from_bits(a.magnitude() | (!b.bits() & F::SIGN))
}

/// `a` with its sign inverted if `b` is negative (FSGNJX; FABS if the same).
#[inline]
pub fn copy_sign_xor<F: Float>(a: F, b: F) -> F {
    F::from_bits(a.bits() ^ (b.bits() & F::SIGN))
}

/// What FCLASS writes: a mask with exactly one of bits 0..=9 set, for -inf,
/// negative normal, negative subnormal, -0, +0, positive subnormal, positive
/// normal, +inf, signaling NaN and quiet NaN.
#[inline]
pub fn classify<F: Float>(value: F) -> u64 {
    let magnitude = value.magnitude();
    if value.is_nan() {
        return if value.is_signaling() { 1 << 8 } else { 1 << 9 };
    }
    let distance = if magnitude == 0 {
        0
    } else if magnitude < F::MIN_NORMAL {
        1
    } else if magnitude < F::INFINITY {
        2
    } else {
        3
    };
    if value.is_negative() { 1 << (3 - distance) } else { 1 << (4 + distance) }
}
