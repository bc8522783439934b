use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::{Fs, FsEnd, FsRequest, MOST, MOST_IN_HAND};
use crate::guest_driver::{BASE, BUFFERS, Driver, patience};
use crate::{IoProcessor, SaveIoError};

const HIGH: usize = 0;
const REQUESTS: usize = 1;
const ANSWER: u64 = BUFFERS + 0x8_0000;

/// A device, and the requests that come out of it.
fn device() -> (Driver, FsEnd, Receiver<FsRequest>) {
    let (device, end) = Fs::new("berth");
    let (tell, told) = channel();
    end.serve(move |request| drop(tell.send(request)));
    (Driver::ready(device, u64::MAX), end, told)
}

fn next(told: &Receiver<FsRequest>) -> FsRequest {
    told.recv_timeout(Duration::from_secs(20)).expect("a request")
}

/// A request of 40 bytes with room for `room`.
fn ask(driver: &mut Driver, unique: u8, room: u32) -> u16 {
    let at = BUFFERS + u64::from(unique) * 64;
    driver.put_bytes(at, &[unique; 40]);
    driver.submit(REQUESTS, &[(at, 40, false), (ANSWER + u64::from(unique) * 4096, room, true)])
}

fn answer(unique: u8) -> u64 {
    ANSWER + u64::from(unique) * 4096
}

fn reply(length: usize) -> Option<Vec<u8>> {
    Some(vec![0xab; length])
}

/// What the guest gets of a request that failed.
fn failure(unique: u8) -> Vec<u8> {
    [&16_u32.to_le_bytes()[..], &(-5_i32).to_le_bytes(), &[unique; 8]].concat()
}

#[test]
fn the_driver_learns_the_tag_and_the_queues() {
    let (driver, ..) = device();
    let mut config = [0; 44];
    for (at, word) in config.chunks_mut(4).enumerate() {
        driver.processor.mmio_read(0x100 + at as u64 * 4, word);
    }
    assert_eq!(&config[..36], [&b"berth"[..], &[0; 31]].concat());
    assert_eq!(config[36..40], 1_u32.to_le_bytes());
}

#[test]
fn replies_come_in_any_order() {
    let (mut driver, end, told) = device();
    let heads = [1, 2, 3].map(|unique| ask(&mut driver, unique, 100));
    let requests = [next(&told), next(&told), next(&told)];
    assert_eq!(requests.each_ref().map(|request| request.bytes[0]), [1, 2, 3]);
    assert!(requests.iter().all(|request| request.room == 100 && request.bytes.len() == 40));
    for (index, length) in [(2, 50), (0, 100), (1, 16)] {
        end.reply(requests[index].number, reply(length));
        assert_eq!(driver.take_used(REQUESTS), (heads[index], length as u32));
        assert_eq!(driver.get_bytes(answer(index as u8 + 1), length), vec![0xab; length]);
    }
    // A second reply is nobody's.
    end.reply(requests[0].number, reply(20));
    driver.wait_idle();
    assert_eq!(driver.used_count(REQUESTS), 0);
}

#[test]
fn a_request_without_a_reply_is_given_back() {
    let (mut driver, end, told) = device();
    driver.submit(HIGH, &[(BUFFERS, 48, false)]);
    let request = next(&told);
    assert_eq!((request.room, request.bytes.len()), (0, 48));
    end.reply(request.number, Some(Vec::new()));
    assert_eq!(driver.take_used(HIGH).1, 0);
}

#[test]
fn replies_that_cannot_be_are_failures() {
    let (mut driver, end, told) = device();
    for (unique, bad) in [(1, None), (2, reply(101)), (3, reply(15)), (4, reply(MOST as usize + 1))]
    {
        driver.fill(answer(unique), 0, 4096);
        ask(&mut driver, unique, 100);
        end.reply(next(&told).number, bad);
        assert_eq!(driver.take_used(REQUESTS).1, 16);
        assert_eq!(driver.get_bytes(answer(unique), 17), [&failure(unique)[..], &[0]].concat());
    }
    ask(&mut driver, 5, 15);
    end.reply(next(&told).number, None);
    assert_eq!(driver.take_used(REQUESTS).1, 0, "no room for a failure");
    assert_eq!(driver.processor.statistics().failed_requests, 5);
}

#[test]
fn without_anybody_who_serves_requests_fail() {
    let (device, _end) = Fs::new("berth");
    let mut driver = Driver::ready(device, 0);
    ask(&mut driver, 1, 100);
    assert_eq!(driver.take_used(REQUESTS).1, 16);
    assert_eq!(driver.get_bytes(answer(1), 16), failure(1));
}

#[test]
fn a_request_that_is_too_long_needs_a_reset() {
    let (mut driver, _end, told) = device();
    driver.submit(REQUESTS, &[(BUFFERS, MOST as u32 + 1, false)]);
    driver.wait_needs_reset();
    assert!(told.try_recv().is_err());
    driver.initialise(0);
    driver.submit(REQUESTS, &[(BUFFERS, MOST as u32, false)]);
    assert_eq!(next(&told).bytes.len() as u64, MOST);
}

#[test]
fn replies_wait_while_quiesced_and_touch_nothing() {
    let (mut driver, end, told) = device();
    ask(&mut driver, 1, 100);
    let request = next(&told);
    driver.processor.quiesce();
    assert!(driver.processor.wait_idle(patience()), "a reply that may never come delays nothing");
    driver.storage.clear_keys();
    driver.fill(answer(1), 0, 100);
    end.reply(request.number, reply(100));
    let limits = Driver::limits(64 << 20);
    // The thread answers this one behind everything it was told before.
    let acknowledged = driver.processor.set_address_limits(limits).expect("idle");
    assert_eq!(acknowledged.limits, limits);
    assert_eq!((driver.used_count(REQUESTS), driver.get_bytes(answer(1), 1)[0]), (0, 0));
    for page in 0..1024 {
        assert_eq!(driver.storage.key_at(BASE + page * 4096), 0, "page {page}");
    }
    driver.processor.resume();
    assert_eq!(driver.take_used(REQUESTS).1, 100);
    assert_eq!(driver.get_bytes(answer(1), 100), vec![0xab; 100]);
}

#[test]
fn its_state_is_kept_at_rest_only() {
    let (mut driver, end, told) = device();
    ask(&mut driver, 1, 100);
    let request = next(&told);
    driver.processor.quiesce();
    driver.wait_idle();
    assert!(matches!(driver.processor.save(), Err(SaveIoError::State { .. })));
    end.reply(request.number, reply(100));
    assert!(matches!(driver.processor.save(), Err(SaveIoError::State { .. })));
    driver.processor.resume();
    driver.take_used(REQUESTS);
    driver.processor.quiesce();
    driver.wait_idle();
    let state = driver.processor.save().expect("at rest");

    // It goes on from there, and what was under way since is nobody's.
    driver.processor.resume();
    ask(&mut driver, 2, 100);
    let late = next(&told);
    driver.processor.quiesce();
    driver.wait_idle();
    driver.processor.restore(&state).expect("its own state");
    driver.processor.resume();
    end.reply(late.number, reply(100));
    driver.wait_idle();
    assert_eq!(driver.used_count(REQUESTS), 0);
    // The restored queue is where it was: the chain is taken again.
    driver.notify(REQUESTS);
    let again = next(&told);
    assert!(again.number > late.number && again.bytes == late.bytes);
    end.reply(again.number, reply(20));
    assert_eq!(driver.take_used(REQUESTS).1, 20);
}

#[test]
fn a_reset_forgets_what_is_in_hand() {
    let (mut driver, end, told) = device();
    ask(&mut driver, 1, 100);
    let late = next(&told);
    driver.initialise(0);
    end.reply(late.number, reply(100));
    ask(&mut driver, 2, 100);
    end.reply(next(&told).number, reply(30));
    assert_eq!(driver.take_used(REQUESTS).1, 30);
    driver.wait_idle();
    assert_eq!(driver.used_count(REQUESTS), 0);
}

#[test]
fn no_more_is_in_hand_than_may_be() {
    let (mut driver, end, told) = device();
    let most = MOST_IN_HAND as u64;
    driver.put_bytes(BUFFERS, &[7; 40]);
    // The same chain over and over: what it says was copied.
    let head = ask(&mut driver, 1, 100);
    for _ in 1..most + 10 {
        driver.offer_head(REQUESTS, head);
    }
    driver.notify(REQUESTS);
    let mut requests: Vec<FsRequest> = (0..most).map(|_| next(&told)).collect();
    driver.wait_idle();
    assert!(told.try_recv().is_err(), "the others wait in the queue");
    driver.submit(HIGH, &[(BUFFERS, 48, false)]);
    driver.wait_idle();
    assert!(told.try_recv().is_err(), "of both queues");
    for _ in 0..11 {
        end.reply(requests.remove(0).number, reply(16));
        requests.push(next(&told));
    }
    assert!(requests.iter().any(|request| request.bytes.len() == 48));
    for request in requests {
        end.reply(request.number, reply(16));
    }
    driver.wait_for("all of them", |driver| {
        driver.used_count(REQUESTS) == most as u16 + 10 && driver.used_count(HIGH) == 1
    });
}
