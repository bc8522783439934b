//! One side of a conversation: verbs in, bytes out; bytes in, indications out.
//!
//! ```text
//!          ALLOCATE ┌───────┐ Attach arrives, ACCEPT
//!        ┌──────────┤ RESET ├──────────┐
//!        ▼          └───▲───┘          ▼
//!   ┌────────┐  turn    │ end     ┌─────────┐ asked to confirm  ┌─────────┐
//!   │  SEND  ├──────────┼────────►│ RECEIVE ├──────────────────►│ CONFIRM │
//!   │        │◄─────────┼─────────┤         │◄──────────────────┤         │
//!   └────────┘  turn    │         └─────────┘     CONFIRMED     └─────────┘
//!   CONFIRM-SEND goes on to SEND, CONFIRM-DEALLOCATE to RESET;
//!   SEND-PENDING is SEND, entered with data and turn at once.
//! ```
//!
//! The *state* is what the program knows. The *turn* is what the wire knows,
//! and is ahead of it by what lies in the queues:
//!
//! - Whoever has the turn sends data and may end it: by giving the turn, by
//!   asking for confirmation, by ending the conversation.
//! - The other side may send a response it owes, a wish to send, and a negative
//!   response (SEND_ERROR). With that it *seizes* the turn: it throws away what
//!   arrives until the partner has stopped. The partner stops when it learns of
//!   the error, unless it has stopped before, so there is exactly one stop.
//! - An error that ends the conversation may come from either side at any time.
//!
//! Failure paths: nonsense from the partner and a lost connection end the
//! conversation here at once; the program learns of it at its next verb, in
//! place behind data that arrived before the connection was lost.
//!
//! Each direction has a window of [`WINDOW`] bytes. A sender spends it; the
//! receiver gives it back as its program receives. So the transport can be read
//! at all times, and a program that receives nothing stops its partner only.

mod ending;
mod error;
mod inbound;
mod incoming;
mod news;
mod outbound;
mod receive;
mod state;
mod turn;
mod verbs;

use crate::ReturnCode;
use crate::fmh5::{Attach, ConversationType, SyncLevel};
use crate::frame::Decoder;
use crate::record::RecordTracker;

pub use ending::{Abend, Confirmation, Origin};
pub use error::{ProtocolError, VerbError};
use inbound::{Inbound, Mark};
use outbound::Outbound;
pub use receive::{Data, Received, Status};
pub use state::{State, Verb};
use turn::{Pending, Turn};

/// Bytes each side may send before its partner's program has received any.
pub const WINDOW: usize = 64 * 1024;
/// Bytes that wait for credit or transport before SEND_DATA is refused.
pub const SEND_BUFFER: usize = 64 * 1024;
/// Bytes that one SEND_DATA takes.
pub const MAX_SEND: usize = 32_767;
/// No half-session ever holds more bytes than this; see
/// [`HalfSession::held_bytes`].
pub const MAX_HELD: usize = 256 * 1024;

/// Window that an error report takes besides its own bytes.
const MARK_COST: usize = 64;

/// What a verb that was carried out came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It is complete. A code other than [`ReturnCode::Ok`] is news from the
    /// partner, and the verb itself had no effect.
    Complete(ReturnCode),
    /// It waits for the partner; feed what the partner sends until
    /// [`HalfSession::completion`] has the code.
    Waiting,
}

/// One side of one conversation, on one connection. It does nothing by itself:
/// its owner issues verbs, moves [`output`](Self::output) to the transport and
/// [feeds](Self::feed) it what the transport brings.
#[derive(Debug, Clone)]
pub struct HalfSession {
    state: State,
    turn: Turn,
    conversation_type: ConversationType,
    sync_level: SyncLevel,
    /// The partner's Attach, until it is accepted or refused.
    attach: Option<Attach>,
    pending: Option<Pending>,
    /// Code of a verb that waited, until it is taken.
    completed: Option<ReturnCode>,
    decoder: Decoder,
    inbound: Inbound,
    outbound: Outbound,
    /// Where the program is in the logical record it sends.
    sent: RecordTracker,
    request_to_send: bool,
    log: Vec<u8>,
}

impl Default for HalfSession {
    fn default() -> Self {
        Self::new()
    }
}

impl HalfSession {
    /// A half-session in state RESET, for either side.
    pub fn new() -> Self {
        let conversation_type = ConversationType::Mapped;
        Self {
            state: State::Reset,
            turn: Turn::Idle,
            conversation_type,
            sync_level: SyncLevel::None,
            attach: None,
            pending: None,
            completed: None,
            decoder: Decoder::default(),
            inbound: Inbound::new(conversation_type),
            outbound: Outbound::new(),
            sent: RecordTracker::new(conversation_type),
            request_to_send: false,
            log: Vec::new(),
        }
    }

    /// The state, as the program knows it.
    pub fn state(&self) -> State {
        self.state
    }

    /// Basic or mapped; mapped before there is an Attach.
    pub fn conversation_type(&self) -> ConversationType {
        self.conversation_type
    }

    /// None or confirm; none before there is an Attach.
    pub fn sync_level(&self) -> SyncLevel {
        self.sync_level
    }

    /// The Attach that has arrived and is neither accepted nor refused.
    pub fn attach(&self) -> Option<&Attach> {
        self.attach.as_ref()
    }

    /// The code of a verb that returned [`Outcome::Waiting`], once it is there.
    /// Until it is taken, further verbs but DEALLOCATE(ABEND) are
    /// [`VerbError::Busy`].
    pub fn completion(&mut self) -> Option<ReturnCode> {
        self.completed.take()
    }

    /// True if a verb waits for the partner.
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the partner has issued REQUEST_TO_SEND since the last call.
    pub fn take_request_to_send(&mut self) -> bool {
        std::mem::take(&mut self.request_to_send)
    }

    /// Log data that came with the error code returned last; empty for none.
    pub fn partner_log(&self) -> &[u8] {
        &self.log
    }

    /// Bytes for the transport, in order; [`drain`](Self::drain) them as it
    /// takes them. More may appear after every verb, feed and drain.
    pub fn output(&self) -> &[u8] {
        self.outbound.wire()
    }

    /// Says that the transport has taken `length` bytes of the output.
    pub fn drain(&mut self, length: usize) {
        self.outbound.drain(length);
        self.settle();
    }

    /// Bytes that SEND_DATA has room for now, framing of records included.
    pub fn room(&self) -> usize {
        self.outbound.room()
    }

    /// True if the partner has ended the conversation or the connection is
    /// lost, even if the program has not received everything in front of that.
    pub fn is_over(&self) -> bool {
        self.turn == Turn::Ended
    }

    /// True if there was a conversation, the program knows that it is over, and
    /// all output has been taken: the connection can be closed.
    pub fn is_finished(&self) -> bool {
        matches!(self.turn, Turn::Closing | Turn::Ended)
            && self.state == State::Reset
            && self.completed.is_none()
            && self.outbound.is_empty()
            && self.output().is_empty()
    }

    /// Bytes held: received and not yet taken, sent and not yet drained, and
    /// the unfinished record and the Attach that arrived. Never more than
    /// [`MAX_HELD`].
    pub fn held_bytes(&self) -> usize {
        let attach = if self.attach.is_some() { crate::frame::MAX_UNIT } else { 0 };
        self.decoder.held() + self.inbound.held() + self.outbound.held() + attach
    }

    /// Tells that the connection is lost, or was closed by the partner. A
    /// conversation that was not over ends with
    /// [`ReturnCode::ResourceFailureRetry`].
    pub fn disconnected(&mut self) {
        match self.turn {
            Turn::Ended => {}
            Turn::Idle | Turn::Closing => {
                self.turn = Turn::Ended;
                self.outbound.clear();
            }
            _ => self.end_by_partner(ReturnCode::ResourceFailureRetry, Vec::new()),
        }
    }

    fn begin_conversation(&mut self, attach: &Attach, turn: Turn) {
        self.conversation_type = attach.conversation_type;
        self.sync_level = attach.sync_level;
        self.inbound = Inbound::new(attach.conversation_type);
        self.sent = RecordTracker::new(attach.conversation_type);
        self.turn = turn;
    }

    /// Grants what has been received, and makes records.
    fn settle(&mut self) {
        if !matches!(self.turn, Turn::Closing | Turn::Ended) && self.outbound.takes_grant() {
            let grant = self.inbound.take_grant();
            self.outbound.grant(grant);
        }
        self.outbound.pump();
    }
}
