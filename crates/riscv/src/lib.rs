//! RV64GC: decoding, semantics, CSRs, address translation and traps: pure.

pub mod fp;
mod decode;
mod inst;
mod op;

pub use decode::decode;
pub use inst::Inst;
pub use op::Op;
