use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{Blk, Buffers, ClusterSize, DiskBackend, DiskMode, OpenDiskError, open_disk};
use crate::IoProcessor;
use crate::guest_driver::{BASE, BUFFERS, Buffer, Driver, MemoryDisk};
use crate::transport::offset;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x800;
const DATA: u64 = BUFFERS + 0x1000;

/// Puts a request to the device; returns its status and the used length.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
    driver.put(HEADER, kind);
    driver.put(HEADER + 8, sector);
    driver.put(STATUS, 0xeeu8);
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend(data);
    buffers.push((STATUS, 1, true));
    driver.submit(0, &buffers);
    let (_, written) = driver.take_used(0);
    (driver.get(STATUS), written)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 512) as u8 ^ (at % 251) as u8).collect()
}

fn file(directory: &Path, name: &str, contents: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, contents).expect("a file for the test");
    path
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory for the test")
}

fn driver_of(path: &Path, mode: &DiskMode) -> Driver {
    Driver::ready(
        Blk::new(open_disk(path, mode).expect("the disk opens"), "serial-0123456789abcdef"),
        0,
    )
}

#[test]
fn a_read_scatters_into_the_guests_buffers() {
    let directory = directory();
    let contents = pattern(8192);
    let path = file(directory.path(), "disk", &contents);
    let mut driver = driver_of(&path, &DiskMode::ReadOnly);
    let data = [(DATA, 100, true), (DATA + 0x2000, 924, true)];
    assert_eq!(request(&mut driver, IN, 3, &data), (0, 1025));
    assert_eq!(driver.get_bytes(DATA, 100), contents[1536..1636]);
    assert_eq!(driver.get_bytes(DATA + 0x2000, 924), contents[1636..2560]);
}

#[test]
fn a_write_is_read_back_and_kept_in_the_file() {
    let directory = directory();
    let path = file(directory.path(), "disk", &[0; 4096]);
    let mut driver = driver_of(&path, &DiskMode::ReadWrite);
    driver.put_bytes(DATA, &pattern(1024));
    assert_eq!(request(&mut driver, OUT, 2, &[(DATA, 1024, false)]), (0, 1));
    assert_eq!(request(&mut driver, FLUSH, 0, &[]), (0, 1));
    assert_eq!(request(&mut driver, IN, 2, &[(DATA + 0x2000, 1024, true)]), (0, 1025));
    assert_eq!(driver.get_bytes(DATA + 0x2000, 1024), pattern(1024));
    drop(driver);
    let kept = std::fs::read(&path).expect("the file");
    assert_eq!((&kept[..1024], &kept[1024..2048]), (&[0; 1024][..], &pattern(1024)[..]));
}

#[test]
fn a_header_may_be_cut_anywhere() {
    let mut driver = Driver::ready(Blk::new(Box::new(MemoryDisk::new(pattern(4096))), ""), 0);
    driver.put(HEADER, IN);
    driver.put(HEADER + 8, 1u64);
    // Status in the same descriptor as the data, header in two.
    driver.submit(0, &[(HEADER, 5, false), (HEADER + 5, 11, false), (DATA, 513, true)]);
    assert_eq!(driver.take_used(0).1, 513);
    assert_eq!(driver.get_bytes(DATA, 512), pattern(4096)[512..1024]);
    assert_eq!(driver.get::<u8>(DATA + 512), 0);
}

#[test]
fn the_serial_number_is_cut_to_twenty_bytes() {
    let mut driver = Driver::ready(
        Blk::new(Box::new(MemoryDisk::new(vec![0; 512])), "serial-0123456789abcdef"),
        0,
    );
    assert_eq!(request(&mut driver, GET_ID, 0, &[(DATA, 20, true)]), (0, 21));
    assert_eq!(driver.get_bytes(DATA, 20), b"serial-0123456789abc");
}

#[test]
fn the_guest_sees_capacity_and_read_only() {
    let directory = directory();
    let path = file(directory.path(), "disk", &[1; 1000]);
    let mut driver = driver_of(&path, &DiskMode::ReadOnly);
    assert_eq!(driver.load(offset::CONFIG), 2, "sectors, rounded up");
    assert_eq!(driver.load(offset::CONFIG + 12), 254, "segments");
    driver.store(offset::DEVICE_FEATURES_SEL, 0);
    assert_ne!(driver.load(offset::DEVICE_FEATURES) & 1 << 5, 0, "read-only");
    assert_eq!(request(&mut driver, OUT, 0, &[(DATA, 512, false)]), (1, 1), "refused");
    assert_eq!(request(&mut driver, IN, 1, &[(DATA, 512, true)]), (0, 513));
    assert_eq!(driver.get_bytes(DATA + 487, 2), [1, 0], "zeros behind the end");
}

#[test]
fn impossible_requests_get_an_error_and_do_nothing() {
    let mut driver = Driver::ready(Blk::new(Box::new(MemoryDisk::new(vec![3; 4096])), ""), 0);
    for (kind, sector, length) in [
        (IN, 8, 512),
        (IN, 7, 1024),
        (OUT, u64::MAX, 512),
        (IN, u64::MAX / 512, 512),
        (IN, 0, 511),
        (OUT, 0, 513),
    ] {
        let data = [(DATA, length, kind == IN)];
        assert_eq!(request(&mut driver, kind, sector, &data), (1, 1), "{kind} {sector} {length}");
    }
    assert_eq!(request(&mut driver, 99, 0, &[(DATA, 512, true)]), (2, 1), "unsupported");
    assert_eq!(driver.processor.statistics().guest_errors, 7);
    assert_eq!(driver.get_bytes(DATA, 512), vec![0; 512]);
    let megabytes = [(BASE + 0x20_0000, 0x10_0000, true); 17];
    assert_eq!(request(&mut driver, IN, 0, &megabytes), (1, 1), "too long");
    assert_eq!(request(&mut driver, IN, 0, &[(DATA, 512, true)]), (0, 513), "still alive");
}

#[test]
fn a_medium_that_fails_is_an_error_of_the_request() {
    let mut disk = MemoryDisk::new(vec![0; 4096]);
    disk.broken = true;
    let mut driver = Driver::ready(Blk::new(Box::new(disk), ""), 0);
    assert_eq!(request(&mut driver, IN, 0, &[(DATA, 512, true)]), (1, 1));
    assert_eq!(request(&mut driver, OUT, 0, &[(DATA, 512, false)]), (1, 1));
    assert_eq!(request(&mut driver, FLUSH, 0, &[]), (1, 1));
    assert_eq!(driver.processor.statistics().failed_requests, 3);
}

#[test]
fn a_file_cut_short_is_an_error_and_no_zeros() {
    let directory = directory();
    let path = file(directory.path(), "disk", &[1; 8192]);
    let mut driver = driver_of(&path, &DiskMode::ReadOnly);
    std::fs::write(&path, [1; 4096]).expect("cut");
    assert_eq!(request(&mut driver, IN, 8, &[(DATA, 512, true)]), (1, 1));
}

#[test]
fn a_request_without_header_or_status_needs_a_reset() {
    for buffers in [&[(HEADER, 15, false), (STATUS, 1, true)][..], &[(HEADER, 16, false)]] {
        let mut driver = Driver::ready(Blk::new(Box::new(MemoryDisk::new(vec![0; 512])), ""), 0);
        driver.submit(0, buffers);
        driver.wait_needs_reset();
    }
}

#[test]
fn keys_show_which_way_a_transfer_went() {
    let mut driver = Driver::ready(Blk::new(Box::new(MemoryDisk::new(vec![3; 8192])), ""), 0);
    driver.wait_idle();
    driver.storage.clear_keys();
    request(&mut driver, OUT, 0, &[(DATA, 4096, false)]);
    request(&mut driver, IN, 0, &[(DATA + 0x1000, 4096, true)]);
    assert_eq!(driver.storage.key_at(DATA), 0x04);
    assert_eq!(driver.storage.key_at(DATA + 0x1000), 0x07);
    assert_eq!(driver.storage.key_at(DATA + 0x2000), 0);
}

fn overlay_mode(directory: &Path, cluster: ClusterSize) -> DiskMode {
    DiskMode::Overlay { overlay: directory.join("overlay"), cluster }
}

#[test]
fn an_overlay_keeps_the_base_as_it_is_and_what_was_written() {
    let directory = directory();
    let contents = pattern(200_000);
    let path = file(directory.path(), "base", &contents);
    let mode = overlay_mode(directory.path(), ClusterSize::Kib64);
    let mut driver = driver_of(&path, &mode);
    driver.fill(DATA, 0xab, 512);
    assert_eq!(request(&mut driver, OUT, 130, &[(DATA, 512, false)]), (0, 1));
    drop(driver);
    assert_eq!(std::fs::read(&path).expect("the base"), contents);
    let mut driver = driver_of(&path, &mode);
    assert_eq!(request(&mut driver, IN, 129, &[(DATA, 1536, true)]), (0, 1537));
    assert_eq!(driver.get_bytes(DATA, 512), contents[129 * 512..130 * 512]);
    assert_eq!(driver.get_bytes(DATA + 512, 512), vec![0xab; 512]);
    assert_eq!(driver.get_bytes(DATA + 1024, 512), contents[131 * 512..132 * 512]);
}

#[test]
fn an_overlay_is_sparse() {
    use std::os::unix::fs::MetadataExt;
    let directory = directory();
    let path = file(directory.path(), "base", &[]);
    let base = std::fs::File::options().write(true).open(&path).expect("the base");
    base.set_len(1 << 30).expect("a sparse base");
    let mode = overlay_mode(directory.path(), ClusterSize::Kib4);
    let mut disk = open_disk(&path, &mode).expect("the disk opens");
    disk.write(512 << 20, &Buffers::of_host(&mut [1; 4096])).expect("written");
    disk.flush().expect("flushed");
    let blocks = std::fs::metadata(directory.path().join("overlay")).expect("the overlay").blocks();
    assert!(blocks * 512 <= 64 << 10, "{blocks} blocks for one cluster");
}

#[test]
fn what_was_flushed_survives_a_crash() {
    let directory = directory();
    let path = file(directory.path(), "base", &pattern(65536));
    let mode = overlay_mode(directory.path(), ClusterSize::Kib4);
    let mut disk = open_disk(&path, &mode).expect("the disk opens");
    disk.write(4096, &Buffers::of_host(&mut [1; 4096])).expect("written");
    disk.flush().expect("flushed");
    disk.write(8192, &Buffers::of_host(&mut [2; 4096])).expect("written");
    // What the file says while the disk is open is what a crash leaves.
    let left = directory.path().join("left");
    std::fs::copy(directory.path().join("overlay"), &left).expect("copied");
    let mode = DiskMode::Overlay { overlay: left, cluster: ClusterSize::Kib4 };
    let survivor = open_disk(&path, &mode).expect("the disk opens");
    let mut bytes = vec![0; 8192];
    survivor.read(4096, &Buffers::of_host(&mut bytes)).expect("read");
    assert_eq!(bytes[..4096], [1; 4096]);
    assert_eq!(bytes[4096..], pattern(65536)[8192..12288], "not flushed: as before");
}

#[test]
fn files_in_use_are_refused() {
    let directory = directory();
    let path = file(directory.path(), "base", &[0; 4096]);
    let mode = overlay_mode(directory.path(), ClusterSize::Kib4);
    let first = open_disk(&path, &mode).expect("the disk opens");
    assert!(open_disk(&path, &DiskMode::ReadOnly).is_ok(), "readers share");
    let refused = open_disk(&path, &DiskMode::ReadWrite).err();
    assert!(matches!(refused, Some(OpenDiskError::InUse { path: named }) if named == path));
    assert!(matches!(open_disk(&path, &mode).err(), Some(OpenDiskError::InUse { .. })));
    drop(first);
    assert!(open_disk(&path, &mode).is_ok());
}

#[test]
fn foreign_overlays_are_refused_by_name() {
    let directory = directory();
    let path = file(directory.path(), "base", &[0; 4096]);
    let other = file(directory.path(), "other", &[0; 8192]);
    let mode = overlay_mode(directory.path(), ClusterSize::Kib4);
    drop(open_disk(&path, &mode).expect("the disk opens"));
    let message = |result: Result<_, OpenDiskError>| {
        result.map(|_: Box<dyn DiskBackend>| ()).map_err(|error| error.to_string())
    };
    let refused = message(open_disk(&other, &mode)).expect_err("another disk's");
    assert!(refused.contains("belongs to another disk"), "{refused}");
    file(directory.path(), "overlay", &[b'x'; 9000]);
    let refused = message(open_disk(&path, &mode)).expect_err("no overlay");
    assert!(refused.contains("is not an overlay"), "{refused}");
    file(directory.path(), "overlay", b"short");
    assert!(matches!(open_disk(&path, &mode).err(), Some(OpenDiskError::File { .. })));
    let missing = open_disk(&directory.path().join("none"), &DiskMode::ReadOnly).err();
    assert!(matches!(missing, Some(OpenDiskError::File { .. })));
}

/// An access to a disk: where, how much, and whether it writes.
fn accesses() -> impl Strategy<Value = Vec<(u64, usize, bool)>> {
    let access = (0u64..300, 1usize..200, any::<bool>());
    prop::collection::vec(access, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// An overlay reads as a plain disk that was written the same way, also
    /// after it was closed and opened again.
    #[test]
    fn an_overlay_is_a_disk(accesses in accesses(), large in any::<bool>()) {
        let directory = directory();
        let mut model = pattern(300 * 512 - 100);
        let path = file(directory.path(), "base", &model);
        model.resize(300 * 512, 0);
        let cluster = if large { ClusterSize::Kib64 } else { ClusterSize::Kib4 };
        let mode = overlay_mode(directory.path(), cluster);
        let mut disk = open_disk(&path, &mode).expect("the disk opens");
        for (number, (sector, count, write)) in accesses.into_iter().enumerate() {
            let start = sector as usize * 512;
            let end = (start + count * 512).min(model.len());
            let mut bytes = vec![number as u8; end - start];
            if write {
                disk.write(start as u64, &Buffers::of_host(&mut bytes)).expect("written");
                model[start..end].copy_from_slice(&bytes);
            } else {
                disk.read(start as u64, &Buffers::of_host(&mut bytes)).expect("read");
                prop_assert!(bytes == model[start..end], "sector {sector}");
            }
        }
        drop(disk);
        let disk = open_disk(&path, &mode).expect("the disk opens again");
        let mut bytes = vec![0; model.len()];
        disk.read(0, &Buffers::of_host(&mut bytes)).expect("read");
        prop_assert!(bytes == model);
    }
}

/// Writes the number of each access that writes, to the disk and its model.
fn write_all(disk: &mut dyn DiskBackend, model: &mut [u8], accesses: &[(u64, usize, bool)]) {
    for (number, (sector, count, write)) in accesses.iter().enumerate() {
        let start = *sector as usize * 512;
        let end = (start + count * 512).min(model.len());
        if *write {
            model[start..end].fill(number as u8);
            let mut bytes = model[start..end].to_vec();
            disk.write(start as u64, &Buffers::of_host(&mut bytes)).expect("written");
        }
    }
}

fn content(disk: &dyn DiskBackend, length: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; length];
    disk.read(0, &Buffers::of_host(&mut bytes)).expect("read");
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A copy is the disk that was captured, whatever became of that one, and is it
    /// again when it was put back, as often as one likes.
    #[test]
    fn a_copy_is_the_captured_disk_again_when_it_is_put_back(
        before in accesses(),
        after in accesses(),
        rounds in prop::collection::vec(accesses(), 1..4),
        large in any::<bool>(),
    ) {
        let directory = directory();
        let mut model = pattern(300 * 512 - 100);
        let path = file(directory.path(), "base", &model);
        model.resize(300 * 512, 0);
        let cluster = if large { ClusterSize::Kib64 } else { ClusterSize::Kib4 };
        let mut original =
            open_disk(&path, &overlay_mode(directory.path(), cluster)).expect("the disk opens");
        write_all(&mut *original, &mut model, &before);
        let captured = directory.path().join("captured");
        let target = std::fs::File::create(&captured).expect("a file for the capture");
        let control = original.control().expect("an overlay can be captured");
        control.capture(&target).expect("captured");
        write_all(&mut *original, &mut model.clone(), &after);
        prop_assert!(control.put_back().is_err(), "it is no copy");

        // What is there already is nobody's.
        let overlay = file(directory.path(), "copy", &pattern(10_000));
        let mode = DiskMode::Copy { captured, overlay };
        let mut copy = open_disk(&path, &mode).expect("the copy opens");
        prop_assert!(content(&*copy, model.len()) == model);
        let control = copy.control().expect("a copy can be put back");
        prop_assert!(control.capture(&target).is_err(), "it is a copy");
        for accesses in rounds {
            let mut changed = model.clone();
            write_all(&mut *copy, &mut changed, &accesses);
            prop_assert!(content(&*copy, model.len()) == changed);
            control.put_back().expect("put back");
            prop_assert!(content(&*copy, model.len()) == model);
        }
    }
}

#[test]
fn what_is_put_back_leaves_nothing_in_the_file() {
    use std::os::unix::fs::MetadataExt;
    let directory = directory();
    let path = file(directory.path(), "base", &[0; 1 << 20]);
    let mode = overlay_mode(directory.path(), ClusterSize::Kib4);
    let original = open_disk(&path, &mode).expect("the disk opens");
    let captured = directory.path().join("captured");
    let target = std::fs::File::create(&captured).expect("a file for the capture");
    assert_eq!(original.control().expect("an overlay").capture(&target).expect("captured"), 0);
    let overlay = directory.path().join("copy");
    let mode = DiskMode::Copy { captured, overlay: overlay.clone() };
    let mut copy = open_disk(&path, &mode).expect("the copy opens");
    let blocks = || std::fs::metadata(&overlay).expect("the copy's file").blocks();
    let empty = blocks();
    copy.write(64 << 10, &Buffers::of_host(&mut [7; 128 << 10])).expect("written");
    assert!(blocks() >= empty + 256);
    assert_eq!(copy.control().expect("a copy").put_back().expect("put back"), 128 << 10);
    assert_eq!(blocks(), empty);
    assert!(!std::fs::read(&overlay).expect("the file").contains(&7));
    assert_eq!(copy.control().expect("a copy").put_back().expect("again"), 0);
}

/// An image that was built anew has another base of the same length; its old
/// overlays would show a mixture of two file systems.
#[test]
fn an_overlay_of_another_base_is_refused() {
    let directory = directory();
    let path = file(directory.path(), "base", &[1; 8192]);
    let mode = overlay_mode(directory.path(), ClusterSize::Kib4);
    drop(open_disk(&path, &mode).expect("the disk opens"));
    std::fs::write(&path, [2; 8192]).expect("written anew");
    let refused = open_disk(&path, &mode).err();
    assert!(matches!(
        refused,
        Some(OpenDiskError::Overlay { reason: "it belongs to another disk", .. })
    ));
}
