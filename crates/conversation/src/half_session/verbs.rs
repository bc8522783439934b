//! The verbs that begin a conversation and send.
//!
//! What every verb does first is here too: is it allowed, and has the partner
//! said something that the program does not know yet?

use super::{HalfSession, MAX_SEND, Mark, Outcome, State, Turn, Verb, VerbError};
use crate::ReturnCode;
use crate::fmh5::{Attach, ConversationType};
use crate::fmh7::Fmh7;
use crate::gds::{self, GdsId};
use crate::sense::Sense;

pub(super) const DONE: Outcome = Outcome::Complete(ReturnCode::Ok);

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
