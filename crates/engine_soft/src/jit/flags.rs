//! The host's own floating-point exception flags.
//!
//! On x86-64 the flags that SSE accrues are, operation by operation, those
//! that RISC-V wants: both follow IEEE 754 and both detect tininess after
//! rounding. So compiled code computes with the host's instructions and looks
//! at no flag; what accrued is fetched when somebody may ask. Other hosts
//! detect tininess before rounding or are not supported yet: there compiled
//! code leaves floating point to the interpreter.

/// Whether the host's flags are the guest's.
pub(crate) const ARE_EXACT: bool = cfg!(target_arch = "x86_64");

/// The flags accrued since [`clear`], as `fflags` has them.
#[cfg(target_arch = "x86_64")]
pub(crate) fn raised() -> u8 {
    let control = control();
    // MXCSR: invalid 0, denormal 1, by zero 2, overflow 3, underflow 4,
    // inexact 5.
    let bit = |from: u32, to: u32| (control >> from & 1) << to;
    (bit(0, 4) | bit(2, 3) | bit(3, 2) | bit(4, 1) | bit(5, 0)) as u8
}

/// Forgets accrued flags.
#[cfg(target_arch = "x86_64")]
pub(crate) fn clear() {
    let control = control() & !0x3F;
    // SAFETY: only the flags change, which Rust neither reads nor relies on.
    unsafe {
        std::arch::asm!(
            "ldmxcsr [{}]", in(reg) &raw const control,
            options(nostack, readonly, preserves_flags)
        );
    }
}

#[cfg(target_arch = "x86_64")]
fn control() -> u32 {
    let mut control = 0_u32;
    // SAFETY: stores the register, changes nothing.
    unsafe {
        std::arch::asm!(
            "stmxcsr [{}]", in(reg) &raw mut control,
            options(nostack, preserves_flags)
        );
    }
    control
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn raised() -> u8 {
    0
}

#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn clear() {}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn each_operation_raises_what_the_standard_says() {
        let flags = |operation: &dyn Fn() -> f64| {
            clear();
            black_box(operation());
            raised()
        };
        let one = black_box(1.0_f64);
        assert_eq!(flags(&|| one + one), 0);
        assert_eq!(flags(&|| one / black_box(3.0)), 1);
        assert_eq!(flags(&|| black_box(f64::MIN_POSITIVE) * black_box(1.0 / 3.0)), 3);
        assert_eq!(flags(&|| black_box(f64::MAX) * black_box(2.0)), 5);
        assert_eq!(flags(&|| one / black_box(0.0)), 8);
        assert_eq!(flags(&|| black_box(0.0_f64) / black_box(0.0)), 16);
    }
}
