//! Decoding, held against a real assembler and against the standard's lists
//! of reserved encodings.

use std::collections::HashSet;

use proptest::prelude::*;
use riscv::{Inst, Op, decode};

mod assembled;

fn expected(line: &assembled::Line) -> Inst {
    let (_, _, op, [rd, rs1, rs2], imm) = *line;
    Inst::new(op, rd, rs1, rs2, imm)
}

#[test]
fn words_mean_what_the_assembler_was_told() {
    for line in assembled::WORDS {
        let inst = decode(line.1);
        assert_eq!(inst, expected(line), "{} ({:#010x}) became {inst}", line.0, line.1);
        assert_eq!(inst.len(), 4, "{}", line.0);
    }
}

#[test]
fn parcels_mean_what_the_assembler_was_told() {
    for line in assembled::PARCELS {
        let inst = decode(line.1);
        assert_eq!(inst, expected(line).compressed(), "{} ({:#06x}) became {inst}", line.0, line.1);
        assert_eq!(inst.len(), 2, "{}", line.0);
    }
}

#[test]
fn every_instruction_was_shown_to_the_assembler() {
    let shown: HashSet<Op> = assembled::WORDS.iter().map(|line| line.2).collect();
    let missing: Vec<_> = Op::ALL[1..].iter().filter(|op| !shown.contains(op)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn reserved_words_are_illegal() {
    let words = [
        0xFFFF_FFFF,           // all ones
        0x0000_101B | 1 << 25, // slliw by 32 and more
        0x0000_501B | 1 << 25, // srliw
        0x4000_501B | 1 << 25, // sraiw
        0x6000_501B | 1 << 25, // roriw
        0x6030_1013,           // Zbb, unary 3
        0x6030_101B,
        0x2860_5013,           // orc with another amount than b
        0x6985_5513,           // rev8 of 32 bits
        0x0805_453B | 1 << 20, // packw, of which zext.h is a case
        0x0000_2063,           // branch with funct3 2
        0x0000_3063,
        0x0000_7003, // load with funct3 7
        0x0000_4023, // store with funct3 4
        0x0000_1067, // jalr with funct3 1
        0x0000_0007, // vector load
        0x0000_1007, // flh
        0x0000_4007, // flq
        0x0000_0057, // vector
        0x0000_00F3, // ecall with rd
        0x0000_8073, // ecall with rs1
        0x0020_0073, // uret
        0x7020_0073, // mnret
        0x7B20_0073, // dret
        0x1600_0073, // sinval.vma
        0x1800_0073, // sfence.w.inval
        0x1810_0073, // sfence.inval.ir
        0x2200_0073, // hfence.vvma
        0x6200_0073, // hfence.gvma
        0x1200_00F3, // sfence.vma with rd
        0x6000_4073, // hlv.b
        0x0030_200F, // cbo, kind 3
        0x0000_208F, // cbo with rd
        0x0000_300F, // misc-mem with funct3 3
        0x1010_202F, // lr.w with rs2
        0x1010_302F, // lr.d with rs2
        0x0000_002F, // amo of bytes
        0x0000_402F, // amo of quadwords
        0x2800_202F, // amocas.w
        0x5811_7053, // fsqrt.s with rs2
        0x0400_7053, // fadd.h
        0x0600_7053, // fadd.q
        0x0400_0043, // fmadd.h
        0x0600_0043, // fmadd.q
        0x2000_3053, // fsgnj.s with funct3 3
        0x2800_2053, // fminm.s
        0x4000_7053, // fcvt.s.s
        0x4021_7053, // fcvt.s.h
        0xC040_7053, // fcvt, integer kind 4
        0xE000_2053, // funct3 2
        0xF010_0053, // fmv.w.x with rs2
        0xF000_1053, // fli.s
        0x0E00_5033, // czero.eqz
        0x0A00_1033, // clmul
        0x0000_701B, // op-imm-32 with funct3 7
        0x0000_303B, // op-32 with funct3 3
        0x0000_000B, // custom
        0x0000_002B,
        0x0000_005B,
        0x0000_007B,
        0x0000_003F, // 48 bits
        0x0000_005F, // 48 bits
        0x0000_006B, // reserved major opcode
        0x0000_0077,
    ];
    for word in words {
        assert_eq!(decode(word), Inst::illegal(word), "{word:#010x}");
        assert_eq!(decode(word).len(), 4);
    }
}

#[test]
fn reserved_rounding_modes_are_illegal_in_every_instruction_that_rounds() {
    let rounding = [0x43, 0x47, 0x4B, 0x4F].map(|opcode| opcode | 7 << 12).into_iter().chain(
        [0x00, 0x04, 0x08, 0x0C, 0x2C, 0x60, 0x68, 0x01, 0x21, 0x69]
            .map(|funct7: u32| 0x7053 | funct7 << 25),
    );
    for word in rounding {
        assert_ne!(decode(word).op, Op::Illegal, "{word:#010x}");
        for mode in 0..8 {
            let word = word & !0x7000 | mode << 12;
            let legal = mode != 5 && mode != 6;
            assert_eq!(decode(word).op != Op::Illegal, legal, "{word:#010x}");
        }
    }
}

#[test]
fn fences_ignore_fields_kept_for_finer_ones() {
    assert_eq!(decode(0x0000_000F).op, Op::Fence);
    assert_eq!(decode(0xFFFF_8F8F).op, Op::Fence);
    assert_eq!(decode(0xFFFF_9F8F).op, Op::FenceI);
    assert_eq!(decode(0x0100_000F).op, Op::Pause);
    assert_eq!(decode(0x0100_008F).op, Op::Fence, "pause with rd is another hint");
}

#[test]
fn upper_half_does_not_matter_to_a_compressed_instruction() {
    for parcel in (0..=u16::MAX).map(u32::from).filter(|parcel| parcel & 3 != 3) {
        assert_eq!(decode(parcel | 0xABCD_0000), decode(parcel), "{parcel:#06x}");
    }
}

#[test]
fn every_pattern_of_sixteen_bits_has_the_length_its_low_bits_say() {
    for parcel in (0..=u16::MAX).map(u32::from) {
        let length = if parcel & 3 == 3 { 4 } else { 2 };
        assert_eq!(decode(parcel).len(), length, "{parcel:#06x}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn fields_are_always_in_range(bits: u32) {
        let inst = decode(bits);
        prop_assert!(inst.rd <= Inst::SINK && inst.rs1 < 32 && inst.rs2() < 32);
        prop_assert_eq!(inst.len(), if bits & 3 == 3 { 4 } else { 2 });
        if inst.op == Op::Illegal {
            let raw = if bits & 3 == 3 { bits } else { bits & 0xFFFF };
            prop_assert_eq!(inst.imm as u32, raw);
        }
    }
}
