//! What can be wrong with a verb, and with what the partner sends.

use thiserror::Error;

use super::{MAX_SEND, State, Verb};
use crate::ReturnCode;
use crate::fmh5::{DecodeError, EncodeError};
use crate::fmh7::Fmh7Error;
use crate::frame::FrameError;
use crate::gds::GdsError;
use crate::sense::Sense;

/// Why a verb was not carried out. The local program is to blame; nothing has
/// changed, neither state nor buffers.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum VerbError {
    /// The state does not allow the verb.
    #[error("{verb} is not allowed in state {state}")]
    StateCheck {
        /// The verb.
        verb: Verb,
        /// The state, which stays.
        state: State,
    },
    /// The verb would cut a logical record in two.
    #[error("{verb} in the middle of a logical record; send the rest of it first")]
    RecordUnfinished {
        /// The verb.
        verb: Verb,
    },
    /// A half-session carries one conversation, and this one has had it.
    #[error("this half-session has had its conversation; open another connection")]
    Used,
    /// No Attach has arrived that could be accepted or refused.
    #[error("no Attach has arrived")]
    NoAttach,
    /// An earlier verb waits for the partner, or its return code has not been
    /// taken.
    #[error("an earlier verb is not complete")]
    Busy,
    /// The send buffer has no room: drain the output, feed what the partner
    /// sends, and try again.
    #[error("the send buffer is full; the partner reads more slowly than this side sends")]
    Full,
    /// Confirmation, on a conversation of sync level none.
    #[error("{verb} with confirmation needs sync level confirm")]
    SyncLevel {
        /// The verb.
        verb: Verb,
    },
    /// More bytes than one SEND_DATA takes.
    #[error("{length} bytes in one SEND_DATA; {MAX_SEND} are possible")]
    TooLong {
        /// How many were given.
        length: usize,
    },
    /// The program's logical records are malformed.
    #[error("malformed logical record in SEND_DATA")]
    Record(#[from] GdsError),
    /// Room for no byte at all in RECEIVE, or a sense code in a refusal that
    /// does not end a conversation.
    #[error("a parameter of {verb} is wrong: {reason}")]
    Parameter {
        /// The verb.
        verb: Verb,
        /// What is wrong.
        reason: &'static str,
    },
    /// The Attach does not fit its format.
    #[error("ALLOCATE with an Attach that cannot be sent")]
    Attach(#[from] EncodeError),
}

impl VerbError {
    /// What CPI-C returns for it.
    pub fn return_code(&self) -> ReturnCode {
        match self {
            Self::StateCheck { .. }
            | Self::RecordUnfinished { .. }
            | Self::Used
            | Self::NoAttach => ReturnCode::ProgramStateCheck,
            Self::Busy => ReturnCode::OperationNotAccepted,
            Self::Full => ReturnCode::Unsuccessful,
            Self::SyncLevel { .. }
            | Self::TooLong { .. }
            | Self::Record(_)
            | Self::Parameter { .. }
            | Self::Attach(_) => ReturnCode::ProgramParameterCheck,
        }
    }
}

/// What the partner did that the protocol does not allow. The partner is to
/// blame; the conversation is over, and the output ends with an FMH-7 that
/// tells the partner so.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// Its bytes are no records.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Its Attach cannot be served.
    #[error(transparent)]
    Attach(#[from] DecodeError),
    /// Its error description is malformed.
    #[error(transparent)]
    Fmh7(#[from] Fmh7Error),
    /// Its logical records are malformed.
    #[error("from the partner: {0}")]
    Record(#[from] GdsError),
    /// It sent a record when it was not its turn to.
    #[error("{record} from the partner {moment}")]
    Unexpected {
        /// The kind of record.
        record: &'static str,
        /// When that was.
        moment: &'static str,
    },
    /// It sent more than it had credit for.
    #[error("the partner sent more than it was granted")]
    WindowExceeded,
    /// It granted more than the window.
    #[error("the partner granted more than was sent to it")]
    CreditExceeded,
    /// It stopped sending in the middle of a logical record.
    #[error("the partner gave up the turn in the middle of a logical record")]
    RecordUnfinished,
    /// It asked for confirmation on a conversation of sync level none.
    #[error("the partner asked for confirmation; the sync level is none")]
    ConfirmNotAgreed,
    /// It sent a sense code that ends conversations and went on, or the other
    /// way round.
    #[error("sense code {0} from the partner has no place here")]
    SenseMisplaced(Sense),
}
