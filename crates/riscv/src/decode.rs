//! From bits to [`Inst`].

use crate::compressed;
use crate::encoding::Form;
use crate::inst::Inst;
use crate::op::Op;
use crate::table;

/// Decodes the instruction that begins with the lowest bits of `bits`. If it
/// is compressed, that is if the lowest two bits are not 11, the upper 16 do
/// not matter.
///
/// Reserved encodings and instructions of extensions that this processor does
/// not have become [`Op::Illegal`]; hints become the instruction that they are
/// encoded as, which does nothing.
pub fn decode(bits: u32) -> Inst {
    if bits & 3 != 3 {
        return compressed::decode(bits as u16);
    }
    table::encodings(bits >> 2)
        .iter()
        .find(|encoding| encoding.matches(bits))
        .and_then(|encoding| operands(encoding.op, encoding.form, bits))
        .unwrap_or(Inst::illegal(bits))
}

/// `None` if the rounding mode is a reserved one.
fn operands(op: Op, form: Form, bits: u32) -> Option<Inst> {
    let float_rd = field(bits, 7);
    let rd = sink_if_zero(float_rd);
    let (rs1, rs2) = (field(bits, 15), field(bits, 20));
    Some(match form {
        Form::Bare => Inst::new(op, 0, 0, 0, 0),
        Form::Address => Inst::new(op, 0, rs1, 0, 0),
        Form::Sources => Inst::new(op, 0, rs1, rs2, 0),
        Form::Register => Inst::new(op, rd, rs1, rs2, 0),
        Form::Unary => Inst::new(op, rd, rs1, 0, 0),
        Form::Immediate => Inst::new(op, rd, rs1, 0, immediate(bits)),
        Form::Shift => Inst::new(op, rd, rs1, 0, (bits >> 20 & 63) as i32),
        Form::Store => Inst::new(op, 0, rs1, rs2, store_offset(bits)),
        Form::Branch => Inst::new(op, 0, rs1, rs2, branch_offset(bits)),
        Form::Upper => Inst::new(op, rd, 0, 0, (bits & 0xFFFF_F000) as i32),
        Form::Jump => Inst::new(op, rd, 0, 0, jump_offset(bits)),
        Form::Csr => Inst::new(op, rd, rs1, 0, (bits >> 20) as i32),
        Form::FloatLoad => Inst::new(op, float_rd, rs1, 0, immediate(bits)),
        Form::Float => Inst::new(op, float_rd, rs1, rs2, 0),
        Form::FloatUnary => Inst::new(op, float_rd, rs1, 0, 0),
        Form::FloatRounded => Inst::new(op, float_rd, rs1, rs2, rounding(bits)?),
        Form::FloatUnaryRounded => Inst::new(op, float_rd, rs1, 0, rounding(bits)?),
        Form::UnaryRounded => Inst::new(op, rd, rs1, 0, rounding(bits)?),
        Form::FloatFused => {
            let rs3 = i32::from(field(bits, 27));
            Inst::new(op, float_rd, rs1, rs2, rounding(bits)? | rs3 << 8)
        }
    })
}

/// The integer register to write for a `rd` field.
pub(crate) const fn sink_if_zero(rd: u8) -> u8 {
    if rd == 0 { Inst::SINK } else { rd }
}

const fn field(bits: u32, lowest: u32) -> u8 {
    (bits >> lowest & 31) as u8
}

/// Modes 5 and 6 are reserved; 7 stands for the one in `frm`, which only the
/// executor knows.
const fn rounding(bits: u32) -> Option<i32> {
    match bits >> 12 & 7 {
        5 | 6 => None,
        mode => Some(mode as i32),
    }
}

const fn immediate(bits: u32) -> i32 {
    bits as i32 >> 20
}

const fn store_offset(bits: u32) -> i32 {
    bits as i32 >> 25 << 5 | (bits >> 7 & 31) as i32
}

const fn branch_offset(bits: u32) -> i32 {
    let low = (bits >> 8 & 0xF) << 1 | (bits >> 25 & 0x3F) << 5 | (bits >> 7 & 1) << 11;
    bits as i32 >> 31 << 12 | low as i32
}

const fn jump_offset(bits: u32) -> i32 {
    let low = (bits >> 21 & 0x3FF) << 1 | (bits >> 20 & 1) << 11 | bits & 0xF_F000;
    bits as i32 >> 31 << 20 | low as i32
}

#[cfg(test)]
mod tests;
