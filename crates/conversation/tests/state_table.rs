//! The state table of LU 6.2, every cell: what a verb does in a state, and
//! that it changes nothing where it is not allowed.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{OK, attach, exchange, pair};
use conversation::fmh5::{ConversationType, SyncLevel};
use conversation::half_session::{
    Abend, Confirmation, Origin, Outcome, Received, State, Status, Verb, VerbError,
};
use conversation::{HalfSession, ReturnCode, Sense};

const MAPPED: ConversationType = ConversationType::Mapped;

/// A conversation one of whose sides, the first, is in `state`.
fn in_state(state: State) -> [HalfSession; 2] {
    if state == State::Reset {
        return [HalfSession::new(), HalfSession::new()];
    }
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::Confirm);
    let expected = match state {
        State::Send => return [caller, partner],
        State::Receive => return [partner, caller],
        State::SendPending => {
            assert_eq!(caller.send_data(b"data").unwrap(), OK);
            assert_eq!(caller.prepare_to_receive(Confirmation::Flush).unwrap(), OK);
            None
        }
        State::Confirm => {
            assert_eq!(caller.confirm().unwrap(), Outcome::Waiting);
            Some(Status::Confirm)
        }
        State::ConfirmSend => {
            let waits = caller.prepare_to_receive(Confirmation::SyncLevel).unwrap();
            assert_eq!(waits, Outcome::Waiting);
            Some(Status::ConfirmSend)
        }
        _ => {
            assert_eq!(caller.deallocate(Confirmation::Confirm).unwrap(), Outcome::Waiting);
            Some(Status::ConfirmDeallocate)
        }
    };
    exchange(&mut caller, &mut partner);
    match (partner.receive_and_wait(100).unwrap(), expected) {
        (Received::Status(status), Some(expected)) => assert_eq!(status, expected),
        (Received::Data(data), None) => assert_eq!(data.status, Some(Status::Send)),
        other => panic!("{other:?}"),
    }
    assert_eq!(partner.state(), state);
    [partner, caller]
}

/// Issues a verb in its plainest form: whether it waits for the partner.
fn issue(verb: Verb, session: &mut HalfSession) -> Result<bool, VerbError> {
    let outcome = match verb {
        Verb::Allocate => session.allocate(&attach(MAPPED, SyncLevel::Confirm)),
        Verb::Accept => session.accept().map(|_| OK),
        Verb::Reject => session.reject(Sense::TPN_NOT_RECOGNIZED, b""),
        Verb::SendData => session.send_data(b"more"),
        Verb::Flush => session.flush(),
        Verb::Confirm => session.confirm(),
        Verb::PrepareToReceive => session.prepare_to_receive(Confirmation::Flush),
        Verb::ReceiveAndWait => session.receive_and_wait(10).map(|_| OK),
        Verb::ReceiveImmediate => session.receive_immediate(10).map(|_| OK),
        Verb::Confirmed => session.confirmed(),
        Verb::RequestToSend => session.request_to_send(),
        Verb::SendError => session.send_error(Origin::Program, b""),
        Verb::Deallocate => session.deallocate(Confirmation::Flush),
        Verb::DeallocateAbend => session.deallocate_abend(Abend::Program, b""),
    }?;
    Ok(outcome == Outcome::Waiting)
}

/// The table, written down as it is in the architecture: the state after the
/// verb, `None` for a state check. Columns in the order of [`State::ALL`].
fn table(verb: Verb) -> [Option<State>; 7] {
    use State::{Confirm, ConfirmDeallocate, ConfirmSend, Receive, Reset, Send};
    let (x, s, r, t) = (None, Some(Send), Some(Receive), Some(Reset));
    match verb {
        Verb::Allocate => [s, x, x, x, x, x, x],
        // Nothing has arrived that could be accepted or refused.
        Verb::Accept | Verb::Reject => [x, x, x, x, x, x, x],
        Verb::SendData | Verb::Flush | Verb::Confirm => [x, s, s, x, x, x, x],
        Verb::PrepareToReceive => [x, r, r, x, x, x, x],
        Verb::ReceiveAndWait => [x, r, r, r, x, x, x],
        Verb::ReceiveImmediate => [x, x, x, r, x, x, x],
        Verb::Confirmed => [x, x, x, x, r, s, t],
        Verb::RequestToSend => {
            let [c, cs, cd] = [Confirm, ConfirmSend, ConfirmDeallocate].map(Some);
            [x, s, Some(State::SendPending), r, c, cs, cd]
        }
        Verb::SendError => [x, s, s, s, s, s, s],
        Verb::Deallocate => [x, t, t, x, x, x, x],
        Verb::DeallocateAbend => [x, t, t, t, t, t, t],
    }
}

#[test]
fn every_verb_in_every_state() {
    for verb in Verb::ALL {
        for (state, expected) in State::ALL.into_iter().zip(table(verb)) {
            let [mut session, mut partner] = in_state(state);
            exchange(&mut session, &mut partner);
            let before = format!("{session:?}");
            match (issue(verb, &mut session), expected) {
                (Ok(waits), Some(next)) => {
                    assert_eq!(session.state(), next, "{verb} in {state}");
                    let answers = verb == Verb::Confirm
                        || (verb == Verb::SendError && state == State::Receive);
                    assert_eq!(waits, answers, "{verb} in {state}");
                }
                (Err(refused), None) => {
                    assert_eq!(refused.return_code(), ReturnCode::ProgramStateCheck);
                    assert_eq!(format!("{session:?}"), before, "{verb} in {state}");
                }
                (result, _) => panic!("{verb} in {state}: {result:?}"),
            }
        }
    }
}

/// While a verb waits no other is taken, except the one that ends it all.
#[test]
fn every_verb_while_another_waits() {
    for verb in Verb::ALL {
        let [mut session, _partner] = pair(MAPPED, SyncLevel::Confirm);
        assert_eq!(session.confirm().unwrap(), Outcome::Waiting);
        let before = format!("{session:?}");
        let result = issue(verb, &mut session);
        if verb == Verb::DeallocateAbend {
            assert_eq!(result, Ok(false));
            assert_eq!((session.state(), session.completion()), (State::Reset, None));
        } else {
            assert_eq!(result, Err(VerbError::Busy), "{verb}");
            assert_eq!(format!("{session:?}"), before, "{verb}");
        }
    }
}

#[test]
fn what_the_partner_gives_decides_the_state_after_receive() {
    for state in State::ALL.into_iter().filter(|state| *state != State::Reset) {
        let [session, _] = in_state(state);
        assert_eq!(session.state(), state);
    }
    // With data in front of it, the turn makes SEND-PENDING; without, SEND.
    let [mut caller, mut partner] = pair(MAPPED, SyncLevel::None);
    assert_eq!(caller.prepare_to_receive(Confirmation::SyncLevel).unwrap(), OK);
    exchange(&mut caller, &mut partner);
    assert_eq!(partner.receive_immediate(10).unwrap(), Received::Status(Status::Send));
    assert_eq!(partner.state(), State::Send);
}

#[test]
fn confirmation_needs_its_sync_level() {
    let [mut caller, _] = pair(MAPPED, SyncLevel::None);
    let before = format!("{caller:?}");
    let refusals = [
        caller.confirm(),
        caller.prepare_to_receive(Confirmation::Confirm),
        caller.deallocate(Confirmation::Confirm),
    ];
    for refused in refusals {
        assert_eq!(refused.unwrap_err().return_code(), ReturnCode::ProgramParameterCheck);
    }
    assert_eq!(format!("{caller:?}"), before);
    assert_eq!(caller.deallocate(Confirmation::SyncLevel).unwrap(), OK);
}

#[test]
fn a_verb_that_waited_leads_to_its_state_once_confirmed() {
    type Stop = fn(&mut HalfSession) -> Result<Outcome, VerbError>;
    let cases: [(Stop, State, State); 3] = [
        (HalfSession::confirm, State::Send, State::Receive),
        (|s| s.prepare_to_receive(Confirmation::Confirm), State::Receive, State::Send),
        (|s| s.deallocate(Confirmation::SyncLevel), State::Reset, State::Reset),
    ];
    for (stop, caller_state, partner_state) in cases {
        let [mut caller, mut partner] = pair(MAPPED, SyncLevel::Confirm);
        assert_eq!(stop(&mut caller).unwrap(), Outcome::Waiting);
        exchange(&mut caller, &mut partner);
        assert_eq!(caller.completion(), None);
        assert!(matches!(partner.receive_and_wait(1).unwrap(), Received::Status(_)));
        assert_eq!(partner.confirmed().unwrap(), OK);
        exchange(&mut caller, &mut partner);
        assert_eq!(caller.completion(), Some(ReturnCode::Ok));
        assert_eq!(caller.state(), caller_state);
        assert_eq!(partner.state(), partner_state);
    }
}

/// An error as answer to DEALLOCATE(CONFIRM) keeps the conversation alive.
#[test]
fn an_error_instead_of_a_confirmation_turns_the_conversation_round() {
    for state in [State::Confirm, State::ConfirmSend, State::ConfirmDeallocate] {
        let [mut partner, mut caller] = in_state(state);
        assert_eq!(partner.send_error(Origin::Service, b"dirty").unwrap(), OK);
        exchange(&mut caller, &mut partner);
        assert_eq!(caller.completion(), Some(ReturnCode::ServiceErrorPurging));
        assert_eq!(caller.partner_log(), b"dirty");
        assert_eq!((caller.state(), partner.state()), (State::Receive, State::Send));
        assert_eq!(partner.deallocate(Confirmation::Flush).unwrap(), OK);
        exchange(&mut caller, &mut partner);
        let code = Received::Code(ReturnCode::DeallocatedNormal);
        assert_eq!(caller.receive_and_wait(1).unwrap(), code);
        assert!(caller.is_finished() && partner.is_finished());
    }
}
