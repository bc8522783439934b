//! Against the host's plain operations in RNE, and against independent ways to
//! get a result: the library's rounding functions and exact doubles. These
//! cover RMM, which no host FPU knows.

use core::cmp::Ordering;
use core::fmt::Debug;

use proptest::prelude::*;

use super::{ALL_ROUNDINGS, config, pair, pattern, raised, triple};
use crate::fp::{self, F32, F64, Flags, Float, Rounding};

const RNE: Rounding = Rounding::NearestEven;

/// Whether `ours` is `host`'s result, any NaN standing for the canonical one.
fn agrees<F: Float>(ours: F, host: F) {
    assert_eq!(ours, if host.is_nan() { F::nan() } else { host });
}

/// RMM is one of the two directed results, and unless it is RNE's the one
/// farther from zero; flags never depend on which of two neighbours is taken
/// unless the neighbour is infinite or the smallest normal number.
fn rmm_is_sandwiched<F: Float>(operation: impl Fn(Rounding, &mut Flags) -> F) {
    let [even, zero, down, up, away] =
        ALL_ROUNDINGS.map(|mode| raised(|flags| operation(mode, flags)).0);
    assert!(away == down || away == up || away.magnitude() == 0);
    assert!(zero == down || zero == up);
    if away != even {
        let farther = if down.magnitude() > up.magnitude() { down } else { up };
        assert_eq!((away, even), (farther, zero), "RMM and RNE differ in ties only");
    }
}

fn comparisons_agree<F: Float>(a: F, b: F, order: Option<Ordering>) {
    let signaling = if a.is_signaling() || b.is_signaling() { 0x10 } else { 0 };
    let any_nan = if order.is_none() { 0x10 } else { 0 };
    assert_eq!(raised(|f| fp::equal(a, b, f)), (order.is_some_and(Ordering::is_eq), signaling));
    assert_eq!(raised(|f| fp::less(a, b, f)), (order.is_some_and(Ordering::is_lt), any_nan));
    assert_eq!(
        raised(|f| fp::less_or_equal(a, b, f)),
        (order.is_some_and(Ordering::is_le), any_nan)
    );
    let (least, flags) = raised(|f| fp::minimum(a, b, f));
    assert_eq!(flags, signaling);
    let (greatest, flags) = raised(|f| fp::maximum(a, b, f));
    assert_eq!(flags, signaling);
    let expected = match order {
        Some(o) if o.is_lt() || (o.is_eq() && a.is_negative()) => (a, b),
        Some(_) => (b, a),
        None if a.is_nan() && b.is_nan() => (F::nan(), F::nan()),
        None if a.is_nan() => (b, b),
        None => (a, a),
    };
    assert_eq!((least, greatest), expected);
}

/// The integer that the library's rounding functions and a saturation in 128
/// bits give, and the flags that go with it.
fn integer_oracle(value: f64, mode: Rounding, least: i128, greatest: i128) -> (i128, u8) {
    if value.is_nan() {
        return (greatest, 0x10);
    }
    let rounded = match mode {
        Rounding::NearestEven => value.round_ties_even(),
        Rounding::TowardZero => value.trunc(),
        Rounding::Down => value.floor(),
        Rounding::Up => value.ceil(),
        Rounding::NearestAway => value.round(),
    };
    let integer = rounded as i128;
    if integer < least {
        (least, 0x10)
    } else if integer > greatest {
        (greatest, 0x10)
    } else {
        (integer, u8::from(rounded != value))
    }
}

fn integers_agree<F: Float>(value: F, host: f64) {
    fn check<T: Into<i128> + Debug>(ours: (T, u8), expected: (i128, u8)) {
        assert_eq!((ours.0.into(), ours.1), expected);
    }
    for mode in ALL_ROUNDINGS {
        let oracle = |least: i128, greatest: i128| integer_oracle(host, mode, least, greatest);
        check(raised(|f| fp::to_i32(value, mode, f)), oracle(i32::MIN.into(), i32::MAX.into()));
        check(raised(|f| fp::to_u32(value, mode, f)), oracle(0, u32::MAX.into()));
        check(raised(|f| fp::to_i64(value, mode, f)), oracle(i64::MIN.into(), i64::MAX.into()));
        check(raised(|f| fp::to_u64(value, mode, f)), oracle(0, u64::MAX.into()));
    }
}

/// `exact` rounded to a single in RMM, by measuring the distances to its two
/// neighbours. For a magnitude in a single's normal range; there doubles give
/// the distances exactly.
fn single_away(exact: f64) -> f32 {
    let nearest = exact as f32;
    let toward = if f64::from(nearest).abs() <= exact.abs() {
        nearest
    } else {
        f32::from_bits(nearest.to_bits() - 1)
    };
    let away = f32::from_bits(toward.to_bits() + 1);
    let (to_toward, to_away) = ((exact - f64::from(toward)).abs(), (f64::from(away) - exact).abs());
    if to_away <= to_toward { away } else { toward }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn singles_round_to_even_as_the_host_does((a, b) in pair::<F32>()) {
        let (x, y) = (f32::from_bits(a.0), f32::from_bits(b.0));
        agrees(raised(|f| fp::add(a, b, RNE, f)).0, F32((x + y).to_bits()));
        agrees(raised(|f| fp::sub(a, b, RNE, f)).0, F32((x - y).to_bits()));
        agrees(raised(|f| fp::mul(a, b, RNE, f)).0, F32((x * y).to_bits()));
        agrees(raised(|f| fp::div(a, b, RNE, f)).0, F32((x / y).to_bits()));
        agrees(raised(|f| fp::sqrt(a, RNE, f)).0, F32(x.sqrt().to_bits()));
        comparisons_agree(a, b, x.partial_cmp(&y));
    }

    #[test]
    fn doubles_round_to_even_as_the_host_does((a, b) in pair::<F64>()) {
        let (x, y) = (f64::from_bits(a.0), f64::from_bits(b.0));
        agrees(raised(|f| fp::add(a, b, RNE, f)).0, F64((x + y).to_bits()));
        agrees(raised(|f| fp::sub(a, b, RNE, f)).0, F64((x - y).to_bits()));
        agrees(raised(|f| fp::mul(a, b, RNE, f)).0, F64((x * y).to_bits()));
        agrees(raised(|f| fp::div(a, b, RNE, f)).0, F64((x / y).to_bits()));
        agrees(raised(|f| fp::sqrt(a, RNE, f)).0, F64(x.sqrt().to_bits()));
        agrees(raised(|f| fp::narrow(a, RNE, f)).0, F32((x as f32).to_bits()));
        comparisons_agree(a, b, x.partial_cmp(&y));
    }

    #[test]
    fn fused_results_round_to_even_as_the_host_does(
        (a, b, c) in triple::<F32>(), (d, e, g) in triple::<F64>()
    ) {
        let host = f32::from_bits(a.0).mul_add(f32::from_bits(b.0), f32::from_bits(c.0));
        agrees(raised(|f| fp::fmadd(a, b, c, RNE, f)).0, F32(host.to_bits()));
        let host = f64::from_bits(d.0).mul_add(f64::from_bits(e.0), f64::from_bits(g.0));
        agrees(raised(|f| fp::fmadd(d, e, g, RNE, f)).0, F64(host.to_bits()));
    }

    #[test]
    fn nearest_away_differs_from_even_in_ties_only((a, b, c) in triple::<F32>(), (d, e) in pair::<F64>()) {
        rmm_is_sandwiched(|mode, f| fp::fmadd(a, b, c, mode, f));
        rmm_is_sandwiched(|mode, f| fp::add(a, b, mode, f));
        rmm_is_sandwiched(|mode, f| fp::add(d, e, mode, f));
        rmm_is_sandwiched(|mode, f| fp::mul(d, e, mode, f));
        rmm_is_sandwiched(|mode, f| fp::div(d, e, mode, f));
        rmm_is_sandwiched(|mode, f| fp::sqrt(d, mode, f));
        rmm_is_sandwiched(|mode, f| fp::narrow(d, mode, f));
    }

    #[test]
    fn nearest_away_takes_the_nearer_neighbour((a, b) in pair::<F32>()) {
        let exact = f64::from(f32::from_bits(a.0)) * f64::from(f32::from_bits(b.0));
        let magnitude = exact.abs();
        // Some nine cases in ten fall outside or are NaNs.
        if magnitude.is_nan() || magnitude <= f64::from(f32::MIN_POSITIVE) || magnitude >= f64::from(f32::MAX) {
            return Ok(());
        }
        let expected = F32(single_away(exact).to_bits());
        prop_assert_eq!(raised(|f| fp::mul(a, b, Rounding::NearestAway, f)).0, expected);
        let exact = F64(exact.to_bits());
        prop_assert_eq!(raised(|f| fp::narrow(exact, Rounding::NearestAway, f)).0, expected);
    }

    #[test]
    fn integers_are_rounded_and_saturated(a in pattern::<F32>(), b in pattern::<F64>()) {
        integers_agree(a, f64::from(f32::from_bits(a.0)));
        integers_agree(b, f64::from_bits(b.0));
    }

    #[test]
    fn integers_become_the_hosts_numbers(bits in any::<u64>(), shift in 0..64u32) {
        let value = bits >> shift;
        let number: F32 = raised(|f| fp::from_u64(value, RNE, f)).0;
        prop_assert_eq!(number, F32((value as f32).to_bits()));
        let number: F64 = raised(|f| fp::from_u64(value, RNE, f)).0;
        prop_assert_eq!(number, F64((value as f64).to_bits()));
        let word = value as u32;
        let number: F32 = raised(|f| fp::from_u32(word, RNE, f)).0;
        prop_assert_eq!(number, F32((word as f32).to_bits()));
        let number = raised(|f| fp::from_u32(word, RNE, f));
        prop_assert_eq!(number, (F64(f64::from(word).to_bits()), 0));
        let word = word as i32;
        let number: F32 = raised(|f| fp::from_i32(word, RNE, f)).0;
        prop_assert_eq!(number, F32((word as f32).to_bits()));
        let number = raised(|f| fp::from_i32(word, RNE, f));
        prop_assert_eq!(number, (F64(f64::from(word).to_bits()), 0));
    }
}
