//! Ranges, the map of partitions, storage keys and plans: pure data.
//!
//! Main storage is one block of host memory, handed out in blocks of
//! [`BLOCK_SIZE`]. A [`StorageRange`] is a piece of it, valid by construction.
//! The [`StorageMap`] is the resource manager's data: which partition has which
//! range. It decides every request, and a [`Refusal`] changes nothing and names
//! who is in the way. A move it allows is a [`MovePlan`]: from where, to where,
//! and in which order the pages must be copied. Two partitions that change
//! places have an [`ExchangePlan`], and the moves that make one large gap of
//! many a [`CompactPlan`].
//!
//! The host's resource manager owns the only map and drives it; a worker gets
//! plans and ranges. There is no I/O, no clock and no thread in this crate.

mod compact;
mod key;
mod map;
mod name;
mod picture;
mod plan;
mod range;
mod size;

pub use compact::{CompactPlan, PlannedMove};
pub use key::{AccessKey, StorageKey};
pub use map::{Change, Occupant, Partition, Refusal, ResizePlan, StorageMap};
pub use name::{NameError, PartitionName};
pub use picture::{Owner, Segment};
pub use plan::{
    Direction, ExchangePlan, ExchangeStep, ExchangeSteps, MovePlan, PageStep, PageSteps, PlanError,
};
pub use range::{RangeError, StorageRange};
pub use size::{ParseSizeError, Size};

/// Bytes of a page: the unit that has a storage key and is copied in one step.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes of a block: origins and sizes of partitions are multiples of it, as
/// the origin and extent of SIE's format-2 state description are.
pub const BLOCK_SIZE: u64 = 1 << 20;

/// Pages of a block.
pub const PAGES_PER_BLOCK: u64 = BLOCK_SIZE / PAGE_SIZE;
