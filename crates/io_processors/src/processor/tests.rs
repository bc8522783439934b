use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use vm_memory::{Bytes, GuestAddress};

use super::{IoProcessor, SetAddressLimitsError};
use crate::guest_driver::{
    BASE, BUFFERS, Driver, EVENT_IDX, INDIRECT, MemoryDisk, NEXT, TestLine, TestStorage, WRITE,
    patience,
};
use crate::keys::KeyCheck;
use crate::transport::offset;
use crate::{AddressLimits, Blk, GuestAccess, GuestStorage, Hold, HoldableDisk, Processor, Rng};

/// A disk request that reads the first sector.
fn read_sector(driver: &mut Driver) {
    driver.put(BUFFERS, [0u8; 16]);
    let buffers =
        [(BUFFERS, 16, false), (BUFFERS + 0x1000, 512, true), (BUFFERS + 0x2000, 1, true)];
    driver.submit(0, &buffers);
}

fn held_disk() -> (Driver, Hold) {
    let (disk, hold) = HoldableDisk::new(Box::new(MemoryDisk::new(vec![0x5a; 4096])));
    hold.hold();
    (Driver::ready(Blk::new(Box::new(disk), "held"), 0), hold)
}

#[test]
fn a_request_in_hand_keeps_the_processor_busy() {
    let (mut driver, hold) = held_disk();
    read_sector(&mut driver);
    assert!(hold.wait_for_request(patience()));
    driver.processor.quiesce();
    assert!(!driver.processor.is_idle());
    assert!(!driver.processor.wait_idle(Instant::now()), "the limit has run out");
    let refused = driver.processor.set_address_limits(Driver::limits(0));
    assert!(matches!(refused, Err(SetAddressLimitsError::NotIdle { .. })));
    hold.release();
    driver.wait_idle();
    assert_eq!(driver.used_count(0), 1, "the request in hand was finished");
}

#[test]
fn nothing_touches_storage_between_quiesce_and_resume() {
    let mut driver = Driver::ready(Rng, 0);
    driver.processor.quiesce();
    driver.wait_idle();
    driver.storage.clear_keys();
    driver.fill(BUFFERS, 0, 64);
    driver.submit(0, &[(BUFFERS, 64, true)]);
    let limits = Driver::limits(64 << 20);
    // The thread answers this one behind everything it was told before.
    let acknowledged = driver.processor.set_address_limits(limits).expect("idle");
    assert_eq!((acknowledged.processor.as_str(), acknowledged.limits), ("test", limits));
    assert_eq!(driver.used_count(0), 0);
    assert_eq!(driver.get_bytes(BUFFERS, 64), vec![0; 64]);
    for page in 0..1024 {
        assert_eq!(driver.storage.key_at(BASE + page * 4096), 0, "page {page}");
    }
    driver.processor.resume();
    driver.take_used(0);
    assert_eq!(driver.processor.statistics().limits, Some(limits));
}

/// A request that a captured machine had left was served in every copy while that
/// waited to be woken: it was no longer the capture.
#[test]
fn a_parked_processor_does_nothing_whoever_resumes_it() {
    let mut driver = Driver::ready(Rng, 0);
    driver.processor.park();
    driver.fill(BUFFERS, 0, 64);
    driver.submit(0, &[(BUFFERS, 64, true)]);
    for _ in 0..3 {
        driver.processor.quiesce();
        driver.wait_idle();
        let told = driver.processor.set_address_limits(Driver::limits(64 << 20)).expect("idle");
        assert_eq!(told.limits, Driver::limits(64 << 20));
        driver.processor.resume();
        driver.wait_idle();
        assert_eq!(driver.used_count(0), 0);
    }
    assert_eq!(driver.get_bytes(BUFFERS, 64), vec![0; 64]);
    driver.processor.unpark();
    driver.take_used(0);
}

#[test]
fn limits_are_refused_unless_quiesced_and_backed_by_storage() {
    let driver = Driver::ready(Rng, 0);
    let refused = driver.processor.set_address_limits(Driver::limits(0));
    assert!(matches!(refused, Err(SetAddressLimitsError::NotIdle { .. })));
    driver.processor.quiesce();
    driver.wait_idle();
    let wrong = AddressLimits { origin: 0, size: 5 << 20 };
    let refused = driver.processor.set_address_limits(wrong);
    let expected =
        SetAddressLimitsError::Size { processor: "test".into(), size: 5 << 20, present: 4 << 20 };
    assert_eq!(refused, Err(expected));
    assert!(driver.processor.set_address_limits(Driver::limits(0)).is_ok());
}

#[test]
fn a_processor_reaches_what_its_limits_hold_and_no_further() {
    let (small, large) = (4 << 20, 8 << 20);
    let storage = Arc::new(TestStorage::with_reach(small, large));
    let mut driver = Driver::start_on(Rng, Arc::clone(&storage));
    let behind = storage.layout().hot_plug_base();
    let set_limits = |driver: &Driver, size| {
        driver.processor.quiesce();
        driver.wait_idle();
        let acknowledged = driver.processor.set_address_limits(AddressLimits { origin: 0, size });
        assert!(acknowledged.is_ok());
        driver.processor.resume();
    };
    let mut resets = 0;
    for (size, limits, reached) in [
        (small, small, false),
        (large, small, false),
        (large, large, true),
        (large, small, false),
        (small, small, false),
    ] {
        storage.set_size(size as u64);
        set_limits(&driver, limits as u64);
        driver.initialise(0);
        driver.submit(0, &[(behind + 0x1000, 8, true)]);
        if reached {
            assert_eq!(driver.take_used(0).1, 8);
            assert_eq!(storage.key_at(behind + 0x1000), 0x07);
            driver.submit(0, &[(behind + (4 << 20) - 8, 9, true)]);
        }
        driver.wait_needs_reset();
        resets += 1;
        assert_eq!(driver.processor.statistics().needed_resets, resets);
    }
}

#[test]
fn the_line_is_high_until_all_causes_are_acknowledged() {
    let mut driver = Driver::ready(Rng, 0);
    driver.submit(0, &[(BUFFERS, 8, true)]);
    driver.wait_for("the interrupt", |driver| driver.line.level());
    assert_eq!(driver.load(offset::INTERRUPT_STATUS), 1);
    driver.store(offset::INTERRUPT_ACK, 2);
    assert!(driver.line.level(), "another cause was acknowledged");
    driver.store(offset::INTERRUPT_ACK, 1);
    assert!(!driver.line.level());
    assert_eq!(driver.load(offset::INTERRUPT_STATUS), 0);
}

#[test]
fn a_driver_that_wants_no_interrupt_gets_none() {
    let mut driver = Driver::ready(Rng, 0);
    driver.put(Driver::available(0), 1u16);
    driver.submit(0, &[(BUFFERS, 8, true)]);
    driver.take_used(0);
    driver.wait_idle();
    assert_eq!(driver.line.rises(), 0);
    driver.put(Driver::available(0), 0u16);
    driver.submit(0, &[(BUFFERS, 8, true)]);
    driver.wait_for("the interrupt", |driver| driver.line.level());
}

#[test]
fn event_indexes_put_interrupts_off() {
    let mut driver = Driver::ready(Rng, EVENT_IDX);
    // used_event: interrupt when the third chain is used.
    driver.put(Driver::available(0) + 4 + 64 * 2, 2u16);
    for _ in 0..2 {
        driver.submit(0, &[(BUFFERS, 8, true)]);
        driver.take_used(0);
        driver.wait_idle();
        assert_eq!(driver.line.rises(), 0);
    }
    driver.submit(0, &[(BUFFERS, 8, true)]);
    driver.wait_for("the interrupt", |driver| driver.line.level());
    let avail_event: u16 = driver.get(Driver::used(0) + 4 + 64 * 8);
    assert_eq!(avail_event, 3, "the next chain is to be notified");
}

#[test]
fn a_reset_waits_for_the_request_in_hand_and_forgets_the_rest() {
    let (mut driver, hold) = held_disk();
    read_sector(&mut driver);
    read_sector(&mut driver);
    assert!(hold.wait_for_request(patience()));
    let driver = Arc::new(driver);
    let resetting = Arc::clone(&driver);
    let reset = std::thread::spawn(move || resetting.store(offset::STATUS, 0));
    driver.wait_for("the reset", |driver| driver.load(offset::STATUS) == 0);
    assert!(!reset.is_finished(), "a request is still in hand");
    hold.release();
    reset.join().expect("the reset returns");
    let used = driver.used_count(0);
    assert!(used <= 1, "only the request in hand was finished");
    assert!(!driver.line.level());
    driver.notify(0);
    driver.wait_idle();
    assert_eq!(driver.used_count(0), used, "a reset device does nothing");
    assert_eq!(driver.processor.statistics().resets, 2, "one of them before the start");
}

type Sabotage = fn(&mut Driver);

/// Each a guest that breaks its queue in another way.
fn sabotages() -> Vec<(&'static str, Sabotage)> {
    vec![
        ("a loop", |driver| {
            let table = Driver::descriptors(0);
            driver.descriptor(table, 0, (BUFFERS, 8), NEXT | WRITE, 1);
            driver.descriptor(table, 1, (BUFFERS, 8), NEXT | WRITE, 0);
            driver.offer_head(0, 0);
        }),
        ("a next outside the table", |driver| {
            driver.descriptor(Driver::descriptors(0), 0, (BUFFERS, 8), NEXT | WRITE, 60_000);
            driver.offer_head(0, 0);
        }),
        ("a head outside the table", |driver| driver.offer_head(0, 64)),
        ("a length past storage", |driver| {
            driver.offer(0, &[(BASE + (4 << 20) - 8, 9, true)]);
        }),
        ("an address below storage", |driver| {
            driver.offer(0, &[(BASE - 1, 8, true)]);
        }),
        ("an address at the end of the world", |driver| {
            driver.offer(0, &[(u64::MAX - 3, 8, true)]);
        }),
        ("a readable buffer behind a writable one", |driver| {
            driver.offer(0, &[(BUFFERS, 8, true), (BUFFERS, 8, false)]);
        }),
        ("an indirect table of odd length", |driver| {
            driver.descriptor(Driver::descriptors(0), 0, (BUFFERS, 17), INDIRECT, 0);
            driver.offer_head(0, 0);
        }),
        ("an empty indirect table", |driver| {
            driver.descriptor(Driver::descriptors(0), 0, (BUFFERS, 0), INDIRECT, 0);
            driver.offer_head(0, 0);
        }),
        ("an indirect table outside storage", |driver| {
            driver.descriptor(Driver::descriptors(0), 0, (0x1000, 64), INDIRECT, 0);
            driver.offer_head(0, 0);
        }),
        ("an indirect table in an indirect table", |driver| {
            driver.descriptor(BUFFERS, 0, (BUFFERS + 0x100, 16), INDIRECT, 0);
            driver.descriptor(Driver::descriptors(0), 0, (BUFFERS, 16), INDIRECT, 0);
            driver.offer_head(0, 0);
        }),
        ("an indirect chain longer than the queue", |driver| {
            for slot in 0..100 {
                driver.descriptor(BUFFERS, slot, (BUFFERS, 8), NEXT | WRITE, slot + 1);
            }
            driver.descriptor(BUFFERS, 100, (BUFFERS, 8), WRITE, 0);
            driver.descriptor(Driver::descriptors(0), 0, (BUFFERS, 16 * 128), INDIRECT, 0);
            driver.offer_head(0, 0);
        }),
        ("an index that jumps", |driver| driver.put(Driver::available(0) + 2, 0x8000u16)),
        ("an index that goes back", |driver| driver.put(Driver::available(0) + 2, u16::MAX)),
    ]
}

#[test]
fn a_broken_queue_needs_a_reset_and_nothing_else() {
    for (what, sabotage) in sabotages() {
        let mut driver = Driver::ready(Rng, 0);
        driver.wait_idle();
        sabotage(&mut driver);
        driver.notify(0);
        driver.wait_for(what, |driver| driver.processor.statistics().needed_resets == 1);
        driver.wait_needs_reset();
        driver.wait_for("the interrupt", |driver| driver.load(offset::INTERRUPT_STATUS) == 2);
        driver.submit(0, &[(BUFFERS, 8, true)]);
        driver.wait_idle();
        assert_eq!(driver.used_count(0), 0, "{what}: a broken device does nothing");
        driver.initialise(0);
        assert!(!driver.line.level(), "{what}: the reset took the interrupt back");
        driver.submit(0, &[(BUFFERS, 8, true)]);
        assert_eq!(driver.take_used(0).1, 8, "{what}: after a reset it works");
    }
}

#[test]
fn queues_outside_storage_need_a_reset() {
    let driver = Driver::start(Rng);
    driver.negotiate(1 << 32);
    for low in [offset::QUEUE_DESC_LOW, offset::QUEUE_DRIVER_LOW, offset::QUEUE_DEVICE_LOW] {
        driver.store(low, 0xffff_f000);
        driver.store(low + 4, 0xffff_ffff);
    }
    driver.store(offset::QUEUE_READY, 1);
    driver.store(offset::STATUS, 0xf);
    driver.wait_needs_reset();
}

#[test]
fn an_indirect_chain_is_worked_off() {
    let mut driver = Driver::ready(Rng, 1 << 28);
    driver.descriptor(BUFFERS, 0, (BUFFERS + 0x1000, 8), NEXT | WRITE, 1);
    driver.descriptor(BUFFERS, 1, (BUFFERS + 0x2000, 8), WRITE, 0);
    driver.descriptor(Driver::descriptors(0), 5, (BUFFERS, 32), INDIRECT, 0);
    driver.offer_head(0, 5);
    driver.notify(0);
    assert_eq!(driver.take_used(0), (5, 16));
}

#[test]
fn a_storm_of_notifications_costs_nothing() {
    let (mut driver, hold) = held_disk();
    read_sector(&mut driver);
    assert!(hold.wait_for_request(patience()));
    for _ in 0..100_000 {
        driver.notify(0);
    }
    driver.notify(77);
    hold.release();
    driver.take_used(0);
    driver.wait_idle();
    let statistics = driver.processor.statistics();
    assert_eq!((statistics.requests, statistics.notifications), (1, 100_001));
    assert_eq!(statistics.guest_errors, 1, "queue 77");
}

#[test]
fn more_chains_than_one_turn_takes_are_all_used() {
    let (disk, _) = HoldableDisk::new(Box::new(MemoryDisk::new(vec![0; 4096])));
    let mut driver = Driver::ready(Blk::new(Box::new(disk), ""), EVENT_IDX);
    driver.put(BUFFERS, [0u8; 16]);
    let head = driver.offer(0, &[(BUFFERS, 16, false), (BUFFERS + 0x1000, 1, true)]);
    for _ in 1..200 {
        driver.offer_head(0, head);
    }
    driver.notify(0);
    driver.wait_for("all of them", |driver| driver.used_count(0) == 200);
}

#[test]
fn a_processor_ends_while_quiesced() {
    let (mut driver, hold) = held_disk();
    read_sector(&mut driver);
    assert!(hold.wait_for_request(patience()));
    driver.processor.quiesce();
    hold.set_delay(Duration::from_millis(1));
    hold.release();
    drop(driver);
}

#[test]
fn it_works_on_a_storage_window_and_keeps_its_keys() {
    use main_storage::{BLOCK_SIZE, StorageRange};
    use storage_window::{Backing, MainStorage, StorageWindow};
    let storage = MainStorage::create(8 * BLOCK_SIZE, Backing::Memfd).expect("main storage");
    let range = StorageRange::new(2 * BLOCK_SIZE, 4 * BLOCK_SIZE).expect("a range");
    let (data, keys) = (storage.storage_fd(), storage.keys_fd());
    let window = StorageWindow::map(data, keys, range, BASE, 4 * BLOCK_SIZE).expect("a window");
    let access = GuestAccess::new(
        Arc::clone(&window) as Arc<dyn GuestStorage>,
        Arc::new(KeyCheck::new("test".into())),
    );
    access.write_obj(1u8, GuestAddress(BASE + 0x5fff)).expect("storage");
    assert!(access.write_obj(1u16, GuestAddress(BASE + (4 << 20) - 1)).is_err(), "past the end");
    let keys: Vec<u8> = (4..7).map(|page| window.key_cell(page).load(Relaxed)).collect();
    assert_eq!(keys, [0, 0x07, 0]);
    let line = Arc::new(TestLine::default());
    let processor = Processor::start("rng", Rng, window, line).expect("the processor");
    processor.quiesce();
    assert!(processor.wait_idle(patience()));
    let limits = AddressLimits { origin: 2 * BLOCK_SIZE, size: 4 * BLOCK_SIZE };
    assert_eq!(processor.set_address_limits(limits).map(|word| word.limits), Ok(limits));
}
