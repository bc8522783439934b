//! Programs of the kernel: calls, faults, processes.

use crate::programs::mix;
use crate::sys;

/// The smallest system call, over and over.
pub(crate) fn syscalls(work: u32) -> u64 {
    let parent = sys::parent();
    let same = (0..work * 3000).filter(|_| sys::parent() == parent).count();
    mix(1, same as u64)
}

/// Touches every page of 768 KiB of fresh memory, gives it back, starts again.
pub(crate) fn faults(work: u32) -> u64 {
    let touched = (0..work).map(|_| sys::touch_pages(192)).sum();
    mix(1, touched)
}

/// Starts processes that end at once, and waits for each.
pub(crate) fn forks(work: u32) -> u64 {
    (0..work * 2).fold(1, |sum, round| mix(sum, u64::from(sys::child_that_exits(round as u8))))
}
