//! Conversations that show one behaviour each.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{OK, attach, carry, exchange, pair};
use conversation::fmh5::{ConversationType, DecodeError, SyncLevel};
use conversation::frame::{Decoder, Ends, HEADER_LEN, Record};
use conversation::gds::{self, GdsId};
use conversation::half_session::{
    Abend, Confirmation, Data, MAX_HELD, MAX_SEND, Origin, Outcome, ProtocolError, Received,
    SEND_BUFFER, State, VerbError, WINDOW,
};
use conversation::{Fmh7, HalfSession, ReturnCode, Sense};

const MAPPED: ConversationType = ConversationType::Mapped;

fn data(received: Received) -> Data {
    match received {
        Received::Data(data) => data,
        other => panic!("{other:?}"),
    }
}

fn feed_record(session: &mut HalfSession, record: &Record) -> Result<(), ProtocolError> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    session.feed(&bytes)
}

/// The records in all of the output.
fn records(session: &mut HalfSession) -> Vec<Record> {
    let bytes = session.output().to_vec();
    session.drain(bytes.len());
    let (mut decoder, mut rest, mut found) = (Decoder::default(), bytes.as_slice(), Vec::new());
    while let Some(record) = decoder.take(&mut rest).unwrap() {
        found.push(record);
    }
    found
}

#[test]
fn an_attach_waits_until_it_is_flushed_and_its_refusal_shows_later() {
    let (mut caller, mut partner) = (HalfSession::new(), HalfSession::new());
    assert_eq!(caller.allocate(&attach(MAPPED, SyncLevel::Confirm)).unwrap(), OK);
    assert!(caller.output().is_empty());
    assert_eq!(caller.confirm().unwrap(), Outcome::Waiting);
    exchange(&mut caller, &mut partner);
    assert_eq!(partner.attach().unwrap().tpn.name, "tp");
    assert_eq!(partner.reject(Sense::TP_NOT_AVAILABLE_RETRY, b"all busy").unwrap(), OK);
    exchange(&mut caller, &mut partner);
    assert_eq!(caller.completion(), Some(ReturnCode::TpNotAvailableRetry));
    assert_eq!(caller.partner_log(), b"all busy");
    assert!(caller.is_finished() && partner.is_finished());
    let again = caller.allocate(&attach(MAPPED, SyncLevel::None)).unwrap_err();
    assert_eq!(again, VerbError::Used);
}

#[test]
fn an_attach_that_cannot_be_served_is_refused_by_its_sense_code() {
    let mut partner = HalfSession::new();
    let mut unit = attach(MAPPED, SyncLevel::None).encode().unwrap();
    unit[6] = 0xd2;
    let refused = feed_record(&mut partner, &Record::Attach(unit)).unwrap_err();
    assert_eq!(refused, ProtocolError::Attach(DecodeError::ConversationType(0xd2)));
    let unit = Fmh7::new(Sense::CONVERSATION_TYPE_MISMATCH).encode();
    assert_eq!(records(&mut partner), [Record::Error { unit, last: true }]);
    assert!(partner.is_finished());
    assert_eq!(partner.accept(), Err(VerbError::NoAttach));
}

#[test]
fn a_sender_is_stopped_by_a_partner_that_does_not_receive() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    let mut sent = 0_u32;
    let mut fill = |caller: &mut HalfSession, partner: &mut HalfSession| {
        loop {
            exchange(caller, partner);
            assert!(caller.held_bytes() <= MAX_HELD && partner.held_bytes() <= MAX_HELD);
            let mut record = sent.to_be_bytes().to_vec();
            record.resize(5_000, 7);
            match caller.send_data(&record) {
                Ok(_) => sent += 1,
                Err(error) => return assert_eq!(error, VerbError::Full),
            }
        }
    };
    fill(&mut caller, &mut partner);
    let most = (WINDOW + SEND_BUFFER) / 5_004;
    let mut received = 0;
    for _ in 0..5 {
        for _ in 0..most {
            let Received::Data(record) = partner.receive_and_wait(MAX_SEND).unwrap() else { break };
            assert_eq!(record.bytes[..4], u32::to_be_bytes(received));
            received += 1;
        }
        fill(&mut caller, &mut partner);
    }
    assert!(received as usize > most, "credit came back");
}

#[test]
fn a_partner_that_sends_more_than_it_was_granted_is_cut_off() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    let unit = gds::encode(GdsId::APPLICATION_DATA, &[0; 10_000]);
    let record = Record::Data { unit, ends: Ends::Nothing };
    let refused = (0..).find_map(|_| feed_record(&mut partner, &record).err()).unwrap();
    assert_eq!(refused, ProtocolError::WindowExceeded);
    // Both are told, and nothing more is read.
    assert!(partner.is_over());
    assert_eq!(partner.feed(b"anything"), Ok(()));
    let code = Received::Code(ReturnCode::ResourceFailureNoRetry);
    assert_eq!(partner.receive_and_wait(10).unwrap(), code);
    exchange(&mut caller, &mut partner);
    let told = caller.flush().unwrap();
    assert_eq!(told, Outcome::Complete(ReturnCode::DeallocatedAbendService));
    assert_eq!((caller.state(), partner.state()), (State::Reset, State::Reset));
}

#[test]
fn a_record_is_received_in_the_pieces_there_is_room_for() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    let record: Vec<u8> = (0..MAX_SEND).map(|at| at as u8).collect();
    assert_eq!(caller.send_data(&record).unwrap(), OK);
    assert_eq!(caller.send_user_control_data(b"").unwrap(), OK);
    assert_eq!(caller.prepare_to_receive(Confirmation::Flush).unwrap(), OK);
    exchange(&mut caller, &mut partner);
    let first = data(partner.receive_and_wait(30_000).unwrap());
    assert_eq!((&first.bytes[..], first.complete), (&record[..30_000], false));
    let second = data(partner.receive_and_wait(30_000).unwrap());
    assert_eq!((&second.bytes[..], second.complete), (&record[30_000..], true));
    let last = data(partner.receive_and_wait(1).unwrap());
    assert_eq!((last.bytes.len(), last.complete), (0, true));
    assert_eq!(last.id, GdsId::USER_CONTROL_DATA);
    assert_eq!(partner.state(), State::SendPending);
}

/// A partner may continue a record as long as it likes: it arrives in pieces.
#[test]
fn a_record_longer_than_the_window_flows_through() {
    let [_, mut partner] = pair(MAPPED, SyncLevel::None);
    let record: Vec<u8> = (0..4 * WINDOW).map(|at| (at / 3) as u8).collect();
    let stream = gds::encode(GdsId::APPLICATION_DATA, &record);
    let mut received = Vec::new();
    for unit in stream.chunks(10_000) {
        let record = Record::Data { unit: unit.to_vec(), ends: Ends::Nothing };
        feed_record(&mut partner, &record).unwrap();
        while let Received::Data(data) = partner.receive_and_wait(5_000).unwrap() {
            received.extend(data.bytes);
            assert_eq!(data.complete, received.len() == record_len(&stream));
        }
    }
    assert!(received == record);
}

fn record_len(stream: &[u8]) -> usize {
    gds::decode(stream, usize::MAX).unwrap().1.len()
}

/// A record that trickles in a byte at a time fills the window with nothing
/// but its own bytes, and does not get stuck.
#[test]
fn a_record_flushed_byte_by_byte_arrives() {
    let [mut caller, mut partner] = pair(ConversationType::Basic, SyncLevel::None);
    let mut record = 0x7fff_u16.to_be_bytes().to_vec();
    record.resize(0x7fff, 1);
    for byte in &record {
        assert_eq!(caller.send_data(&[*byte]).unwrap(), OK);
        assert_eq!(caller.flush().unwrap(), OK);
        exchange(&mut caller, &mut partner);
    }
    let mut received = Vec::new();
    while received.len() < record.len() {
        received.extend(data(partner.receive_and_wait(MAX_SEND).unwrap()).bytes);
    }
    assert_eq!(received, record);
}

#[test]
fn a_basic_record_must_be_whole_before_the_turn_changes() {
    let [mut caller, mut partner] = pair(ConversationType::Basic, SyncLevel::None);
    assert_eq!(caller.send_data(&[0, 5, 1]).unwrap(), OK);
    let refused = caller.deallocate(Confirmation::Flush).unwrap_err();
    assert_eq!(refused.return_code(), ReturnCode::ProgramStateCheck);
    assert_eq!(caller.state(), State::Send);
    assert_eq!(caller.send_error(Origin::Program, b"").unwrap(), OK);
    exchange(&mut caller, &mut partner);
    let begun = data(partner.receive_and_wait(10).unwrap());
    assert_eq!((&begun.bytes[..], begun.complete), (&[0, 5, 1][..], false));
    let code = Received::Code(ReturnCode::ProgramErrorTrunc);
    assert_eq!(partner.receive_and_wait(10).unwrap(), code);
    assert_eq!(partner.state(), State::Receive);
}

#[test]
fn what_arrived_before_the_connection_was_lost_is_received_first() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::Confirm);
    assert_eq!(caller.send_data(b"last words").unwrap(), OK);
    assert_eq!(caller.confirm().unwrap(), Outcome::Waiting);
    carry(&mut caller, &mut partner, usize::MAX).unwrap();
    caller.disconnected();
    partner.disconnected();
    assert_eq!(caller.completion(), Some(ReturnCode::ResourceFailureRetry));
    assert_eq!(data(partner.receive_and_wait(100).unwrap()).bytes, b"last words");
    // Confirmed, it would never arrive: the program is told so.
    let told = partner.confirmed().unwrap();
    assert_eq!(told, Outcome::Complete(ReturnCode::ResourceFailureRetry));
    assert!(caller.is_finished() && partner.is_finished());
}

#[test]
fn a_receiver_asks_for_the_turn() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    assert_eq!(partner.request_to_send().unwrap(), OK);
    exchange(&mut caller, &mut partner);
    assert!(caller.take_request_to_send());
    assert!(!caller.take_request_to_send());
}

#[test]
fn an_error_of_the_receiver_throws_away_what_is_on_its_way() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    assert_eq!(caller.send_data(b"lost").unwrap(), OK);
    assert_eq!(caller.flush().unwrap(), OK);
    assert_eq!(partner.send_error(Origin::Program, b"").unwrap(), Outcome::Waiting);
    exchange(&mut caller, &mut partner);
    assert_eq!(partner.completion(), Some(ReturnCode::Ok));
    let told = caller.send_data(b"never sent").unwrap();
    assert_eq!(told, Outcome::Complete(ReturnCode::ProgramErrorPurging));
    assert_eq!(caller.state(), State::Receive);
    assert_eq!(partner.send_data(b"instead").unwrap(), OK);
    assert_eq!(partner.deallocate(Confirmation::Flush).unwrap(), OK);
    exchange(&mut caller, &mut partner);
    assert_eq!(data(caller.receive_and_wait(100).unwrap()).bytes, b"instead");
}

#[test]
fn an_abend_overtakes_what_waits_for_credit() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    while caller.send_data(&[0; MAX_SEND]).is_ok() {
        exchange(&mut caller, &mut partner);
    }
    assert_eq!(caller.deallocate_abend(Abend::Timer, b"").unwrap(), OK);
    exchange(&mut caller, &mut partner);
    assert!(caller.is_finished() && partner.is_over());
    let mut codes = (0..10).map(|_| partner.receive_and_wait(MAX_SEND).unwrap());
    assert!(codes.any(|got| got == Received::Code(ReturnCode::DeallocatedAbendTimer)));
}

#[test]
fn an_allocation_never_flushed_leaves_no_trace() {
    let mut caller = HalfSession::new();
    assert_eq!(caller.allocate(&attach(MAPPED, SyncLevel::None)).unwrap(), OK);
    assert_eq!(caller.deallocate_abend(Abend::Program, b"").unwrap(), OK);
    assert!(caller.output().is_empty() && caller.is_finished());
}

#[test]
fn the_first_bytes_of_another_protocol_are_refused() {
    let mut partner = HalfSession::new();
    assert!(matches!(partner.feed(b"GET / HTTP/1.1"), Err(ProtocolError::Frame(_))));
    assert_eq!(partner.output()[HEADER_LEN + 1], 7, "answered with an FMH-7");
    assert!(partner.is_over());
}

#[test]
fn a_confirmation_of_what_was_not_yet_sent_is_refused() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::Confirm);
    while caller.send_data(&[0; MAX_SEND]).is_ok() {
        carry(&mut caller, &mut partner, usize::MAX).unwrap();
    }
    // Out of credit: the question is still here.
    assert_eq!(caller.confirm().unwrap(), Outcome::Waiting);
    let refused = feed_record(&mut caller, &Record::PositiveResponse).unwrap_err();
    assert!(matches!(refused, ProtocolError::Unexpected { .. }));
    assert_eq!(caller.completion(), Some(ReturnCode::ResourceFailureNoRetry));
    assert_eq!(caller.state(), State::Reset);
}

#[test]
fn credit_beyond_the_window_is_refused() {
    let [mut caller, _] = pair(MAPPED, SyncLevel::None);
    let refused = feed_record(&mut caller, &Record::Credit(1)).unwrap_err();
    assert_eq!(refused, ProtocolError::CreditExceeded);
}

#[test]
fn error_reports_give_their_share_of_the_window_back() {
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    for _ in 0..2 * WINDOW / 64 {
        assert_eq!(caller.send_error(Origin::Program, b"").unwrap(), OK);
        exchange(&mut caller, &mut partner);
        let code = Received::Code(ReturnCode::ProgramErrorNoTrunc);
        assert_eq!(partner.receive_and_wait(1).unwrap(), code);
    }
}

#[test]
fn a_record_cut_off_by_an_error_does_not_spoil_the_next() {
    let [mut caller, mut partner] = pair(ConversationType::Basic, SyncLevel::None);
    assert_eq!(caller.send_data(&[0, 9, 1]).unwrap(), OK);
    assert_eq!(caller.flush().unwrap(), OK);
    exchange(&mut caller, &mut partner);
    assert_eq!(partner.send_error(Origin::Program, b"").unwrap(), Outcome::Waiting);
    exchange(&mut caller, &mut partner);
    assert_eq!(partner.completion(), Some(ReturnCode::Ok));
    assert_eq!(partner.prepare_to_receive(Confirmation::Flush).unwrap(), OK);
    exchange(&mut caller, &mut partner);
    let code = Received::Code(ReturnCode::ProgramErrorPurging);
    assert_eq!(caller.receive_and_wait(1).unwrap(), code);
    assert!(matches!(caller.receive_and_wait(1).unwrap(), Received::Status(_)));
    assert_eq!(caller.send_data(&[0, 3, 7]).unwrap(), OK);
    assert_eq!(caller.deallocate(Confirmation::Flush).unwrap(), OK);
    exchange(&mut caller, &mut partner);
    let next = data(partner.receive_and_wait(10).unwrap());
    assert_eq!((&next.bytes[..], next.complete), (&[0, 3, 7][..], true));
}
