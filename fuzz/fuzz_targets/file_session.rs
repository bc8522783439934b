//! A guest that asks its file session for anything.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    file_manager::guest_kernel::exercise(data);
});
