//! Two half-sessions, any verbs, any cuts of the streams between them: they
//! agree with a trivial model of what each side sent and the other must see.
//!
//! The model numbers the records of each direction. A receiver sees them whole
//! and in order; one may be missing only where an error was reported. What was
//! confirmed has been received. At the end both are in RESET, and what one side
//! did is what the other was told.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod common;

use common::{carry, pair};
use conversation::fmh5::{ConversationType, SyncLevel};
use conversation::half_session::{
    Abend, Confirmation, MAX_HELD, Origin, Outcome, Received, State, VerbError,
};
use conversation::{HalfSession, ReturnCode};
use proptest::prelude::*;

/// How a conversation ended for one side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Flushed,
    GotConfirmation,
    GaveConfirmation,
    Abended,
    Told(ReturnCode),
}

struct Side {
    session: HalfSession,
    basic: bool,
    /// Number of the next record.
    next: u32,
    /// The last record sent whole that no error may have lost.
    owed: Option<u32>,
    /// The rest of a record that was sent in part.
    rest: Option<Vec<u8>>,
    /// Number of the last record received, and the beginning of the next one.
    seen: u32,
    partial: Vec<u8>,
    /// Records may be missing in front of the next one.
    gap: bool,
    /// This side has thrown records away and received none since.
    purged: bool,
    confirmed: u32,
    got_confirmations: u32,
    deallocating: bool,
    end: Option<End>,
}

/// The record of this number: its bytes tell it from every other.
fn record(number: u32, basic: bool) -> Vec<u8> {
    let length = [0, 5, 300, 9_000, 32_000][number as usize % 5] + number as usize % 7;
    let mut bytes = Vec::new();
    if basic {
        bytes.extend(((length + 6) as u16).to_be_bytes());
    }
    bytes.extend(number.to_be_bytes());
    bytes.extend((0..length).map(|at| (at as u32 ^ number) as u8));
    bytes
}

impl Side {
    fn new(session: HalfSession, basic: bool) -> Self {
        Self {
            session,
            basic,
            next: 1,
            owed: None,
            rest: None,
            seen: 0,
            partial: Vec::new(),
            gap: false,
            purged: false,
            confirmed: 0,
            got_confirmations: 0,
            deallocating: false,
            end: None,
        }
    }

    /// What a refused verb may be refused for in this test.
    fn refused(error: &VerbError) {
        assert!(
            matches!(
                error,
                VerbError::StateCheck { .. }
                    | VerbError::Busy
                    | VerbError::Full
                    | VerbError::RecordUnfinished { .. }
                    | VerbError::SyncLevel { .. }
            ),
            "{error}"
        );
    }

    /// The program is told something by its partner.
    fn told(&mut self, code: ReturnCode) {
        self.gap = true;
        self.owed = None;
        self.rest = None;
        self.partial.clear();
        self.deallocating = false;
        let expected = if code.is_error_report() { State::Receive } else { State::Reset };
        assert_eq!(self.session.state(), expected, "{code:?}");
        if !code.is_error_report() {
            self.end = Some(End::Told(code));
        }
    }

    /// True if the verb had its effect.
    fn settle(&mut self, result: Result<Outcome, VerbError>) -> bool {
        match result {
            Err(error) => Self::refused(&error),
            Ok(Outcome::Complete(ReturnCode::Ok)) => return true,
            Ok(Outcome::Complete(code)) => self.told(code),
            Ok(Outcome::Waiting) => {
                assert!(self.session.is_waiting());
                return true;
            }
        }
        false
    }

    fn send(&mut self, whole: bool) {
        let bytes = self.rest.clone().unwrap_or_else(|| record(self.next, self.basic));
        let now = if whole || !self.basic { bytes.len() } else { bytes.len() / 2 };
        let result = self.session.send_data(&bytes[..now]);
        if !self.settle(result) {
            return;
        }
        self.rest = (now < bytes.len()).then(|| bytes[now..].to_vec());
        if self.rest.is_none() {
            self.owed = Some(self.next);
            self.next += 1;
        }
    }

    fn send_error(&mut self) {
        let receiving =
            self.session.state() != State::Send && self.session.state() != State::SendPending;
        let result = self.session.send_error(Origin::Program, b"because");
        self.purged |= receiving && result.is_ok();
        if !self.settle(result) {
            return;
        }
        if receiving {
            self.gap = true;
            // Thrown away with the rest: a report that the partner did the same.
            self.owed = None;
            self.partial.clear();
        }
        if self.rest.take().is_some() {
            self.next += 1;
        }
    }

    fn receive(&mut self, max: usize) {
        let data = match self.session.receive_and_wait(max) {
            Err(error) => return Self::refused(&error),
            Ok(Received::Nothing | Received::Status(_)) => return,
            Ok(Received::Code(code)) => return self.told(code),
            Ok(Received::Data(data)) => data,
        };
        assert!(data.bytes.len() <= max);
        self.partial.extend(data.bytes);
        if !data.complete {
            assert_eq!(data.status, None);
            return;
        }
        let bytes = std::mem::take(&mut self.partial);
        let at = if self.basic { 2 } else { 0 };
        let number = u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert!(bytes == record(number, self.basic), "record {number} is damaged");
        if self.gap {
            assert!(number > self.seen, "{number} after {}", self.seen);
        } else {
            assert_eq!(number, self.seen + 1);
        }
        self.seen = number;
        self.gap = false;
        self.purged = false;
    }

    fn confirmed(&mut self) {
        let last = self.session.state() == State::ConfirmDeallocate;
        let result = self.session.confirmed();
        if self.settle(result) {
            self.confirmed += 1;
            if last {
                self.end = Some(End::GaveConfirmation);
            }
        }
    }

    fn deallocate(&mut self, how: Confirmation) {
        let result = self.session.deallocate(how);
        if self.settle(result) {
            self.deallocating = self.session.is_waiting();
            if !self.deallocating {
                self.end = Some(End::Flushed);
            }
        }
    }

    fn abend(&mut self) {
        let result = self.session.deallocate_abend(Abend::Program, b"");
        if self.settle(result) {
            self.end = Some(End::Abended);
        }
    }

    /// Takes the code of a verb that waited, and holds a confirmation against
    /// what the partner has seen and done.
    fn complete(&mut self, asked: bool, partner: &Self) {
        match self.session.completion() {
            None => {}
            Some(ReturnCode::Ok) if asked => {
                self.got_confirmations += 1;
                assert!(partner.confirmed >= self.got_confirmations);
                if let Some(owed) = self.owed {
                    assert_eq!(partner.seen, owed, "confirmed and not received");
                }
                if std::mem::take(&mut self.deallocating) {
                    self.end = Some(End::GotConfirmation);
                }
            }
            Some(ReturnCode::Ok) => {}
            Some(code) => self.told(code),
        }
    }
}

/// A side, and one thing it does.
#[derive(Debug, Clone, Copy)]
enum Step {
    Send(bool),
    Flush,
    Confirm,
    Turn(u8),
    Receive(usize),
    Confirmed,
    Error,
    Request,
    Deallocate(u8),
    Abend,
    Carry(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Send),
        1 => Just(Step::Flush),
        2 => Just(Step::Confirm),
        2 => (0..3_u8).prop_map(Step::Turn),
        6 => (1..40_000_usize).prop_map(Step::Receive),
        3 => Just(Step::Confirmed),
        2 => Just(Step::Error),
        1 => Just(Step::Request),
        1 => (0..30_u8).prop_map(Step::Deallocate),
        1 => (0..20_u8).prop_map(|luck| if luck == 0 { Step::Abend } else { Step::Flush }),
        8 => prop_oneof![1..40_usize, 1..60_000_usize].prop_map(Step::Carry),
    ]
}

fn how(number: u8) -> Confirmation {
    [Confirmation::Flush, Confirmation::Confirm, Confirmation::SyncLevel][number as usize]
}

struct Conversation {
    sides: [Side; 2],
    /// The verb of this side that waits has asked for confirmation.
    asked: [bool; 2],
}

impl Conversation {
    fn step(&mut self, who: usize, step: Step) {
        let [a, b] = &mut self.sides;
        let (side, partner) = if who == 0 { (a, b) } else { (b, a) };
        match step {
            Step::Send(whole) => side.send(whole),
            Step::Flush => {
                let result = side.session.flush();
                side.settle(result);
            }
            Step::Confirm => {
                let result = side.session.confirm();
                self.asked[who] |= side.settle(result);
            }
            Step::Turn(number) => {
                let result = side.session.prepare_to_receive(how(number));
                self.asked[who] |= side.settle(result) && side.session.is_waiting();
            }
            Step::Receive(max) => side.receive(max),
            Step::Confirmed => side.confirmed(),
            Step::Error => side.send_error(),
            Step::Request => {
                let result = side.session.request_to_send();
                side.settle(result);
            }
            // Most conversations are to go on for a while.
            Step::Deallocate(number) if number < 3 => {
                side.deallocate(how(number));
                self.asked[who] |= side.deallocating;
            }
            Step::Deallocate(_) => {}
            Step::Abend => side.abend(),
            Step::Carry(most) => {
                carry(&mut side.session, &mut partner.session, most).unwrap();
            }
        }
        if !side.session.is_waiting() {
            let asked = std::mem::take(&mut self.asked[who]);
            side.complete(asked, partner);
        }
        for side in [side, partner] {
            assert!(side.session.held_bytes() <= MAX_HELD);
        }
    }

    fn is_over(&self) -> bool {
        self.sides.iter().all(|side| side.session.is_finished())
    }

    /// Both sides behave until the conversation is over.
    fn wind_up(&mut self) {
        for _ in 0..2_000 {
            if self.is_over() {
                return;
            }
            for who in [0, 1] {
                self.step(who, Step::Carry(usize::MAX));
                match self.sides[who].session.state() {
                    State::Reset => {}
                    State::Send | State::SendPending => {
                        if self.sides[who].rest.is_some() {
                            self.step(who, Step::Send(true));
                        }
                        self.step(who, Step::Deallocate(2));
                    }
                    State::Receive => self.step(who, Step::Receive(40_000)),
                    _ => self.step(who, Step::Confirmed),
                }
            }
        }
        panic!("a conversation that never ends");
    }

    fn check_ends(&self) {
        let [a, b] = &self.sides;
        for (one, other) in [(a, b), (b, a)] {
            assert_eq!(one.session.state(), State::Reset);
            let (Some(mine), Some(theirs)) = (one.end, other.end) else { panic!("no end") };
            let fits = match mine {
                End::Flushed => {
                    matches!(theirs, End::Told(ReturnCode::DeallocatedNormal) | End::Abended)
                }
                End::GotConfirmation => theirs == End::GaveConfirmation,
                End::GaveConfirmation => matches!(theirs, End::GotConfirmation | End::Abended),
                End::Abended => {
                    !matches!(theirs, End::Told(code) if code != ReturnCode::DeallocatedAbend)
                }
                End::Told(ReturnCode::DeallocatedNormal) => theirs == End::Flushed,
                End::Told(ReturnCode::DeallocatedAbend) => theirs == End::Abended,
                End::Told(_) => false,
            };
            assert!(fits, "{mine:?} here, {theirs:?} there");
            // What was sent before a normal end has arrived, unless the
            // receiver threw it away with an error of its own.
            if mine == End::Flushed && theirs != End::Abended && !other.purged {
                if let Some(owed) = one.owed {
                    assert_eq!(other.seen, owed);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn both_sides_agree(
        basic in any::<bool>(),
        confirm in any::<bool>(),
        steps in proptest::collection::vec((0..2_usize, steps()), 0..300),
    ) {
        let kind = if basic { ConversationType::Basic } else { ConversationType::Mapped };
        let level = if confirm { SyncLevel::Confirm } else { SyncLevel::None };
        let sides = pair(kind, level).map(|session| Side::new(session, basic));
        let mut conversation = Conversation { sides, asked: [false; 2] };
        for (who, step) in steps {
            conversation.step(who, step);
        }
        conversation.wind_up();
        conversation.check_ends();
    }
}
