//! What commands are going to do, and what they did.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One partition's part in a change of main storage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Relocated {
    /// The partition.
    pub name: String,
    /// Old origin.
    pub from: u64,
    /// New origin.
    pub to: u64,
    /// Its size.
    pub size: u64,
}

/// What a move would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MovePlan {
    /// Old origin.
    pub from: u64,
    /// New origin.
    pub to: u64,
    /// Bytes to copy at most.
    pub bytes: u64,
    /// `down` or `up`: the order of the copy.
    pub direction: String,
}

/// What an exchange would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExchangePlan {
    /// Both partitions, as they were named.
    pub partitions: Vec<Relocated>,
}

/// What a resize would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResizePlan {
    /// Size now.
    pub from: u64,
    /// Size then.
    pub to: u64,
    /// Partitions that would make room first, in order.
    pub moves: Vec<Relocated>,
}

/// What a compaction would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CompactPlan {
    /// The moves, in order.
    pub moves: Vec<Relocated>,
    /// Bytes they copy at most.
    pub bytes: u64,
    /// Origin of the free range there is then.
    pub free_origin: u64,
    /// Its size.
    pub free_size: u64,
    /// Whether no plan copies less.
    pub least: bool,
}

/// How a command ended that did what it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Outcome {
    /// It is done.
    Done,
    /// The partition is made.
    Created {
        /// Bytes before it.
        origin: u64,
    },
    /// The partition is at its new origin.
    Moved {
        /// Old origin.
        from: u64,
        /// New origin.
        to: u64,
        /// Bytes copied; pages without content are not.
        bytes: u64,
        /// `down` or `up`: the order of the copy.
        direction: String,
        /// Microseconds for which the guest was stopped.
        pause_us: u64,
        /// Bytes copied per second of copying.
        copy_bytes_per_second: u64,
    },
    /// Both partitions are at their new origins.
    Exchanged {
        /// Both partitions, as they were named.
        partitions: Vec<Relocated>,
        /// Bytes of pages with content that were swapped.
        bytes: u64,
        /// Microseconds for which the guest that was stopped longer was stopped.
        pause_us: u64,
        /// Bytes swapped per second of swapping.
        copy_bytes_per_second: u64,
    },
    /// The partition has another size.
    Resized {
        /// Size before.
        from: u64,
        /// Size now.
        to: u64,
        /// How much of it the guest uses as memory; none if it does not run.
        guest_bytes: Option<u64>,
        /// Bytes that were asked back and that the guest did not give.
        kept: u64,
        /// Partitions that made room first.
        moved: Vec<Relocated>,
        /// Microseconds for which the guest was stopped.
        pause_us: u64,
    },
    /// The free range is there.
    Compacted {
        /// The plan, all of which was done.
        plan: CompactPlan,
    },
}
