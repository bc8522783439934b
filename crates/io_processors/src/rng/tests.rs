use super::Rng;
use crate::guest_driver::{BASE, BUFFERS, Driver, exercise};
use crate::{IoProcessor, transport::offset};

#[test]
fn the_guest_gets_random_bytes_and_an_interrupt() {
    let mut driver = Driver::ready(Rng, 0);
    let head = driver.submit(0, &[(BUFFERS, 64, true), (BUFFERS + 0x1000, 64, true)]);
    assert_eq!(driver.take_used(0), (head, 128));
    let (first, second) = (driver.get_bytes(BUFFERS, 64), driver.get_bytes(BUFFERS + 0x1000, 64));
    assert_ne!(first, vec![0; 64]);
    assert_ne!(first, second);
    driver.wait_for("the interrupt", |driver| driver.line.level());
    driver.store(offset::INTERRUPT_ACK, 1);
    assert!(!driver.line.level());
}

#[test]
fn a_huge_buffer_gets_a_bounded_amount() {
    let mut driver = Driver::ready(Rng, 0);
    // The same megabyte over and over.
    let buffers = [(BUFFERS, 0x10_0000, true); 30];
    driver.submit(0, &buffers);
    assert_eq!(driver.take_used(0).1, 64 * 1024);
}

#[test]
fn a_readable_buffer_is_given_back_empty() {
    let mut driver = Driver::ready(Rng, 0);
    driver.submit(0, &[(BUFFERS, 64, false)]);
    assert_eq!(driver.take_used(0).1, 0);
    assert_eq!(driver.processor.statistics().guest_errors, 1);
}

#[test]
fn keys_show_what_was_written_and_read() {
    let mut driver = Driver::ready(Rng, 0);
    driver.wait_idle();
    driver.storage.clear_keys();
    driver.submit(0, &[(BUFFERS + 0xfff, 2, true)]);
    driver.take_used(0);
    driver.wait_idle();
    assert_eq!(driver.storage.key_at(BUFFERS), 0x07, "first page written");
    assert_eq!(driver.storage.key_at(BUFFERS + 0x1000), 0x07, "second page written");
    assert_eq!(driver.storage.key_at(BUFFERS + 0x2000), 0, "third page untouched");
    assert_eq!(driver.storage.key_at(Driver::descriptors(0)), 0x04, "descriptors read");
    assert_eq!(driver.storage.key_at(Driver::available(0)), 0x04, "available ring read");
    assert_eq!(driver.storage.key_at(Driver::used(0)) & 0x02, 0x02, "used ring written");
    assert_eq!(driver.storage.key_at(BASE + 0xf_0000), 0);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]

    /// The body of the fuzz target, for every device.
    #[test]
    fn no_guest_breaks_a_device(data in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
        exercise(&data);
    }
}
