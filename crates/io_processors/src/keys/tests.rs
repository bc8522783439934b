//! What a device does where storage keys forbid it something. Its access key
//! is 3; so are all pages', but for one that a test changes.

use main_storage::AccessKey;

use crate::guest_driver::{BUFFERS, Buffer, Driver, MemoryDisk, patience};
use crate::{Blk, Console, HoldableDisk, IoProcessor, Rng, VirtioDevice};

/// Access key 3, and another one; with fetch protection.
const OURS: u8 = 0x30;
const OTHERS: u8 = 0x40;
const CLOSED: u8 = 0x48;

const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x2000;
const ELSEWHERE: u64 = BUFFERS + 0x3000;

/// A ready device under access key 3 on pages of access key 3.
fn restricted(device: impl VirtioDevice + 'static) -> Driver {
    let driver = Driver::ready(device, 0);
    driver.wait_idle();
    driver.storage.set_all_keys(OURS);
    driver.processor.set_access_key(AccessKey::new(3).expect("below 16"));
    driver
}

fn disk() -> Driver {
    restricted(Blk::new(Box::new(MemoryDisk::new(vec![0x5a; 4096])), ""))
}

/// A request of `kind` for the first sector, with `data`; its status.
fn request(driver: &mut Driver, kind: u32, data: Buffer) -> u8 {
    driver.put(HEADER, [kind, 0, 0, 0]);
    driver.put(STATUS, 0xeeu8);
    driver.submit(0, &[(HEADER, 16, false), data, (STATUS, 1, true)]);
    driver.take_used(0);
    driver.wait_idle();
    driver.get(STATUS)
}

fn read(driver: &mut Driver) -> u8 {
    request(driver, 0, (DATA, 512, true))
}

fn write(driver: &mut Driver) -> u8 {
    request(driver, 1, (DATA, 512, false))
}

#[test]
fn a_disk_read_into_a_page_of_another_key_fails_and_leaves_it_alone() {
    let mut driver = disk();
    driver.storage.set_key(DATA, OTHERS);
    assert_eq!(read(&mut driver), 1, "VIRTIO_BLK_S_IOERR");
    assert_eq!(driver.get_bytes(DATA, 512), [0; 512]);
    assert_eq!(driver.storage.key_at(DATA), OTHERS, "no reference, no change");
    let statistics = driver.processor.statistics();
    assert_eq!((statistics.key_refusals, statistics.failed_requests), (1, 1));
    assert_eq!((statistics.bytes_from_guest, statistics.bytes_to_guest), (0, 1));
    driver.storage.set_key(DATA, OURS);
    assert_eq!(read(&mut driver), 0);
    assert_eq!(driver.get_bytes(DATA, 512), [0x5a; 512]);
    assert_eq!(driver.storage.key_at(DATA), OURS | 0x07);
}

#[test]
fn a_read_across_two_pages_is_refused_whole() {
    let mut driver = disk();
    driver.storage.set_key(DATA, OTHERS);
    let data = (DATA - 256, 512, true);
    assert_eq!(request(&mut driver, 0, data), 1);
    assert_eq!(driver.get_bytes(DATA - 256, 512), [0; 512]);
}

#[test]
fn a_disk_write_from_another_page_fails_only_with_fetch_protection() {
    let mut driver = disk();
    driver.fill(DATA, 7, 512);
    driver.storage.set_key(DATA, CLOSED);
    assert_eq!(write(&mut driver), 1);
    assert_eq!(request(&mut driver, 0, (ELSEWHERE, 512, true)), 0);
    assert_eq!(driver.get_bytes(ELSEWHERE, 512), [0x5a; 512], "the disk is as it was");
    driver.storage.set_key(DATA, OTHERS);
    assert_eq!(write(&mut driver), 0);
    assert_eq!(request(&mut driver, 0, (ELSEWHERE, 512, true)), 0);
    assert_eq!(driver.get_bytes(ELSEWHERE, 512), [7; 512]);
}

#[test]
fn a_request_whose_header_is_forbidden_fails() {
    let mut driver = disk();
    driver.storage.set_key(HEADER, CLOSED);
    assert_eq!(read(&mut driver), 1);
    assert_eq!(driver.get_bytes(DATA, 512), [0; 512]);
}

#[test]
fn under_access_key_0_nothing_is_forbidden() {
    let mut driver = disk();
    driver.storage.set_all_keys(CLOSED);
    driver.processor.set_access_key(AccessKey::default());
    assert_eq!((read(&mut driver), write(&mut driver)), (0, 0));
    assert_eq!(driver.processor.statistics().key_refusals, 0);
}

#[test]
fn a_status_or_ring_that_is_forbidden_needs_a_reset() {
    for page in [STATUS, Driver::descriptors(0), Driver::available(0), Driver::used(0)] {
        let mut driver = disk();
        driver.storage.set_key(page, CLOSED);
        driver.put(HEADER, [0u32; 4]);
        driver.submit(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
        driver.wait_needs_reset();
        driver.wait_idle();
        assert!(driver.processor.statistics().key_refusals > 0, "{page:#x}");
        assert_eq!(driver.used_count(0), 0);
        driver.storage.set_key(page, OURS);
        driver.initialise(0);
        assert_eq!(read(&mut driver), 0, "after a reset it works");
    }
}

#[test]
fn random_numbers_go_only_where_they_may() {
    let mut driver = restricted(Rng);
    driver.storage.set_key(DATA, OTHERS);
    let refused = driver.submit(0, &[(DATA, 64, true)]);
    assert_eq!(driver.take_used(0), (refused, 0));
    assert_eq!(driver.get_bytes(DATA, 64), [0; 64]);
    let allowed = driver.submit(0, &[(ELSEWHERE, 64, true)]);
    assert_eq!(driver.take_used(0), (allowed, 64));
    assert_ne!(driver.get_bytes(ELSEWHERE, 64), [0; 64]);
}

#[test]
fn console_input_waits_for_a_buffer_that_is_allowed() {
    let (console, end) = Console::new();
    let mut driver = restricted(console);
    driver.storage.set_key(DATA, OTHERS);
    let refused = driver.submit(0, &[(DATA, 64, true)]);
    let allowed = driver.submit(0, &[(ELSEWHERE, 64, true)]);
    end.input(b"hello");
    assert_eq!(driver.take_used(0), (refused, 0));
    assert_eq!(driver.take_used(0), (allowed, 5));
    assert_eq!(driver.get_bytes(ELSEWHERE, 5), b"hello");
}

#[test]
fn console_output_from_a_forbidden_page_is_dropped() {
    let (console, end) = Console::new();
    let mut driver = restricted(console);
    driver.put_bytes(DATA, b"secret");
    driver.put_bytes(ELSEWHERE, b"public");
    driver.storage.set_key(DATA, CLOSED);
    for page in [DATA, ELSEWHERE] {
        let head = driver.submit(1, &[(page, 6, false)]);
        assert_eq!(driver.take_used(1), (head, 0));
    }
    assert_eq!(end.tail(), b"public");
}

#[test]
fn a_transfer_that_ends_after_its_bits_were_cleared_sets_them_again() {
    let (disk, hold) = HoldableDisk::new(Box::new(MemoryDisk::new(vec![0x5a; 4096])));
    hold.hold();
    let mut driver = restricted(Blk::new(Box::new(disk), ""));
    driver.put(HEADER, [0u32; 4]);
    driver.submit(0, &[(HEADER, 16, false), (DATA, 512, true), (STATUS, 1, true)]);
    assert!(hold.wait_for_request(patience()));
    assert_eq!(driver.storage.key_at(DATA), OURS | 0x07);
    driver.storage.set_key(DATA, OURS);
    hold.release();
    driver.take_used(0);
    assert_eq!(driver.get_bytes(DATA, 512), [0x5a; 512]);
    assert_eq!(driver.storage.key_at(DATA), OURS | 0x07);
}
