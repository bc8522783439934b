//! The verbs that stop sending, report errors and end a conversation.

use super::verbs::DONE;
use super::{HalfSession, Outcome, Pending, State, Turn, Verb, VerbError};
use crate::fmh5::SyncLevel;
use crate::fmh7::Fmh7;
use crate::frame::Ends;
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

impl HalfSession {
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
    pub(super) fn abort(&mut self, error: &Fmh7) {
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
}
