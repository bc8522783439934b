use std::io::{ErrorKind, Read, Write};
use std::time::Instant;

use super::control::event;
use super::{AgentChannel, ChannelEnd, ChannelState, PORT_NAME, queue};
use crate::IoProcessor;
use crate::guest_driver::{BUFFERS, Driver, patience};

const CONTROL: u64 = BUFFERS + 0x8_0000;

fn control_bytes(id: u32, event: u16, value: u16) -> Vec<u8> {
    [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// The guest says a control message.
fn tell(driver: &mut Driver, id: u32, event: u16, value: u16) {
    driver.put_bytes(CONTROL, &control_bytes(id, event, value));
    driver.submit(queue::CONTROL_TRANSMIT, &[(CONTROL, 8, false)]);
    driver.take_used(queue::CONTROL_TRANSMIT);
}

/// The guest hears a control message.
fn hear(driver: &mut Driver) -> Vec<u8> {
    driver.submit(queue::CONTROL_RECEIVE, &[(CONTROL + 0x1000, 64, true)]);
    let (_, length) = driver.take_used(queue::CONTROL_RECEIVE);
    driver.get_bytes(CONTROL + 0x1000, length as usize)
}

fn send(driver: &mut Driver, bytes: &[u8]) {
    driver.put_bytes(BUFFERS, bytes);
    driver.submit(queue::TRANSMIT, &[(BUFFERS, bytes.len() as u32, false)]);
}

/// A channel whose port the guest has open.
fn open_channel() -> (Driver, ChannelEnd) {
    let (channel, end) = AgentChannel::new();
    let mut driver = Driver::ready(channel, u64::MAX);
    tell(&mut driver, 0, event::PORT_OPEN, 1);
    assert_eq!(end.wait_open(patience()), ChannelState::Open { session: 1, resumed: false });
    (driver, end)
}

#[test]
fn the_driver_learns_of_the_port_and_its_name() {
    let (channel, end) = AgentChannel::new();
    let mut driver = Driver::ready(channel, u64::MAX);
    tell(&mut driver, u32::MAX, event::DEVICE_READY, 1);
    assert_eq!(hear(&mut driver), control_bytes(0, event::DEVICE_ADD, 0));
    tell(&mut driver, 0, event::PORT_READY, 1);
    let name = [control_bytes(0, event::PORT_NAME, 1), PORT_NAME.into()].concat();
    assert_eq!(hear(&mut driver), name);
    assert_eq!(hear(&mut driver), control_bytes(0, event::PORT_OPEN, 1));
    assert_eq!(end.state(), ChannelState::Closed);
}

#[test]
fn bytes_go_both_ways() {
    let (mut driver, mut end) = open_channel();
    end.write_all(b"ping").expect("open");
    driver.submit(queue::RECEIVE, &[(BUFFERS + 0x1000, 64, true)]);
    assert_eq!(driver.take_used(queue::RECEIVE).1, 4);
    assert_eq!(driver.get_bytes(BUFFERS + 0x1000, 4), b"ping");
    send(&mut driver, b"pong");
    let mut bytes = [0; 4];
    end.read_exact(&mut bytes).expect("open");
    assert_eq!(&bytes, b"pong");
    let late = end.read_until(&mut bytes, Some(Instant::now())).map_err(|error| error.kind());
    assert_eq!(late, Err(ErrorKind::TimedOut));
}

#[test]
fn a_host_that_does_not_read_makes_the_guest_wait() {
    let (mut driver, end) = open_channel();
    for round in 0..5 {
        driver.fill(BUFFERS, round, 0x1_0000);
        driver.submit(queue::TRANSMIT, &[(BUFFERS, 0x1_0000, false)]);
        driver.wait_idle();
    }
    assert_eq!(driver.used_count(queue::TRANSMIT), 4, "256 KiB wait");
    let mut bytes = vec![9; 0x1_0000];
    assert_eq!(end.read_until(&mut bytes, None).expect("open"), 0x1_0000);
    assert_eq!(bytes, vec![0; 0x1_0000]);
    driver.wait_for("the fifth", |driver| driver.used_count(queue::TRANSMIT) == 5);
}

#[test]
fn a_guest_that_does_not_read_makes_the_host_wait() {
    let (mut driver, end) = open_channel();
    let now = Some(Instant::now());
    let mut taken = 0;
    let refused = loop {
        match end.write_until(&[1; 50_000], now) {
            Ok(count) => taken += count,
            Err(error) => break error.kind(),
        }
    };
    assert_eq!((refused, taken), (ErrorKind::TimedOut, 256 * 1024));
    driver.submit(queue::RECEIVE, &[(BUFFERS, 1000, true)]);
    assert_eq!(driver.take_used(queue::RECEIVE).1, 1000);
    assert_eq!(end.write_until(&[1; 50_000], None).expect("room"), 1000);
}

#[test]
fn a_session_ends_once_and_the_next_begins_clean() {
    let (mut driver, end) = open_channel();
    send(&mut driver, b"old");
    driver.take_used(queue::TRANSMIT);
    end.write_until(b"stale", None).expect("open");
    tell(&mut driver, 0, event::PORT_OPEN, 0);
    driver.wait_for("the close", |_| end.state() == ChannelState::Closed);
    let mut bytes = [0; 16];
    let refused = end.write_until(b"x", None).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::NotConnected));
    assert_eq!(end.read_until(&mut bytes, None).expect("what was sent"), 3);
    tell(&mut driver, 0, event::PORT_OPEN, 1);
    assert_eq!(end.wait_open(patience()), ChannelState::Open { session: 2, resumed: false });
    assert_eq!(end.read_until(&mut bytes, None).expect("the end of session 1"), 0);
    send(&mut driver, b"new");
    assert_eq!(end.read_until(&mut bytes, None).expect("session 2"), 3);
    assert_eq!(&bytes[..3], b"new");
    let late = end.write_in(1, b"late", None).map_err(|error| error.kind());
    assert_eq!(late, Err(ErrorKind::NotConnected));
    driver.submit(queue::RECEIVE, &[(BUFFERS + 0x1000, 64, true)]);
    end.write_in(2, b"fresh", None).expect("open");
    assert_eq!(driver.take_used(queue::RECEIVE).1, 5, "nothing stale before it");
}

#[test]
fn who_waits_for_room_in_one_session_writes_nothing_in_the_next() {
    let (mut driver, end) = open_channel();
    while end.write_until(&[1; 50_000], Some(Instant::now())).is_ok() {}
    let writer = end.clone();
    let waiting = std::thread::spawn(move || writer.write_in(1, b"stale", None));
    tell(&mut driver, 0, event::PORT_OPEN, 0);
    tell(&mut driver, 0, event::PORT_OPEN, 1);
    let refused = waiting.join().expect("the writer").map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::NotConnected));
}

#[test]
fn a_reset_closes_the_port_and_the_end_of_the_device_ends_all() {
    let (mut driver, end) = open_channel();
    driver.initialise(u64::MAX);
    assert_eq!(end.state(), ChannelState::Closed);
    let mut reader = end.clone();
    drop(driver);
    assert_eq!(end.state(), ChannelState::Gone);
    assert_eq!(end.wait_open(patience()), ChannelState::Gone);
    assert_eq!(reader.read(&mut [0; 4]).expect("the end"), 0);
    let refused = end.write_until(b"x", None).map_err(|error| error.kind());
    assert_eq!(refused, Err(ErrorKind::BrokenPipe));
}

#[test]
fn hanging_up_frees_a_reader_and_does_not_block_the_guest() {
    let (mut driver, end) = open_channel();
    let mut reader = end.clone();
    let waiting = std::thread::spawn(move || reader.read(&mut [0; 4]));
    end.hang_up();
    assert_eq!(waiting.join().expect("the reader").expect("the end"), 0);
    for _ in 0..10 {
        driver.submit(queue::TRANSMIT, &[(BUFFERS, 0x1_0000, false)]);
        driver.take_used(queue::TRANSMIT);
    }
}

#[test]
fn what_the_host_sends_while_quiesced_is_kept() {
    let (mut driver, end) = open_channel();
    driver.submit(queue::RECEIVE, &[(BUFFERS, 64, true)]);
    driver.processor.quiesce();
    driver.wait_idle();
    end.write_until(b"kept", None).expect("room");
    assert!(driver.processor.set_address_limits(Driver::limits(0)).is_ok());
    assert_eq!(driver.used_count(queue::RECEIVE), 0);
    driver.processor.resume();
    assert_eq!(driver.take_used(queue::RECEIVE).1, 4);
}

#[test]
fn a_driver_that_asks_without_listening_is_not_heard_further() {
    let (channel, _end) = AgentChannel::new();
    let mut driver = Driver::ready(channel, u64::MAX);
    driver.put_bytes(CONTROL, &control_bytes(0, event::PORT_READY, 1));
    for _ in 0..20 {
        driver.submit(queue::CONTROL_TRANSMIT, &[(CONTROL, 8, false)]);
        driver.wait_idle();
    }
    assert_eq!(driver.used_count(queue::CONTROL_TRANSMIT), 4, "eight answers wait");
    for _ in 0..40 {
        hear(&mut driver);
    }
    driver.wait_for("the rest", |driver| driver.used_count(queue::CONTROL_TRANSMIT) == 20);
}

#[test]
fn nonsense_in_control_messages_is_counted() {
    let (mut driver, end) = open_channel();
    tell(&mut driver, 7, event::PORT_OPEN, 0);
    tell(&mut driver, 0, 99, 1);
    driver.submit(queue::CONTROL_TRANSMIT, &[(CONTROL, 3, false)]);
    driver.take_used(queue::CONTROL_TRANSMIT);
    driver.wait_idle();
    assert_eq!(driver.processor.statistics().guest_errors, 3);
    assert_eq!(end.state(), ChannelState::Open { session: 1, resumed: false });
}
