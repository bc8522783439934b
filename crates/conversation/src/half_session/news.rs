//! How the program learns what the partner, or its absence, has done to the
//! conversation.

use super::{HalfSession, Mark, Pending, ProtocolError, State, Turn};
use crate::ReturnCode;
use crate::fmh7::Fmh7;
use crate::frame::{Decoder, Ends};
use crate::sense::Sense;

impl HalfSession {
    /// The conversation is over and the partner knows.
    pub(super) fn end_by_partner(&mut self, code: ReturnCode, log: Vec<u8>) {
        self.turn = Turn::Ended;
        self.outbound.clear();
        self.end_for_program(code, log);
    }

    /// The conversation is over; the program learns of it in its place.
    pub(super) fn end_for_program(&mut self, code: ReturnCode, log: Vec<u8>) {
        if self.pending.is_some() {
            self.complete(code, log);
        } else {
            self.inbound.mark(Mark::Code { code, log });
        }
    }

    /// The partner broke the protocol: both sides are told, nothing received is
    /// trusted any more.
    pub(super) fn fail(&mut self, error: &ProtocolError) {
        match self.turn {
            Turn::Ended => return,
            Turn::Closing => self.outbound.clear(),
            turn => {
                let answer = match error {
                    ProtocolError::Attach(attach) => Fmh7::new(attach.sense()),
                    _ => Fmh7 { sense: Sense::ABEND_SERVICE, log: error.to_string().into_bytes() },
                };
                if turn == Turn::Idle {
                    self.outbound.open();
                }
                self.outbound.abort(&answer);
                self.inbound.purge();
                if turn != Turn::Idle {
                    self.end_for_program(ReturnCode::ResourceFailureNoRetry, Vec::new());
                }
            }
        }
        self.turn = Turn::Ended;
        self.decoder = Decoder::default();
    }

    /// The verb that waited is complete.
    pub(super) fn complete(&mut self, code: ReturnCode, log: Vec<u8>) {
        let pending = self.pending.take();
        self.completed = Some(code);
        if code == ReturnCode::Ok {
            self.state = match pending {
                Some(Pending::Response(Ends::TurnConfirm)) => State::Receive,
                Some(Pending::Response(Ends::EndConfirm)) => State::Reset,
                _ => State::Send,
            };
        } else {
            self.learn(code, log);
        }
    }

    /// The program learns what the partner said.
    pub(super) fn learn(&mut self, code: ReturnCode, log: Vec<u8>) {
        self.log = log;
        self.state = if code.is_error_report() { State::Receive } else { State::Reset };
    }
}
