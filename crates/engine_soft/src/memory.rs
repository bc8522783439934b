//! What this process holds of the host's memory.

/// Gives what was freed back to the host; the allocator keeps it otherwise.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointers, and only frees what nobody has.
    unsafe {
        libc::malloc_trim(0);
    }
}
