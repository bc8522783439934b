//! A half-session between a program and a partner that both do as they like:
//! it never panics, holds no more than it promises, and a lost connection ends
//! it. Whatever is read as an Attach is written back as the same Attach.
#![no_main]

use conversation::half_session::{Abend, Confirmation, MAX_HELD, Origin, State};
use conversation::{Attach, HalfSession, ReturnCode, Sense};
use libfuzzer_sys::fuzz_target;

fn allocated() -> HalfSession {
    let mut session = HalfSession::new();
    let attach = Attach::new(conversation::fmh5::TpName::new("tp"));
    let _ = session.allocate(&attach);
    let _ = session.flush();
    session
}

/// Feeds a record with a right length and the rest of its bytes from `input`.
fn record(session: &mut HalfSession, length: u8, input: &mut &[u8]) {
    let (body, rest) = input.split_at(input.len().min(usize::from(length % 64)));
    *input = rest;
    let mut bytes = ((body.len() + 3) as u16).to_be_bytes().to_vec();
    bytes.push(1);
    bytes.extend(body);
    let _ = session.feed(&bytes);
}

fn step(session: &mut HalfSession, op: u8, argument: u8, input: &mut &[u8]) {
    let _ = match op % 16 {
        0..=4 => {
            record(session, argument, input);
            return;
        }
        5 => {
            session.drain(usize::from(argument) * 100);
            return;
        }
        6 => session.accept().map(drop),
        7 => session.send_data(&vec![argument; usize::from(argument) * 100]).map(drop),
        8 => session.confirm().map(drop),
        9 => session.prepare_to_receive(Confirmation::SyncLevel).map(drop),
        10 => session.confirmed().map(drop),
        11 => session.send_error(Origin::Program, &[argument]).map(drop),
        12 => session.request_to_send().map(drop),
        13 => session.deallocate(Confirmation::SyncLevel).map(drop),
        14 if argument == 0 => session.deallocate_abend(Abend::Service, b"").map(drop),
        14 if argument == 1 => session.reject(Sense::TPN_NOT_RECOGNIZED, b"").map(drop),
        _ => session.receive_and_wait(1 + usize::from(argument) * 100).map(drop),
    };
    let _: Option<ReturnCode> = session.completion();
}

fuzz_target!(|data: &[u8]| {
    if let Ok(attach) = Attach::decode(data) {
        // A header may be full to the last byte without the fields that are
        // written even if empty.
        if let Ok(bytes) = attach.encode() {
            assert_eq!(Attach::decode(&bytes), Ok(attach));
        }
    }
    let Some((&first, mut input)) = data.split_first() else { return };
    let mut session = if first & 1 == 0 { allocated() } else { HalfSession::new() };
    while let [op, argument, rest @ ..] = input {
        input = rest;
        step(&mut session, *op, *argument, &mut input);
        assert!(session.held_bytes() <= MAX_HELD);
    }
    session.disconnected();
    let _ = session.completion();
    for _ in 0..20_000 {
        let _ = match session.state() {
            State::Reset => return,
            State::Receive => session.receive_immediate(1_000).map(drop),
            State::Send | State::SendPending => session.flush().map(drop),
            _ => session.confirmed().map(drop),
        };
    }
    panic!("a lost connection leaves state {}", session.state());
});
