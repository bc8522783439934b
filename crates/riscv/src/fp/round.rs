//! Taking numbers apart, and the one place where results are rounded.

use super::{Flags, Float, Rounding};

/// A finite non-zero number: `±significand * 2^(exponent - 63)`.
///
/// Bit 63 of the significand is always set, of a subnormal number's too, so
/// `exponent` is the number's binary order of magnitude.
#[derive(Clone, Copy)]
pub(super) struct Unpacked {
    pub(super) negative: bool,
    pub(super) exponent: i32,
    pub(super) significand: u64,
}

impl Unpacked {
    /// Takes `value` apart, which the caller knows to be finite and not zero.
    pub(super) fn new<F: Float>(value: F) -> Unpacked {
        let negative = value.is_negative();
        let fraction = value.bits() & F::FRACTION;
        let field = (value.magnitude() >> F::FRACTION_BITS) as i32;
        if field == 0 {
            // A subnormal's unit is 2^(1 - BIAS - FRACTION_BITS).
            let unit = 1 - F::BIAS - F::FRACTION_BITS as i32;
            return Unpacked::normalized(negative, unit + 63, fraction);
        }
        let significand = (fraction | F::MIN_NORMAL) << (63 - F::FRACTION_BITS);
        Unpacked { negative, exponent: field - F::BIAS, significand }
    }

    /// `±significand * 2^(exponent - 63)` for any `significand` but zero.
    pub(super) fn normalized(negative: bool, exponent: i32, significand: u64) -> Unpacked {
        let shift = significand.leading_zeros();
        Unpacked {
            negative,
            exponent: exponent - shift as i32,
            // Zero cannot come here; if it did, this would still not panic.
            significand: significand.checked_shl(shift).unwrap_or(0),
        }
    }

    /// Rounds to format `F` and raises NX, UF and OF as the result deserves.
    ///
    /// Bit 0 of the significand may be a sticky bit (see [`shift_right_jam`]):
    /// both formats leave at least eleven bits below their last place.
    pub(super) fn round<F: Float>(self, rounding: Rounding, flags: &mut Flags) -> F {
        let Unpacked { negative, exponent, significand } = self;
        let dropped = 63 - F::FRACTION_BITS;
        let mut biased = exponent + F::BIAS;
        let mut significand = significand;
        let mut tiny = false;
        if biased < 1 {
            // Tininess after rounding: would the result, rounded with an
            // unbounded exponent, still be below the smallest normal number?
            // From one binade below, rounding can carry up to exactly that.
            let carries =
                round_off(significand, dropped, negative, rounding) == 1 << (F::FRACTION_BITS + 1);
            tiny = biased < 0 || !carries;
            significand = shift_right_jam(significand, biased.abs_diff(1));
            biased = 1;
        }
        let inexact = significand & ((1 << dropped) - 1) != 0;
        let kept = round_off(significand, dropped, negative, rounding);
        let sign = if negative { F::SIGN } else { 0 };
        // `kept` holds the leading bit, which counts one in the exponent field:
        // hence the -1, and a carry out of the significand needs no care. A
        // subnormal has no leading bit and so gets field zero.
        if biased >= F::EXPONENT_MAX
            || ((biased as u64 - 1) << F::FRACTION_BITS) + kept >= F::INFINITY
        {
            flags.raise(Flags::OF);
            flags.raise(Flags::NX);
            return F::from_bits(sign | overflowed::<F>(negative, rounding));
        }
        if inexact {
            flags.raise(Flags::NX);
            if tiny {
                flags.raise(Flags::UF);
            }
        }
        F::from_bits(sign | (((biased as u64 - 1) << F::FRACTION_BITS) + kept))
    }
}

/// The magnitude that an overflow delivers.
fn overflowed<F: Float>(negative: bool, rounding: Rounding) -> u64 {
    let to_infinity = match rounding {
        Rounding::NearestEven | Rounding::NearestAway => true,
        Rounding::TowardZero => false,
        Rounding::Down => negative,
        Rounding::Up => !negative,
    };
    if to_infinity { F::INFINITY } else { F::INFINITY - 1 }
}

/// Whether a magnitude is rounded away from zero, given whether its last kept
/// bit is set and what is dropped, as a fraction of that bit in units of 2^-64
/// (its lowest bit may be sticky).
#[inline]
pub(super) fn rounds_away(odd: bool, fraction: u64, negative: bool, rounding: Rounding) -> bool {
    const HALF: u64 = 1 << 63;
    match rounding {
        Rounding::NearestEven => fraction > HALF || (fraction == HALF && odd),
        Rounding::NearestAway => fraction >= HALF,
        Rounding::TowardZero => false,
        Rounding::Down => negative && fraction != 0,
        Rounding::Up => !negative && fraction != 0,
    }
}

/// `significand` rounded to a multiple of 2^`dropped` (1..=63), in that unit.
fn round_off(significand: u64, dropped: u32, negative: bool, rounding: Rounding) -> u64 {
    let kept = significand >> dropped;
    let fraction = significand << (64 - dropped);
    kept + u64::from(rounds_away(kept & 1 != 0, fraction, negative, rounding))
}

/// Shifts right; if a set bit falls out, sets bit 0 of the result. Such a
/// sticky bit means "a little more than the bits above say" and rounds just as
/// the lost bits would, as long as the rounding point lies above bit 1.
pub(super) fn shift_right_jam(value: u64, shift: u32) -> u64 {
    match shift {
        0 => value,
        1..=63 => (value >> shift) | u64::from(value << (64 - shift) != 0),
        _ => u64::from(value != 0),
    }
}

/// [`shift_right_jam`] for twice the width.
pub(super) fn shift_right_jam_wide(value: u128, shift: u32) -> u128 {
    match shift {
        0 => value,
        1..=127 => (value >> shift) | u128::from(value << (128 - shift) != 0),
        _ => u128::from(value != 0),
    }
}

/// The upper half of `value`, with what is lost kept as a sticky bit.
pub(super) fn upper_half_jam(value: u128) -> u64 {
    (value >> 64) as u64 | u64::from(value as u64 != 0)
}

/// The result of an operation with at least one NaN operand.
pub(super) fn propagate<F: Float>(operands: &[F], flags: &mut Flags) -> F {
    if operands.iter().any(|operand| operand.is_signaling()) {
        flags.raise(Flags::NV);
    }
    F::nan()
}

/// The result of an invalid operation.
pub(super) fn invalid<F: Float>(flags: &mut Flags) -> F {
    flags.raise(Flags::NV);
    F::nan()
}

/// The zero that an exact difference of equal numbers delivers (IEEE 754, 6.3).
pub(super) fn difference_zero<F: Float>(rounding: Rounding) -> F {
    F::from_bits(if rounding == Rounding::Down { F::SIGN } else { 0 })
}

/// Zero with the given sign.
pub(super) fn zero<F: Float>(negative: bool) -> F {
    F::from_bits(if negative { F::SIGN } else { 0 })
}

/// Infinity with the given sign.
pub(super) fn infinity<F: Float>(negative: bool) -> F {
    F::from_bits(F::INFINITY | if negative { F::SIGN } else { 0 })
}
