//! RV64GC: decoding, semantics, CSRs, address translation and traps: pure.

pub mod fp;
