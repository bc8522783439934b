//! A guest that executes anything: every word decodes to an instruction whose
//! fields an executor may use as indices, or to an illegal one that keeps the
//! word.
#![no_main]

use libfuzzer_sys::fuzz_target;
use riscv::{Inst, Op, decode};

fuzz_target!(|data: &[u8]| {
    for chunk in data.chunks_exact(4) {
        let Ok(bytes) = chunk.try_into() else { continue };
        check(u32::from_le_bytes(bytes));
    }
});

fn check(bits: u32) {
    let inst = decode(bits);
    let compressed = bits & 3 != 3;
    let raw = if compressed { bits & 0xFFFF } else { bits };
    assert_eq!(inst.len(), if compressed { 2 } else { 4 });
    assert!(inst.rd <= Inst::SINK && inst.rs1 < 32 && inst.rs2() < 32);
    assert_eq!(inst, decode(raw), "bits beyond the instruction matter");
    assert!(inst.op != Op::Illegal || inst == Inst::illegal(raw));
    assert!(!inst.to_string().is_empty());
}
