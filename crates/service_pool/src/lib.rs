//! The conversation manager of service pools: a pure state machine.
//!
//! A service pool is a number of equal machines, each ready for one set of
//! transaction programs. The [`ConversationManager`] holds all pools of a host:
//! it takes ALLOCATEs, decides which machine serves which conversation under
//! which user's id, who waits, who is refused, and when machines are built,
//! restored, rebuilt and given up. [`Event`]s go in, [`Action`]s come out. It
//! has no clock; the time comes in with every call.
//!
//! Its one owner carries the actions out and reports what became of them. What
//! a build or a restore is, and how a machine is told whose id it wears, is the
//! owner's business; that no machine is given twice, none is given before it is
//! clean, and nobody waits for ever, is decided here.

mod config;
mod health;
mod manager;
mod members;
mod names;
mod pool;
mod refill;
mod status;
mod turns;
mod words;

pub use config::{ConfigError, Grant, PoolConfig, WaitingLimits, Who};
pub use manager::ConversationManager;
pub use names::{
    ConversationId, Group, MAX_MEMBERS, MAX_NAME, MAX_POOL_NAME, MemberId, NameError, PoolName,
    Tpn, UserId,
};
pub use status::{MemberState, MemberStatus, PoolStatus};
pub use words::{Action, Ending, Event, Refusal, Request, Worn};
