//! Users who vanish, say nonsense, or say nothing.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use conversation::fmh5::{Security, TpName};
use conversation::{Attach, HalfSession};
use gateway::{Ending, Limits, Why};
use lu62::{Confirmation, Incoming};
use proptest::prelude::*;
use support::{Event, Host, host, limits};

#[test]
fn a_user_who_vanishes_in_any_state_ends_the_conversation() {
    let host = host(limits());
    // In SEND.
    let mut user = host.request("stays").allocate().unwrap();
    user.confirm().unwrap();
    drop(user);
    assert_eq!((host.event(), host.event()), (Event::Abend(Why::Vanished), Event::Gone));
    // In RECEIVE.
    let mut user = host.request("stays").allocate().unwrap();
    user.prepare_to_receive(Confirmation::Confirm).unwrap();
    drop(user);
    assert_eq!((host.event(), host.event()), (Event::Abend(Why::Vanished), Event::Gone));
    // In RECEIVE, while output that nobody reads is on its way.
    let mut user = host.request("flood").allocate().unwrap();
    assert!(matches!(user.receive().unwrap(), Incoming::Data(_)));
    drop(user);
    assert_eq!((host.event(), host.event()), (Event::Abend(Why::Vanished), Event::Gone));
    // While waiting for CONFIRMED, of a program that takes nothing.
    for end in [false, true] {
        let mut request = host.request("deaf");
        request.set_timeout(Some(Duration::ZERO));
        let mut user = request.allocate().unwrap();
        user.send_data(&[1; 20_000]).unwrap();
        let _ = if end { user.deallocate() } else { user.confirm() };
        drop(user);
        assert_eq!((host.event(), host.event()), (Event::Abend(Why::Vanished), Event::Gone));
    }
    // With more under way than a program that reads nothing lets in.
    let mut user = host.request("deaf").allocate().unwrap();
    for _ in 0..6 {
        user.send_data(&[1; 20_000]).unwrap();
    }
    user.flush().unwrap();
    drop(user);
    assert_eq!((host.event(), host.event()), (Event::Abend(Why::Vanished), Event::Gone));
}

#[test]
fn a_user_who_abends_ends_the_conversation() {
    let host = host(limits());
    let mut user = host.request("stays").allocate().unwrap();
    user.confirm().unwrap();
    user.deallocate_abend("enough").unwrap();
    assert_eq!((host.event(), host.event()), (Event::Abend(Why::User), Event::Gone));
}

#[test]
fn a_user_who_vanishes_while_waiting_withdraws_the_request() {
    let host = host(Limits { connections: 1, ..limits() });
    let mut waiting = host.request("waiting").allocate().unwrap();
    waiting.flush().unwrap();
    host.attached();
    drop(waiting);
    // Its place is free again as soon as the gateway has noticed.
    while host.request("echo").allocate().and_then(|mut user| user.confirm()).is_err() {}
}

#[test]
fn a_gateway_that_ends_lets_its_conversations_go() {
    let host = host(limits());
    let mut user = host.request("stays").allocate().unwrap();
    user.confirm().unwrap();
    drop(host.running);
    assert!(host.events.iter().any(|event| event == Event::Gone));
    assert!(user.confirm().is_err());
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    let host = host(Limits { attach: Duration::from_millis(20), ..limits() });
    let mut silent = UnixStream::connect(host.socket()).unwrap();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    let hasty = Limits { handshake: Duration::from_millis(20), ..limits() };
    let host = support::host(hasty);
    let mut silent = std::net::TcpStream::connect(host.running.address().unwrap()).unwrap();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
}

/// Sends bytes, and reads until the gateway closes.
fn say(host: &Host, bytes: &[u8]) {
    let mut stream = UnixStream::connect(host.socket()).unwrap();
    // The gateway may have closed at the first of them.
    let _ = stream.write_all(bytes).and_then(|()| stream.shutdown(Shutdown::Write));
    let _ = stream.read_to_end(&mut Vec::new());
}

/// What a user sends: an Attach, data, and the wish to be confirmed.
fn honest() -> Vec<u8> {
    let attach = Attach {
        security: Security::Same { user: "alice".into(), profile: None },
        pip: Some(vec![vec![b'p'; 100]]),
        ..Attach::new(TpName::new("test/echo"))
    };
    let mut user = HalfSession::new();
    let _ = user.allocate(&attach).unwrap();
    let _ = user.send_data(&[1; 300]).unwrap();
    let _ = user.deallocate(Confirmation::Confirm).unwrap();
    user.output().to_vec()
}

fn still_serves(host: &Host) {
    let mut user = host.request("echo").allocate().unwrap();
    user.deallocate().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nonsense_ends_at_its_connection(
        bytes in proptest::collection::vec(any::<u8>(), 0..40_000),
        framed in any::<bool>(),
    ) {
        let host = host(limits());
        let mut all = Vec::new();
        if framed {
            // A record as long as its length says, of nonsense.
            let length = bytes.len().min(60_000) + 6;
            all.extend((length as u16).to_be_bytes());
            all.extend([1, 0x0b, 0x90, 0x80]);
        }
        all.extend(bytes);
        say(&host, &all);
        still_serves(&host);
    }

    #[test]
    fn a_damaged_conversation_ends_at_its_connection(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let host = host(limits());
        let mut bytes = honest();
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        say(&host, &bytes);
        still_serves(&host);
        // Whoever was let in was let go.
        drop(host.running);
        let events: Vec<Event> = host.events.iter().collect();
        let ends = |event: &&Event| matches!(event, Event::Gone);
        let begun = events.iter().filter(|event| matches!(event, Event::Attached(request)
            if request.pool() == "test" && request.principal.is_some())).count();
        prop_assert!(events.iter().filter(ends).count() <= begun);
        prop_assert!(events.contains(&Event::Ended(Ending::Confirmed)));
    }
}
