//! What is said on the interface: JSON of version 1, which stays as it is.
//! Sizes and places are bytes, moments milliseconds since 1970.

mod audit;
mod command;
mod operation;
mod outcome;
mod state;

pub use audit::{AuditEntry, AuditPage, AuditQuery};
pub use command::{
    Command, Compact, Exchange, Expand, MoveMode, NewPartition, PoolBounds, Relocate, Shrink, Stop,
};
pub use operation::{Operation, OperationState};
pub use outcome::{CompactPlan, ExchangePlan, MovePlan, Outcome, Relocated, ResizePlan};
pub use state::{
    Change, ChangeKind, HostState, MemberState, Partition, PartitionState, Pool, PoolMember, State,
    Waiting,
};
