//! A partner that sends whatever it likes.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{attach, pair};
use conversation::fmh5::{ConversationType, SyncLevel};
use conversation::frame::{Ends, Record};
use conversation::gds::{self, GdsId};
use conversation::half_session::{Abend, Confirmation, MAX_HELD, Origin, Outcome, Received, State};
use conversation::{Fmh7, HalfSession, ReturnCode, Sense};
use proptest::prelude::*;

fn ends() -> impl Strategy<Value = Ends> {
    proptest::sample::select(vec![
        Ends::Nothing,
        Ends::Confirm,
        Ends::Turn,
        Ends::TurnConfirm,
        Ends::End,
        Ends::EndConfirm,
    ])
}

/// A record that is well formed or nearly so.
fn record() -> impl Strategy<Value = Record> {
    let some = || proptest::collection::vec(any::<u8>(), 0..40);
    let error = || {
        let sense = proptest::sample::select(Sense::KNOWN.to_vec());
        (sense, some()).prop_map(|(sense, log)| Fmh7 { sense, log }.encode())
    };
    let report = || {
        let senses = Sense::KNOWN.into_iter().filter(|sense| sense.is_error_report());
        proptest::sample::select(senses.collect::<Vec<_>>())
            .prop_map(|sense| Fmh7::new(sense).encode())
    };
    prop_oneof![
        2 => (0..16_000_usize, ends()).prop_map(|(length, ends)| Record::Data {
            unit: gds::encode(GdsId::APPLICATION_DATA, &vec![1; length]),
            ends
        }),
        4 => ends().prop_map(|ends| Record::Data { unit: Vec::new(), ends }),
        1 => (some(), ends()).prop_map(|(unit, ends)| Record::Data { unit, ends }),
        2 => report().prop_map(|unit| Record::Error { unit, last: false }),
        4 => report().prop_map(Record::NegativeResponse),
        1 => (error(), any::<bool>()).prop_map(|(unit, last)| Record::Error { unit, last }),
        1 => some().prop_map(Record::NegativeResponse),
        1 => Just(Record::Attach(
            attach(ConversationType::Mapped, SyncLevel::Confirm).encode().unwrap()
        )),
        1 => some().prop_map(Record::Attach),
        2 => Just(Record::PositiveResponse),
        1 => Just(Record::Signal),
        1 => (0..70_000_u32).prop_map(Record::Credit),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Record(Record),
    Bytes(Vec<u8>),
    Verb(u8),
    Drain(usize),
    Lost,
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => record().prop_map(Step::Record),
        1 => proptest::collection::vec(any::<u8>(), 0..30).prop_map(Step::Bytes),
        12 => (0..14_u8).prop_map(Step::Verb),
        3 => (0..20_000_usize).prop_map(Step::Drain),
        1 => (0..10_u8).prop_map(|luck| if luck == 0 { Step::Lost } else { Step::Verb(9) }),
    ]
}

fn verb(session: &mut HalfSession, number: u8) {
    let _ = match number {
        0 => session.accept().map(|_| common::OK),
        1 => session.send_data(&[7; 9_000]),
        2 => session.flush(),
        3 => session.confirm(),
        4 => session.prepare_to_receive(Confirmation::SyncLevel),
        5 => session.deallocate(Confirmation::Confirm),
        6 => session.confirmed(),
        7 => session.request_to_send(),
        8 => session.send_error(Origin::Program, b"log"),
        9 => session.receive_and_wait(10_000).map(|_| common::OK),
        10 => session.reject(Sense::TPN_NOT_RECOGNIZED, b""),
        11 => session.allocate(&attach(ConversationType::Mapped, SyncLevel::Confirm)),
        _ => session.receive_immediate(1).map(|_| common::OK),
    };
    let _ = session.completion();
}

/// The bytes in the half-session's buffers, counted by what it prints: twice
/// what it admits to is the most its own bookkeeping may add.
fn check(session: &HalfSession) {
    assert!(session.held_bytes() <= MAX_HELD, "holds {}", session.held_bytes());
    assert!(session.output().len() <= MAX_HELD);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_a_partner_sends_harms(
        start in 0..3_u8,
        steps in proptest::collection::vec(steps(), 0..200),
    ) {
        let [caller, partner] = pair(ConversationType::Mapped, SyncLevel::Confirm);
        let mut session = match start {
            0 => caller,
            1 => partner,
            _ => HalfSession::new(),
        };
        for step in steps {
            match step {
                Step::Record(record) => {
                    let mut bytes = Vec::new();
                    record.encode(&mut bytes);
                    if session.feed(&bytes).is_err() {
                        prop_assert!(session.is_over());
                    }
                }
                Step::Bytes(bytes) => {
                    let failed = session.feed(&bytes).is_err();
                    prop_assert!(!failed || session.is_over());
                }
                Step::Verb(number) => verb(&mut session, number),
                Step::Drain(length) => session.drain(length),
                Step::Lost => session.disconnected(),
            }
            check(&session);
        }
        ends_in_reset(session);
    }
}

/// Once the connection is lost, the program learns it within the verbs that it
/// takes to empty the queue, and then all is over.
fn ends_in_reset(mut session: HalfSession) {
    session.disconnected();
    let _ = session.completion();
    for _ in 0..5_000 {
        match session.state() {
            State::Reset => break,
            State::Send | State::SendPending => assert!(matches!(
                session.flush().unwrap(),
                Outcome::Complete(code) if code != ReturnCode::Ok
            )),
            State::Receive => {
                assert_ne!(session.receive_immediate(10_000).unwrap(), Received::Nothing);
            }
            _ => {
                let told = session.confirmed().unwrap();
                assert_ne!(told, Outcome::Complete(ReturnCode::Ok));
            }
        }
    }
    assert_eq!(session.state(), State::Reset);
    assert!(session.deallocate_abend(Abend::Program, b"").is_err());
}
