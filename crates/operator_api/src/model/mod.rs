//! What is said on the interface: JSON of version 1, which stays as it is.
//! Sizes and places are bytes, moments milliseconds since 1970.

mod audit;
mod command;
mod files;
mod operation;
mod outcome;
mod session;
mod state;

pub use audit::{AuditEntry, AuditPage, AuditQuery};
pub use command::{
    Command, Compact, Exchange, Expand, MoveMode, NewPartition, PoolBounds, Relocate, Shrink, Stop,
};
pub use files::{
    DatabaseLogin, DatabaseLogins, DatabaseRevoke, FileGrant, FileRevoke, FileSpace, FileSpaces,
    NewSpace, SpaceBounds,
};
pub use operation::{Operation, OperationState};
pub use outcome::{CompactPlan, ExchangePlan, MovePlan, Outcome, Relocated, ResizePlan};
pub(crate) use session::RoleName;
pub use session::{Exec, MadeLink, MadeToken, NewLink, NewToken, TokenInfo};
pub use state::{
    Change, ChangeKind, HostState, MemberState, Partition, PartitionState, Pool, PoolMember, State,
    Waiting,
};
