//! What goes into the conversation manager and what comes out.

use std::time::Duration;

use crate::names::{ConversationId, Group, MemberId, PoolName, Tpn, UserId};

/// An ALLOCATE: who wants which program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Who asks; somebody else has made sure that it is this user.
    pub user: UserId,
    /// The groups the user is in.
    pub groups: Vec<Group>,
    /// The program.
    pub tpn: Tpn,
    /// The pool, if the user names one.
    pub pool: Option<PoolName>,
}

/// What happened. An event that does not fit what its machine or conversation
/// is doing is late and changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A machine is ready: the answer to [`Action::Build`] and [`Action::Rebuild`].
    Built(MemberId),
    /// It could not be built.
    BuildFailed {
        /// Which machine.
        member: MemberId,
        /// What the operator is to be told.
        why: String,
    },
    /// The client is gone. A waiting claim is forgotten without an answer; a
    /// conversation ends with [`Ending::LostConnection`].
    ClientGone(ConversationId),
    /// The machine said yes: from now on it wears the user's id.
    Accepted(ConversationId),
    /// A conversation ended, accepted or not.
    Ended {
        /// Which.
        conversation: ConversationId,
        /// How.
        how: Ending,
    },
    /// A machine is as it was captured: the answer to [`Action::Restore`].
    Restored(MemberId),
    /// It is not, and must not be used any more.
    RestoreFailed {
        /// Which machine.
        member: MemberId,
        /// What the operator is to be told.
        why: String,
    },
    /// A machine ended by itself.
    Died {
        /// Which machine.
        member: MemberId,
        /// What the operator is to be told.
        why: String,
    },
    /// Nothing is left of a machine: the answer to [`Action::Destroy`].
    Destroyed(MemberId),
    /// Time went on; due at the latest when `deadline` says.
    Tick,
}

/// How a conversation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The program cleaned up and confirmed, the user got the confirmation.
    Confirmed,
    /// The machine or its program did not accept the conversation.
    NotAccepted,
    /// The program could not be started: another machine could not do so either.
    NotStarted,
    /// The program ended abnormally.
    ProgramAbend,
    /// The client ended abnormally.
    ClientAbend,
    /// The connection to the client was lost.
    LostConnection,
    /// It took longer than it may.
    Deadline,
    /// Its machine died.
    MachineDied,
}

/// Why a claim gets no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No pool offers the program, or not the one that was named.
    #[error("there is no such transaction program")]
    UnknownTpn,
    /// This user may not have it. It never says which part is missing.
    #[error("not authorised")]
    NotAuthorised,
    /// No machine now and nobody may wait, or none can be built at present.
    #[error("no machine is free now; try again later")]
    NotNow,
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
    /// The wait was as long as it may be.
    #[error("no machine became free in time; try again later")]
    WaitRanOut,
    /// As many wait as may, in all or of this user.
    #[error("too many are waiting; try again later")]
    QueueFull,
}

impl Refusal {
    /// Whether asking again later can help.
    #[must_use]
    pub fn retry(self) -> bool {
        match self {
            Self::NotNow | Self::WaitRanOut | Self::QueueFull => true,
            Self::UnknownTpn | Self::NotAuthorised | Self::Closed => false,
        }
    }
}

/// A machine's use by one conversation, when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worn {
    /// The machine.
    pub member: MemberId,
    /// The conversation.
    pub conversation: ConversationId,
    /// The alternate user id.
    pub user: UserId,
    /// The program.
    pub tpn: Tpn,
    /// When the machine was given to the conversation, since start.
    pub assigned: Duration,
    /// When the machine began to wear the id, since start; `None` if it never
    /// accepted.
    pub accepted: Option<Duration>,
    /// How it ended.
    pub how: Ending,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Give a machine to a conversation; ask it whether it accepts.
    Assign {
        /// The machine.
        member: MemberId,
        /// The conversation.
        conversation: ConversationId,
        /// The alternate user id it is to wear.
        user: UserId,
        /// The program.
        tpn: Tpn,
    },
    /// Tell a client that it gets no machine.
    Refuse {
        /// The conversation that does not come about.
        conversation: ConversationId,
        /// Why.
        refusal: Refusal,
    },
    /// The machine is not this user any more: take back what the id opened, end
    /// the conversation if it has not ended, write down who wore what.
    Revoke(Worn),
    /// Make a machine where nothing is.
    Build(MemberId),
    /// Put a machine back to what was captured.
    Restore(MemberId),
    /// Destroy what is left of a machine and make it anew.
    Rebuild(MemberId),
    /// Destroy a machine; it is not needed.
    Destroy(MemberId),
    /// Tell the operator that a pool builds nothing any more.
    RaiseAlarm {
        /// The pool.
        pool: PoolName,
        /// How many builds failed in a row.
        failures: u16,
        /// What the last one said.
        why: String,
    },
    /// Tell the operator that it builds again.
    ClearAlarm(PoolName),
}
