//! All 16-bit patterns against a model written the other way round: for each
//! instruction and all its operands, the pattern that the standard's figures
//! draw, bit by bit from the top. What no instruction claims is reserved.

use std::collections::BTreeMap;

use super::*;

/// Bits `high` to `low` of `value`.
fn cut(value: i32, high: u32, low: u32) -> u32 {
    (value as u32) >> low & ((1 << (high - low + 1)) - 1)
}

/// Puts fields of the given widths side by side, the first one highest.
fn pack(fields: &[(u32, u32)]) -> u16 {
    let total: u32 = fields.iter().map(|field| field.1).sum();
    assert_eq!(total, 16);
    fields.iter().fold(0, |bits, (value, width)| {
        assert!(*value < 1 << width);
        bits << width | value
    }) as u16
}

#[derive(Default)]
struct Model {
    patterns: BTreeMap<u16, Inst>,
}

impl Model {
    fn claim(&mut self, fields: &[(u32, u32)], inst: Inst) {
        let pattern = pack(fields);
        let before = self.patterns.insert(pattern, inst.compressed());
        assert!(before.is_none(), "{pattern:#06x} is both {before:?} and {inst:?}");
    }
}

fn short(register: u8) -> (u32, u32) {
    (u32::from(register - 8), 3)
}

fn full(register: u8) -> (u32, u32) {
    (u32::from(register), 5)
}

fn sink(register: u8) -> u8 {
    if register == 0 { 32 } else { register }
}

fn model() -> Model {
    let mut model = Model::default();
    short_loads_and_stores(&mut model);
    stack_loads_and_stores(&mut model);
    immediates(&mut model);
    registers(&mut model);
    jumps(&mut model);
    model
}

fn short_loads_and_stores(model: &mut Model) {
    for data in 8..16 {
        for base in 8..16 {
            let (d, b) = (short(data), short(base));
            for i in (0..256).step_by(8) {
                let (upper, lower) = ((cut(i, 5, 3), 3), (cut(i, 7, 6), 2));
                for (funct, op) in [(1, Op::Fld), (3, Op::Ld)] {
                    let inst = Inst::new(op, data, base, 0, i);
                    model.claim(&[(funct, 3), upper, b, lower, d, (0, 2)], inst);
                }
                for (funct, op) in [(5, Op::Fsd), (7, Op::Sd)] {
                    let inst = Inst::new(op, 0, base, data, i);
                    model.claim(&[(funct, 3), upper, b, lower, d, (0, 2)], inst);
                }
            }
            for i in (0..128).step_by(4) {
                let (upper, lower) = ((cut(i, 5, 3), 3), (cut(i, 2, 2) << 1 | cut(i, 6, 6), 2));
                let load = Inst::new(Op::Lw, data, base, 0, i);
                model.claim(&[(2, 3), upper, b, lower, d, (0, 2)], load);
                let store = Inst::new(Op::Sw, 0, base, data, i);
                model.claim(&[(6, 3), upper, b, lower, d, (0, 2)], store);
            }
        }
    }
}

fn stack_loads_and_stores(model: &mut Model) {
    for register in 0..32 {
        let r = full(register);
        for i in (0..512).step_by(8) {
            let load = [(cut(i, 5, 5), 1), r, (cut(i, 4, 3), 2), (cut(i, 8, 6), 3), (2, 2)];
            let store = [(cut(i, 5, 3), 3), (cut(i, 8, 6), 3), r, (2, 2)];
            let with = |funct, rest: &[(u32, u32)]| [&[(funct, 3)], rest].concat();
            model.claim(&with(1, &load), Inst::new(Op::Fld, register, 2, 0, i));
            model.claim(&with(5, &store), Inst::new(Op::Fsd, 0, 2, register, i));
            model.claim(&with(7, &store), Inst::new(Op::Sd, 0, 2, register, i));
            if register != 0 {
                model.claim(&with(3, &load), Inst::new(Op::Ld, register, 2, 0, i));
            }
        }
        for i in (0..256).step_by(4) {
            let store = Inst::new(Op::Sw, 0, 2, register, i);
            model.claim(&[(6, 3), (cut(i, 5, 2), 4), (cut(i, 7, 6), 2), r, (2, 2)], store);
            if register != 0 {
                let load = Inst::new(Op::Lw, register, 2, 0, i);
                let parts = [(cut(i, 4, 2), 3), (cut(i, 7, 6), 2)];
                let fields = [(2, 3), (cut(i, 5, 5), 1), r, parts[0], parts[1], (2, 2)];
                model.claim(&fields, load);
            }
        }
    }
}

fn immediates(model: &mut Model) {
    for rd in 0..32 {
        for i in -32..32 {
            let fields =
                |funct| [(funct, 3), (cut(i, 5, 5), 1), full(rd), (cut(i, 4, 0), 5), (1, 2)];
            model.claim(&fields(0), Inst::new(Op::Addi, sink(rd), rd, 0, i));
            model.claim(&fields(2), Inst::new(Op::Addi, sink(rd), 0, 0, i));
            if rd != 0 {
                model.claim(&fields(1), Inst::new(Op::Addiw, rd, rd, 0, i));
            }
            if rd != 2 && i != 0 {
                model.claim(&fields(3), Inst::new(Op::Lui, sink(rd), 0, 0, i * 4096));
            }
        }
        for i in 0..64 {
            let fields = [(0, 3), (cut(i, 5, 5), 1), full(rd), (cut(i, 4, 0), 5), (2, 2)];
            model.claim(&fields, Inst::new(Op::Slli, sink(rd), rd, 0, i));
        }
    }
    for i in (-512..512).step_by(16).filter(|i| *i != 0) {
        let lower = [(cut(i, 4, 4), 1), (cut(i, 6, 6), 1), (cut(i, 8, 7), 2), (cut(i, 5, 5), 1)];
        let fields = [&[(3, 3), (cut(i, 9, 9), 1), (2, 5)], &lower[..], &[(1, 2)]].concat();
        model.claim(&fields, Inst::new(Op::Addi, 2, 2, 0, i));
    }
    for rd in 8..16 {
        for i in (4..1024).step_by(4) {
            let parts =
                [(cut(i, 5, 4), 2), (cut(i, 9, 6), 4), (cut(i, 2, 2), 1), (cut(i, 3, 3), 1)];
            let fields = [&[(0, 3)], &parts[..], &[short(rd), (0, 2)]].concat();
            model.claim(&fields, Inst::new(Op::Addi, rd, 2, 0, i));
        }
        for i in -32..32 {
            let fields = |kind| {
                let lower = (cut(i, 4, 0), 5);
                [(4, 3), (cut(i, 5, 5), 1), (kind, 2), short(rd), lower, (1, 2)]
            };
            model.claim(&fields(0), Inst::new(Op::Srli, rd, rd, 0, i & 63));
            model.claim(&fields(1), Inst::new(Op::Srai, rd, rd, 0, i & 63));
            model.claim(&fields(2), Inst::new(Op::Andi, rd, rd, 0, i));
        }
    }
}

fn registers(model: &mut Model) {
    let short_ops = [
        (0, 0, Op::Sub),
        (0, 1, Op::Xor),
        (0, 2, Op::Or),
        (0, 3, Op::And),
        (1, 0, Op::Subw),
        (1, 1, Op::Addw),
    ];
    for (top, kind, op) in short_ops {
        for rd in 8..16 {
            for rs2 in 8..16 {
                let parts = [(top, 1), (3, 2), short(rd), (kind, 2), short(rs2)];
                let fields = [&[(4, 3)], &parts[..], &[(1, 2)]].concat();
                model.claim(&fields, Inst::new(op, rd, rd, rs2, 0));
            }
        }
    }
    for a in 0..32 {
        for b in 1..32 {
            let fields = |top| [(4, 3), (top, 1), full(a), full(b), (2, 2)];
            model.claim(&fields(0), Inst::new(Op::Add, sink(a), 0, b, 0));
            model.claim(&fields(1), Inst::new(Op::Add, sink(a), a, b, 0));
        }
    }
}

fn jumps(model: &mut Model) {
    for register in 1..32 {
        let fields = |top| [(4, 3), (top, 1), full(register), (0, 5), (2, 2)];
        model.claim(&fields(0), Inst::new(Op::Jalr, 32, register, 0, 0));
        model.claim(&fields(1), Inst::new(Op::Jalr, 1, register, 0, 0));
    }
    model.claim(&[(4, 3), (1, 1), (0, 5), (0, 5), (2, 2)], Inst::new(Op::Ebreak, 0, 0, 0, 0));
    for i in (-2048..2048).step_by(2) {
        let order = [(11, 11), (4, 4), (9, 8), (10, 10), (6, 6), (7, 7), (3, 1), (5, 5)];
        let parts = order.map(|(high, low)| (cut(i, high, low), high - low + 1));
        let fields = [&[(5, 3)], &parts[..], &[(1, 2)]].concat();
        model.claim(&fields, Inst::new(Op::Jal, 32, 0, 0, i));
    }
    for rs1 in 8..16 {
        for i in (-256..256).step_by(2) {
            for (funct, op) in [(6, Op::Beq), (7, Op::Bne)] {
                let upper = (cut(i, 8, 8) << 2 | cut(i, 4, 3), 3);
                let lower = (cut(i, 7, 6) << 3 | cut(i, 2, 1) << 1 | cut(i, 5, 5), 5);
                let fields = [(funct, 3), upper, short(rs1), lower, (1, 2)];
                model.claim(&fields, Inst::new(op, 0, rs1, 0, i));
            }
        }
    }
}

#[test]
fn every_pattern_is_what_the_model_says_or_illegal() {
    let model = model();
    for pattern in (0..=u16::MAX).filter(|pattern| pattern & 3 != 3) {
        let illegal = Inst::illegal(u32::from(pattern));
        let expected = model.patterns.get(&pattern).copied().unwrap_or(illegal);
        assert_eq!(decode(pattern), expected, "{pattern:#06x}");
    }
}

#[test]
fn all_zeros_are_illegal() {
    assert_eq!(decode(0), Inst::illegal(0));
}
