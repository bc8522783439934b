//! What the integer instructions compute, one function for each, named as
//! its mnemonic; an immediate form computes the same as the register form.
//!
//! Arguments and results are whole registers of 64 bits. The W forms take the
//! lower half of theirs and sign-extend a 32-bit result. Shift and bit amounts
//! are taken modulo the width, as the standard has it for registers.

use std::ops::{BitAnd, BitOr, BitXor};

/// Sign-extends 32 bits.
#[inline(always)]
const fn word(value: u32) -> u64 {
    value as i32 as u64
}

macro_rules! instructions {
    ($($(#[$doc:meta])* $name:ident($($argument:ident),+) = $value:expr;)*) => {
        $($(#[$doc])*
        #[inline(always)]
        pub fn $name($($argument: u64),+) -> u64 {
            $value
        })*
    };
}

// RV64I.
instructions! {
    /// `a + b`.
    add(a, b) = a.wrapping_add(b);
    /// `a - b`.
    sub(a, b) = a.wrapping_sub(b);
    /// `a` shifted left by `b`.
    sll(a, b) = a.wrapping_shl(b as u32);
    /// 1 if `a < b`, signed, else 0.
    slt(a, b) = u64::from((a as i64) < b as i64);
    /// 1 if `a < b`, unsigned, else 0.
    sltu(a, b) = u64::from(a < b);
    /// Exclusive or.
    xor(a, b) = a.bitxor(b);
    /// `a` shifted right by `b`, zeros coming in.
    srl(a, b) = a.wrapping_shr(b as u32);
    /// `a` shifted right by `b`, copies of the sign coming in.
    sra(a, b) = (a as i64).wrapping_shr(b as u32) as u64;
    /// Or.
    or(a, b) = a.bitor(b);
    /// And.
    and(a, b) = a.bitand(b);
    /// `a + b` in 32 bits.
    addw(a, b) = word((a as u32).wrapping_add(b as u32));
    /// `a - b` in 32 bits.
    subw(a, b) = word((a as u32).wrapping_sub(b as u32));
    /// 32-bit `a` shifted left by `b`.
    sllw(a, b) = word((a as u32).wrapping_shl(b as u32));
    /// 32-bit `a` shifted right by `b`, zeros coming in.
    srlw(a, b) = word((a as u32).wrapping_shr(b as u32));
    /// 32-bit `a` shifted right by `b`, copies of the sign coming in.
    sraw(a, b) = (a as i32).wrapping_shr(b as u32) as u64;
}

// M. Division by zero gives all ones and the dividend as remainder; the one
// signed overflow gives the dividend and remainder 0.
instructions! {
    /// Lower half of `a * b`.
    mul(a, b) = a.wrapping_mul(b);
    /// Upper half of `a * b`, both signed.
    mulh(a, b) = ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64;
    /// Upper half of `a * b`, `a` signed and `b` unsigned.
    mulhsu(a, b) = ((i128::from(a as i64) * i128::from(b)) >> 64) as u64;
    /// Upper half of `a * b`, both unsigned.
    mulhu(a, b) = ((u128::from(a) * u128::from(b)) >> 64) as u64;
    /// `a / b` rounded towards zero, signed.
    div(a, b) = if b == 0 { u64::MAX } else { (a as i64).wrapping_div(b as i64) as u64 };
    /// `a / b` rounded down, unsigned.
    divu(a, b) = a.checked_div(b).unwrap_or(u64::MAX);
    /// Remainder of [`div`]; its sign is that of `a`.
    rem(a, b) = if b == 0 { a } else { (a as i64).wrapping_rem(b as i64) as u64 };
    /// Remainder of [`divu`].
    remu(a, b) = a.checked_rem(b).unwrap_or(a);
    /// `a * b` in 32 bits.
    mulw(a, b) = word((a as u32).wrapping_mul(b as u32));
    /// [`div`] of 32 bits.
    divw(a, b) = if b as i32 == 0 { u64::MAX } else { (a as i32).wrapping_div(b as i32) as u64 };
    /// [`divu`] of 32 bits.
    divuw(a, b) = word((a as u32).checked_div(b as u32).unwrap_or(u32::MAX));
    /// [`rem`] of 32 bits.
    remw(a, b) = word(if b as i32 == 0 { a as u32 } else { (a as i32).wrapping_rem(b as i32) as u32 });
    /// [`remu`] of 32 bits.
    remuw(a, b) = word((a as u32).checked_rem(b as u32).unwrap_or(a as u32));
}

// Zba.
instructions! {
    /// `b` plus the lower half of `a`.
    add_uw(a, b) = u64::from(a as u32).wrapping_add(b);
    /// `b + 2 * a`.
    sh1add(a, b) = (a << 1).wrapping_add(b);
    /// `b + 4 * a`.
    sh2add(a, b) = (a << 2).wrapping_add(b);
    /// `b + 8 * a`.
    sh3add(a, b) = (a << 3).wrapping_add(b);
    /// `b` plus 2 times the lower half of `a`.
    sh1add_uw(a, b) = (u64::from(a as u32) << 1).wrapping_add(b);
    /// `b` plus 4 times the lower half of `a`.
    sh2add_uw(a, b) = (u64::from(a as u32) << 2).wrapping_add(b);
    /// `b` plus 8 times the lower half of `a`.
    sh3add_uw(a, b) = (u64::from(a as u32) << 3).wrapping_add(b);
    /// The lower half of `a`, shifted left by `b` within 64 bits.
    slli_uw(a, b) = u64::from(a as u32).wrapping_shl(b as u32);
}

// Zbb.
instructions! {
    /// `a` and the complement of `b`.
    andn(a, b) = a & !b;
    /// `a` or the complement of `b`.
    orn(a, b) = a | !b;
    /// Complement of the exclusive or.
    xnor(a, b) = !(a ^ b);
    /// Zeros above the highest one; 64 if there is no one.
    clz(a) = u64::from(a.leading_zeros());
    /// [`clz`] of the lower half; 32 if there is no one.
    clzw(a) = u64::from((a as u32).leading_zeros());
    /// Zeros below the lowest one; 64 if there is no one.
    ctz(a) = u64::from(a.trailing_zeros());
    /// [`ctz`] of the lower half; 32 if there is no one.
    ctzw(a) = u64::from((a as u32).trailing_zeros());
    /// How many bits are one.
    cpop(a) = u64::from(a.count_ones());
    /// How many bits of the lower half are one.
    cpopw(a) = u64::from((a as u32).count_ones());
    /// The larger, signed.
    max(a, b) = (a as i64).max(b as i64) as u64;
    /// The larger, unsigned.
    maxu(a, b) = a.max(b);
    /// The smaller, signed.
    min(a, b) = (a as i64).min(b as i64) as u64;
    /// The smaller, unsigned.
    minu(a, b) = a.min(b);
    /// Sign-extends 8 bits.
    sext_b(a) = a as i8 as u64;
    /// Sign-extends 16 bits.
    sext_h(a) = a as i16 as u64;
    /// Zero-extends 16 bits.
    zext_h(a) = u64::from(a as u16);
    /// `a` rotated left by `b`.
    rol(a, b) = a.rotate_left(b as u32 & 63);
    /// 32-bit `a` rotated left by `b`.
    rolw(a, b) = word((a as u32).rotate_left(b as u32 & 31));
    /// `a` rotated right by `b`.
    ror(a, b) = a.rotate_right(b as u32 & 63);
    /// 32-bit `a` rotated right by `b`.
    rorw(a, b) = word((a as u32).rotate_right(b as u32 & 31));
    /// Each byte all ones, unless it is zero.
    orc_b(a) = {
        const LOW: u64 = 0x7F7F_7F7F_7F7F_7F7F;
        // The top bit of each byte: whether the byte has any bit.
        let some = (((a & LOW) + LOW) | a) & !LOW;
        (some >> 7) * 0xFF
    };
    /// Bytes in reverse order.
    rev8(a) = a.swap_bytes();
}

// Zbs.
instructions! {
    /// `a` with bit `b` zero.
    bclr(a, b) = a & !1_u64.wrapping_shl(b as u32);
    /// Bit `b` of `a`.
    bext(a, b) = a.wrapping_shr(b as u32) & 1;
    /// `a` with bit `b` the other way.
    binv(a, b) = a ^ 1_u64.wrapping_shl(b as u32);
    /// `a` with bit `b` one.
    bset(a, b) = a | 1_u64.wrapping_shl(b as u32);
}

#[cfg(test)]
mod tests;
