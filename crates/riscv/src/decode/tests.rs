use std::collections::HashSet;

use super::*;
use crate::encoding::Encoding;

fn all() -> Vec<&'static Encoding> {
    let mut seen = HashSet::new();
    (0..32)
        .flat_map(table::encodings)
        .filter(|encoding| seen.insert((encoding.mask, encoding.bits)))
        .collect()
}

#[test]
fn no_two_encodings_overlap_but_pause_and_fence() {
    let all = all();
    let mut overlaps = Vec::new();
    for (index, first) in all.iter().enumerate() {
        for second in &all[index + 1..] {
            if (first.bits ^ second.bits) & first.mask & second.mask == 0 {
                overlaps.push((first.op, second.op));
            }
        }
    }
    assert_eq!(overlaps, [(Op::Pause, Op::Fence)]);
}

#[test]
fn every_instruction_has_one_encoding_of_four_bytes() {
    let ops: Vec<Op> = all().iter().map(|encoding| encoding.op).collect();
    let distinct: HashSet<Op> = ops.iter().copied().collect();
    assert_eq!(ops.len(), distinct.len(), "an instruction is in the table twice");
    let missing: Vec<_> = Op::ALL[1..].iter().filter(|op| !distinct.contains(op)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_encoding_is_found_under_its_own_opcode() {
    for encoding in all() {
        assert_eq!(encoding.bits & !encoding.mask, 0, "{:?}: bits outside the mask", encoding.op);
        // Rounding mode 0, which every instruction that rounds has.
        assert_eq!(decode(encoding.bits).op, encoding.op, "{:#010x}", encoding.bits);
    }
}
