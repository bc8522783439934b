//! The fused multiply-add family: `±(a * b) ± c`, rounded once.

use super::host::{is_finite, is_safely_normal, is_zero, may_serve};
use super::round::{
    Unpacked, difference_zero, infinity, invalid, propagate, shift_right_jam_wide, upper_half_jam,
};
use super::{Flags, Float, Rounding};

/// `a * b + c` (FMADD).
#[inline]
pub fn fmadd<F: Float>(a: F, b: F, c: F, rounding: Rounding, flags: &mut Flags) -> F {
    if may_serve(rounding, *flags) {
        if let Some(result) = a.host_mul_add(b, c) {
            if is_safely_normal(result) {
                return result;
            }
        }
    }
    soft_fmadd(a, b, c, rounding, flags)
}

/// `a * b - c` (FMSUB).
#[inline]
pub fn fmsub<F: Float>(a: F, b: F, c: F, rounding: Rounding, flags: &mut Flags) -> F {
    fmadd(a, b, c.negated(), rounding, flags)
}

/// `-(a * b) + c` (FNMSUB).
#[inline]
pub fn fnmsub<F: Float>(a: F, b: F, c: F, rounding: Rounding, flags: &mut Flags) -> F {
    fmadd(a.negated(), b, c, rounding, flags)
}

/// `-(a * b) - c` (FNMADD).
///
/// The product and the addend are negated, not the rounded sum, as the
/// instruction's definition says: it matters in the directed modes and for the
/// sign of an exact zero.
#[inline]
pub fn fnmadd<F: Float>(a: F, b: F, c: F, rounding: Rounding, flags: &mut Flags) -> F {
    fmadd(a.negated(), b, c.negated(), rounding, flags)
}

#[cold]
#[inline(never)]
pub(super) fn soft_fmadd<F: Float>(a: F, b: F, c: F, rounding: Rounding, flags: &mut Flags) -> F {
    if a.is_nan() || b.is_nan() {
        return propagate(&[a, b, c], flags);
    }
    let negative = a.is_negative() != b.is_negative();
    let opposite = negative != c.is_negative();
    if !is_finite(a) || !is_finite(b) {
        // The F extension asks for NV on infinity times zero even if the
        // addend is a quiet NaN, where IEEE 754 leaves a choice.
        if is_zero(a) || is_zero(b) {
            return invalid(flags);
        }
        if c.is_nan() {
            return propagate(&[c], flags);
        }
        return if !is_finite(c) && opposite { invalid(flags) } else { infinity(negative) };
    }
    if c.is_nan() {
        return propagate(&[c], flags);
    }
    if !is_finite(c) {
        return c;
    }
    if is_zero(a) || is_zero(b) {
        return if is_zero(c) && opposite { difference_zero(rounding) } else { c };
    }
    let (a, b) = (Unpacked::new(a), Unpacked::new(b));
    let product = u128::from(a.significand) * u128::from(b.significand);
    // Leading bit to 127, then one bit of headroom. Nothing is lost: the last
    // eleven bits of either significand are zero.
    let shift = product.leading_zeros();
    let product = Wide {
        negative,
        exponent: a.exponent + b.exponent + 1 - shift as i32,
        significand: (product << shift) >> 1,
    };
    if is_zero(c) {
        return product.round(rounding, flags);
    }
    let c = Unpacked::new(c);
    let addend = Wide {
        negative: c.negative,
        exponent: c.exponent,
        significand: u128::from(c.significand) << 63,
    };
    match product.plus(addend) {
        Some(sum) => sum.round(rounding, flags),
        None => difference_zero(rounding),
    }
}

/// A finite non-zero number: `±significand * 2^(exponent - 126)`. Before an
/// addition bit 126 is the highest one set; after it, any may be.
struct Wide {
    negative: bool,
    exponent: i32,
    significand: u128,
}

impl Wide {
    /// The sum, perhaps with a sticky bit; `None` if it is zero.
    fn plus(self, other: Wide) -> Option<Wide> {
        let ordered = (self.exponent, self.significand) >= (other.exponent, other.significand);
        let (large, small) = if ordered { (self, other) } else { (other, self) };
        let distance = large.exponent.abs_diff(small.exponent);
        // At least 20 bits below either significand are zero, so bits are lost
        // only at a distance at which one place at most can cancel.
        let low = shift_right_jam_wide(small.significand, distance);
        let significand = if large.negative == small.negative {
            large.significand + low
        } else {
            large.significand - low
        };
        (significand != 0).then_some(Wide { significand, ..large })
    }

    fn round<F: Float>(self, rounding: Rounding, flags: &mut Flags) -> F {
        let shift = self.significand.leading_zeros();
        let significand = upper_half_jam(self.significand << shift);
        let exponent = self.exponent + 1 - shift as i32;
        Unpacked { negative: self.negative, exponent, significand }.round(rounding, flags)
    }
}
