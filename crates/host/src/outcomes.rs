//! How commands on main storage end; as JSON what `--json` prints. Sizes and
//! offsets in bytes.

use serde::{Deserialize, Serialize};

/// One partition's part in an exchange, or one move of a compaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// How an exchange ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ExchangeOutcome {
    /// Both are at their new origins.
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
    /// What `--dry-run` found possible.
    WouldExchange {
        /// Both partitions, as they were named.
        partitions: Vec<Relocated>,
    },
    /// Nothing has changed, unless the reason says that a partition has failed.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions in the way.
        in_the_way: Vec<String>,
        /// Devices still busy when the limit ran out.
        busy_devices: Vec<String>,
    },
}

/// How `expand` or `shrink` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum ResizeOutcome {
    /// The partition has another size.
    Resized {
        /// The partition.
        name: String,
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
    /// What `--dry-run` found possible.
    WouldResize {
        /// The partition.
        name: String,
        /// Size now.
        from: u64,
        /// Size then.
        to: u64,
        /// Partitions that would make room first, in order.
        moves: Vec<Relocated>,
    },
    /// The size has not changed. What was moved to make room stays moved.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions in the way.
        in_the_way: Vec<String>,
        /// Devices still busy when the limit ran out.
        busy_devices: Vec<String>,
        /// Partitions that were moved before.
        moved: Vec<Relocated>,
    },
}

/// What a compaction is going to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
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

/// How a compaction ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum CompactOutcome {
    /// The free range is there.
    Compacted {
        /// The plan, all of which was done.
        plan: Plan,
    },
    /// What `--dry-run` found possible.
    WouldCompact {
        /// The plan.
        plan: Plan,
    },
    /// It was ended before the plan was done; what was moved stays moved.
    Stopped {
        /// Cause and remedy.
        reason: String,
        /// The moves that were done.
        moved: Vec<Relocated>,
        /// How many were left.
        left: usize,
    },
    /// Nothing has changed.
    Refused {
        /// Cause and remedy.
        reason: String,
        /// Partitions that may not be moved now and are in the way.
        in_the_way: Vec<String>,
    },
}
