//! Shared by the tests: patterns biased to where results change.

use proptest::prelude::*;

use super::{Flags, Float, Rounding};

mod corner_cases;
mod fast_path;
#[cfg(target_arch = "x86_64")]
mod hardware;
mod oracle;

const ALL_ROUNDINGS: [Rounding; 5] = [
    Rounding::NearestEven,
    Rounding::TowardZero,
    Rounding::Down,
    Rounding::Up,
    Rounding::NearestAway,
];

/// How many random cases a property gets; each is some tens of operations.
const CASES: u32 = 40_000;

fn config() -> ProptestConfig {
    ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() }
}

/// Any pattern of format `F`, most of them near a boundary of the exponent's
/// range or of each other, and with fractions that make ties and carries.
fn pattern<F: Float>() -> impl Strategy<Value = F> {
    let top = F::EXPONENT_MAX as u64;
    let bias = F::BIAS as u64;
    let near = u64::from(F::FRACTION_BITS) + 3;
    let exponent = prop_oneof![
        2 => 0..=2u64,
        2 => top - 3..=top,
        2 => 1..=near,
        2 => top - near..=top - 1,
        4 => bias - near..=bias + near,
        2 => bias + 28..=bias + 68,
        2 => bias / 2 - near..=bias / 2 + near,
        1 => bias + bias / 2 - near..=bias + bias / 2 + near,
        2 => 0..=top,
    ];
    let width = F::FRACTION_BITS;
    let fraction = prop_oneof![
        2 => Just(0),
        1 => Just(F::FRACTION),
        1 => Just(F::QUIET),
        2 => (0..width).prop_map(|bit| 1u64 << bit),
        2 => (0..width).prop_map(|bit| F::FRACTION & (u64::MAX << bit)),
        1 => (0..width).prop_map(|bit| (1u64 << bit) - 1),
        2 => (0..width, 0..width).prop_map(|(a, b)| (1u64 << a) | (1 << b)),
        1 => (any::<u64>(), 0..width).prop_map(|(bits, low)| bits & F::FRACTION & (u64::MAX << low)),
        4 => any::<u64>().prop_map(|bits| bits & F::FRACTION),
    ];
    (any::<bool>(), exponent, fraction).prop_map(|(negative, exponent, fraction)| {
        let sign = if negative { F::SIGN } else { 0 };
        F::from_bits(sign | exponent << F::FRACTION_BITS | fraction)
    })
}

/// A pair of patterns; every other one nearly equal in magnitude, to cancel.
fn pair<F: Float>() -> impl Strategy<Value = (F, F)> {
    let close = (pattern::<F>(), -4..=4i64, any::<bool>(), 0..3u64).prop_map(
        |(a, distance, flip, exponents)| {
            let bits = a.magnitude().wrapping_add_signed(distance);
            let bits = bits.wrapping_add(exponents << F::FRACTION_BITS) & !F::SIGN;
            let sign = (a.bits() & F::SIGN) ^ if flip { F::SIGN } else { 0 };
            (a, F::from_bits(bits | sign))
        },
    );
    prop_oneof![(pattern::<F>(), pattern::<F>()), close]
}

/// Three patterns; half of the time the third nearly cancels the product of the
/// first two, so that what a fused operation must not lose is the result.
fn triple<F: Float>() -> impl Strategy<Value = (F, F, F)> {
    let cancelling =
        (pair::<F>(), -2..=2i64, any::<bool>()).prop_map(|((a, b), distance, flip)| {
            let product = super::mul(a, b, Rounding::NearestEven, &mut Flags::default());
            let near = product.bits().wrapping_add_signed(distance);
            let near = F::from_bits(near & (F::SIGN | (F::SIGN - 1)));
            (a, b, if flip { near } else { near.negated() })
        });
    prop_oneof![
        (pattern::<F>(), pattern::<F>(), pattern::<F>()),
        (pair::<F>(), pattern::<F>()).prop_map(|((a, b), c)| (a, c, b)),
        cancelling,
    ]
}

/// Runs `operation` with no flag accrued and returns what it raised as well.
fn raised<T>(operation: impl FnOnce(&mut Flags) -> T) -> (T, u8) {
    let mut flags = Flags::NONE;
    let result = operation(&mut flags);
    (result, flags.bits())
}
