//! IEEE 754 arithmetic as the F and D extensions define it, on bit patterns.
//!
//! [`F32`] and [`F64`] are the two formats, [`Float`] what they have in common,
//! and every operation is one generic function over it: it takes operands, a
//! [`Rounding`] where the result can be inexact, and the hart's accrued
//! [`Flags`], into which it raises its own. The executor moves values between
//! registers and formats with [`Float::from_register`] (which checks the NaN
//! boxing) and [`Float::to_register`] (which applies it).
//!
//! Every operation has an integer implementation, exact in all five rounding
//! modes; a NaN result is always the canonical one ("NaN Generation and
//! Propagation" of the F extension), and tininess is detected after rounding.
//! Where the accrued flags already hold NX and the mode is RNE, add, sub, mul,
//! div, sqrt, fused multiply-add and the inexact conversions first ask the
//! host's own floating point; the module `host` argues why nobody can tell.
//!
//! Invariant: nothing here knows a hart, a CSR or an instruction word.

mod arithmetic;
mod compare;
mod convert;
mod format;
mod fused;
mod host;
mod round;

#[cfg(test)]
mod tests;

pub use arithmetic::{add, div, mul, sqrt, sub};
pub use compare::{
    classify, copy_sign, copy_sign_negated, copy_sign_xor, equal, less, less_or_equal, maximum,
    minimum,
};
pub use convert::{
    from_i32, from_i64, from_u32, from_u64, narrow, to_i32, to_i64, to_u32, to_u64, widen,
};
pub use format::{F32, F64, Float};
pub use fused::{fmadd, fmsub, fnmadd, fnmsub};

/// The accrued exception flags, laid out as `fflags` (bits 4:0 of `fcsr`).
///
/// Only the five defined bits can be set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// No exception.
    pub const NONE: Flags = Flags(0);
    /// Inexact: the result was rounded.
    pub const NX: Flags = Flags(1 << 0);
    /// Underflow: the result was tiny after rounding, and inexact.
    pub const UF: Flags = Flags(1 << 1);
    /// Overflow: the rounded result exceeds the largest finite number.
    pub const OF: Flags = Flags(1 << 2);
    /// Division of a finite non-zero number by zero.
    pub const DZ: Flags = Flags(1 << 3);
    /// Invalid operation.
    pub const NV: Flags = Flags(1 << 4);

    /// The flags in bits 4:0 of a `fflags` value; other bits are ignored.
    #[inline]
    pub const fn from_bits(bits: u8) -> Flags {
        Flags(bits & 0x1f)
    }

    /// The flags as `fflags` shows them.
    #[inline]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether every flag of `other` is set here.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Sets the flags of `other`; flags are sticky, nothing here clears one.
    #[inline]
    pub const fn raise(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// A rounding mode; the discriminants are the encodings of `frm` and `rm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rounding {
    /// RNE: to nearest, ties to even.
    NearestEven = 0,
    /// RTZ: towards zero.
    TowardZero = 1,
    /// RDN: towards negative infinity.
    Down = 2,
    /// RUP: towards positive infinity.
    Up = 3,
    /// RMM: to nearest, ties away from zero.
    NearestAway = 4,
}

impl Rounding {
    /// The value of an instruction's `rm` field that defers to `frm`.
    pub const DYNAMIC: u8 = 7;

    /// The mode encoded by `bits`; `None` for the reserved 5 and 6, for the
    /// dynamic 7, which is no mode, and for anything larger.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Rounding> {
        match bits {
            0 => Some(Rounding::NearestEven),
            1 => Some(Rounding::TowardZero),
            2 => Some(Rounding::Down),
            3 => Some(Rounding::Up),
            4 => Some(Rounding::NearestAway),
            _ => None,
        }
    }

    /// The mode an instruction with field `rm` runs in while `frm` is in force;
    /// `None` where the instruction is illegal.
    #[inline]
    pub const fn resolve(rm: u8, frm: u8) -> Option<Rounding> {
        Rounding::from_bits(if rm == Rounding::DYNAMIC { frm } else { rm })
    }
}
