//! What each record from the partner does.

use super::{HalfSession, Mark, Pending, ProtocolError, Status, Turn};
use crate::ReturnCode;
use crate::fmh5::{Attach, SyncLevel};
use crate::fmh7::Fmh7;
use crate::frame::{Ends, Record};

impl HalfSession {
    /// Takes bytes that the transport brought, all of them, cut as they may be.
    ///
    /// # Errors
    /// [`ProtocolError`] if the partner broke the protocol. The conversation is
    /// over then, the program learns it as
    /// [`ReturnCode::ResourceFailureNoRetry`], the output has the answer for
    /// the partner, and what is fed later is ignored.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let result = self.feed_records(bytes);
        if let Err(error) = &result {
            self.fail(error);
        }
        self.settle();
        result
    }

    fn feed_records(&mut self, mut bytes: &[u8]) -> Result<(), ProtocolError> {
        while !bytes.is_empty() && self.turn != Turn::Ended {
            let Some(record) = self.decoder.take(&mut bytes)? else { break };
            self.on_record(record)?;
            self.settle();
        }
        Ok(())
    }

    fn on_record(&mut self, record: Record) -> Result<(), ProtocolError> {
        if let Record::Attach(unit) = &record {
            return self.on_attach(unit);
        }
        if self.turn == Turn::Idle || !self.outbound.is_opened() {
            return Err(unexpected(&record, "before there is a conversation"));
        }
        match record {
            Record::Attach(_) => Ok(()),
            Record::Signal => {
                self.request_to_send = true;
                Ok(())
            }
            Record::Credit(bytes) => self.outbound.credit(bytes),
            Record::Data { unit, ends } => self.on_data(unit, ends),
            Record::Error { unit, last: true } => self.on_last_error(&unit),
            Record::Error { unit, last: false } => self.on_error(unit),
            Record::NegativeResponse(unit) => self.on_negative_response(unit),
            Record::PositiveResponse => self.on_positive_response(),
        }
    }

    fn on_attach(&mut self, unit: &[u8]) -> Result<(), ProtocolError> {
        if self.turn != Turn::Idle {
            let moment = "when there is a conversation";
            return Err(ProtocolError::Unexpected { record: "Attach", moment });
        }
        let attach = Attach::decode(unit)?;
        self.begin_conversation(&attach, Turn::Theirs);
        self.outbound.open();
        self.attach = Some(attach);
        Ok(())
    }

    fn on_data(&mut self, unit: Vec<u8>, ends: Ends) -> Result<(), ProtocolError> {
        if ends.asks_for_response() && self.sync_level == SyncLevel::None {
            return Err(ProtocolError::ConfirmNotAgreed);
        }
        match self.turn {
            Turn::Theirs => {
                self.inbound.put(&unit)?;
                self.stopped(ends)
            }
            Turn::Seized => {
                self.inbound.discard(unit.len())?;
                self.stopped_after_seizure(ends);
                Ok(())
            }
            Turn::Closing => Ok(()),
            _ => Err(unexpected(&Record::Data { unit, ends }, "while it is not its turn")),
        }
    }

    /// The partner's data end with `ends`.
    fn stopped(&mut self, ends: Ends) -> Result<(), ProtocolError> {
        let status = match ends {
            Ends::Nothing => return Ok(()),
            Ends::Confirm => Status::Confirm,
            Ends::Turn => Status::Send,
            Ends::TurnConfirm => Status::ConfirmSend,
            Ends::EndConfirm => Status::ConfirmDeallocate,
            Ends::End if self.inbound.at_boundary() => {
                self.end_by_partner(ReturnCode::DeallocatedNormal, Vec::new());
                return Ok(());
            }
            Ends::End => return Err(ProtocolError::RecordUnfinished),
        };
        if !self.inbound.at_boundary() {
            return Err(ProtocolError::RecordUnfinished);
        }
        self.turn = Turn::after(ends, false);
        self.inbound.mark(Mark::Status(status));
        Ok(())
    }

    /// The same for a partner whose turn was seized: whatever it asked for, it
    /// has stopped, and the negative response is its answer.
    fn stopped_after_seizure(&mut self, ends: Ends) {
        match ends {
            Ends::Nothing => {}
            Ends::End => self.end_by_partner(ReturnCode::DeallocatedNormal, Vec::new()),
            _ => {
                self.turn = Turn::Ours;
                self.inbound.restart_records();
                if self.pending == Some(Pending::Turn) {
                    self.complete(ReturnCode::Ok, Vec::new());
                }
            }
        }
    }

    /// An error that ends the conversation.
    fn on_last_error(&mut self, unit: &[u8]) -> Result<(), ProtocolError> {
        let Fmh7 { sense, log } = Fmh7::decode(unit)?;
        if sense.is_error_report() {
            return Err(ProtocolError::SenseMisplaced(sense));
        }
        if self.turn == Turn::Closing {
            self.turn = Turn::Ended;
            self.outbound.clear();
        } else {
            self.end_by_partner(sense.return_code(false), log);
        }
        Ok(())
    }

    /// An error from a partner that has the turn.
    fn on_error(&mut self, unit: Vec<u8>) -> Result<(), ProtocolError> {
        let Fmh7 { sense, log } = report(&unit)?;
        match self.turn {
            Turn::Theirs => self.inbound.report(sense.return_code(false), log, unit.len()),
            Turn::Seized => self.inbound.discard(unit.len() + super::MARK_COST),
            Turn::Closing => Ok(()),
            _ => {
                let record = Record::Error { unit, last: false };
                Err(unexpected(&record, "while it is not its turn"))
            }
        }
    }

    /// An error from a partner that was receiving: it seizes the turn.
    fn on_negative_response(&mut self, unit: Vec<u8>) -> Result<(), ProtocolError> {
        let Fmh7 { sense, log } = report(&unit)?;
        let code = sense.return_code(true);
        match self.turn {
            // Both sides seized; this one's partner has yet to stop.
            Turn::Seized => return self.inbound.discard(unit.len() + super::MARK_COST),
            Turn::Closing => {
                self.outbound.drop_data();
                return Ok(());
            }
            Turn::Ours => {
                self.outbound.drop_data();
                self.outbound.end(Ends::Turn);
            }
            // It has stopped before it learnt of the error.
            Turn::OursAsking(_) | Turn::Theirs => self.outbound.drop_data(),
            Turn::Idle | Turn::TheirsAsking(_) | Turn::Ended => {
                let record = Record::NegativeResponse(unit);
                return Err(unexpected(&record, "while it waits for a response"));
            }
        }
        self.sent.reset();
        self.turn = Turn::Theirs;
        if self.pending.is_some() {
            self.inbound.discard(unit.len() + super::MARK_COST)?;
            self.complete(code, log);
            return Ok(());
        }
        self.inbound.report(code, log, unit.len())
    }

    fn on_positive_response(&mut self) -> Result<(), ProtocolError> {
        match self.turn {
            Turn::OursAsking(ends) if self.outbound.is_empty() => {
                self.turn = match ends {
                    Ends::TurnConfirm => Turn::Theirs,
                    Ends::EndConfirm => Turn::Ended,
                    _ => Turn::Ours,
                };
                self.complete(ReturnCode::Ok, Vec::new());
                Ok(())
            }
            Turn::Closing => Ok(()),
            _ => Err(unexpected(&Record::PositiveResponse, "that nobody asked for")),
        }
    }
}

/// An FMH-7 after which the conversation goes on.
fn report(unit: &[u8]) -> Result<Fmh7, ProtocolError> {
    let error = Fmh7::decode(unit)?;
    if error.sense.is_error_report() {
        Ok(error)
    } else {
        Err(ProtocolError::SenseMisplaced(error.sense))
    }
}

fn unexpected(record: &Record, moment: &'static str) -> ProtocolError {
    let record = match record {
        Record::Attach(_) => "Attach",
        Record::Data { .. } => "data",
        Record::Error { .. } => "error",
        Record::NegativeResponse(_) => "negative response",
        Record::PositiveResponse => "positive response",
        Record::Signal => "signal",
        Record::Credit(_) => "credit",
    };
    ProtocolError::Unexpected { record, moment }
}
