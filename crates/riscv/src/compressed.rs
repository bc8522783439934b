//! 16-bit encodings, expanded (unprivileged specification, "C" extension,
//! "RVC Instruction Set Listings").
//!
//! Hints expand to instructions without effect: their `rd` is the sink, or
//! their operand adds or shifts by nothing.

use crate::decode::sink_if_zero;
use crate::inst::Inst;
use crate::op::Op;

const X0: u8 = 0;
const RA: u8 = 1;
const SP: u8 = 2;

/// Expands one compressed encoding; its lowest two bits are not 11.
pub(crate) fn decode(bits: u16) -> Inst {
    let bits = u32::from(bits);
    let expanded = match bits & 3 {
        0 => quadrant_0(bits),
        1 => quadrant_1(bits),
        _ => quadrant_2(bits),
    };
    expanded.map_or(Inst::illegal(bits), Inst::compressed)
}

fn quadrant_0(bits: u32) -> Option<Inst> {
    let (rd, rs1) = (short_register(bits, 2), short_register(bits, 7));
    let double = place(bits, 10, 3, 3) | place(bits, 5, 2, 6);
    let word = place(bits, 10, 3, 3) | place(bits, 6, 1, 2) | place(bits, 5, 1, 6);
    Some(match bits >> 13 {
        0 => {
            let imm = place(bits, 11, 2, 4)
                | place(bits, 7, 4, 6)
                | place(bits, 6, 1, 2)
                | place(bits, 5, 1, 3);
            Inst::new(Op::Addi, rd, SP, 0, non_zero(imm)?)
        }
        1 => Inst::new(Op::Fld, rd, rs1, 0, double),
        2 => Inst::new(Op::Lw, rd, rs1, 0, word),
        3 => Inst::new(Op::Ld, rd, rs1, 0, double),
        5 => Inst::new(Op::Fsd, 0, rs1, rd, double),
        6 => Inst::new(Op::Sw, 0, rs1, rd, word),
        7 => Inst::new(Op::Sd, 0, rs1, rd, double),
        _ => return None,
    })
}

fn quadrant_1(bits: u32) -> Option<Inst> {
    let field = register(bits, 7);
    let rd = sink_if_zero(field);
    let imm = sign_extend(amount(bits), 6);
    Some(match bits >> 13 {
        0 => Inst::new(Op::Addi, rd, field, 0, imm),
        1 if field == X0 => return None,
        1 => Inst::new(Op::Addiw, rd, field, 0, imm),
        2 => Inst::new(Op::Addi, rd, X0, 0, imm),
        3 if field == SP => {
            let imm = place(bits, 12, 1, 9)
                | place(bits, 6, 1, 4)
                | place(bits, 5, 1, 6)
                | place(bits, 3, 2, 7)
                | place(bits, 2, 1, 5);
            Inst::new(Op::Addi, SP, SP, 0, non_zero(sign_extend(imm, 10))?)
        }
        3 => Inst::new(Op::Lui, rd, 0, 0, non_zero(imm)? << 12),
        4 => return arithmetic(bits),
        5 => {
            let offset = place(bits, 12, 1, 11)
                | place(bits, 11, 1, 4)
                | place(bits, 9, 2, 8)
                | place(bits, 8, 1, 10)
                | place(bits, 7, 1, 6)
                | place(bits, 6, 1, 7)
                | place(bits, 3, 3, 1)
                | place(bits, 2, 1, 5);
            Inst::new(Op::Jal, Inst::SINK, 0, 0, sign_extend(offset, 12))
        }
        6 => Inst::new(Op::Beq, 0, short_register(bits, 7), X0, branch_offset(bits)),
        _ => Inst::new(Op::Bne, 0, short_register(bits, 7), X0, branch_offset(bits)),
    })
}

/// Quadrant 1, `funct3` 100: both operands are in the short registers.
fn arithmetic(bits: u32) -> Option<Inst> {
    let (rd, rs2) = (short_register(bits, 7), short_register(bits, 2));
    let shift = amount(bits);
    let op = match bits >> 10 & 3 {
        0 => return Some(Inst::new(Op::Srli, rd, rd, 0, shift)),
        1 => return Some(Inst::new(Op::Srai, rd, rd, 0, shift)),
        2 => return Some(Inst::new(Op::Andi, rd, rd, 0, sign_extend(shift, 6))),
        _ => match (bits >> 12 & 1, bits >> 5 & 3) {
            (0, 0) => Op::Sub,
            (0, 1) => Op::Xor,
            (0, 2) => Op::Or,
            (0, _) => Op::And,
            (_, 0) => Op::Subw,
            (_, 1) => Op::Addw,
            _ => return None,
        },
    };
    Some(Inst::new(op, rd, rd, rs2, 0))
}

fn quadrant_2(bits: u32) -> Option<Inst> {
    let (field, rs2) = (register(bits, 7), register(bits, 2));
    let rd = sink_if_zero(field);
    let load_double = place(bits, 12, 1, 5) | place(bits, 5, 2, 3) | place(bits, 2, 3, 6);
    let load_word = place(bits, 12, 1, 5) | place(bits, 4, 3, 2) | place(bits, 2, 2, 6);
    let store_double = place(bits, 10, 3, 3) | place(bits, 7, 3, 6);
    let store_word = place(bits, 9, 4, 2) | place(bits, 7, 2, 6);
    Some(match bits >> 13 {
        0 => Inst::new(Op::Slli, rd, field, 0, amount(bits)),
        1 => Inst::new(Op::Fld, field, SP, 0, load_double),
        2 | 3 if field == X0 => return None,
        2 => Inst::new(Op::Lw, rd, SP, 0, load_word),
        3 => Inst::new(Op::Ld, rd, SP, 0, load_double),
        4 => match (bits >> 12 & 1, field, rs2) {
            (0, X0, X0) => return None,
            (0, _, X0) => Inst::new(Op::Jalr, Inst::SINK, field, 0, 0),
            (0, _, _) => Inst::new(Op::Add, rd, X0, rs2, 0),
            (_, X0, X0) => Inst::new(Op::Ebreak, 0, 0, 0, 0),
            (_, _, X0) => Inst::new(Op::Jalr, RA, field, 0, 0),
            _ => Inst::new(Op::Add, rd, field, rs2, 0),
        },
        5 => Inst::new(Op::Fsd, 0, SP, rs2, store_double),
        6 => Inst::new(Op::Sw, 0, SP, rs2, store_word),
        _ => Inst::new(Op::Sd, 0, SP, rs2, store_double),
    })
}

fn register(bits: u32, lowest: u32) -> u8 {
    (bits >> lowest & 31) as u8
}

/// Three bits that name one of the registers 8 to 15.
fn short_register(bits: u32, lowest: u32) -> u8 {
    (bits >> lowest & 7) as u8 + 8
}

/// The 6-bit immediate of most formats, unsigned.
fn amount(bits: u32) -> i32 {
    place(bits, 12, 1, 5) | place(bits, 2, 5, 0)
}

fn branch_offset(bits: u32) -> i32 {
    let offset = place(bits, 12, 1, 8)
        | place(bits, 10, 2, 3)
        | place(bits, 5, 2, 6)
        | place(bits, 3, 2, 1)
        | place(bits, 2, 1, 5);
    sign_extend(offset, 9)
}

/// `width` bits taken from bit `from` up and put at bit `to` up.
const fn place(bits: u32, from: u32, width: u32, to: u32) -> i32 {
    ((bits >> from & ((1 << width) - 1)) << to) as i32
}

const fn sign_extend(value: i32, width: u32) -> i32 {
    value << (32 - width) >> (32 - width)
}

/// Immediates of 0 are reserved in some formats.
const fn non_zero(imm: i32) -> Option<i32> {
    if imm == 0 { None } else { Some(imm) }
}

#[cfg(test)]
mod tests;
