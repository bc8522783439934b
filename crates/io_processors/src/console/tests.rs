use std::time::{Duration, Instant};

use super::{ClientRead, Console, ConsoleEnd};
use crate::IoProcessor;
use crate::guest_driver::{BUFFERS, Driver, patience};

fn console() -> (Driver, ConsoleEnd) {
    let (console, end) = Console::new();
    (Driver::ready(console, 0), end)
}

fn say(driver: &mut Driver, bytes: &[u8]) {
    driver.put_bytes(BUFFERS, bytes);
    driver.submit(1, &[(BUFFERS, bytes.len() as u32, false)]);
    driver.take_used(1);
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn output_reaches_the_tail_and_the_clients() {
    let (mut driver, end) = console();
    say(&mut driver, b"before\n");
    let (live, replayed) = (end.attach(false), end.attach(true));
    say(&mut driver, b"hello\n");
    assert_eq!(live.read(SOON), ClientRead::Output(b"hello\n".to_vec()));
    assert_eq!(replayed.read(SOON), ClientRead::Output(b"before\nhello\n".to_vec()));
    assert_eq!(live.read(Duration::ZERO), ClientRead::Quiet);
    assert_eq!(end.tail(), b"before\nhello\n");
    drop(driver);
    assert_eq!(live.read(SOON), ClientRead::Closed);
    assert_eq!(end.attach(true).read(SOON), ClientRead::Output(b"before\nhello\n".to_vec()));
    assert_eq!(end.attach(false).read(SOON), ClientRead::Closed);
}

#[test]
fn a_slow_client_loses_output_with_a_note_and_blocks_nobody() {
    let (mut driver, end) = console();
    let slow = end.attach(false);
    for round in 0..10 {
        say(&mut driver, &[b'a' + round; 8192]);
    }
    let ClientRead::Output(output) = slow.read(SOON) else { panic!("there was output") };
    assert_eq!(output[..65536].iter().filter(|byte| **byte == b'h').count(), 8192);
    let note = String::from_utf8_lossy(&output[65536..]).into_owned();
    assert!(note.contains("16384 bytes of output lost"), "{note}");
    say(&mut driver, b"again");
    assert_eq!(slow.read(SOON), ClientRead::Output(b"again".to_vec()));
    let tail = end.tail();
    assert_eq!((tail.len(), tail[0]), (65536, b'c'), "the last 64 KiB");
}

#[test]
fn input_is_delivered_into_whatever_buffers_there_are() {
    let (mut driver, end) = console();
    assert_eq!(end.input(b"hello world"), 11);
    driver.submit(0, &[(BUFFERS, 5, true)]);
    assert_eq!(driver.take_used(0).1, 5);
    driver.submit(0, &[(BUFFERS + 5, 64, true)]);
    assert_eq!(driver.take_used(0).1, 6);
    assert_eq!(driver.get_bytes(BUFFERS, 11), b"hello world");
    // A buffer is there first.
    driver.submit(0, &[(BUFFERS, 64, true)]);
    driver.wait_idle();
    assert_eq!(driver.used_count(0), 0);
    end.input(b"x");
    assert_eq!(driver.take_used(0).1, 1);
}

#[test]
fn input_is_bounded() {
    let (mut driver, end) = console();
    assert_eq!(end.input(&[1; 100_000]), 16 * 1024);
    assert_eq!(end.input(b"more"), 0);
    assert_eq!(end.input_until(b"more", Instant::now()), 0);
    let typing = end.clone();
    let typist = std::thread::spawn(move || typing.input_until(&[2; 5000], patience()));
    for _ in 0..2 {
        driver.submit(0, &[(BUFFERS, 4096, true)]);
        assert_eq!(driver.take_used(0).1, 4096);
    }
    assert_eq!(typist.join().expect("the typist"), 5000);
    drop(driver);
    assert_eq!(end.input(b"anybody?"), 0);
}

#[test]
fn input_while_quiesced_is_kept() {
    let (mut driver, end) = console();
    driver.submit(0, &[(BUFFERS, 64, true)]);
    driver.processor.quiesce();
    driver.wait_idle();
    end.input(b"kept");
    assert!(driver.processor.is_idle());
    let limits = Driver::limits(0);
    assert!(driver.processor.set_address_limits(limits).is_ok());
    assert_eq!(driver.used_count(0), 0);
    driver.processor.resume();
    assert_eq!(driver.take_used(0).1, 4);
    assert_eq!(driver.get_bytes(BUFFERS, 4), b"kept");
}

#[test]
fn output_longer_than_any_driver_sends_needs_a_reset() {
    let (mut driver, end) = console();
    driver.submit(1, &[(BUFFERS, 1 << 20, false), (BUFFERS, 1, false)]);
    driver.wait_needs_reset();
    assert!(end.tail().is_empty());
}

#[test]
fn clients_are_bounded_in_number() {
    let (_driver, end) = console();
    let clients: Vec<_> = (0..33).map(|_| end.attach(false)).collect();
    assert_eq!(clients[0].read(SOON), ClientRead::Closed, "displaced by the last");
    assert_eq!(clients[32].read(Duration::ZERO), ClientRead::Quiet);
}
