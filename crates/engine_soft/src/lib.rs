//! An RV64GC CPU in software behind the engine interface.
//!
//! [`SoftVcpu`] is one hart; its owner enters it with [`engine::Vcpu::run`],
//! which drives the interpreter for some thousand instructions at a time and
//! looks at its mailbox in between. Other threads fill the mailbox through the
//! [`engine::VcpuHandle`]. All harts of a machine share a [`SoftConfig`], above
//! all its [`Clock`].
//!
//! ```text
//! vcpu           outer loop: mailbox, interrupts, traps, wfi, exits
//!   interpreter  inner loop over decoded instructions; riscv has the semantics
//!     jit        hot code compiled for the host
//!     code       decoded pages of guest code, by physical page
//!     cpu        registers, CSRs, and the slow ways into storage
//!       tlb      guest virtual page to host address
//!       storage  the storage window, accessed atomically
//! handle         the mailbox
//! ```
//!
//! Invariant: nothing here is told of a relocation. The window's host address
//! never changes, and decoded pages are copies checked at each `fence.i`. A
//! window may grow at any time; it shrinks while every vCPU is outside the
//! guest, and each is asked for a fence of all translations before it enters
//! again.
//! Compiled code holds host addresses from the TLB at most until it is left.
//!
//! Invariant: a storage key's reference and change bits are set when a
//! translation enters the TLB, not at each access. Whoever clears them asks
//! every vCPU for a fence of all translations, or misses the next access.
#![expect(
    unsafe_code,
    reason = "accesses guest storage by host address, millions of times a second"
)]

mod clock;
mod code;
mod cpu;
mod handle;
mod interpreter;
mod jit;
mod memory;
mod state;
mod storage;
mod tlb;
mod vcpu;

pub use clock::Clock;
pub use jit::{CompileError, Compiler, CompilerConfig, CompilerReport};
pub use state::SoftState;
pub use vcpu::{Firmware, SoftConfig, SoftVcpu};
