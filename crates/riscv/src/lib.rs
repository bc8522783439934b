//! RV64GC: decoding, semantics, CSRs, address translation and traps: pure.
//!
//! What a RISC-V hart is, without one: functions of values, which an executor
//! (the software engine) calls with the registers and the storage that it
//! owns. Nothing here keeps state of its own, reads a clock or needs `unsafe`.
//!
//! [`decode()`] turns bits into an [`Inst`], whose [`Op`] names the instruction;
//! compressed ones come out as what they expand to. The executor dispatches on
//! the `Op` and calls [`int`] or [`fp`] for the result. CSRs go through
//! [`csr::Csrs`]; addresses are translated by [`mmu`] over storage that the
//! executor lends; [`trap`] says where an exception or interrupt leads.
//!
//! The processor is RV64IMAFDC with Zicsr, Zifencei, Zba, Zbb, Zbs, Zicbom,
//! Zicbop, Zicboz and Zihintpause, and modes M, S and U. Every other encoding
//! is [`Op::Illegal`].

mod compressed;
pub mod csr;
mod decode;
mod encoding;
pub mod fp;
mod inst;
pub mod int;
pub mod mmu;
mod op;
mod table;
pub mod trap;

pub use decode::decode;
pub use inst::Inst;
pub use op::Op;
