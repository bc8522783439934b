//! All 32-bit encodings, by major opcode (unprivileged specification,
//! "RV32/64G Instruction Set Listings"; privileged, "RISC-V Privileged
//! Instruction Set Listings").
//!
//! An instruction that is a special case of another stands before it; the
//! only one is `pause`, which the standard carves out of `fence`.

use crate::encoding::{Encoding as E, Form};
use crate::op::Op;

/// The encodings whose bits 2 to 6 are `opcode`; bits 0 and 1 are always 11.
pub(crate) const fn encodings(opcode: u32) -> &'static [E] {
    match opcode & 31 {
        0x00 => LOAD,
        0x01 => LOAD_FP,
        0x03 => MISC_MEM,
        0x04 => OP_IMM,
        0x05 => AUIPC,
        0x06 => OP_IMM_32,
        0x08 => STORE,
        0x09 => STORE_FP,
        0x0B => AMO,
        0x0C => OP,
        0x0D => LUI,
        0x0E => OP_32,
        0x10..=0x13 => FUSED,
        0x14 => OP_FP,
        0x18 => BRANCH,
        0x19 => JALR,
        0x1B => JAL,
        0x1C => SYSTEM,
        _ => &[],
    }
}

const LUI: &[E] = &[E::opcode(Op::Lui, Form::Upper, 0x37)];
const AUIPC: &[E] = &[E::opcode(Op::Auipc, Form::Upper, 0x17)];
const JAL: &[E] = &[E::opcode(Op::Jal, Form::Jump, 0x6F)];
const JALR: &[E] = &[E::funct3(Op::Jalr, Form::Immediate, 0x67, 0)];

const BRANCH: &[E] = &[
    E::funct3(Op::Beq, Form::Branch, 0x63, 0),
    E::funct3(Op::Bne, Form::Branch, 0x63, 1),
    E::funct3(Op::Blt, Form::Branch, 0x63, 4),
    E::funct3(Op::Bge, Form::Branch, 0x63, 5),
    E::funct3(Op::Bltu, Form::Branch, 0x63, 6),
    E::funct3(Op::Bgeu, Form::Branch, 0x63, 7),
];

const LOAD: &[E] = &[
    E::funct3(Op::Lb, Form::Immediate, 0x03, 0),
    E::funct3(Op::Lh, Form::Immediate, 0x03, 1),
    E::funct3(Op::Lw, Form::Immediate, 0x03, 2),
    E::funct3(Op::Ld, Form::Immediate, 0x03, 3),
    E::funct3(Op::Lbu, Form::Immediate, 0x03, 4),
    E::funct3(Op::Lhu, Form::Immediate, 0x03, 5),
    E::funct3(Op::Lwu, Form::Immediate, 0x03, 6),
];

const STORE: &[E] = &[
    E::funct3(Op::Sb, Form::Store, 0x23, 0),
    E::funct3(Op::Sh, Form::Store, 0x23, 1),
    E::funct3(Op::Sw, Form::Store, 0x23, 2),
    E::funct3(Op::Sd, Form::Store, 0x23, 3),
];

const LOAD_FP: &[E] =
    &[E::funct3(Op::Flw, Form::FloatLoad, 0x07, 2), E::funct3(Op::Fld, Form::FloatLoad, 0x07, 3)];

const STORE_FP: &[E] =
    &[E::funct3(Op::Fsw, Form::Store, 0x27, 2), E::funct3(Op::Fsd, Form::Store, 0x27, 3)];

/// Prefetches are `ori` to x0, which does nothing already.
const OP_IMM: &[E] = &[
    E::funct3(Op::Addi, Form::Immediate, 0x13, 0),
    E::funct3(Op::Slti, Form::Immediate, 0x13, 2),
    E::funct3(Op::Sltiu, Form::Immediate, 0x13, 3),
    E::funct3(Op::Xori, Form::Immediate, 0x13, 4),
    E::funct3(Op::Ori, Form::Immediate, 0x13, 6),
    E::funct3(Op::Andi, Form::Immediate, 0x13, 7),
    E::shift(Op::Slli, 0x13, 1, 0x00),
    E::shift(Op::Srli, 0x13, 5, 0x00),
    E::shift(Op::Srai, 0x13, 5, 0x10),
    // Zbb
    E::funct12(Op::Clz, Form::Unary, 0x13, 1, 0x600),
    E::funct12(Op::Ctz, Form::Unary, 0x13, 1, 0x601),
    E::funct12(Op::Cpop, Form::Unary, 0x13, 1, 0x602),
    E::funct12(Op::SextB, Form::Unary, 0x13, 1, 0x604),
    E::funct12(Op::SextH, Form::Unary, 0x13, 1, 0x605),
    E::funct12(Op::OrcB, Form::Unary, 0x13, 5, 0x287),
    E::funct12(Op::Rev8, Form::Unary, 0x13, 5, 0x6B8),
    E::shift(Op::Rori, 0x13, 5, 0x18),
    // Zbs
    E::shift(Op::Bseti, 0x13, 1, 0x0A),
    E::shift(Op::Bclri, 0x13, 1, 0x12),
    E::shift(Op::Binvi, 0x13, 1, 0x1A),
    E::shift(Op::Bexti, 0x13, 5, 0x12),
];

const OP_IMM_32: &[E] = &[
    E::funct3(Op::Addiw, Form::Immediate, 0x1B, 0),
    E::funct7(Op::Slliw, Form::Shift, 0x1B, 1, 0x00),
    E::funct7(Op::Srliw, Form::Shift, 0x1B, 5, 0x00),
    E::funct7(Op::Sraiw, Form::Shift, 0x1B, 5, 0x20),
    // Zba, Zbb
    E::shift(Op::SlliUw, 0x1B, 1, 0x02),
    E::funct12(Op::Clzw, Form::Unary, 0x1B, 1, 0x600),
    E::funct12(Op::Ctzw, Form::Unary, 0x1B, 1, 0x601),
    E::funct12(Op::Cpopw, Form::Unary, 0x1B, 1, 0x602),
    E::funct7(Op::Roriw, Form::Shift, 0x1B, 5, 0x30),
];

const OP: &[E] = &[
    E::funct7(Op::Add, Form::Register, 0x33, 0, 0x00),
    E::funct7(Op::Sub, Form::Register, 0x33, 0, 0x20),
    E::funct7(Op::Sll, Form::Register, 0x33, 1, 0x00),
    E::funct7(Op::Slt, Form::Register, 0x33, 2, 0x00),
    E::funct7(Op::Sltu, Form::Register, 0x33, 3, 0x00),
    E::funct7(Op::Xor, Form::Register, 0x33, 4, 0x00),
    E::funct7(Op::Srl, Form::Register, 0x33, 5, 0x00),
    E::funct7(Op::Sra, Form::Register, 0x33, 5, 0x20),
    E::funct7(Op::Or, Form::Register, 0x33, 6, 0x00),
    E::funct7(Op::And, Form::Register, 0x33, 7, 0x00),
    // M
    E::funct7(Op::Mul, Form::Register, 0x33, 0, 0x01),
    E::funct7(Op::Mulh, Form::Register, 0x33, 1, 0x01),
    E::funct7(Op::Mulhsu, Form::Register, 0x33, 2, 0x01),
    E::funct7(Op::Mulhu, Form::Register, 0x33, 3, 0x01),
    E::funct7(Op::Div, Form::Register, 0x33, 4, 0x01),
    E::funct7(Op::Divu, Form::Register, 0x33, 5, 0x01),
    E::funct7(Op::Rem, Form::Register, 0x33, 6, 0x01),
    E::funct7(Op::Remu, Form::Register, 0x33, 7, 0x01),
    // Zba
    E::funct7(Op::Sh1add, Form::Register, 0x33, 2, 0x10),
    E::funct7(Op::Sh2add, Form::Register, 0x33, 4, 0x10),
    E::funct7(Op::Sh3add, Form::Register, 0x33, 6, 0x10),
    // Zbb
    E::funct7(Op::Andn, Form::Register, 0x33, 7, 0x20),
    E::funct7(Op::Orn, Form::Register, 0x33, 6, 0x20),
    E::funct7(Op::Xnor, Form::Register, 0x33, 4, 0x20),
    E::funct7(Op::Min, Form::Register, 0x33, 4, 0x05),
    E::funct7(Op::Minu, Form::Register, 0x33, 5, 0x05),
    E::funct7(Op::Max, Form::Register, 0x33, 6, 0x05),
    E::funct7(Op::Maxu, Form::Register, 0x33, 7, 0x05),
    E::funct7(Op::Rol, Form::Register, 0x33, 1, 0x30),
    E::funct7(Op::Ror, Form::Register, 0x33, 5, 0x30),
    // Zbs
    E::funct7(Op::Bset, Form::Register, 0x33, 1, 0x14),
    E::funct7(Op::Bclr, Form::Register, 0x33, 1, 0x24),
    E::funct7(Op::Binv, Form::Register, 0x33, 1, 0x34),
    E::funct7(Op::Bext, Form::Register, 0x33, 5, 0x24),
];

const OP_32: &[E] = &[
    E::funct7(Op::Addw, Form::Register, 0x3B, 0, 0x00),
    E::funct7(Op::Subw, Form::Register, 0x3B, 0, 0x20),
    E::funct7(Op::Sllw, Form::Register, 0x3B, 1, 0x00),
    E::funct7(Op::Srlw, Form::Register, 0x3B, 5, 0x00),
    E::funct7(Op::Sraw, Form::Register, 0x3B, 5, 0x20),
    // M
    E::funct7(Op::Mulw, Form::Register, 0x3B, 0, 0x01),
    E::funct7(Op::Divw, Form::Register, 0x3B, 4, 0x01),
    E::funct7(Op::Divuw, Form::Register, 0x3B, 5, 0x01),
    E::funct7(Op::Remw, Form::Register, 0x3B, 6, 0x01),
    E::funct7(Op::Remuw, Form::Register, 0x3B, 7, 0x01),
    // Zba
    E::funct7(Op::AddUw, Form::Register, 0x3B, 0, 0x04),
    E::funct7(Op::Sh1addUw, Form::Register, 0x3B, 2, 0x10),
    E::funct7(Op::Sh2addUw, Form::Register, 0x3B, 4, 0x10),
    E::funct7(Op::Sh3addUw, Form::Register, 0x3B, 6, 0x10),
    // Zbb
    E::funct12(Op::ZextH, Form::Unary, 0x3B, 4, 0x080),
    E::funct7(Op::Rolw, Form::Register, 0x3B, 1, 0x30),
    E::funct7(Op::Rorw, Form::Register, 0x3B, 5, 0x30),
];

/// The fields of fences that are reserved for finer ones are to be ignored.
const MISC_MEM: &[E] = &[
    E::funct12(Op::Pause, Form::Bare, 0x0F, 0, 0x010).no_rs1().no_rd(),
    E::funct3(Op::Fence, Form::Bare, 0x0F, 0),
    E::funct3(Op::FenceI, Form::Bare, 0x0F, 1),
    E::funct12(Op::CboInval, Form::Address, 0x0F, 2, 0).no_rd(),
    E::funct12(Op::CboClean, Form::Address, 0x0F, 2, 1).no_rd(),
    E::funct12(Op::CboFlush, Form::Address, 0x0F, 2, 2).no_rd(),
    E::funct12(Op::CboZero, Form::Address, 0x0F, 2, 4).no_rd(),
];

const SYSTEM: &[E] = &[
    E::funct12(Op::Ecall, Form::Bare, 0x73, 0, 0x000).no_rs1().no_rd(),
    E::funct12(Op::Ebreak, Form::Bare, 0x73, 0, 0x001).no_rs1().no_rd(),
    E::funct12(Op::Sret, Form::Bare, 0x73, 0, 0x102).no_rs1().no_rd(),
    E::funct12(Op::Mret, Form::Bare, 0x73, 0, 0x302).no_rs1().no_rd(),
    E::funct12(Op::Wfi, Form::Bare, 0x73, 0, 0x105).no_rs1().no_rd(),
    E::funct7(Op::SfenceVma, Form::Sources, 0x73, 0, 0x09).no_rd(),
    E::funct3(Op::Csrrw, Form::Csr, 0x73, 1),
    E::funct3(Op::Csrrs, Form::Csr, 0x73, 2),
    E::funct3(Op::Csrrc, Form::Csr, 0x73, 3),
    E::funct3(Op::Csrrwi, Form::Csr, 0x73, 5),
    E::funct3(Op::Csrrsi, Form::Csr, 0x73, 6),
    E::funct3(Op::Csrrci, Form::Csr, 0x73, 7),
];

const AMO: &[E] = &[
    E::atomic(Op::LrW, 2, 0x02).no_rs2(Form::Unary),
    E::atomic(Op::ScW, 2, 0x03),
    E::atomic(Op::AmoswapW, 2, 0x01),
    E::atomic(Op::AmoaddW, 2, 0x00),
    E::atomic(Op::AmoxorW, 2, 0x04),
    E::atomic(Op::AmoandW, 2, 0x0C),
    E::atomic(Op::AmoorW, 2, 0x08),
    E::atomic(Op::AmominW, 2, 0x10),
    E::atomic(Op::AmomaxW, 2, 0x14),
    E::atomic(Op::AmominuW, 2, 0x18),
    E::atomic(Op::AmomaxuW, 2, 0x1C),
    E::atomic(Op::LrD, 3, 0x02).no_rs2(Form::Unary),
    E::atomic(Op::ScD, 3, 0x03),
    E::atomic(Op::AmoswapD, 3, 0x01),
    E::atomic(Op::AmoaddD, 3, 0x00),
    E::atomic(Op::AmoxorD, 3, 0x04),
    E::atomic(Op::AmoandD, 3, 0x0C),
    E::atomic(Op::AmoorD, 3, 0x08),
    E::atomic(Op::AmominD, 3, 0x10),
    E::atomic(Op::AmomaxD, 3, 0x14),
    E::atomic(Op::AmominuD, 3, 0x18),
    E::atomic(Op::AmomaxuD, 3, 0x1C),
];

const FUSED: &[E] = &[
    E::fused(Op::FmaddS, 0x43, 0),
    E::fused(Op::FmaddD, 0x43, 1),
    E::fused(Op::FmsubS, 0x47, 0),
    E::fused(Op::FmsubD, 0x47, 1),
    E::fused(Op::FnmsubS, 0x4B, 0),
    E::fused(Op::FnmsubD, 0x4B, 1),
    E::fused(Op::FnmaddS, 0x4F, 0),
    E::fused(Op::FnmaddD, 0x4F, 1),
];

const OP_FP: &[E] = &[
    // F
    E::rounded(Op::FaddS, 0x00),
    E::rounded(Op::FsubS, 0x04),
    E::rounded(Op::FmulS, 0x08),
    E::rounded(Op::FdivS, 0x0C),
    E::converted(Op::FsqrtS, Form::FloatUnaryRounded, 0x2C, 0),
    E::funct7(Op::FsgnjS, Form::Float, 0x53, 0, 0x10),
    E::funct7(Op::FsgnjnS, Form::Float, 0x53, 1, 0x10),
    E::funct7(Op::FsgnjxS, Form::Float, 0x53, 2, 0x10),
    E::funct7(Op::FminS, Form::Float, 0x53, 0, 0x14),
    E::funct7(Op::FmaxS, Form::Float, 0x53, 1, 0x14),
    E::funct7(Op::FleS, Form::Register, 0x53, 0, 0x50),
    E::funct7(Op::FltS, Form::Register, 0x53, 1, 0x50),
    E::funct7(Op::FeqS, Form::Register, 0x53, 2, 0x50),
    E::converted(Op::FcvtWS, Form::UnaryRounded, 0x60, 0),
    E::converted(Op::FcvtWuS, Form::UnaryRounded, 0x60, 1),
    E::converted(Op::FcvtLS, Form::UnaryRounded, 0x60, 2),
    E::converted(Op::FcvtLuS, Form::UnaryRounded, 0x60, 3),
    E::converted(Op::FcvtSW, Form::FloatUnaryRounded, 0x68, 0),
    E::converted(Op::FcvtSWu, Form::FloatUnaryRounded, 0x68, 1),
    E::converted(Op::FcvtSL, Form::FloatUnaryRounded, 0x68, 2),
    E::converted(Op::FcvtSLu, Form::FloatUnaryRounded, 0x68, 3),
    E::funct12(Op::FmvXW, Form::Unary, 0x53, 0, 0xE00),
    E::funct12(Op::FclassS, Form::Unary, 0x53, 1, 0xE00),
    E::funct12(Op::FmvWX, Form::FloatUnary, 0x53, 0, 0xF00),
    // D
    E::rounded(Op::FaddD, 0x01),
    E::rounded(Op::FsubD, 0x05),
    E::rounded(Op::FmulD, 0x09),
    E::rounded(Op::FdivD, 0x0D),
    E::converted(Op::FsqrtD, Form::FloatUnaryRounded, 0x2D, 0),
    E::funct7(Op::FsgnjD, Form::Float, 0x53, 0, 0x11),
    E::funct7(Op::FsgnjnD, Form::Float, 0x53, 1, 0x11),
    E::funct7(Op::FsgnjxD, Form::Float, 0x53, 2, 0x11),
    E::funct7(Op::FminD, Form::Float, 0x53, 0, 0x15),
    E::funct7(Op::FmaxD, Form::Float, 0x53, 1, 0x15),
    E::converted(Op::FcvtSD, Form::FloatUnaryRounded, 0x20, 1),
    E::converted(Op::FcvtDS, Form::FloatUnaryRounded, 0x21, 0),
    E::funct7(Op::FleD, Form::Register, 0x53, 0, 0x51),
    E::funct7(Op::FltD, Form::Register, 0x53, 1, 0x51),
    E::funct7(Op::FeqD, Form::Register, 0x53, 2, 0x51),
    E::converted(Op::FcvtWD, Form::UnaryRounded, 0x61, 0),
    E::converted(Op::FcvtWuD, Form::UnaryRounded, 0x61, 1),
    E::converted(Op::FcvtLD, Form::UnaryRounded, 0x61, 2),
    E::converted(Op::FcvtLuD, Form::UnaryRounded, 0x61, 3),
    E::converted(Op::FcvtDW, Form::FloatUnaryRounded, 0x69, 0),
    E::converted(Op::FcvtDWu, Form::FloatUnaryRounded, 0x69, 1),
    E::converted(Op::FcvtDL, Form::FloatUnaryRounded, 0x69, 2),
    E::converted(Op::FcvtDLu, Form::FloatUnaryRounded, 0x69, 3),
    E::funct12(Op::FmvXD, Form::Unary, 0x53, 0, 0xE20),
    E::funct12(Op::FclassD, Form::Unary, 0x53, 1, 0xE20),
    E::funct12(Op::FmvDX, Form::FloatUnary, 0x53, 0, 0xF20),
];
