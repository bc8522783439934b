//! What joins a conversation, in which the sides take turns, to a program,
//! whose input and output are byte streams and know no turns. Pure.
//!
//! - While the user has the right to send, the program's output is held: one
//!   piece here, and back pressure behind it. The user is told once
//!   (REQUEST_TO_SEND) that there is something to be had.
//! - While the program has it, output goes to the user as it comes, a record
//!   per piece. The right goes back when the user asks for it and the program
//!   has taken all that the user sent before.
//! - A record of user-control data says that the user's input ends here. The
//!   program is told (end of input); its output still comes.
//! - A program that has ended is deallocated once the user has all its output.
//!
//! No rule needs a clock. A user who sends no more than [`TURN`] bytes before
//! giving up the right to send cannot come to a standstill with a program that
//! writes while it reads.

use std::collections::VecDeque;

use conversation::gds::GdsId;
use conversation::half_session::{
    Abend, Confirmation, MAX_SEND, Outcome, Received, SEND_BUFFER, State, VerbError, WINDOW,
};
use conversation::{HalfSession, ReturnCode};

use crate::service::{Ending, Why};

/// Bytes that a user can send in one turn whatever the program does.
pub const TURN: usize = 32 * 1024;
/// Bytes for the program that are taken from the user before the program has
/// taken earlier ones.
pub const INPUT: usize = WINDOW;
/// Bytes of the program's output in one record.
pub const PIECE: usize = MAX_SEND;

/// What the owner has to wait for, beside bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// For nothing in particular: the sides may be silent as long as they are
    /// allowed to.
    Nobody,
    /// For the program, which owes an answer.
    Program,
}

/// One conversation joined to one program.
#[derive(Debug)]
pub struct Coupling {
    session: HalfSession,
    /// For the program.
    input: VecDeque<u8>,
    /// All that was taken out of `input` has been flushed.
    flushed: bool,
    /// Nothing more will be put into `input`.
    input_ends: bool,
    /// The program takes no more input.
    input_broken: bool,
    /// For the user.
    output: Vec<u8>,
    /// The user wants no output any more.
    discards: bool,
    output_ended: bool,
    ended: Option<Ending>,
    /// The user asked for the right to send.
    asked: bool,
    /// The user was told that there is output, in this turn.
    told: bool,
    /// The service's side is to be ended in disorder.
    abend: Option<Why>,
    /// The user is to find the connection lost.
    cut: bool,
}

impl Coupling {
    /// Joins an accepted conversation.
    pub fn new(session: HalfSession) -> Self {
        Self {
            session,
            input: VecDeque::new(),
            flushed: true,
            input_ends: false,
            input_broken: false,
            output: Vec::new(),
            discards: false,
            output_ended: false,
            ended: None,
            asked: false,
            told: false,
            abend: None,
            cut: false,
        }
    }

    /// What a program will be sent first, if its conversation is accepted: what the
    /// user has sent by now.
    pub fn early(session: &HalfSession) -> Vec<u8> {
        let mut session = session.clone();
        if session.accept().is_err() {
            return Vec::new();
        }
        let mut coupling = Self::new(session);
        coupling.step();
        coupling.input.into()
    }

    /// Bytes for the user's connection.
    pub fn to_user(&self) -> &[u8] {
        self.session.output()
    }

    /// The user's connection has taken so many bytes.
    pub fn user_took(&mut self, length: usize) {
        self.session.drain(length);
        self.step();
    }

    /// Bytes from the user's connection.
    pub fn from_user(&mut self, bytes: &[u8]) {
        if let Err(error) = self.session.feed(bytes) {
            tracing::debug!(%error, "a user broke the protocol");
        }
        self.step();
    }

    /// The user's connection is closed or broken.
    pub fn user_gone(&mut self) {
        self.session.disconnected();
        self.step();
    }

    /// Bytes for the program.
    pub fn to_program(&mut self) -> &[u8] {
        self.input.make_contiguous()
    }

    /// The program's input has taken so many bytes.
    pub fn program_took(&mut self, length: usize) {
        self.input.drain(..length.min(self.input.len()));
        self.flushed = false;
        self.step();
    }

    /// True if all is written and the program's input is to be flushed.
    pub fn wants_flush(&self) -> bool {
        self.input.is_empty() && !self.flushed
    }

    /// The program has taken all it was sent.
    pub fn program_flushed(&mut self) {
        self.flushed = true;
        self.step();
    }

    /// True if the program is to be told that no more will come.
    pub fn wants_end_of_input(&self) -> bool {
        self.input_ends && self.input.is_empty() && !self.input_broken
    }

    /// The program's input is closed, by either side.
    pub fn input_closed(&mut self) {
        self.input_broken = true;
        self.flushed = true;
        self.input.clear();
        self.step();
    }

    /// True if output of the program can be taken.
    pub fn wants_output(&self) -> bool {
        !self.output_ended && (self.output.is_empty() || self.discards)
    }

    /// Output of the program, at most [`PIECE`] bytes; none: it has ended.
    pub fn from_program(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.output_ended = true;
        } else if !self.discards {
            self.output.extend_from_slice(bytes);
        }
        self.step();
    }

    /// How the program ended.
    pub fn program_ended(&mut self, ending: Ending) {
        self.ended.get_or_insert(ending);
        self.step();
    }

    /// What there is to be waited for.
    pub fn waiting(&self) -> Waiting {
        let confirming = matches!(
            self.session.state(),
            State::Confirm | State::ConfirmSend | State::ConfirmDeallocate
        );
        if confirming || self.discards { Waiting::Program } else { Waiting::Nobody }
    }

    /// Ends both sides: out of time.
    pub fn time_out(&mut self, why: Why) {
        self.abend.get_or_insert(why);
        self.end_session(Abend::Timer, b"");
    }

    /// Why the service's side is to be ended in disorder, if it is.
    pub fn abend(&self) -> Option<Why> {
        self.abend.filter(|_| self.ended.is_none())
    }

    /// True if the service's side needs no more attention.
    pub fn program_is_done(&self) -> bool {
        let over = self.cut || self.session.state() == State::Reset;
        self.abend.is_some() || (self.ended.is_some() && over)
    }

    /// True if nothing of the user is waited for: what is left of the output is
    /// to be sent, and the connection closed.
    pub fn user_is_done(&self) -> bool {
        self.cut || self.session.is_over() || self.session.is_finished()
    }

    /// True if the user ended the conversation, or vanished: nothing more can
    /// come.
    pub fn user_has_ended(&self) -> bool {
        self.session.is_over()
    }

    /// True if the connection is to be closed without another byte.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Bytes held for both sides.
    pub fn held_bytes(&self) -> usize {
        self.session.held_bytes() + self.input.len() + self.output.len()
    }

    /// Does what can be done.
    fn step(&mut self) {
        self.asked |= self.session.take_request_to_send();
        while !self.cut && self.step_once() {}
    }

    fn step_once(&mut self) -> bool {
        if self.abend.is_some() {
            return false;
        }
        match self.session.state() {
            State::Receive => self.receive(),
            State::Send | State::SendPending => self.send(),
            State::Confirm | State::ConfirmSend => {
                let taken = self.input.is_empty() && self.flushed;
                (taken || self.session.is_over()) && self.verb(HalfSession::confirmed)
            }
            State::ConfirmDeallocate if self.session.is_over() => self.verb(HalfSession::confirmed),
            State::ConfirmDeallocate => self.end_as_program(),
            State::Reset => false,
        }
    }

    fn receive(&mut self) -> bool {
        // What a user left behind is bounded by the window.
        if self.input.len() < INPUT || self.session.is_over() {
            match self.session.receive_immediate(MAX_SEND) {
                Ok(Received::Data(data)) => {
                    if data.id == GdsId::USER_CONTROL_DATA {
                        self.input_ends = true;
                    } else if !self.input_ends && !self.input_broken {
                        self.input.extend(data.bytes);
                    }
                    self.after_receive();
                    return true;
                }
                Ok(Received::Status(_)) => {
                    self.after_receive();
                    return true;
                }
                Ok(Received::Code(code)) => {
                    self.learn(code);
                    return true;
                }
                Ok(Received::Nothing) | Err(_) => {}
            }
        }
        let all_had = self.output.is_empty() && self.output_ended;
        match self.ended {
            Some(Ending::HostLost) => self.cut = true,
            Some(Ending::Confirmed) | None => {}
            Some(_) if all_had => return self.end_as_program(),
            Some(_) => {}
        }
        if !self.told && (!self.output.is_empty() || self.ended.is_some()) {
            self.told = self.session.request_to_send().is_ok();
        }
        false
    }

    /// The user asks for the end of the conversation.
    fn after_receive(&mut self) {
        if self.session.state() == State::ConfirmDeallocate {
            self.close_to_program();
        }
    }

    /// The user says no more, and listens no more.
    fn close_to_program(&mut self) {
        self.input_ends = true;
        self.discards = true;
        self.output.clear();
    }

    /// What the user, or its absence, did to the conversation.
    fn learn(&mut self, code: ReturnCode) {
        match code {
            ReturnCode::DeallocatedNormal => self.close_to_program(),
            ReturnCode::DeallocatedAbend
            | ReturnCode::DeallocatedAbendService
            | ReturnCode::DeallocatedAbendTimer => self.abend = Some(Why::User),
            // An error the user found in the output is nothing that a program
            // without verbs could be told; the user has the turn.
            code if code.is_error_report() => {}
            _ => self.abend = Some(Why::Vanished),
        }
    }

    fn send(&mut self) -> bool {
        if !self.output.is_empty() {
            let sent = match self.session.send_data(&self.output) {
                Ok(Outcome::Complete(ReturnCode::Ok)) => true,
                Ok(Outcome::Complete(code)) => {
                    self.learn(code);
                    true
                }
                Ok(Outcome::Waiting) | Err(VerbError::Full) => return false,
                Err(_) => return self.end_session(Abend::Service, b"the gateway failed"),
            };
            self.output.clear();
            return sent && self.flush();
        }
        if let Some(ended) = self.ended.filter(|_| self.output_ended) {
            return match ended {
                Ending::Confirmed => self.verb(|session| session.deallocate(Confirmation::Flush)),
                // An abnormal end overtakes data: let them go first.
                _ if self.session.room() < SEND_BUFFER || !self.session.output().is_empty() => {
                    false
                }
                _ => self.end_as_program(),
            };
        }
        if self.asked && self.input.is_empty() {
            self.asked = false;
            self.told = false;
            return self.verb(|session| session.prepare_to_receive(Confirmation::Flush));
        }
        // Only to learn of an end or error that the user sent meanwhile.
        if self.session.is_over() { self.flush() } else { false }
    }

    fn flush(&mut self) -> bool {
        self.verb(HalfSession::flush)
    }

    fn verb(&mut self, issue: impl FnOnce(&mut HalfSession) -> Result<Outcome, VerbError>) -> bool {
        match issue(&mut self.session) {
            Ok(Outcome::Complete(ReturnCode::Ok)) => true,
            Ok(Outcome::Complete(code)) => {
                self.learn(code);
                true
            }
            Ok(Outcome::Waiting) | Err(_) => false,
        }
    }

    /// Ends the conversation as the program did, if it has ended.
    fn end_as_program(&mut self) -> bool {
        match self.ended {
            None => false,
            Some(Ending::Confirmed) => self.verb(HalfSession::confirmed),
            Some(Ending::Error(number)) => {
                let log = format!("the program ended with status {number}");
                self.end_session(Abend::Program, log.as_bytes())
            }
            Some(Ending::Died) => self.end_session(Abend::Service, b"the program died"),
            Some(Ending::Deadline) => {
                self.end_session(Abend::Timer, b"the program did not end in time")
            }
            Some(Ending::HostLost) => {
                self.cut = true;
                false
            }
        }
    }

    fn end_session(&mut self, why: Abend, log: &[u8]) -> bool {
        self.session.deallocate_abend(why, log).is_ok()
    }
}
