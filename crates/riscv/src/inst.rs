//! A decoded instruction.

use std::fmt;

use crate::op::Op;

/// A decoded instruction, the same for 16-bit and 32-bit encodings.
///
/// What the fields hold, where the instruction has them:
///
/// * `rd`: register written, 0 to 31. An instruction that would write `x0`
///   has [`Inst::SINK`] here, so that an executor with 33 integer registers
///   writes without a test; a floating-point register is always 0 to 31.
/// * `rs1`: first source register, or the 5-bit immediate of `csrr*i`.
/// * `rs2`: second source register. The top bit is set if the encoding was
///   compressed, so read it with [`Inst::rs2`].
/// * `imm`: a sign-extended immediate; the byte offset of branches and `jal`;
///   the final value of `lui` and the addend of `auipc`, already shifted; the
///   amount of a shift; a CSR's number, 0 to 4095; the rounding mode of
///   floating-point instructions in bits 0 to 2 (7: the one in `frm`) and the
///   third source register of fused ones in bits 8 to 12; all bits of an
///   [`Op::Illegal`], a compressed one's zero-extended.
///
/// A field that the instruction has not is 0, but for the top bit of `rs2`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Inst {
    /// What to do.
    pub op: Op,
    /// The register to write.
    pub rd: u8,
    /// The first source register.
    pub rs1: u8,
    /// The second source register, and in the top bit the length.
    pub rs2: u8,
    /// The immediate.
    pub imm: i32,
}

const _: () = assert!(size_of::<Inst>() == 8);

impl Inst {
    /// `rd` of an integer instruction whose result is dropped.
    pub const SINK: u8 = 32;

    const COMPRESSED: u8 = 0x80;

    /// A 4-byte instruction.
    pub const fn new(op: Op, rd: u8, rs1: u8, rs2: u8, imm: i32) -> Self {
        Self { op, rd, rs1, rs2, imm }
    }

    /// A 4-byte or, if it is below 0x1_0000 and does not end in binary 11,
    /// 2-byte encoding that is no instruction.
    pub const fn illegal(bits: u32) -> Self {
        let inst = Self::new(Op::Illegal, 0, 0, 0, bits as i32);
        if bits & 3 != 3 { inst.compressed() } else { inst }
    }

    /// The same from a 2-byte encoding.
    #[must_use]
    pub const fn compressed(self) -> Self {
        Self { rs2: self.rs2 | Self::COMPRESSED, ..self }
    }

    /// The second source register, 0 to 31.
    #[inline(always)]
    pub const fn rs2(self) -> u8 {
        self.rs2 & 31
    }

    /// The third source register of a fused multiply-add, 0 to 31.
    #[inline(always)]
    pub const fn rs3(self) -> u8 {
        (self.imm >> 8 & 31) as u8
    }

    /// The rounding mode field of a floating-point instruction, 0 to 7.
    #[inline(always)]
    pub const fn rm(self) -> u8 {
        (self.imm & 7) as u8
    }

    /// Length of the encoding in bytes: 2 or 4.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "not a collection")]
    pub const fn len(self) -> u64 {
        4 - (self.rs2 >> 7) as u64 * 2
    }
}

impl fmt::Display for Inst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.len() == 2 {
            f.write_str("c:")?;
        }
        write!(f, "{}", self.op.mnemonic())?;
        if self.op == Op::Illegal {
            return write!(f, " {:#x}", self.imm);
        }
        if self.rd == Self::SINK {
            f.write_str(" rd=-")?;
        } else {
            write!(f, " rd={}", self.rd)?;
        }
        write!(f, " rs1={} rs2={} imm={}", self.rs1, self.rs2(), self.imm)
    }
}
