//! Whose turn it is.

use crate::frame::Ends;

/// A verb that waits for the partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pending {
    /// For a response to what was asked behind the data.
    Response(Ends),
    /// For the turn, which SEND_ERROR seized.
    Turn,
}

/// Who may send what; the view of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// No conversation yet.
    Idle,
    /// This side sends.
    Ours,
    /// This side has asked for a response, and waits.
    OursAsking(Ends),
    /// The partner sends.
    Theirs,
    /// The partner has asked for a response, and waits.
    TheirsAsking(Ends),
    /// This side has seized the turn; the partner has not stopped yet.
    Seized,
    /// This side has ended the conversation; it remains to send it.
    Closing,
    /// Nothing is expected and nothing is understood any more.
    Ended,
}

impl Turn {
    /// The turn after one side's data end with `ends`: `ours` if it is this one.
    pub(super) fn after(ends: Ends, ours: bool) -> Self {
        match (ends, ours) {
            (Ends::Nothing, true) | (Ends::Turn, false) => Self::Ours,
            (Ends::Nothing, false) | (Ends::Turn, true) => Self::Theirs,
            (Ends::End, true) => Self::Closing,
            (Ends::End, false) => Self::Ended,
            (asking, true) => Self::OursAsking(asking),
            (asking, false) => Self::TheirsAsking(asking),
        }
    }
}
