//! The verbs, but for receiving.

use super::{HalfSession, MAX_SEND, Mark, Outcome, Pending, State, Turn, Verb, VerbError};
use crate::ReturnCode;
use crate::fmh5::{Attach, ConversationType, SyncLevel};
use crate::fmh7::Fmh7;
use crate::frame::Ends;
use crate::gds::{self, GdsId};
use crate::sense::Sense;

/// How the turn is given, or a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confirmation {
    /// FLUSH: without asking.
    Flush,
    /// CONFIRM: and wait for CONFIRMED. Needs sync level confirm.
    Confirm,
    /// SYNC_LEVEL: whichever goes with the conversation's sync level.
    SyncLevel,
}

/// Whose error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The program's.
    Program,
    /// The system's, in the program's name.
    Service,
}

/// Why a conversation is ended abnormally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abend {
    /// The program ends it.
    Program,
    /// The system ends it.
    Service,
    /// The system ends it: out of time.
    Timer,
}

const DONE: Outcome = Outcome::Complete(ReturnCode::Ok);

impl HalfSession {
    /// ALLOCATE: begins a conversation; state SEND. The Attach waits in the send
    /// buffer, so a refusal shows at a later verb; CONFIRM asks at once.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn allocate(&mut self, attach: &Attach) -> Result<Outcome, VerbError> {
        self.check(Verb::Allocate)?;
        if self.turn != Turn::Idle {
            return Err(VerbError::Used);
        }
        let unit = attach.encode()?;
        self.begin_conversation(attach, Turn::Ours);
        self.outbound.attach(unit);
        self.state = State::Send;
        Ok(DONE)
    }

    /// Accepts the conversation whose Attach has arrived; state RECEIVE.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn accept(&mut self) -> Result<Attach, VerbError> {
        self.check(Verb::Accept)?;
        let attach = self.attach.take().ok_or(VerbError::NoAttach)?;
        self.state = State::Receive;
        Ok(attach)
    }

    /// Refuses the conversation whose Attach has arrived with a sense code that
    /// ends it; state RESET.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn reject(&mut self, sense: Sense, log: &[u8]) -> Result<Outcome, VerbError> {
        self.check(Verb::Reject)?;
        if sense.is_error_report() {
            let reason = "the sense code does not end a conversation";
            return Err(VerbError::Parameter { verb: Verb::Reject, reason });
        }
        self.attach.take().ok_or(VerbError::NoAttach)?;
        self.abort(&Fmh7 { sense, log: log.to_vec() });
        Ok(DONE)
    }

    /// SEND_DATA. Mapped: `data` are one record. Basic: they are any part of
    /// the stream of logical records. State SEND.
    ///
    /// # Errors
    /// [`VerbError`], also if the buffer is full; nothing has changed then.
    pub fn send_data(&mut self, data: &[u8]) -> Result<Outcome, VerbError> {
        self.send_record(GdsId::APPLICATION_DATA, data)
    }

    /// SEND_DATA of a mapped record of user-control data; as
    /// [`send_data`](Self::send_data) on a basic conversation.
    ///
    /// # Errors
    /// [`VerbError`], also if the buffer is full; nothing has changed then.
    pub fn send_user_control_data(&mut self, data: &[u8]) -> Result<Outcome, VerbError> {
        self.send_record(GdsId::USER_CONTROL_DATA, data)
    }

    fn send_record(&mut self, id: GdsId, data: &[u8]) -> Result<Outcome, VerbError> {
        self.check(Verb::SendData)?;
        if data.len() > MAX_SEND {
            return Err(VerbError::TooLong { length: data.len() });
        }
        // First: after an error neither the rest of a record nor a full buffer
        // means anything.
        if let Some(code) = self.news() {
            return Ok(Outcome::Complete(code));
        }
        if self.conversation_type == ConversationType::Mapped {
            if gds::encoded_len(data.len()) > self.outbound.room() {
                return Err(VerbError::Full);
            }
            self.outbound.data(&gds::encode(id, data));
        } else {
            let mut sent = self.sent.clone();
            sent.advance(data)?;
            if data.len() > self.outbound.room() {
                return Err(VerbError::Full);
            }
            self.outbound.data(data);
            self.sent = sent;
        }
        self.state = State::Send;
        self.settle();
        Ok(DONE)
    }

    /// FLUSH: what is in the send buffer goes out. State SEND.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn flush(&mut self) -> Result<Outcome, VerbError> {
        self.check(Verb::Flush)?;
        if let Some(code) = self.news() {
            return Ok(Outcome::Complete(code));
        }
        self.outbound.flush();
        self.state = State::Send;
        self.settle();
        Ok(DONE)
    }

    /// CONFIRM: waits until the partner confirms everything so far; then SEND.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn confirm(&mut self) -> Result<Outcome, VerbError> {
        self.stop(Verb::Confirm, Ends::Confirm, State::Send)
    }

    /// PREPARE_TO_RECEIVE: gives the partner the turn. State RECEIVE, with
    /// confirmation after the partner confirmed.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn prepare_to_receive(&mut self, how: Confirmation) -> Result<Outcome, VerbError> {
        let ends = if self.asks(how) { Ends::TurnConfirm } else { Ends::Turn };
        self.stop(Verb::PrepareToReceive, ends, State::Receive)
    }

    /// DEALLOCATE: ends the conversation. State RESET, with confirmation after
    /// the partner confirmed; if it answers with SEND_ERROR the conversation
    /// goes on, in RECEIVE.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn deallocate(&mut self, how: Confirmation) -> Result<Outcome, VerbError> {
        let ends = if self.asks(how) { Ends::EndConfirm } else { Ends::End };
        self.stop(Verb::Deallocate, ends, State::Reset)
    }

    /// DEALLOCATE(ABEND): ends the conversation at once, also while a verb
    /// waits. What is in the buffers is lost. State RESET.
    ///
    /// # Errors
    /// [`VerbError::StateCheck`] in RESET.
    pub fn deallocate_abend(&mut self, why: Abend, log: &[u8]) -> Result<Outcome, VerbError> {
        self.check(Verb::DeallocateAbend)?;
        let sense = match why {
            Abend::Program => Sense::ABEND_PROGRAM,
            Abend::Service => Sense::ABEND_SERVICE,
            Abend::Timer => Sense::ABEND_TIMER,
        };
        self.abort(&Fmh7 { sense, log: log.to_vec() });
        Ok(DONE)
    }

    /// CONFIRMED: answers the partner's wish for confirmation.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn confirmed(&mut self) -> Result<Outcome, VerbError> {
        self.check(Verb::Confirmed)?;
        if let Some(code) = self.news() {
            return Ok(Outcome::Complete(code));
        }
        self.outbound.positive_response();
        (self.state, self.turn) = match self.state {
            State::ConfirmSend => (State::Send, Turn::Ours),
            State::ConfirmDeallocate => (State::Reset, Turn::Closing),
            _ => (State::Receive, Turn::Theirs),
        };
        self.settle();
        Ok(DONE)
    }

    /// REQUEST_TO_SEND: tells the partner that this side would like to send.
    /// Where this side may send already it does nothing. The state stays.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn request_to_send(&mut self) -> Result<Outcome, VerbError> {
        self.check(Verb::RequestToSend)?;
        let receiving = matches!(self.state, State::Receive | State::Confirm);
        if receiving && self.turn != Turn::Ended {
            self.outbound.signal();
            self.settle();
        }
        Ok(DONE)
    }

    /// SEND_ERROR: reports an error, and this side sends on. State SEND. From
    /// RECEIVE it throws away what has arrived and not been received, and waits
    /// until the partner has stopped sending.
    ///
    /// # Errors
    /// [`VerbError`], also if the buffer is full; nothing has changed then.
    pub fn send_error(&mut self, whose: Origin, log: &[u8]) -> Result<Outcome, VerbError> {
        self.check(Verb::SendError)?;
        let (plain, truncated) = match whose {
            Origin::Program => (Sense::PROGRAM_ERROR, Sense::PROGRAM_ERROR_TRUNCATED),
            Origin::Service => (Sense::SERVICE_ERROR, Sense::SERVICE_ERROR_TRUNCATED),
        };
        let sense = if self.sent.at_boundary() { plain } else { truncated };
        let error = Fmh7 { sense, log: log.to_vec() };
        let outcome = match self.state {
            State::Send | State::SendPending => self.report_error(&error)?,
            State::Receive => match self.inbound.purge() {
                Some((code, log)) => {
                    self.learn(code, log);
                    Outcome::Complete(code)
                }
                None => self.seize(&error),
            },
            _ => match self.news() {
                Some(code) => Outcome::Complete(code),
                None => self.seize(&error),
            },
        };
        self.settle();
        Ok(outcome)
    }

    /// SEND_ERROR of the side that sends.
    fn report_error(&mut self, error: &Fmh7) -> Result<Outcome, VerbError> {
        if let Some(code) = self.news() {
            return Ok(Outcome::Complete(code));
        }
        if self.outbound.room() < crate::fmh7::MAX_LEN + super::MARK_COST {
            return Err(VerbError::Full);
        }
        self.outbound.error(error);
        self.sent.reset();
        self.state = State::Send;
        Ok(DONE)
    }

    /// SEND_ERROR of the side that receives.
    fn seize(&mut self, error: &Fmh7) -> Outcome {
        self.outbound.negative_response(error);
        self.state = State::Send;
        if self.turn == Turn::Theirs {
            self.turn = Turn::Seized;
            self.pending = Some(Pending::Turn);
            return Outcome::Waiting;
        }
        // It has stopped already.
        self.turn = Turn::Ours;
        DONE
    }

    /// Carries out a verb that stops sending: it leads to `state`, after the
    /// partner's response if `ends` asks for one.
    fn stop(&mut self, verb: Verb, ends: Ends, state: State) -> Result<Outcome, VerbError> {
        self.check(verb)?;
        if ends.asks_for_response() && self.sync_level == SyncLevel::None {
            return Err(VerbError::SyncLevel { verb });
        }
        if let Some(code) = self.news() {
            return Ok(Outcome::Complete(code));
        }
        self.check_boundary(verb)?;
        self.stop_sending(ends);
        if ends.asks_for_response() {
            self.state = State::Send;
            self.pending = Some(Pending::Response(ends));
            return Ok(Outcome::Waiting);
        }
        self.state = state;
        Ok(DONE)
    }

    pub(super) fn stop_sending(&mut self, ends: Ends) {
        self.outbound.end(ends);
        self.turn = Turn::after(ends, true);
        self.settle();
    }

    /// Ends the conversation here and, if it does not know, at the partner.
    fn abort(&mut self, error: &Fmh7) {
        self.pending = None;
        self.completed = None;
        self.inbound.purge();
        if self.turn != Turn::Ended {
            self.outbound.abort(error);
            self.turn = Turn::Closing;
        }
        self.state = State::Reset;
        self.settle();
    }

    fn asks(&self, how: Confirmation) -> bool {
        match how {
            Confirmation::Flush => false,
            Confirmation::Confirm => true,
            Confirmation::SyncLevel => self.sync_level == SyncLevel::Confirm,
        }
    }

    pub(super) fn check(&self, verb: Verb) -> Result<(), VerbError> {
        let waiting = self.pending.is_some() || self.completed.is_some();
        if waiting && verb != Verb::DeallocateAbend {
            return Err(VerbError::Busy);
        }
        if !verb.is_allowed_in(self.state) {
            return Err(VerbError::StateCheck { verb, state: self.state });
        }
        Ok(())
    }

    pub(super) fn check_boundary(&self, verb: Verb) -> Result<(), VerbError> {
        if self.sent.at_boundary() { Ok(()) } else { Err(VerbError::RecordUnfinished { verb }) }
    }

    /// What the partner said that this verb is the first to tell; the verb has
    /// no effect then.
    pub(super) fn news(&mut self) -> Option<ReturnCode> {
        match self.inbound.take_mark(|mark| matches!(mark, Mark::Code { .. }))? {
            Mark::Code { code, log } => {
                self.learn(code, log);
                self.settle();
                Some(code)
            }
            Mark::Status(_) => None,
        }
    }
}
