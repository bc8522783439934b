//! A small assembler: instruction words by mnemonic.

/// Integer registers by their names in the calling convention.
pub(crate) const ZERO: u32 = 0;
pub(crate) const RA: u32 = 1;
pub(crate) const T0: u32 = 5;
pub(crate) const T1: u32 = 6;
pub(crate) const T2: u32 = 7;
pub(crate) const S0: u32 = 8;
pub(crate) const S1: u32 = 9;
pub(crate) const A0: u32 = 10;
pub(crate) const A1: u32 = 11;
pub(crate) const A2: u32 = 12;
pub(crate) const A3: u32 = 13;
pub(crate) const A4: u32 = 14;
pub(crate) const A5: u32 = 15;

fn r(opcode: u32, funct3: u32, funct7: u32, rd: u32, rs1: u32, rs2: u32) -> u32 {
    opcode | rd << 7 | funct3 << 12 | rs1 << 15 | rs2 << 20 | funct7 << 25
}

fn i(opcode: u32, funct3: u32, rd: u32, rs1: u32, imm: i32) -> u32 {
    opcode | rd << 7 | funct3 << 12 | rs1 << 15 | (imm as u32) << 20
}

fn s(funct3: u32, rs2: u32, rs1: u32, imm: i32) -> u32 {
    let imm = imm as u32;
    0x23 | (imm & 31) << 7 | funct3 << 12 | rs1 << 15 | rs2 << 20 | (imm >> 5) << 25
}

fn b(funct3: u32, rs1: u32, rs2: u32, offset: i32) -> u32 {
    let o = offset as u32;
    let low = (o >> 11 & 1) << 7 | (o >> 1 & 15) << 8;
    let high = (o >> 5 & 63) << 25 | (o >> 12 & 1) << 31;
    0x63 | low | funct3 << 12 | rs1 << 15 | rs2 << 20 | high
}

macro_rules! instructions {
    ($($name:ident($($arg:ident: $ty:ty),*) = $word:expr;)*) => {
        $(pub(crate) fn $name($($arg: $ty),*) -> u32 { $word })*
    };
}

instructions! {
    lui(rd: u32, imm20: u32) = 0x37 | rd << 7 | imm20 << 12;
    auipc(rd: u32, imm20: u32) = 0x17 | rd << 7 | imm20 << 12;
    addi(rd: u32, rs1: u32, imm: i32) = i(0x13, 0, rd, rs1, imm);
    xori(rd: u32, rs1: u32, imm: i32) = i(0x13, 4, rd, rs1, imm);
    slli(rd: u32, rs1: u32, shift: i32) = i(0x13, 1, rd, rs1, shift);
    srli(rd: u32, rs1: u32, shift: i32) = i(0x13, 5, rd, rs1, shift);
    add(rd: u32, rs1: u32, rs2: u32) = r(0x33, 0, 0, rd, rs1, rs2);
    xor(rd: u32, rs1: u32, rs2: u32) = r(0x33, 4, 0, rd, rs1, rs2);
    mul(rd: u32, rs1: u32, rs2: u32) = r(0x33, 0, 1, rd, rs1, rs2);
    jalr(rd: u32, rs1: u32, imm: i32) = i(0x67, 0, rd, rs1, imm);
    lbu(rd: u32, rs1: u32, imm: i32) = i(0x03, 4, rd, rs1, imm);
    lw(rd: u32, rs1: u32, imm: i32) = i(0x03, 2, rd, rs1, imm);
    ld(rd: u32, rs1: u32, imm: i32) = i(0x03, 3, rd, rs1, imm);
    sb(rs2: u32, rs1: u32, imm: i32) = s(0, rs2, rs1, imm);
    sw(rs2: u32, rs1: u32, imm: i32) = s(2, rs2, rs1, imm);
    sd(rs2: u32, rs1: u32, imm: i32) = s(3, rs2, rs1, imm);
    beq(rs1: u32, rs2: u32, offset: i32) = b(0, rs1, rs2, offset);
    bne(rs1: u32, rs2: u32, offset: i32) = b(1, rs1, rs2, offset);
    lr_d(rd: u32, rs1: u32) = r(0x2F, 3, 0x08, rd, rs1, 0);
    lr_w(rd: u32, rs1: u32) = r(0x2F, 2, 0x08, rd, rs1, 0);
    sc_d(rd: u32, rs2: u32, rs1: u32) = r(0x2F, 3, 0x0C, rd, rs1, rs2);
    amoadd_d(rd: u32, rs2: u32, rs1: u32) = r(0x2F, 3, 0, rd, rs1, rs2);
    csrrw(rd: u32, csr: u16, rs1: u32) = i(0x73, 1, rd, rs1, i32::from(csr));
    csrrs(rd: u32, csr: u16, rs1: u32) = i(0x73, 2, rd, rs1, i32::from(csr));
    csrrc(rd: u32, csr: u16, rs1: u32) = i(0x73, 3, rd, rs1, i32::from(csr));
    csrrsi(rd: u32, csr: u16, zimm: u32) = i(0x73, 6, rd, zimm, i32::from(csr));
    csrrci(rd: u32, csr: u16, zimm: u32) = i(0x73, 7, rd, zimm, i32::from(csr));
    fadd_d(rd: u32, rs1: u32, rs2: u32) = r(0x53, 7, 1, rd, rs1, rs2);
    sfence_vma(rs1: u32, rs2: u32) = r(0x73, 0, 9, 0, rs1, rs2);
    ecall() = 0x73;
    ebreak() = 0x10_0073;
    sret() = 0x1020_0073;
    wfi() = 0x1050_0073;
    fence_i() = 0x100F;
    nop() = addi(0, 0, 0);
}

/// `jal rd, offset`.
pub(crate) fn jal(rd: u32, offset: i32) -> u32 {
    let o = offset as u32;
    let bits =
        (o >> 12 & 255) << 12 | (o >> 11 & 1) << 20 | (o >> 1 & 1023) << 21 | (o >> 20 & 1) << 31;
    0x6F | rd << 7 | bits
}

/// Loads any constant; needs no scratch register.
pub(crate) fn li(rd: u32, value: u64) -> Vec<u32> {
    let chunk = |shift: u32| (value >> shift & 0x7FF) as i32;
    vec![
        addi(rd, ZERO, (value >> 55) as i32),
        slli(rd, rd, 11),
        addi(rd, rd, chunk(44)),
        slli(rd, rd, 11),
        addi(rd, rd, chunk(33)),
        slli(rd, rd, 11),
        addi(rd, rd, chunk(22)),
        slli(rd, rd, 11),
        addi(rd, rd, chunk(11)),
        slli(rd, rd, 11),
        addi(rd, rd, chunk(0)),
    ]
}

/// The bytes of instruction words.
pub(crate) fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
