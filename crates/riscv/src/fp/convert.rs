//! FCVT: between the formats, and between them and integers.

use super::host::{is_safely_normal, is_zero, may_serve};
use super::round::{Unpacked, infinity, propagate, rounds_away, zero};
use super::{F32, F64, Flags, Float, Rounding};

/// A single as a double (FCVT.D.S): always exact.
#[inline]
pub fn widen(value: F32, flags: &mut Flags) -> F64 {
    if value.is_nan() {
        propagate(&[value], flags);
        return F64::nan();
    }
    // Exact for every number, so no rounding mode or flag is involved.
    F64(f64::from(f32::from_bits(value.0)).to_bits())
}

/// A double as a single (FCVT.S.D).
#[inline]
pub fn narrow(value: F64, rounding: Rounding, flags: &mut Flags) -> F32 {
    if may_serve(rounding, *flags) {
        let result = F32((f64::from_bits(value.0) as f32).to_bits());
        if is_safely_normal(result) || is_zero(value) {
            return result;
        }
    }
    soft_narrow(value, rounding, flags)
}

#[cold]
#[inline(never)]
pub(super) fn soft_narrow(value: F64, rounding: Rounding, flags: &mut Flags) -> F32 {
    if value.is_nan() {
        propagate(&[value], flags);
        return F32::nan();
    }
    if is_zero(value) {
        return zero(value.is_negative());
    }
    if value.magnitude() == F64::INFINITY {
        return infinity(value.is_negative());
    }
    Unpacked::new(value).round(rounding, flags)
}

/// A signed 32-bit integer as a number (FCVT.S.W, FCVT.D.W).
#[inline]
pub fn from_i32<F: Float>(value: i32, rounding: Rounding, flags: &mut Flags) -> F {
    from_i64(i64::from(value), rounding, flags)
}

/// An unsigned 32-bit integer as a number (FCVT.S.WU, FCVT.D.WU).
#[inline]
pub fn from_u32<F: Float>(value: u32, rounding: Rounding, flags: &mut Flags) -> F {
    from_i64(i64::from(value), rounding, flags)
}

/// A signed 64-bit integer as a number (FCVT.S.L, FCVT.D.L).
#[inline]
pub fn from_i64<F: Float>(value: i64, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) || is_exact::<F>(value.unsigned_abs()) {
        return F::host_from_i64(value);
    }
    soft_from_integer(value < 0, value.unsigned_abs(), rounding, flags)
}

/// An unsigned 64-bit integer as a number (FCVT.S.LU, FCVT.D.LU).
#[inline]
pub fn from_u64<F: Float>(value: u64, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) || is_exact::<F>(value) {
        return F::host_from_u64(value);
    }
    soft_from_integer(false, value, rounding, flags)
}

/// Whether an integer fits a significand, so that no mode rounds it and no flag
/// is raised. (Some larger ones do too; they take the long way.)
#[inline]
fn is_exact<F: Float>(magnitude: u64) -> bool {
    magnitude >> (F::FRACTION_BITS + 1) == 0
}

#[cold]
#[inline(never)]
pub(super) fn soft_from_integer<F: Float>(
    negative: bool,
    magnitude: u64,
    rounding: Rounding,
    flags: &mut Flags,
) -> F {
    if magnitude == 0 {
        return F::from_bits(0);
    }
    Unpacked::normalized(negative, 63, magnitude).round(rounding, flags)
}

/// A number as a signed 32-bit integer (FCVT.W.S, FCVT.W.D). Out of range and
/// infinities saturate, a NaN gives the maximum, all with NV and without NX.
#[inline]
pub fn to_i32<F: Float>(value: F, rounding: Rounding, flags: &mut Flags) -> i32 {
    const RANGE: Range = Range { below_zero: 1 << 31, above_zero: (1 << 31) - 1 };
    to_integer(value, RANGE, rounding, flags) as i32
}

/// A number as an unsigned 32-bit integer (FCVT.WU.S, FCVT.WU.D); the executor
/// sign-extends it into the register. Saturates as [`to_i32`] does.
#[inline]
pub fn to_u32<F: Float>(value: F, rounding: Rounding, flags: &mut Flags) -> u32 {
    const RANGE: Range = Range { below_zero: 0, above_zero: u32::MAX as u64 };
    to_integer(value, RANGE, rounding, flags) as u32
}

/// A number as a signed 64-bit integer (FCVT.L.S, FCVT.L.D). Saturates as
/// [`to_i32`] does.
#[inline]
pub fn to_i64<F: Float>(value: F, rounding: Rounding, flags: &mut Flags) -> i64 {
    const RANGE: Range = Range { below_zero: 1 << 63, above_zero: (1 << 63) - 1 };
    to_integer(value, RANGE, rounding, flags) as i64
}

/// A number as an unsigned 64-bit integer (FCVT.LU.S, FCVT.LU.D). Saturates as
/// [`to_i32`] does.
#[inline]
pub fn to_u64<F: Float>(value: F, rounding: Rounding, flags: &mut Flags) -> u64 {
    const RANGE: Range = Range { below_zero: 0, above_zero: u64::MAX };
    to_integer(value, RANGE, rounding, flags)
}

/// The integers a conversion can deliver, as the largest magnitude on either
/// side of zero.
struct Range {
    below_zero: u64,
    above_zero: u64,
}

/// The integer in two's complement; narrower results are its low bits.
#[inline]
fn to_integer<F: Float>(value: F, range: Range, rounding: Rounding, flags: &mut Flags) -> u64 {
    let negative = value.is_negative() && !value.is_nan();
    let limit = if negative { range.below_zero } else { range.above_zero };
    let signed = |magnitude: u64| if negative { magnitude.wrapping_neg() } else { magnitude };
    match round_to_integer(value, rounding) {
        Some((magnitude, exact)) if magnitude <= limit => {
            if !exact {
                flags.raise(Flags::NX);
            }
            signed(magnitude)
        }
        // Infinities, NaNs and numbers whose magnitude exceeds 64 bits too.
        _ => {
            flags.raise(Flags::NV);
            signed(limit)
        }
    }
}

/// The magnitude rounded to an integer, and whether that was exact; `None` if
/// it does not fit 64 bits.
#[inline]
fn round_to_integer<F: Float>(value: F, rounding: Rounding) -> Option<(u64, bool)> {
    if is_zero(value) {
        return Some((0, true));
    }
    let field = (value.magnitude() >> F::FRACTION_BITS) as i32;
    if field - F::BIAS > 63 {
        return None;
    }
    let Unpacked { negative, exponent, significand } = Unpacked::new(value);
    let (integer, fraction) = if exponent >= -1 {
        let fixed = (u128::from(significand) << 64) >> (63 - exponent);
        ((fixed >> 64) as u64, fixed as u64)
    } else {
        // Below a half, and not zero: all such fractions round alike.
        (0, 1)
    };
    let away = rounds_away(integer & 1 != 0, fraction, negative, rounding);
    // No overflow: with an exponent of 63 there is no fraction.
    Some((integer + u64::from(away), fraction == 0))
}
