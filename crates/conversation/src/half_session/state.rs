//! States, verbs, and which verb is allowed in which state.

use std::fmt;

/// State of one side of a conversation, as LU 6.2 names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// There is no conversation, not yet or no longer.
    Reset,
    /// This side may send.
    Send,
    /// This side got data and the turn at once, and may send.
    SendPending,
    /// This side may receive.
    Receive,
    /// The partner waits for CONFIRMED and will go on sending.
    Confirm,
    /// The partner waits for CONFIRMED; then this side may send.
    ConfirmSend,
    /// The partner waits for CONFIRMED; then the conversation is over.
    ConfirmDeallocate,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Reset,
        Self::Send,
        Self::SendPending,
        Self::Receive,
        Self::Confirm,
        Self::ConfirmSend,
        Self::ConfirmDeallocate,
    ];
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reset => "RESET",
            Self::Send => "SEND",
            Self::SendPending => "SEND-PENDING",
            Self::Receive => "RECEIVE",
            Self::Confirm => "CONFIRM",
            Self::ConfirmSend => "CONFIRM-SEND",
            Self::ConfirmDeallocate => "CONFIRM-DEALLOCATE",
        })
    }
}

/// A verb. GET_ATTRIBUTES, which is always allowed, is the accessors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is the method of the same name")]
pub enum Verb {
    Allocate,
    Accept,
    Reject,
    SendData,
    Flush,
    Confirm,
    PrepareToReceive,
    ReceiveAndWait,
    ReceiveImmediate,
    Confirmed,
    RequestToSend,
    SendError,
    Deallocate,
    DeallocateAbend,
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 14] = [
        Self::Allocate,
        Self::Accept,
        Self::Reject,
        Self::SendData,
        Self::Flush,
        Self::Confirm,
        Self::PrepareToReceive,
        Self::ReceiveAndWait,
        Self::ReceiveImmediate,
        Self::Confirmed,
        Self::RequestToSend,
        Self::SendError,
        Self::Deallocate,
        Self::DeallocateAbend,
    ];

    /// True if the verb may be issued in `state`. Elsewhere it gets a state
    /// check and changes nothing.
    pub fn is_allowed_in(self, state: State) -> bool {
        let sending = matches!(state, State::Send | State::SendPending);
        let confirming =
            matches!(state, State::Confirm | State::ConfirmSend | State::ConfirmDeallocate);
        match self {
            Self::Allocate | Self::Accept | Self::Reject => state == State::Reset,
            Self::SendData
            | Self::Flush
            | Self::Confirm
            | Self::PrepareToReceive
            | Self::Deallocate => sending,
            Self::ReceiveAndWait => sending || state == State::Receive,
            Self::ReceiveImmediate => state == State::Receive,
            Self::Confirmed => confirming,
            Self::RequestToSend | Self::SendError | Self::DeallocateAbend => state != State::Reset,
        }
    }
}

impl fmt::Display for Verb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allocate => "ALLOCATE",
            Self::Accept => "ACCEPT",
            Self::Reject => "the refusal of an Attach",
            Self::SendData => "SEND_DATA",
            Self::Flush => "FLUSH",
            Self::Confirm => "CONFIRM",
            Self::PrepareToReceive => "PREPARE_TO_RECEIVE",
            Self::ReceiveAndWait => "RECEIVE_AND_WAIT",
            Self::ReceiveImmediate => "RECEIVE_IMMEDIATE",
            Self::Confirmed => "CONFIRMED",
            Self::RequestToSend => "REQUEST_TO_SEND",
            Self::SendError => "SEND_ERROR",
            Self::Deallocate => "DEALLOCATE",
            Self::DeallocateAbend => "DEALLOCATE(ABEND)",
        })
    }
}
