//! The fast path: the host's own floating point where nobody can tell.
//!
//! The host rounds to nearest even and its flags are never read. So it may
//! serve an operation only in RNE, and only if the flags the operation would
//! raise are known without the host saying so. [`may_serve`] asks for NX to be
//! accrued already, which leaves NV, DZ, OF and UF to exclude; the patterns of
//! the operands need not be looked at, for the host's *result* tells:
//!
//! - NV delivers a NaN and DZ an infinity. A signaling NaN operand delivers a
//!   NaN. OF in RNE delivers an infinity. So a finite result excludes all three
//!   (and the host's NaN patterns, which are not ours, never get out).
//! - UF needs a result that is tiny after rounding. If the result's magnitude
//!   exceeds the smallest normal number `m`, it is at least `m + ulp`; then the
//!   exact result is at least `m + ulp/2`, which no rounding takes below `m`:
//!   not tiny. A result of `m` itself may have been rounded up from a tiny
//!   number, so it does not pass.
//! - A sum or difference cannot underflow: every finite number is a multiple of
//!   the smallest subnormal, hence so is an exact sum, and one below `2m` is
//!   representable, that is, exact. Nor can a square root: the root of the
//!   smallest subnormal is far above `m`. For these a finite result is enough.
//! - A product with a zero factor, a quotient of zero, and a zero narrowed are
//!   exact, so a zero result passes if that operand was zero. (Zero times
//!   infinity, and zero by zero, are NaNs.)
//!
//! The value is right because IEEE 754 leaves one right result of these
//! operations for numbers, its sign included, and Rust promises it on every
//! host with IEEE arithmetic and the default floating-point environment, which
//! safe code cannot change. (x87 without SSE2 rounds twice and is excluded.)

use super::{F32, F64, Flags, Float, Rounding};

/// Whether the host computes `f32` and `f64` operations in their own precision.
const HOST_IS_IEEE: bool = cfg!(not(all(target_arch = "x86", not(target_feature = "sse2"))));

/// Whether `mul_add` is one instruction of every host this build runs on,
/// rather than a call of a library routine slower than our own.
const HOST_FUSES: bool = cfg!(any(
    all(any(target_arch = "x86", target_arch = "x86_64"), target_feature = "fma"),
    target_arch = "aarch64",
    all(target_arch = "riscv64", target_feature = "d"),
));

/// What the host computes, in RNE. A NaN's pattern is unspecified.
pub trait HostArithmetic: Sized {
    /// `self + other`
    fn host_add(self, other: Self) -> Self;
    /// `self - other`
    fn host_sub(self, other: Self) -> Self;
    /// `self * other`
    fn host_mul(self, other: Self) -> Self;
    /// `self / other`
    fn host_div(self, other: Self) -> Self;
    /// The square root of `self`.
    fn host_sqrt(self) -> Self;
    /// `self * factor + addend` rounded once, if the host has a quick way. A
    /// result at or below the smallest normal number may be rounded twice.
    fn host_mul_add(self, factor: Self, addend: Self) -> Option<Self>;
    /// The integer `value` as a number.
    fn host_from_i64(value: i64) -> Self;
    /// The integer `value` as a number.
    fn host_from_u64(value: u64) -> Self;
}

/// The operations of [`HostArithmetic`] that read the same for both formats.
macro_rules! host_operations {
    ($float:ident, $host:ident) => {
        #[inline]
        fn host_add(self, other: $float) -> $float {
            $float(($host::from_bits(self.0) + $host::from_bits(other.0)).to_bits())
        }
        #[inline]
        fn host_sub(self, other: $float) -> $float {
            $float(($host::from_bits(self.0) - $host::from_bits(other.0)).to_bits())
        }
        #[inline]
        fn host_mul(self, other: $float) -> $float {
            $float(($host::from_bits(self.0) * $host::from_bits(other.0)).to_bits())
        }
        #[inline]
        fn host_div(self, other: $float) -> $float {
            $float(($host::from_bits(self.0) / $host::from_bits(other.0)).to_bits())
        }
        #[inline]
        fn host_sqrt(self) -> $float {
            $float($host::from_bits(self.0).sqrt().to_bits())
        }
        #[inline]
        fn host_from_i64(value: i64) -> $float {
            $float((value as $host).to_bits())
        }
        #[inline]
        fn host_from_u64(value: u64) -> $float {
            $float((value as $host).to_bits())
        }
    };
}

impl HostArithmetic for F32 {
    host_operations!(F32, f32);

    #[inline]
    fn host_mul_add(self, factor: F32, addend: F32) -> Option<F32> {
        let (a, b, c) =
            (f32::from_bits(self.0), f32::from_bits(factor.0), f32::from_bits(addend.0));
        if HOST_FUSES {
            return Some(F32(a.mul_add(b, c).to_bits()));
        }
        // In double precision the product is exact (24 + 24 bits, and far from
        // its exponent limits), so the sum is rounded once to 53 bits and once
        // more to 24. The second rounding could only go wrong if the first
        // ended on a point halfway between two singles: rounding is monotonic
        // and such points are doubles, so any other sum lies on the same side
        // of them all as the exact one.
        const LOW: u64 = (1 << 29) - 1;
        const HALFWAY: u64 = 1 << 28;
        let sum = f64::from(a) * f64::from(b) + f64::from(c);
        (sum.to_bits() & LOW != HALFWAY).then(|| F32((sum as f32).to_bits()))
    }
}

impl HostArithmetic for F64 {
    host_operations!(F64, f64);

    #[inline]
    fn host_mul_add(self, factor: F64, addend: F64) -> Option<F64> {
        let (a, b, c) =
            (f64::from_bits(self.0), f64::from_bits(factor.0), f64::from_bits(addend.0));
        HOST_FUSES.then(|| F64(a.mul_add(b, c).to_bits()))
    }
}

/// Whether the host may be asked: see the module's argument.
#[inline]
pub(super) fn may_serve(rounding: Rounding, accrued: Flags) -> bool {
    HOST_IS_IEEE && rounding == Rounding::NearestEven && accrued.contains(Flags::NX)
}

/// Whether `result` is neither an infinity nor a NaN.
#[inline]
pub(super) fn is_finite<F: Float>(result: F) -> bool {
    result.magnitude() < F::INFINITY
}

/// Whether `result` is finite and its magnitude above the smallest normal
/// number's.
#[inline]
pub(super) fn is_safely_normal<F: Float>(result: F) -> bool {
    let least = F::MIN_NORMAL + 1;
    result.magnitude().wrapping_sub(least) < F::INFINITY - least
}

/// Whether `value` is a zero.
#[inline]
pub(super) fn is_zero<F: Float>(value: F) -> bool {
    value.magnitude() == 0
}
