//! RECEIVE_AND_WAIT and RECEIVE_IMMEDIATE.

use super::inbound::Next;
use super::{HalfSession, Mark, State, Verb, VerbError};
use crate::ReturnCode;
use crate::frame::Ends;
use crate::gds::GdsId;

/// What the partner gave up or asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// This side may send.
    Send,
    /// Answer with CONFIRMED or SEND_ERROR; then go on receiving.
    Confirm,
    /// The same; then this side may send.
    ConfirmSend,
    /// The same; with CONFIRMED the conversation is over.
    ConfirmDeallocate,
}

/// Data of one logical record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The bytes. On a basic conversation they begin with the record's LL.
    pub bytes: Vec<u8>,
    /// True if the record ends with them; otherwise the next RECEIVE has more
    /// of it, or the partner truncated it.
    pub complete: bool,
    /// [`GdsId::APPLICATION_DATA`] or, on a mapped conversation,
    /// [`GdsId::USER_CONTROL_DATA`].
    pub id: GdsId,
    /// What came behind the record, if it was already there.
    pub status: Option<Status>,
}

/// What there was to receive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Received {
    /// Data, perhaps with a status.
    Data(Data),
    /// A status alone.
    Status(Status),
    /// An error report, after which the state is RECEIVE, or the end of the
    /// conversation.
    Code(ReturnCode),
    /// Nothing yet: feed more and receive again. It is CPI-C's *unsuccessful*
    /// for RECEIVE_IMMEDIATE.
    Nothing,
}

impl HalfSession {
    /// RECEIVE_AND_WAIT: up to `max` bytes of one logical record, or what else
    /// comes next. In SEND and SEND-PENDING it flushes and gives the partner
    /// the turn first. It does not wait by itself: with
    /// [`Received::Nothing`] its caller does.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn receive_and_wait(&mut self, max: usize) -> Result<Received, VerbError> {
        let verb = Verb::ReceiveAndWait;
        self.check(verb)?;
        check_room(verb, max)?;
        if self.state != State::Receive {
            if let Some(code) = self.news() {
                return Ok(Received::Code(code));
            }
            self.check_boundary(verb)?;
            self.stop_sending(Ends::Turn);
            self.state = State::Receive;
        }
        Ok(self.receive(max))
    }

    /// RECEIVE_IMMEDIATE: the same, in RECEIVE only.
    ///
    /// # Errors
    /// [`VerbError`]; nothing has changed then.
    pub fn receive_immediate(&mut self, max: usize) -> Result<Received, VerbError> {
        self.check(Verb::ReceiveImmediate)?;
        check_room(Verb::ReceiveImmediate, max)?;
        Ok(self.receive(max))
    }

    fn receive(&mut self, max: usize) -> Received {
        let received = match self.inbound.next(max) {
            Next::Nothing => Received::Nothing,
            Next::Mark(Mark::Code { code, log }) => {
                self.learn(code, log);
                Received::Code(code)
            }
            Next::Mark(Mark::Status(status)) => {
                self.state = state_after(status, false);
                Received::Status(status)
            }
            Next::Data { bytes, complete, id } => {
                let mark = self.inbound.take_mark(|mark| matches!(mark, Mark::Status(_)));
                let status = match mark {
                    Some(Mark::Status(status)) => Some(status),
                    _ => None,
                };
                if let Some(status) = status {
                    self.state = state_after(status, true);
                }
                Received::Data(Data { bytes, complete, id, status })
            }
        };
        self.settle();
        received
    }
}

fn check_room(verb: Verb, max: usize) -> Result<(), VerbError> {
    if max == 0 {
        return Err(VerbError::Parameter { verb, reason: "room for no byte" });
    }
    Ok(())
}

fn state_after(status: Status, with_data: bool) -> State {
    match status {
        Status::Send if with_data => State::SendPending,
        Status::Send => State::Send,
        Status::Confirm => State::Confirm,
        Status::ConfirmSend => State::ConfirmSend,
        Status::ConfirmDeallocate => State::ConfirmDeallocate,
    }
}
