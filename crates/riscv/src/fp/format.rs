//! The two formats and what they have in common.

use super::host::HostArithmetic;

/// A binary interchange format of IEEE 754, held as its bit pattern.
///
/// Patterns travel through generic code as a `u64` whose bits above the format
/// are zero. Sealed: [`F32`] and [`F64`] are the only formats.
pub trait Float: Copy + Eq + core::fmt::Debug + HostArithmetic {
    /// Width of the fraction field, without the implied leading bit.
    const FRACTION_BITS: u32;
    /// The bias of the exponent field.
    const BIAS: i32;

    /// The sign bit.
    const SIGN: u64 = Self::INFINITY + (1 << Self::FRACTION_BITS);
    /// The pattern of positive infinity, which is also the exponent field's mask.
    const INFINITY: u64 = (Self::EXPONENT_MAX as u64) << Self::FRACTION_BITS;
    /// The exponent field of infinities and NaNs.
    const EXPONENT_MAX: i32 = 2 * Self::BIAS + 1;
    /// The mask of the fraction field.
    const FRACTION: u64 = (1 << Self::FRACTION_BITS) - 1;
    /// The fraction bit that tells a quiet NaN from a signaling one.
    const QUIET: u64 = 1 << (Self::FRACTION_BITS - 1);
    /// The one NaN that operations produce: positive, quiet, no payload.
    const CANONICAL_NAN: u64 = Self::INFINITY | Self::QUIET;
    /// The pattern of the smallest positive normal number.
    const MIN_NORMAL: u64 = 1 << Self::FRACTION_BITS;

    /// The number with this pattern; bits above the format's width are dropped.
    fn from_bits(bits: u64) -> Self;

    /// The pattern; bits above the format's width are zero.
    fn bits(self) -> u64;

    /// Reads an operand from a 64-bit FP register. A value narrower than the
    /// register that is not NaN-boxed reads as the canonical NaN ("NaN Boxing
    /// of Narrower Values"). FMV.X.W and FSW don't check: they take
    /// the register's low bits.
    fn from_register(register: u64) -> Self;

    /// The register contents for this value: NaN-boxed if narrower.
    fn to_register(self) -> u64;

    /// The canonical NaN.
    #[inline]
    fn nan() -> Self {
        Self::from_bits(Self::CANONICAL_NAN)
    }

    /// The pattern without its sign.
    #[inline]
    fn magnitude(self) -> u64 {
        self.bits() & !Self::SIGN
    }

    /// Whether the sign bit is set, of a NaN too.
    #[inline]
    fn is_negative(self) -> bool {
        self.bits() & Self::SIGN != 0
    }

    /// Whether this is a NaN of either kind.
    #[inline]
    fn is_nan(self) -> bool {
        self.magnitude() > Self::INFINITY
    }

    /// Whether this is a signaling NaN.
    #[inline]
    fn is_signaling(self) -> bool {
        self.is_nan() && self.bits() & Self::QUIET == 0
    }

    /// The value with its sign inverted, of a NaN too.
    #[inline]
    fn negated(self) -> Self {
        Self::from_bits(self.bits() ^ Self::SIGN)
    }
}

/// A single-precision number (binary32): the F extension's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F32(pub u32);

/// A double-precision number (binary64): the D extension's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F64(pub u64);

/// The upper half of a register that holds a NaN-boxed single.
const BOX: u64 = 0xffff_ffff_0000_0000;

impl Float for F32 {
    const FRACTION_BITS: u32 = 23;
    const BIAS: i32 = 127;

    #[inline]
    fn from_bits(bits: u64) -> F32 {
        F32(bits as u32)
    }

    #[inline]
    fn bits(self) -> u64 {
        u64::from(self.0)
    }

    #[inline]
    fn from_register(register: u64) -> F32 {
        if register >= BOX { F32(register as u32) } else { F32::nan() }
    }

    #[inline]
    fn to_register(self) -> u64 {
        BOX | u64::from(self.0)
    }
}

impl Float for F64 {
    const FRACTION_BITS: u32 = 52;
    const BIAS: i32 = 1023;

    #[inline]
    fn from_bits(bits: u64) -> F64 {
        F64(bits)
    }

    #[inline]
    fn bits(self) -> u64 {
        self.0
    }

    #[inline]
    fn from_register(register: u64) -> F64 {
        F64(register)
    }

    #[inline]
    fn to_register(self) -> u64 {
        self.0
    }
}
