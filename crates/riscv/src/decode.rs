//! From bits to [`Inst`].

use crate::inst::Inst;

/// Decodes the instruction that begins with the lowest bits of `bits`. If it
/// is compressed, that is if the lowest two bits are not 11, the upper 16 do
/// not matter.
pub fn decode(bits: u32) -> Inst {
    Inst::illegal(bits)
}
