//! A guest that stores anything to a device's registers and queues (virtio 1.2,
//! sections 2.7 and 4.2.2). The body is shared with a property test of
//! `io_processors` that needs no nightly compiler.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| io_processors::guest_driver::exercise(data));
