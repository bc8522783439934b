//! A host file of any text: refused, or a map that holds what it promises.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(file) = host::HostFile::parse(text) {
        let map = file.map().expect("an accepted file has a map");
        let mut end = 0;
        for partition in map.partitions() {
            assert!(partition.range().origin() >= end, "two partitions overlap");
            end = partition.range().end();
        }
        assert!(end <= file.main_storage);
    }
});
