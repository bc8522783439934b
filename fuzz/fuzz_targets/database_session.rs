//! A guest, and a server, that say anything to the broker between them.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    database_manager::exercise(data);
});
