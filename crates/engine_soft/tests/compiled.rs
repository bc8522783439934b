//! The other tests of this folder once more, with everything compiled before
//! it is executed first.
#![expect(clippy::duplicate_mod, reason = "each of the files is a test of its own, too")]

#[path = "interrupts.rs"]
mod interrupts;
#[path = "paging.rs"]
mod paging;
#[path = "riscv_tests.rs"]
mod riscv_tests;
#[path = "sharing.rs"]
mod sharing;
#[path = "traps.rs"]
mod traps;
