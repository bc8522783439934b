//! The calls of a conversation.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use conversation::fmh5::SyncLevel;
use conversation::half_session::{
    Abend, Confirmation, Data, MAX_SEND, Origin, Outcome, Received, State, Status, VerbError,
};
use conversation::{Attach, HalfSession, ReturnCode};

use crate::error::CallError;
use crate::transport::Transport;

/// What was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// Data, perhaps with what came behind them.
    Data(Data),
    /// The right to send, or a wish for confirmation.
    Status(Status),
}

/// A conversation. It has a descriptor, which is readable when
/// [`receive_immediate`](Self::receive_immediate) or
/// [`request_to_send_received`](Self::request_to_send_received) may find
/// something. Dropped, its connection is lost.
#[derive(Debug)]
pub struct Conversation {
    session: HalfSession,
    transport: Transport,
    timeout: Option<Duration>,
    asked: bool,
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.transport.as_fd()
    }
}

impl Conversation {
    pub(crate) fn begin(
        transport: Transport,
        attach: &Attach,
        timeout: Option<Duration>,
    ) -> Result<Self, CallError> {
        let mut session = HalfSession::new();
        let outcome = session.allocate(attach)?;
        let mut this = Self { session, transport, timeout, asked: false };
        this.complete(outcome)?;
        Ok(this)
    }

    /// CMECS: the state.
    pub fn state(&self) -> State {
        self.session.state()
    }

    /// CMESL: the sync level.
    pub fn sync_level(&self) -> SyncLevel {
        self.session.sync_level()
    }

    /// CMSEND: sends one record, at most [`MAX_SEND`] bytes. Waits while the
    /// partner reads more slowly than this side sends.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn send_data(&mut self, data: &[u8]) -> Result<(), CallError> {
        self.send(|session| session.send_data(data))
    }

    /// Tells the program that no more input will come, which verbs cannot say
    /// without ending the conversation: its output can still be received.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn end_of_input(&mut self) -> Result<(), CallError> {
        self.send(|session| session.send_user_control_data(b""))
    }

    fn send(
        &mut self,
        verb: impl Fn(&mut HalfSession) -> Result<Outcome, VerbError>,
    ) -> Result<(), CallError> {
        loop {
            match verb(&mut self.session) {
                Err(VerbError::Full) => {
                    self.push();
                    self.pull(self.timeout)?;
                }
                outcome => return self.complete(outcome?),
            }
        }
    }

    /// CMFLUS: what was sent goes out now.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn flush(&mut self) -> Result<(), CallError> {
        let outcome = self.session.flush()?;
        self.complete(outcome)
    }

    /// CMCFM: waits until the program has taken everything so far.
    ///
    /// # Errors
    /// [`CallError`], also the refusal of the conversation.
    pub fn confirm(&mut self) -> Result<(), CallError> {
        let outcome = self.session.confirm()?;
        self.complete(outcome)
    }

    /// CMCFMD: answers the partner's wish for confirmation.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn confirmed(&mut self) -> Result<(), CallError> {
        let outcome = self.session.confirmed()?;
        self.complete(outcome)
    }

    /// CMPTR: gives the partner the right to send.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn prepare_to_receive(&mut self, how: Confirmation) -> Result<(), CallError> {
        let outcome = self.session.prepare_to_receive(how)?;
        self.complete(outcome)
    }

    /// CMRTS: asks the partner for the right to send; it comes with a later
    /// receive.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn request_to_send(&mut self) -> Result<(), CallError> {
        let outcome = self.session.request_to_send()?;
        self.complete(outcome)
    }

    /// CMTRTS: whether the partner has asked for the right to send since the
    /// last call. Does not wait.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn request_to_send_received(&mut self) -> Result<bool, CallError> {
        self.look()?;
        self.asked |= self.session.take_request_to_send();
        Ok(std::mem::take(&mut self.asked))
    }

    /// CMSERR: reports an error; what is on its way to this side is lost, and
    /// this side may send.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn send_error(&mut self, log: &str) -> Result<(), CallError> {
        let outcome = self.session.send_error(Origin::Program, log.as_bytes())?;
        self.complete(outcome)
    }

    /// CMRCV, and wait: what comes next. Where this side may send, it gives the
    /// partner the right to first.
    ///
    /// # Errors
    /// [`CallError`]; the end of the conversation in order is
    /// [`ReturnCode::DeallocatedNormal`].
    pub fn receive(&mut self) -> Result<Incoming, CallError> {
        loop {
            let received = self.session.receive_and_wait(MAX_SEND)?;
            self.push();
            if let Some(incoming) = self.incoming(received)? {
                return Ok(incoming);
            }
            self.pull(self.timeout)?;
        }
    }

    /// CMRCV, immediate: the same if it is there already.
    ///
    /// # Errors
    /// [`CallError`], as for [`receive`](Self::receive).
    pub fn receive_immediate(&mut self) -> Result<Option<Incoming>, CallError> {
        self.look()?;
        let received = self.session.receive_immediate(MAX_SEND)?;
        self.push();
        self.incoming(received)
    }

    fn incoming(&self, received: Received) -> Result<Option<Incoming>, CallError> {
        match received {
            Received::Data(data) => Ok(Some(Incoming::Data(data))),
            Received::Status(status) => Ok(Some(Incoming::Status(status))),
            Received::Code(code) => Err(self.failed(code)),
            Received::Nothing => Ok(None),
        }
    }

    /// CMDEAL, sync level: ends the conversation. At sync level confirm it
    /// waits until the program has ended in order.
    ///
    /// # Errors
    /// [`CallError`]; the program's abnormal end is
    /// [`ReturnCode::DeallocatedAbend`] and its kin.
    pub fn deallocate(&mut self) -> Result<(), CallError> {
        let outcome = self.session.deallocate(Confirmation::SyncLevel)?;
        self.complete(outcome)
    }

    /// CMDEAL, abend: ends the conversation at once.
    ///
    /// # Errors
    /// [`CallError::Verb`] if it has ended.
    pub fn deallocate_abend(&mut self, log: &str) -> Result<(), CallError> {
        let outcome = self.session.deallocate_abend(Abend::Program, log.as_bytes())?;
        self.complete(outcome)
    }

    /// Waits for the code of a verb.
    fn complete(&mut self, outcome: Outcome) -> Result<(), CallError> {
        self.push();
        let code = match outcome {
            Outcome::Complete(code) => code,
            Outcome::Waiting => loop {
                if let Some(code) = self.session.completion() {
                    break code;
                }
                self.pull(self.timeout)?;
            },
        };
        if code == ReturnCode::Ok { Ok(()) } else { Err(self.failed(code)) }
    }

    fn failed(&self, code: ReturnCode) -> CallError {
        let log = String::from_utf8_lossy(self.session.partner_log()).into_owned();
        CallError::Code { code, log }
    }

    /// Sends what is to be sent. A connection that fails may still have the
    /// partner's last word to be read, so only reading ends the conversation.
    fn push(&mut self) {
        while !self.session.output().is_empty() {
            let bytes = self.session.output().to_vec();
            self.session.drain(bytes.len());
            if self.transport.send(&bytes).is_err() {
                return;
            }
        }
    }

    /// Reads once, waiting so long.
    fn pull(&mut self, timeout: Option<Duration>) -> Result<(), CallError> {
        match self.transport.wait(timeout) {
            Ok(true) => {}
            Ok(false) => return Err(CallError::Timeout),
            Err(_) => {
                self.session.disconnected();
                return Ok(());
            }
        }
        let mut bytes = Vec::new();
        match self.transport.read(&mut bytes) {
            // A broken protocol is the verb's news.
            Ok(Some(())) => drop(self.session.feed(&bytes)),
            Ok(None) | Err(_) => self.session.disconnected(),
        }
        self.push();
        Ok(())
    }

    /// Reads what is there.
    fn look(&mut self) -> Result<(), CallError> {
        while !self.session.is_over()
            && matches!(self.transport.wait(Some(Duration::ZERO)), Ok(true))
        {
            self.pull(Some(Duration::ZERO))?;
        }
        Ok(())
    }
}
