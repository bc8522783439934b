//! The instructions against plain arithmetic on 128 bits, bit by bit or byte
//! by byte, over random values and those where arithmetic has its corners.

use proptest::prelude::*;

use super::*;

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        any::<u32>().prop_map(|v| v as i32 as u64),
        (0..64_u32, -2..=2_i64).prop_map(|(bit, off)| (1_u64 << bit).wrapping_add(off as u64)),
        prop::sample::select(vec![
            0,
            1,
            u64::MAX,
            i64::MIN as u64,
            i64::MAX as u64,
            i32::MIN as u64,
            i32::MAX as u64,
            0x8000_0000,
            0xFFFF_FFFF,
        ]),
    ]
}

fn signed(value: u64) -> i128 {
    i128::from(value as i64)
}

fn unsigned(value: u64) -> i128 {
    i128::from(value)
}

fn signed_word(value: u64) -> i128 {
    i128::from(value as i32)
}

fn unsigned_word(value: u64) -> i128 {
    i128::from(value as u32)
}

/// The register that holds the lower 32 bits of `value`, sign-extended.
fn from_word(value: i128) -> u64 {
    let low = value.rem_euclid(1 << 32);
    (if low >= 1 << 31 { low - (1 << 32) } else { low }) as u64
}

fn bit(value: u64, index: u64) -> u64 {
    value / (1_u64 << index) % 2
}

/// The value with bit `i` as `f(i)` has it.
fn bits(f: impl Fn(u64) -> bool) -> u64 {
    (0..64).filter(|i| f(*i)).map(|i| 1_u64 << i).sum()
}

/// Quotient and remainder as the standard's table has them.
fn divide(a: i128, b: i128, all_ones: i128) -> (i128, i128) {
    if b == 0 { (all_ones, a) } else { (a / b, a % b) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn sums_and_comparisons(a in value(), b in value()) {
        prop_assert_eq!(add(a, b), (signed(a) + signed(b)) as u64);
        prop_assert_eq!(sub(a, b), (signed(a) - signed(b)) as u64);
        prop_assert_eq!(addw(a, b), from_word(signed(a) + signed(b)));
        prop_assert_eq!(subw(a, b), from_word(signed(a) - signed(b)));
        prop_assert_eq!(slt(a, b), u64::from(signed(a) < signed(b)));
        prop_assert_eq!(sltu(a, b), u64::from(unsigned(a) < unsigned(b)));
        prop_assert_eq!(max(a, b), signed(a).max(signed(b)) as u64);
        prop_assert_eq!(min(a, b), signed(a).min(signed(b)) as u64);
        prop_assert_eq!(maxu(a, b), unsigned(a).max(unsigned(b)) as u64);
        prop_assert_eq!(minu(a, b), unsigned(a).min(unsigned(b)) as u64);
    }

    #[test]
    fn bitwise(a in value(), b in value()) {
        let each = |f: fn(bool, bool) -> bool| bits(|i| f(bit(a, i) == 1, bit(b, i) == 1));
        prop_assert_eq!(and(a, b), each(|a, b| a && b));
        prop_assert_eq!(or(a, b), each(|a, b| a || b));
        prop_assert_eq!(xor(a, b), each(|a, b| a != b));
        prop_assert_eq!(andn(a, b), each(|a, b| a && !b));
        prop_assert_eq!(orn(a, b), each(|a, b| a || !b));
        prop_assert_eq!(xnor(a, b), each(|a, b| a == b));
    }

    #[test]
    fn shifts(a in value(), b in value()) {
        let (by, by_word) = (b % 64, b % 32);
        prop_assert_eq!(sll(a, b), (unsigned(a) << by) as u64);
        prop_assert_eq!(srl(a, b), (unsigned(a) >> by) as u64);
        prop_assert_eq!(sra(a, b), signed(a).div_euclid(1 << by) as u64);
        prop_assert_eq!(sllw(a, b), from_word(unsigned_word(a) << by_word));
        prop_assert_eq!(srlw(a, b), from_word(unsigned_word(a) >> by_word));
        prop_assert_eq!(sraw(a, b), from_word(signed_word(a).div_euclid(1 << by_word)));
        prop_assert_eq!(slli_uw(a, b), (unsigned_word(a) << by) as u64);
    }

    #[test]
    fn rotations(a in value(), b in value()) {
        prop_assert_eq!(rol(a, b), bits(|i| bit(a, (i + 64 - b % 64) % 64) == 1));
        prop_assert_eq!(ror(a, b), bits(|i| bit(a, (i + b % 64) % 64) == 1));
        let left = bits(|i| i < 32 && bit(a, (i + 32 - b % 32) % 32) == 1);
        let right = bits(|i| i < 32 && bit(a, (i + b % 32) % 32) == 1);
        prop_assert_eq!(rolw(a, b), from_word(left.into()));
        prop_assert_eq!(rorw(a, b), from_word(right.into()));
    }

    #[test]
    fn products(a in value(), b in value()) {
        prop_assert_eq!(mul(a, b), (signed(a) * signed(b)) as u64);
        prop_assert_eq!(mulh(a, b), (signed(a) * signed(b)).div_euclid(1 << 64) as u64);
        prop_assert_eq!(mulhsu(a, b), (signed(a) * unsigned(b)).div_euclid(1 << 64) as u64);
        let product = u128::from(a) * u128::from(b);
        prop_assert_eq!(mulhu(a, b), (product / (1 << 64)) as u64);
        prop_assert_eq!(mulw(a, b), from_word(signed_word(a) * signed_word(b)));
    }

    #[test]
    fn quotients(a in value(), b in value()) {
        let (quotient, remainder) = divide(signed(a), signed(b), -1);
        prop_assert_eq!((div(a, b), rem(a, b)), (quotient as u64, remainder as u64));
        let (quotient, remainder) = divide(unsigned(a), unsigned(b), -1);
        prop_assert_eq!((divu(a, b), remu(a, b)), (quotient as u64, remainder as u64));
        let (quotient, remainder) = divide(signed_word(a), signed_word(b), -1);
        let got = (divw(a, b), remw(a, b));
        prop_assert_eq!(got, (from_word(quotient), from_word(remainder)));
        let (quotient, remainder) = divide(unsigned_word(a), unsigned_word(b), -1);
        let got = (divuw(a, b), remuw(a, b));
        prop_assert_eq!(got, (from_word(quotient), from_word(remainder)));
    }

    #[test]
    fn addresses(a in value(), b in value()) {
        prop_assert_eq!(sh1add(a, b), (unsigned(a) * 2 + unsigned(b)) as u64);
        prop_assert_eq!(sh2add(a, b), (unsigned(a) * 4 + unsigned(b)) as u64);
        prop_assert_eq!(sh3add(a, b), (unsigned(a) * 8 + unsigned(b)) as u64);
        prop_assert_eq!(add_uw(a, b), (unsigned_word(a) + unsigned(b)) as u64);
        prop_assert_eq!(sh1add_uw(a, b), (unsigned_word(a) * 2 + unsigned(b)) as u64);
        prop_assert_eq!(sh2add_uw(a, b), (unsigned_word(a) * 4 + unsigned(b)) as u64);
        prop_assert_eq!(sh3add_uw(a, b), (unsigned_word(a) * 8 + unsigned(b)) as u64);
    }

    #[test]
    fn counts(a in value()) {
        let ones = |width| (0..width).filter(|i| bit(a, *i) == 1).count() as u64;
        let above = |width| (0..width).rev().take_while(|i| bit(a, *i) == 0).count() as u64;
        let below = |width| (0..width).take_while(|i| bit(a, *i) == 0).count() as u64;
        prop_assert_eq!((cpop(a), cpopw(a)), (ones(64), ones(32)));
        prop_assert_eq!((clz(a), clzw(a)), (above(64), above(32)));
        prop_assert_eq!((ctz(a), ctzw(a)), (below(64), below(32)));
    }

    #[test]
    fn bytes_and_extensions(a in value(), zero_bytes: u8) {
        let mut bytes = a.to_le_bytes();
        for (index, byte) in bytes.iter_mut().enumerate() {
            if zero_bytes >> index & 1 == 1 {
                *byte = 0;
            }
        }
        let sparse = u64::from_le_bytes(bytes);
        let filled = bytes.map(|byte| if byte == 0 { 0 } else { 255 });
        prop_assert_eq!(orc_b(sparse), u64::from_le_bytes(filled));
        prop_assert_eq!(rev8(a), u64::from_be_bytes(a.to_le_bytes()));
        let extended = |width: u64| bits(|i| bit(a, i.min(width - 1)) == 1);
        prop_assert_eq!(sext_b(a), extended(8));
        prop_assert_eq!(sext_h(a), extended(16));
        prop_assert_eq!(zext_h(a), a % 0x1_0000);
    }

    #[test]
    fn single_bits(a in value(), b in value()) {
        let index = b % 64;
        prop_assert_eq!(bext(a, b), bit(a, index));
        prop_assert_eq!(bset(a, b), bits(|i| i == index || bit(a, i) == 1));
        prop_assert_eq!(bclr(a, b), bits(|i| i != index && bit(a, i) == 1));
        prop_assert_eq!(binv(a, b), bits(|i| (i == index) != (bit(a, i) == 1)));
    }
}

#[test]
fn division_by_zero_and_overflow_have_the_results_of_the_standard() {
    let least = i64::MIN as u64;
    let least_word = i32::MIN as u64;
    assert_eq!((div(7, 0), rem(7, 0)), (u64::MAX, 7));
    assert_eq!((divu(7, 0), remu(7, 0)), (u64::MAX, 7));
    assert_eq!((div(least, u64::MAX), rem(least, u64::MAX)), (least, 0));
    // The divisor's upper half is not looked at.
    assert_eq!((divw(7, 1 << 32), remw(7, 1 << 32)), (u64::MAX, 7));
    assert_eq!(divuw(7, 1 << 32), u64::MAX);
    assert_eq!(remuw(0x8000_0000, 0), least_word);
    assert_eq!((divw(least_word, u64::MAX), remw(least_word, u64::MAX)), (least_word, 0));
}
